"""Errors of the client and the server, as those of ``revstore.errors``."""

from __future__ import annotations

import ssl
from collections.abc import Callable

from revstore.errors import (
    AccessDenied,
    BackendError,
    Compacted,
    CorruptStore,
    IncompatibleStore,
    ReadOnly,
    Unreachable,
    ValueTooLarge,
)
from revstore_etcd2._wire import Answer

__all__ = [
    "COMPARE_FAILED",
    "DIRECTORY_NOT_EMPTY",
    "EXISTS",
    "NOT_A_DIRECTORY",
    "NOT_A_FILE",
    "NOT_FOUND",
    "RAFT",
    "REFUSALS",
    "BadAnswer",
    "MaybeSent",
    "check_reply",
    "is_passing",
    "refusal",
    "refused_by_tls",
    "tls_advice",
]

NOT_FOUND = 100
COMPARE_FAILED = 101
NOT_A_FILE = 102
NOT_A_DIRECTORY = 104
EXISTS = 105
_ROOT_READ_ONLY = 107
DIRECTORY_NOT_EMPTY = 108
_UNAUTHORIZED = 110
_INVALID_FORM = 210
#: Internal problems of the cluster: no leader, a timeout, a lost proposal.
RAFT = (300, 301)
_CLEARED = 401
#: The error codes that say that a write was not done: those of commands, and of malformed requests.
REFUSALS = frozenset({*range(100, 112), *range(200, 220)})
#: What a server says about a client's certificate; then it has read no request.
_TLS_REFUSALS = ("unknown_ca", "access_denied", "handshake_failure", "protocol_version")


class MaybeSent(Exception):
    """A write was sent, or may have been, and no answer came; its caller knows the key."""


class BadAnswer(Exception):
    """The answer does not come from etcd: it is too large, or has a form that etcd never uses."""


def tls_advice(error: ssl.SSLError) -> str:
    """Return which certificate is wrong in which way, and what to check."""
    text = str(error)
    if "mismatch" in text:
        return "the server's certificate is for another host: check server_list and ca_file"
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return "the server's certificate is not trusted: check ca_file"
    return "the client's certificate is missing or not accepted: check cert_file and key_file"


def refused_by_tls(error: ssl.SSLError) -> bool:
    """Return whether one side refuses the other's certificate, or they have no protocol in
    common."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return True
    reason = (error.reason or "").lower()
    return "alert" in reason and ("certificate" in reason or reason.endswith(_TLS_REFUSALS))


def check_reply(status: int, body: bytes, kind: str, version: Callable[[], str]) -> None:
    """Check that an answer is one of the keys API; raise the error that it means otherwise."""
    if status in (401, 403) and b'"errorCode"' not in body:
        raise AccessDenied(_denied(body))
    if status in (401, 403) and b'"errorCode":110' in body:
        raise AccessDenied(_denied(body))
    if b'"errorCode"' in body[:200] or status in (200, 201):
        return
    if status == 404:
        found = version()
        raise IncompatibleStore(
            f"the server does not serve the v2 API ({found or 'of unknown version'}): etcd 3.4 and "
            "3.5 need the flag --enable-v2, etcd 3.6 and later no longer have it: use etcd3"
        )
    if status >= 500:
        raise Unreachable(f"the server answers {status}: {_text(body)}")
    raise IncompatibleStore(f"no etcd v2 server: it answers {status} {kind}: {_text(body)}")


def is_passing(body: bytes, status: int) -> bool:
    """Return whether the cluster could not answer just now, but another server, or a later try,
    may."""
    return status >= 500 and any(b'"errorCode":%d,' % code in body for code in RAFT)


def refusal(answer: Answer) -> BackendError:
    """Return the error for a refusal that no caller handles."""
    text = f"{answer.message} ({answer.cause})"
    if answer.error_code == _CLEARED:
        return Compacted(_oldest(answer.cause) - 1, answer.index)
    if answer.error_code == _UNAUTHORIZED:
        return AccessDenied(text)
    if answer.error_code == _ROOT_READ_ONLY:
        return ReadOnly(text)
    if answer.error_code == _INVALID_FORM:
        return ValueTooLarge(text)
    if answer.error_code in RAFT:
        return Unreachable(text)
    return CorruptStore(f"etcd answers {answer.error_code}: {text}")


def _oldest(cause: str) -> int:
    """Return the oldest index in "the requested history has been cleared [1007/1]"."""
    number = cause.partition("[")[2].partition("/")[0]
    return int(number) if number.isdecimal() else 1


def _denied(body: bytes) -> str:
    return f"the server refuses the credentials: {_text(body)}"


def _text(body: bytes) -> str:
    return body[:200].decode(errors="replace").strip()
