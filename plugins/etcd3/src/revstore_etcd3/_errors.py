"""From the status of a call to the errors of the contract: one table."""

from __future__ import annotations

import enum
import re

from revstore.errors import (
    AccessDenied,
    BackendError,
    CorruptStore,
    NoSpace,
    ReadOnly,
    Timeout,
    Unreachable,
    ValueTooLarge,
)

__all__ = ["Fate", "fate_of", "translate"]


class Fate(enum.Enum):
    """The outcome of a request that failed.

    NEVER_SENT: no server has it. REFUSED: the server did nothing. BUSY: it did nothing, and may do
    it a little later. STALE_TOKEN: it was refused, since the password must be sent again. UNKNOWN:
    it may have been done.
    """

    NEVER_SENT = "never sent"
    REFUSED = "refused"
    BUSY = "busy"
    STALE_TOKEN = "stale token"  # noqa: S105 - no secret
    UNKNOWN = "unknown"


# Code ("" for any), a part of the text, the outcome, the error. The first one that fits counts.
_TABLE: tuple[tuple[str, str, Fate, type[BackendError]], ...] = (
    ("UNAVAILABLE", "failed to connect", Fate.NEVER_SENT, Unreachable),
    ("UNAVAILABLE", "dns resolution failed", Fate.NEVER_SENT, Unreachable),
    ("UNAVAILABLE", "name resolution", Fate.NEVER_SENT, Unreachable),
    ("UNAVAILABLE", "handshake", Fate.NEVER_SENT, Unreachable),
    ("UNAUTHENTICATED", "invalid auth token", Fate.STALE_TOKEN, AccessDenied),
    ("UNAUTHENTICATED", "", Fate.STALE_TOKEN, AccessDenied),
    ("", "auth: revision in header is old", Fate.STALE_TOKEN, AccessDenied),
    ("", "authentication failed", Fate.REFUSED, AccessDenied),
    ("", "user name is empty", Fate.REFUSED, AccessDenied),
    ("", "authentication is not enabled", Fate.REFUSED, AccessDenied),
    ("PERMISSION_DENIED", "", Fate.REFUSED, AccessDenied),
    ("", "database space exceeded", Fate.REFUSED, NoSpace),
    ("", "no space", Fate.REFUSED, NoSpace),
    ("", "request is too large", Fate.REFUSED, ValueTooLarge),
    ("", "larger than max", Fate.REFUSED, ValueTooLarge),
    ("", "too many requests", Fate.BUSY, Unreachable),
    # Not TSI_DATA_CORRUPTED, which is a connection that broke.
    ("", "etcdserver: corrupt", Fate.REFUSED, CorruptStore),
    ("", "rpc not supported for learner", Fate.REFUSED, ReadOnly),
    ("", "lease not found", Fate.REFUSED, BackendError),
    ("INVALID_ARGUMENT", "", Fate.REFUSED, BackendError),
    ("OUT_OF_RANGE", "", Fate.REFUSED, BackendError),
    ("FAILED_PRECONDITION", "", Fate.REFUSED, BackendError),
    ("NOT_FOUND", "", Fate.REFUSED, BackendError),
    ("UNIMPLEMENTED", "", Fate.REFUSED, BackendError),
    ("DEADLINE_EXCEEDED", "", Fate.UNKNOWN, Timeout),
    ("", "request timed out", Fate.UNKNOWN, Timeout),
    # If a server sees the deadline pass, or stops, before the client does, it gives no code.
    ("", "context deadline exceeded", Fate.UNKNOWN, Timeout),
    ("", "context canceled", Fate.UNKNOWN, Unreachable),
    ("", "raft: stopped", Fate.UNKNOWN, Unreachable),
    ("", "raft proposal dropped", Fate.UNKNOWN, Unreachable),
    ("UNAVAILABLE", "", Fate.UNKNOWN, Unreachable),
    ("CANCELLED", "", Fate.UNKNOWN, Unreachable),
)


# Reasons of TLS for a missing connection: the text of the transport, and its meaning. The text in
# parentheses, if any, is the reason.
_TLS = (
    (
        re.compile(r"certificate_verify_failed(?:: )?([^:]*)", re.IGNORECASE),
        "the server's certificate is not trusted: check ca_file",
    ),
    (
        re.compile(r"hostname verification", re.IGNORECASE),
        "the server's certificate is for another host: check server_list and ca_file",
    ),
    (
        # Versions of etcd differ in when they check it; later, the alert is not shown.
        re.compile(
            r"alert_(\w*certificate\w*|unknown_ca)|(certificate_required)|tsi_data_corrupted",
            re.IGNORECASE,
        ),
        "the client's certificate is missing or not accepted: check cert_file and key_file",
    ),
    (
        re.compile(r"create security handshaker", re.IGNORECASE),
        "unusable TLS files: check ca_file, and that cert_file and key_file belong together",
    ),
)
_NOT_CONNECTED = "failed to connect"


def fate_of(code: str, details: str) -> tuple[Fate, type[BackendError]]:
    """Return the outcome of the request, and the error that describes it.

    For a write with an UNKNOWN outcome, ``OutcomeUnknown`` is raised instead.
    """
    text = details.lower()
    if _refused_by_tls(code, details):
        return Fate.NEVER_SENT, AccessDenied
    for wanted, part, fate, kind in _TABLE:
        if wanted in ("", code) and part in text:
            return fate, kind
    return Fate.UNKNOWN, BackendError


def translate(code: str, details: str, address: str) -> BackendError:
    """Return the error to raise; the caller chains the cause."""
    _, kind = fate_of(code, details)
    details = _refused_by_tls(code, details) or details
    if kind is Unreachable and _NOT_CONNECTED in details and "handshake" in details.lower():
        details = f"{details}: does the server use TLS, as https in server_list says?"
    return kind(f"etcd at {address}: {details or code.lower().replace('_', ' ')}")


def _refused_by_tls(code: str, details: str) -> str:
    """Return which certificate is wrong in which way, and what to check; "" if it is something
    else."""
    if code != "UNAVAILABLE" or _NOT_CONNECTED not in details:
        return ""
    for pattern, meaning in _TLS:
        found = pattern.search(details)
        if found is not None:
            reason = next(filter(None, found.groups()), "").strip().lower().replace("_", " ")
            return f"{meaning} ({reason})" if reason else meaning
    return ""
