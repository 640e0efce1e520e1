"""What every backend checks before it touches its store; pure functions.

Each takes the arguments of the method it is named after, and raises ``InvalidKey`` or
``InvalidArgument``, which names the argument, what was given and what would do. So every backend
answers a number at the edge of its range in the same way:

======================================== ======================= ==================================
argument                                 range                   in the range, but beyond the store
======================================== ======================= ==================================
``revision`` of get, list and count      0 to 2^63 - 1           ``FutureRevision``
``revision`` of compact                  1 to 2^63 - 1           ``FutureRevision``
``after_revision``                       0 to 2^63 - 1           the watch waits
``expected_revision`` of put             0 to 2^63 - 1           the write is lost
``expected_revision`` of delete          1 to 2^63 - 1           the deletion is lost
``limit``                                0 to 2^63 - 1           everything is listed
``ttl``                                  0 to 4,294,967,295      ``None`` keeps the expiry
``revision`` of raise_revision           1 to 2^43 - 1
``lease``                                -2^63 to 2^63 - 1       ``LeaseNotFound``; 0: none, no id
``ttl`` of grant                         1 to 9,000,000,000
``timeout``                              any number but NaN      below 0: it is over; infinity: none
======================================== ======================= ==================================

A ``bool``, ``float`` or ``str`` is no whole number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from revstore.deadlines import check_poll, check_timeout
from revstore.errors import InvalidArgument
from revstore.keys import check_key

__all__ = [
    "check_compact",
    "check_delete",
    "check_fence",
    "check_get",
    "check_grant",
    "check_key",
    "check_lease",
    "check_list",
    "check_poll",
    "check_put",
    "check_raise_revision",
    "check_timeout",
    "check_transaction_put",
    "check_transactions",
    "check_watch",
]

_MAX_REVISION = (1 << 63) - 1
_MAX_TTL = (1 << 32) - 1
_MAX_RAISED = (1 << 43) - 1
_MAX_LEASE_TTL = 9_000_000_000


def _check_number(
    name: str, value: object, low: int, key: str = "", high: int = _MAX_REVISION
) -> None:
    """Raise ``InvalidArgument`` unless ``value`` is a whole number from ``low`` to ``high``."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        if isinstance(value, int) and value.bit_length() > 128:
            value = f"a number of {value.bit_length()} bits"  # Python refuses to print the longest
        raise InvalidArgument(name, value, f"a whole number from {low} to {high}", key=key)


def check_get(key: str, revision: int) -> None:
    """Check the arguments of ``get``."""
    check_key(key)
    if type(revision) is not int or not 0 <= revision <= _MAX_REVISION:
        _check_number("revision", revision, 0, key)


def check_list(prefix: str, revision: int, *, start: str = "", limit: int = 0) -> None:
    """Check the arguments of ``list`` or ``count``; ``start`` may have one NUL, at its end."""
    if prefix != "":
        check_key(prefix)
    if start != "":
        check_key(start.removesuffix("\0") if isinstance(start, str) else start)
    _check_number("revision", revision, 0)
    _check_number("limit", limit, 0)


def check_put(key: str, value: bytes, expected_revision: int, ttl: int | None) -> None:
    """Check the arguments of ``put``."""
    check_key(key)
    if not isinstance(value, bytes):
        raise InvalidArgument("value", value, "bytes", key=key)
    if type(expected_revision) is not int or not 0 <= expected_revision <= _MAX_REVISION:
        _check_number("expected_revision", expected_revision, 0, key)
    if ttl is not None and (type(ttl) is not int or not 0 <= ttl <= _MAX_TTL):
        _check_number("ttl", ttl, 0, key, _MAX_TTL)


def check_delete(key: str, expected_revision: int) -> None:
    """Check the arguments of ``delete``."""
    check_key(key)
    _check_number("expected_revision", expected_revision, 1, key)


def check_compact(revision: int) -> None:
    """Check the arguments of ``compact``."""
    _check_number("revision", revision, 1)


def check_watch(key: str, *, recursive: bool, after_revision: int) -> None:
    """Check the arguments of ``watch``."""
    if key != "" or not recursive:
        check_key(key)
    _check_number("after_revision", after_revision, 0, key)


def check_transactions(bodies: Sequence[Callable[[Any], object]]) -> None:
    """Check the arguments of ``transactions``."""
    for body in bodies:
        if not callable(body):
            raise InvalidArgument("bodies", body, "functions of one Transaction")


def check_transaction_put(key: str, value: bytes, ttl: int | None, lease: int | None) -> None:
    """Check the arguments of ``Transaction.put``: a ttl and a lease exclude each other, but that
    None for both keeps the expiry, as None for one of them does."""
    check_put(key, value, 0, ttl)
    if lease is not None:
        check_lease(lease, none=True, key=key)
    if ttl != 0 and lease != 0 and (ttl is not None or lease is not None):
        raise InvalidArgument("lease", lease, "a ttl or a lease, not both", key=key)


def check_lease(lease: int, *, none: bool = False, key: str = "") -> None:
    """Check the id of a lease; with ``none`` it may be 0, which is no lease."""
    _check_number("lease", lease, -_MAX_REVISION - 1, key)
    if not lease and not none:
        raise InvalidArgument("lease", lease, "the id of a lease, which is not 0", key=key)


def check_grant(ttl: int, lease: int) -> None:
    """Check the arguments of ``Leases.grant``."""
    _check_number("ttl", ttl, 1, high=_MAX_LEASE_TTL)
    check_lease(lease, none=True)


def check_raise_revision(revision: int) -> None:
    """Check the arguments of ``raise_revision``."""
    _check_number("revision", revision, 1, high=_MAX_RAISED)


def check_fence(reason: str) -> None:
    """Check the arguments of ``fence``."""
    if not isinstance(reason, str) or not reason:
        raise InvalidArgument("reason", reason, "a non-empty str")
    try:
        reason.encode()
    except UnicodeEncodeError:
        given = reason.encode("utf-8", "backslashreplace").decode()
        raise InvalidArgument("reason", given, "valid UTF-8") from None
