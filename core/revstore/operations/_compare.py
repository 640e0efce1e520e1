"""The differences between two sequences of records."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from revstore.backend import Backend
from revstore.operations._expiry import Expiries
from revstore.operations._file import Record
from revstore.operations._marker import is_marker
from revstore.operations._pages import pages

__all__ = ["Difference", "differences", "records_of"]

# Seconds by which the same expiry may be read differently: a store may round to whole seconds.
_TOLERANCE = 2.0


@attrs.frozen
class Difference:
    """What differs at ``key``: "missing" in the target, "extra" in the target, "value" or "ttl"."""

    key: str
    what: str


def records_of(
    backend: Backend, prefix: str, *, ttl: bool = True, timeout: float | None = None
) -> Iterator[Record]:
    """Yield the records of a store at one revision, without the marker of an operation.

    Without ``ttl``, 0.0 is the ttl of every key that expires, which saves many requests. Each ttl
    counts from this call, so that those of two stores can be compared, however long each takes.
    """
    return _records(backend, prefix, Expiries(backend, timeout=timeout), timeout, ttl=ttl)


def _records(
    backend: Backend, prefix: str, expiries: Expiries, timeout: float | None, *, ttl: bool
) -> Iterator[Record]:
    for page in pages(backend, prefix, timeout=timeout):
        for kv in page.kvs:
            if is_marker(kv.key):
                continue
            expiry: tuple[float | None, int] = (None, 0)
            if kv.lease:
                expiry = expiries.of(kv) if ttl else (0.0, 0)
            yield Record(kv.key, kv.value, kv.revision, kv.create_revision, kv.version, *expiry)


def differences(
    source: Iterator[Record], target: Iterator[Record], *, ttl: bool = True
) -> Iterator[tuple[str, Record | None, Record | None]]:
    """Yield each key's ``Difference.what``, "" for none, and its records in source and target.

    Both are in the order of their keys. Without ``ttl`` it only counts whether a key expires.
    """
    left, right = next(source, None), next(target, None)
    while left is not None or right is not None:
        if right is None or (left is not None and left.key < right.key):
            yield "missing", left, None
            left = next(source, None)
        elif left is None or right.key < left.key:
            yield "extra", None, right
            right = next(target, None)
        else:
            yield _difference(left, right, ttl=ttl), left, right
            left, right = next(source, None), next(target, None)


def _difference(left: Record, right: Record, *, ttl: bool) -> str:
    if left.value != right.value:
        return "value"
    if left.ttl is None or right.ttl is None:
        return "" if left.ttl is right.ttl else "ttl"
    return "ttl" if ttl and abs(left.ttl - right.ttl) > _TOLERANCE else ""
