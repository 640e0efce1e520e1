"""From what a call reports to the errors of the contract: one table."""

from __future__ import annotations

import enum

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
    """What became of a request that failed.

    NEVER_SENT: no server has it; REFUSED: the server did nothing; BUSY: it did nothing, and may do
    it a little later; STALE_TOKEN: refused, as the password must be shown again; UNKNOWN: it may
    have been done."""

    NEVER_SENT = "never sent"
    REFUSED = "refused"
    BUSY = "busy"
    STALE_TOKEN = "stale token"  # noqa: S105 - no secret
    UNKNOWN = "unknown"


# Code ("" for any), a part of the text, what became of it, the error. The first that fits.
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
    ("", "corrupt", Fate.REFUSED, CorruptStore),
    ("", "rpc not supported for learner", Fate.REFUSED, ReadOnly),
    ("", "lease not found", Fate.REFUSED, BackendError),
    ("INVALID_ARGUMENT", "", Fate.REFUSED, BackendError),
    ("OUT_OF_RANGE", "", Fate.REFUSED, BackendError),
    ("FAILED_PRECONDITION", "", Fate.REFUSED, BackendError),
    ("NOT_FOUND", "", Fate.REFUSED, BackendError),
    ("UNIMPLEMENTED", "", Fate.REFUSED, BackendError),
    ("DEADLINE_EXCEEDED", "", Fate.UNKNOWN, Timeout),
    ("", "request timed out", Fate.UNKNOWN, Timeout),
    # A server that sees the deadline pass, or stops, before the client does so, gives no code.
    ("", "context deadline exceeded", Fate.UNKNOWN, Timeout),
    ("", "context canceled", Fate.UNKNOWN, Unreachable),
    ("", "raft: stopped", Fate.UNKNOWN, Unreachable),
    ("", "raft proposal dropped", Fate.UNKNOWN, Unreachable),
    ("UNAVAILABLE", "", Fate.UNKNOWN, Unreachable),
    ("CANCELLED", "", Fate.UNKNOWN, Unreachable),
)


def fate_of(code: str, details: str) -> tuple[Fate, type[BackendError]]:
    """What became of the request, and the error that says so; of a write with an UNKNOWN fate
    ``OutcomeUnknown`` is raised instead."""
    text = details.lower()
    for wanted, part, fate, kind in _TABLE:
        if wanted in ("", code) and part in text:
            return fate, kind
    return Fate.UNKNOWN, BackendError


def translate(code: str, details: str, address: str) -> BackendError:
    """The error to raise, which the caller chains the cause to."""
    _, kind = fate_of(code, details)
    return kind(f"etcd at {address}: {details or code.lower().replace('_', ' ')}")
