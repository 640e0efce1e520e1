"""Errors as etcd's clients know them: a gRPC code and etcd's own text."""

from __future__ import annotations

import enum

from revstore.errors import (
    AccessDenied,
    Closed,
    Compacted,
    CorruptStore,
    FutureRevision,
    IncompatibleStore,
    InvalidKey,
    LeaseExists,
    LeaseNotFound,
    NoSpace,
    OutcomeUnknown,
    ReadOnly,
    StorageError,
    Timeout,
    TransactionTooLarge,
    Unreachable,
    Unsupported,
    ValueTooLarge,
)

__all__ = [
    "AUTH_FAILED",
    "COMPACTED",
    "CORRUPT",
    "DUPLICATE_KEY",
    "EMPTY_KEY",
    "FUTURE_REVISION",
    "INVALID_SORT",
    "INVALID_TOKEN",
    "KEY_NOT_FOUND",
    "LEASE_EXISTS",
    "LEASE_NOT_FOUND",
    "LEASE_PROVIDED",
    "LEASE_TTL",
    "MISSING_LEADER",
    "NOT_ENABLED",
    "NOT_LEADER",
    "NO_LEADER",
    "NO_SPACE",
    "PERMISSION_DENIED",
    "SESSION_EXPIRED",
    "STOPPED",
    "TOO_LARGE",
    "TOO_MANY_OPERATIONS",
    "TOO_MANY_REQUESTS",
    "USER_EMPTY",
    "VALUE_PROVIDED",
    "Code",
    "Refused",
    "refusal",
]


class Code(enum.Enum):
    """The gRPC codes that are used here, by name."""

    UNKNOWN = "UNKNOWN"
    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    NOT_FOUND = "NOT_FOUND"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    FAILED_PRECONDITION = "FAILED_PRECONDITION"
    OUT_OF_RANGE = "OUT_OF_RANGE"
    UNIMPLEMENTED = "UNIMPLEMENTED"
    INTERNAL = "INTERNAL"
    UNAVAILABLE = "UNAVAILABLE"
    DATA_LOSS = "DATA_LOSS"
    UNAUTHENTICATED = "UNAUTHENTICATED"


class Refused(Exception):
    """A call that ends with this code and text."""

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


#: A code and a text, from which each call raises an error of its own.
_Answer = tuple[Code, str]

_MVCC = "etcdserver: mvcc: required revision"
COMPACTED: _Answer = (Code.OUT_OF_RANGE, f"{_MVCC} has been compacted")
FUTURE_REVISION: _Answer = (Code.OUT_OF_RANGE, f"{_MVCC} is a future revision")
EMPTY_KEY: _Answer = (Code.INVALID_ARGUMENT, "etcdserver: key is not provided")
KEY_NOT_FOUND: _Answer = (Code.INVALID_ARGUMENT, "etcdserver: key not found")
VALUE_PROVIDED: _Answer = (Code.INVALID_ARGUMENT, "etcdserver: value is provided")
LEASE_PROVIDED: _Answer = (Code.INVALID_ARGUMENT, "etcdserver: lease is provided")
TOO_MANY_OPERATIONS: _Answer = (
    Code.INVALID_ARGUMENT,
    "etcdserver: too many operations in txn request",
)
DUPLICATE_KEY: _Answer = (
    Code.INVALID_ARGUMENT,
    "etcdserver: duplicate key given in txn request",
)
INVALID_SORT: _Answer = (Code.INVALID_ARGUMENT, "etcdserver: invalid sort option")
TOO_LARGE: _Answer = (Code.INVALID_ARGUMENT, "etcdserver: request is too large")
LEASE_NOT_FOUND: _Answer = (Code.NOT_FOUND, "etcdserver: requested lease not found")
LEASE_EXISTS: _Answer = (Code.FAILED_PRECONDITION, "etcdserver: lease already exists")
LEASE_TTL: _Answer = (Code.OUT_OF_RANGE, "etcdserver: too large lease TTL")
NOT_ENABLED: _Answer = (
    Code.FAILED_PRECONDITION,
    "etcdserver: authentication is not enabled",
)
PERMISSION_DENIED: _Answer = (Code.PERMISSION_DENIED, "etcdserver: permission denied")
AUTH_FAILED: _Answer = (
    Code.INVALID_ARGUMENT,
    "etcdserver: authentication failed, invalid user ID or password",
)
USER_EMPTY: _Answer = (Code.INVALID_ARGUMENT, "etcdserver: user name is empty")
INVALID_TOKEN: _Answer = (Code.UNAUTHENTICATED, "etcdserver: invalid auth token")
TOO_MANY_REQUESTS: _Answer = (Code.RESOURCE_EXHAUSTED, "etcdserver: too many requests")
NO_SPACE: _Answer = (Code.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded")
CORRUPT: _Answer = (Code.DATA_LOSS, "etcdserver: corrupt cluster")
MISSING_LEADER: _Answer = (Code.UNKNOWN, '"leader" field must be provided')
NOT_LEADER: _Answer = (Code.UNKNOWN, "election: not leader")
NO_LEADER: _Answer = (Code.UNKNOWN, "election: no leader")
SESSION_EXPIRED: _Answer = (Code.UNKNOWN, "mutex: session is expired")
STOPPED: _Answer = (Code.UNAVAILABLE, "etcdserver: server stopped")

# The first class that fits an error decides.
_OF_BACKEND: tuple[tuple[type[StorageError], _Answer], ...] = (
    (Compacted, COMPACTED),
    (FutureRevision, FUTURE_REVISION),
    (LeaseNotFound, LEASE_NOT_FOUND),
    (LeaseExists, LEASE_EXISTS),
    (ValueTooLarge, TOO_LARGE),
    (NoSpace, NO_SPACE),
    (Timeout, (Code.UNAVAILABLE, "etcdserver: request timed out")),
    (OutcomeUnknown, (Code.UNAVAILABLE, "etcdserver: request timed out")),
    (Unreachable, (Code.UNAVAILABLE, "etcdserver: no leader")),
    (Closed, STOPPED),
    (CorruptStore, CORRUPT),
    (IncompatibleStore, CORRUPT),
    (AccessDenied, PERMISSION_DENIED),
    (ReadOnly, (Code.FAILED_PRECONDITION, "revstore: the store is read-only")),
)
# The texts of these errors say more than any text of etcd's.
_AS_TOLD: tuple[tuple[type[StorageError], Code], ...] = (
    (InvalidKey, Code.INVALID_ARGUMENT),
    (TransactionTooLarge, Code.INVALID_ARGUMENT),
    (Unsupported, Code.UNIMPLEMENTED),
)


def refusal(error: Exception) -> Refused | None:
    """Return the error that a client gets for an error of a backend; None for any other error."""
    if isinstance(error, Refused):
        return error
    for kind, answer in _OF_BACKEND:
        if isinstance(error, kind):
            return Refused(*answer)
    for kind, code in _AS_TOLD:
        if isinstance(error, kind):
            return Refused(code, f"revstore: {' '.join(str(error).split())}")
    return None
