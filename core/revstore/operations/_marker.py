"""The key that says that an operation is unfinished in a store.

Its name is no object's, since a segment with a dot is a group, and a group needs a resource and a
name after it. So no reader of objects sees it.
"""

from __future__ import annotations

import msgspec

from revstore.backend import Backend
from revstore.errors import StoreInUse
from revstore.values import KeyValue

__all__ = [
    "Marker",
    "check_complete",
    "clear_marker",
    "is_marker",
    "marker_key",
    "marker_of",
    "read_marker",
    "set_marker",
    "unfinished",
]

_NAME = "/revstore.unfinished"


class Marker(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is unfinished.

    ``operation`` is a word such as "restore", ``source`` says from what, and ``began`` when, in RFC
    3339. ``details`` are whatever a repetition of the operation must have in common with it.
    ``text`` explains the key to people who find it.
    """

    operation: str
    source: str
    began: str
    details: dict[str, str]
    text: str = (
        "This store is incomplete: an operation that fills it is unfinished. Run it again, and "
        "this key disappears."
    )


def marker_key(prefix: str) -> str:
    """Return the key of the marker for an operation on keys with ``prefix``.

    It is below the first segment, which is outside the keys of any resource.
    """
    parts = prefix.split("/")
    return "/".join(parts[: 2 if prefix.startswith("/") else 1]) + _NAME


def is_marker(key: str) -> bool:
    """Return whether ``key`` is that of a marker."""
    return key.endswith(_NAME) and key.count("/") <= 2


def read_marker(backend: Backend, prefix: str, *, timeout: float | None = None) -> Marker | None:
    """Return the marker, None if there is none.

    Raises:
        StoreInUse: it cannot be read.
    """
    kv = backend.get(marker_key(prefix), timeout=timeout).kv
    return None if kv is None else marker_of(kv)


def marker_of(kv: KeyValue) -> Marker:
    """Return the marker that a key holds.

    Raises:
        StoreInUse: it cannot be read.
    """
    try:
        return msgspec.json.decode(kv.value, type=Marker)
    except msgspec.DecodeError as error:
        message = f"{kv.key!r} says that an operation is unfinished, but not which"
        raise StoreInUse(message, key=kv.key) from error


def set_marker(
    backend: Backend, prefix: str, marker: Marker, *, timeout: float | None = None
) -> None:
    """Write the marker.

    Raises:
        StoreInUse: another operation has begun.
    """
    key = marker_key(prefix)
    value = msgspec.json.encode(marker)
    put = backend.put(key, value, expected_revision=0, timeout=timeout)
    if not put.succeeded:
        raise StoreInUse("another operation fills this store", key=key)


def clear_marker(backend: Backend, prefix: str, *, timeout: float | None = None) -> None:
    """Delete the marker, if it is there."""
    key = marker_key(prefix)
    kv = backend.get(key, timeout=timeout).kv
    while kv is not None:
        deleted = backend.delete(key, expected_revision=kv.revision, timeout=timeout)
        kv = None if deleted.succeeded else deleted.kv


def unfinished(backend: Backend, prefix: str = "", *, timeout: float | None = None) -> str:
    """Return which operation on keys with ``prefix`` is unfinished in a store, "" if none is.

    Such a store is incomplete. The same operation finishes it.
    """
    try:
        found = read_marker(backend, prefix, timeout=timeout)
    except StoreInUse as error:
        return str(error)
    return f"{found.operation} from {found.source}, begun at {found.began}" if found else ""


def check_complete(backend: Backend, prefix: str, *, timeout: float | None = None) -> None:
    """Check that no operation on all keys, or on keys with ``prefix``, is unfinished.

    Raises:
        StoreInUse: one is.
    """
    for each in {"", prefix}:
        found = unfinished(backend, each, timeout=timeout)
        if found:
            message = f"the store is incomplete: finish this first: {found}"
            raise StoreInUse(message, key=marker_key(each))
