"""Argument checks that every backend runs before it touches its store; all are pure functions.

Each function takes the arguments of the method in its name. It raises ``InvalidKey`` or
``InvalidArgument``, which names the argument, the value given and what is allowed. So every backend
treats a number at the edge of its range in the same way:

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

A ``bool``, a ``float`` or a ``str`` is not a whole number.
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
    """Check the arguments of ``get``.

    Raises:
        InvalidKey: no backend may store ``key``.
        InvalidArgument: ``revision`` is out of range.
    """
    check_key(key)
    if type(revision) is not int or not 0 <= revision <= _MAX_REVISION:
        _check_number("revision", revision, 0, key)


def check_list(prefix: str, revision: int, *, start: str = "", limit: int = 0) -> None:
    """Check the arguments of ``list`` or ``count``; ``start`` may have one NUL, at its end.

    Raises:
        InvalidKey: ``prefix`` or ``start`` is neither "" nor a key that a backend may store.
        InvalidArgument: ``revision`` or ``limit`` is out of range.
    """
    if prefix != "":
        check_key(prefix)
    if start != "":
        check_key(start.removesuffix("\0") if isinstance(start, str) else start)
    _check_number("revision", revision, 0)
    _check_number("limit", limit, 0)


def check_put(key: str, value: bytes, expected_revision: int, ttl: int | None) -> None:
    """Check the arguments of ``put``.

    Raises:
        InvalidKey: no backend may store ``key``.
        InvalidArgument: ``value`` is not ``bytes``, or ``expected_revision`` or ``ttl`` is out of
            range.
    """
    check_key(key)
    if not isinstance(value, bytes):
        raise InvalidArgument("value", value, "bytes", key=key)
    if type(expected_revision) is not int or not 0 <= expected_revision <= _MAX_REVISION:
        _check_number("expected_revision", expected_revision, 0, key)
    if ttl is not None and (type(ttl) is not int or not 0 <= ttl <= _MAX_TTL):
        _check_number("ttl", ttl, 0, key, _MAX_TTL)


def check_delete(key: str, expected_revision: int) -> None:
    """Check the arguments of ``delete``.

    Raises:
        InvalidKey: no backend may store ``key``.
        InvalidArgument: ``expected_revision`` is out of range.
    """
    check_key(key)
    _check_number("expected_revision", expected_revision, 1, key)


def check_compact(revision: int) -> None:
    """Check the arguments of ``compact``.

    Raises:
        InvalidArgument: ``revision`` is out of range.
    """
    _check_number("revision", revision, 1)


def check_watch(key: str, *, recursive: bool, after_revision: int) -> None:
    """Check the arguments of ``watch``; ``key`` may be "" if it is ``recursive``.

    Raises:
        InvalidKey: no backend may store ``key``.
        InvalidArgument: ``after_revision`` is out of range.
    """
    if key != "" or not recursive:
        check_key(key)
    _check_number("after_revision", after_revision, 0, key)


def check_transactions(bodies: Sequence[Callable[[Any], object]]) -> None:
    """Check the arguments of ``transactions``.

    Raises:
        InvalidArgument: one of ``bodies`` cannot be called.
    """
    for body in bodies:
        if not callable(body):
            raise InvalidArgument("bodies", body, "functions of one Transaction")


def check_transaction_put(key: str, value: bytes, ttl: int | None, lease: int | None) -> None:
    """Check the arguments of ``Transaction.put``.

    One of ``ttl`` and ``lease`` must be 0, or both None; None keeps the key's expiry.

    Raises:
        InvalidKey: no backend may store ``key``.
        InvalidArgument: ``value`` is not ``bytes``, ``ttl`` or ``lease`` is out of range, or
            neither of the two is 0 and they are not both None.
    """
    check_put(key, value, 0, ttl)
    if lease is not None:
        check_lease(lease, none=True, key=key)
    if ttl != 0 and lease != 0 and (ttl is not None or lease is not None):
        raise InvalidArgument("lease", lease, "a ttl or a lease, not both", key=key)


def check_lease(lease: int, *, none: bool = False, key: str = "") -> None:
    """Check the id of a lease; with ``none`` it may be 0, which means no lease.

    Raises:
        InvalidArgument: ``lease`` is out of range, or 0 without ``none``.
    """
    _check_number("lease", lease, -_MAX_REVISION - 1, key)
    if not lease and not none:
        raise InvalidArgument("lease", lease, "the id of a lease, which is not 0", key=key)


def check_grant(ttl: int, lease: int) -> None:
    """Check the arguments of ``Leases.grant``.

    Raises:
        InvalidArgument: ``ttl`` or ``lease`` is out of range.
    """
    _check_number("ttl", ttl, 1, high=_MAX_LEASE_TTL)
    check_lease(lease, none=True)


def check_raise_revision(revision: int) -> None:
    """Check the arguments of ``raise_revision``.

    Raises:
        InvalidArgument: ``revision`` is out of range.
    """
    _check_number("revision", revision, 1, high=_MAX_RAISED)


def check_fence(reason: str) -> None:
    """Check the arguments of ``fence``.

    Raises:
        InvalidArgument: ``reason`` is not a ``str``, is empty, or is not valid UTF-8.
    """
    if not isinstance(reason, str) or not reason:
        raise InvalidArgument("reason", reason, "a non-empty str")
    try:
        reason.encode()
    except UnicodeEncodeError:
        given = reason.encode("utf-8", "backslashreplace").decode()
        raise InvalidArgument("reason", given, "valid UTF-8") from None
