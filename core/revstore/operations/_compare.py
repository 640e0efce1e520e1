"""The differences between two stores, or a store and a backup."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from operator import attrgetter
from typing import Any

import attrs

from revstore.backend import Backend
from revstore.operations._expiry import Expiries
from revstore.operations._file import Record
from revstore.operations._marker import markers_in
from revstore.operations._pages import pages
from revstore.operations._target import batches
from revstore.values import KeyValue

__all__ = ["Difference", "Side", "differences", "in_backup", "in_store"]

# Seconds by which the same expiry may be read differently: a store may round to whole seconds.
_TOLERANCE = 2.0

_content = attrgetter("key", "value")


@attrs.frozen
class Difference:
    """What differs at ``key``: "missing" in the target, "extra" in the target, "value" or "ttl"."""

    key: str
    what: str


@attrs.frozen
class Side:
    """One of two sides of a comparison: its keys in order, in ``pages`` that are not empty.

    ``expires`` is true for one that expires, and ``record`` returns its record.
    """

    pages: Iterator[Sequence[Any]]
    expires: Callable[[Any], object]
    record: Callable[[Any], Record]


def in_store(
    backend: Backend, prefix: str, *, ttl: bool = True, timeout: float | None = None
) -> Side:
    """Return the keys of a store at one revision, without the marker of an operation.

    Without ``ttl``, 0.0 is the ttl of every key that expires, which saves many requests. Each ttl
    counts from this call, so that those of two stores can be compared, however long each takes.
    """
    expiries = Expiries(backend, timeout=timeout)

    def record(kv: KeyValue) -> Record:
        expiry: tuple[float | None, int] = (None, 0)
        if kv.lease:
            expiry = expiries.of(kv) if ttl else (0.0, 0)
        return Record(kv.key, kv.value, kv.revision, kv.create_revision, kv.version, *expiry)

    return Side(_without_markers(backend, prefix, timeout), attrgetter("lease"), record)


def _without_markers(
    backend: Backend, prefix: str, timeout: float | None
) -> Iterator[Sequence[KeyValue]]:
    for page in pages(backend, prefix, timeout=timeout):
        if found := set(markers_in([kv.key for kv in page.kvs])):
            yield [kv for kv in page.kvs if kv.key not in found]
        elif page.kvs:
            yield page.kvs


def in_backup(records: Iterable[Record]) -> Side:
    """Return the keys of a backup."""
    return Side(batches(records), lambda each: each.ttl is not None, lambda each: each)


def differences(
    source: Side,
    target: Side,
    *,
    ttl: bool = True,
    on_equal: Callable[[int], object] = bool,
) -> Iterator[tuple[str, Record | None, Record | None]]:
    """Yield ``Difference.what``, "" for none, and a key's records in source and target.

    Pages of which nothing differs and nothing expires are passed over: ``on_equal`` is called with
    the number of their keys. Without ``ttl`` it only counts whether a key expires.
    """
    left: Sequence[Any] = ()
    right: Sequence[Any] = ()
    i = j = 0
    while True:
        if i == len(left):
            left, i = next(source.pages, ()), 0
        if j == len(right):
            right, j = next(target.pages, ()), 0
        if not left or not right:
            break
        size = min(len(left) - i, len(right) - j)
        if _none_differs(source, left[i : i + size], target, right[j : j + size]):
            i, j = i + size, j + size
            on_equal(size)
        while i < len(left) and j < len(right):
            ours, theirs = left[i], right[j]
            if ours.key < theirs.key:
                yield "missing", source.record(ours), None
                i += 1
            elif theirs.key < ours.key:
                yield "extra", None, target.record(theirs)
                j += 1
            else:
                one, other = source.record(ours), target.record(theirs)
                yield _difference(one, other, ttl=ttl), one, other
                i, j = i + 1, j + 1
    for each in chain(left[i:], chain.from_iterable(source.pages)):
        yield "missing", source.record(each), None
    for each in chain(right[j:], chain.from_iterable(target.pages)):
        yield "extra", None, target.record(each)


def _none_differs(source: Side, ours: Sequence[Any], target: Side, theirs: Sequence[Any]) -> bool:
    """Return whether all are equal and none expires, which is the rule, at the least cost.

    A digest of each side would cost more.
    """
    return (
        list(map(_content, ours)) == list(map(_content, theirs))
        and not any(map(source.expires, ours))
        and not any(map(target.expires, theirs))
    )


def _difference(left: Record, right: Record, *, ttl: bool) -> str:
    if left.value != right.value:
        return "value"
    if left.ttl is None or right.ttl is None:
        return "" if left.ttl is right.ttl else "ttl"
    return "ttl" if ttl and abs(left.ttl - right.ttl) > _TOLERANCE else ""
