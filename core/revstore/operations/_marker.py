"""The key that says that an operation is unfinished in a store.

Its name is no object's, since a segment with a dot is a group, and a group needs a resource and a
name after it. So no reader of objects sees it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from revstore.backend import Backend
from revstore.errors import AccessDenied, StoreInUse
from revstore.values import KeyValue

__all__ = [
    "Marker",
    "check_complete",
    "clear_marker",
    "find_begun",
    "first_key",
    "is_marker",
    "marker_key",
    "marker_of",
    "markers_in",
    "read_marker",
    "set_marker",
    "unfinished",
]

_NAME = "/revstore.unfinished"
_PAGE = 500
_FEW = 16


class Marker(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is unfinished.

    ``operation`` is a word such as "restore", ``source`` says from what, and ``began`` when, in RFC
    3339. ``details`` are whatever a repetition of the operation must have in common with it.
    ``text`` explains the key to people who find it. While ``checked`` is false, the operation has
    written nothing, and may have to yield to another.
    """

    operation: str
    source: str
    began: str
    details: dict[str, str]
    text: str = (
        "This store is incomplete: an operation that fills it is unfinished. Run it again, and "
        "this key disappears."
    )
    checked: bool = True


def marker_key(prefix: str) -> str:
    """Return the key of the marker for an operation on keys with ``prefix``.

    It is below the first segment, which is outside the keys of any resource.
    """
    parts = prefix.split("/")
    return "/".join(parts[: 2 if prefix.startswith("/") else 1]) + _NAME


def is_marker(key: str) -> bool:
    """Return whether ``key`` is that of a marker."""
    return key.endswith(_NAME) and key.count("/") <= 2


def markers_in(keys: Sequence[str]) -> list[str]:
    """Return those of ``keys`` that are keys of markers."""
    # One search is far faster than a call for each key, of which none is one.
    return [key for key in keys if is_marker(key)] if _NAME in "\0".join(keys) else []


def read_marker(backend: Backend, prefix: str, *, timeout: float | None = None) -> Marker | None:
    """Return the marker, None if there is none.

    Raises:
        StoreInUse: it cannot be read.
    """
    kv = backend.get(marker_key(prefix), timeout=timeout).kv
    return None if kv is None else marker_of(kv)


def find_begun(backend: Backend, prefix: str, *, timeout: float | None = None) -> Marker | None:
    """Return the marker of an operation that may have written, None if there is none.

    One that was killed before has to be checked again, so its marker is deleted.

    Raises:
        StoreInUse: it cannot be read.
    """
    found = read_marker(backend, prefix, timeout=timeout)
    if found is not None and not found.checked:
        clear_marker(backend, prefix, timeout=timeout)
        return None
    return found


def first_key(backend: Backend, prefix: str, *, timeout: float | None = None) -> str:
    """Return the first key with ``prefix`` that is no marker, "" if there is none."""
    start = ""
    while True:
        page = backend.list(prefix, start=start, limit=_FEW, keys_only=True, timeout=timeout)
        for kv in page.kvs:
            if not is_marker(kv.key):
                return kv.key
        if not page.more:
            return ""
        start = page.kvs[-1].key + "\0"


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
    backend: Backend,
    prefix: str,
    marker: Marker,
    *,
    empty: bool = False,
    timeout: float | None = None,
) -> None:
    """Write the marker, once ``check_complete`` has found no other; with ``empty`` also make sure
    that there still is no key.

    Two operations that begin together may both find the store complete, and both write a marker.
    Then the later one yields.

    Raises:
        StoreInUse: another operation has begun.
    """
    key = marker_key(prefix)
    value = msgspec.json.encode(msgspec.structs.replace(marker, checked=False))
    put = backend.put(key, value, expected_revision=0, timeout=timeout)
    if not put.succeeded:
        raise StoreInUse("another operation fills this store", key=key)
    try:
        for kv in _markers_near(backend, prefix, timeout):
            if kv.key != key and kv.create_revision < put.revision:
                _check_apart(kv, prefix)
        # One that was faster may have ended meanwhile.
        if empty and (found := first_key(backend, prefix, timeout=timeout)):
            raise StoreInUse(
                f"another operation has filled this store: it has {found!r}", key=found
            )
    except StoreInUse:
        clear_marker(backend, prefix, timeout=timeout)
        raise
    value = msgspec.json.encode(marker)
    put = backend.put(key, value, expected_revision=put.revision, timeout=timeout)
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
    """Check that no unfinished operation has keys in common with one on keys with ``prefix``.

    They have if one prefix begins with the other. Operations whose prefixes agree in the first
    segment share a marker, so they count as well. Markers that the user may not read, outside of
    ``prefix``, are left out.

    Raises:
        StoreInUse: one is.
    """
    for kv in _markers_near(backend, prefix, timeout):
        _check_apart(kv, prefix)


def _check_apart(kv: KeyValue, prefix: str) -> None:
    found = marker_of(kv)
    other = found.details.get("prefix", "")
    shared = kv.key == marker_key(prefix)
    if shared or prefix.startswith(other) or other.startswith(prefix):
        message = (
            f"the store is incomplete: finish this first: {found.operation} of the keys with "
            f"the prefix {other!r} from {found.source}, begun at {found.began}"
        )
        raise StoreInUse(message, key=kv.key)


def _markers_near(backend: Backend, prefix: str, timeout: float | None) -> Iterator[KeyValue]:
    """Yield all markers whose operations may have keys in common with one on ``prefix``."""
    own = marker_key(prefix)
    above = {marker_key(prefix[:end]) for end in range(len(prefix) + 1)}
    for key in sorted(above):
        try:
            kv = backend.get(key, timeout=timeout).kv
        except AccessDenied:
            if key == own:
                raise
            continue
        if kv is not None:
            yield kv
    start, more = "", not prefix.startswith(_segment(prefix))
    while more:
        page = backend.list(prefix, start=start, limit=_PAGE, keys_only=True, timeout=timeout)
        for key in [each.key for each in page.kvs if is_marker(each.key)]:
            kv = backend.get(key, timeout=timeout).kv
            if kv is not None:
                yield kv
        more = page.more
        if more:
            start = _after(page.kvs[-1].key)


def _segment(key: str) -> str:
    return marker_key(key).removesuffix(_NAME) + "/"


def _after(key: str) -> str:
    """Return the next key after ``key`` at which there may be a marker.

    A segment has one marker, so all its other keys are passed over.
    """
    segment = _segment(key)
    if not key.startswith(segment):
        return key + "\0"
    return marker_key(key) if key < marker_key(key) else segment[:-1] + "0"
