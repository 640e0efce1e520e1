"""The start of a watch: the cache's state, or a position in its event log."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate, islice
from operator import itemgetter
from typing import Any, Generic, TypeVar

import attrs

from revstore.cacher._counters import Counter
from revstore.cacher._event_log import revision_of
from revstore.cacher._generation import Generation
from revstore.cacher._lists import Candidates
from revstore.cacher._ordered import Range
from revstore.errors import CorruptObject, Expired, StorageError
from revstore.resource_type import ResourceType
from revstore.storage import Event, EventType

__all__ = ["InitialEvents", "WatchStart", "start_after"]

T = TypeVar("T")


@attrs.frozen
class WatchStart(Generic[T]):
    """The start of a watch: first the ``initial`` events, then the log's events from ``cursor`` on
    that are above ``revision``; or an ``error``. ``ahead``: the log had not reached ``revision`` at
    the cursor, so that the watch may have to skip events."""

    cursor: int
    revision: int
    initial: InitialEvents[T] | None = None
    error: StorageError | None = None
    ahead: bool = False


def start_after(generation: Generation[T], revision: int) -> WatchStart[T]:
    """Begin with changes after ``revision``, 0: now. Call it under the cache's lock. (HIST-4)"""
    segment = generation.log.segment
    revision = revision or generation.revision
    error = None
    if revision < segment.floor:
        error = Expired(
            f"the resource version {revision} is too old to watch: the cache remembers events "
            f"after {segment.floor}; list again and watch from there",
            resource_version=str(generation.revision),
        )
    cursor = max(segment.after(revision, revision_of), segment.base)
    return WatchStart(cursor, revision, None, error, ahead=revision > generation.revision)


class InitialEvents(Generic[T]):
    """Objects as events, with those that cannot be read in their places, then the bookmark at
    ``end``, if there is one. ``sent`` counts objects."""

    __slots__ = ("_candidates", "_end", "_parts", "_resource_type", "_sent", "_unreadable")

    def __init__(
        self,
        candidates: Candidates[T],
        unreadable: Mapping[str, CorruptObject],
        resource_type: ResourceType[T],
        end: int | None,
        sent: Counter,
    ) -> None:
        self._candidates = candidates
        self._unreadable = unreadable
        self._resource_type = resource_type
        self._end = end
        self._sent = sent
        # With the place where each begins, once they are read, which needs no lock of the cache.
        self._parts: list[tuple[int, Sequence[T | CorruptObject]]] | None = None

    def page(self, at: int, size: int) -> tuple[tuple[Event[T], ...], int]:
        """Return ``size`` events from the place ``at`` on, or the remaining ones, and the next
        place; -1: no more.

        It changes nothing, so an interrupted call can be repeated.
        """
        if self._parts is None:
            self._parts = self._read()
        events: list[Event[T]] = []
        first = bisect_right(self._parts, at, key=itemgetter(0)) - 1
        for start, objects in self._parts[max(first, 0) :]:
            for place, obj in enumerate(islice(objects, at - start, None), at):
                event = self._event(obj)
                if event is not None:
                    events.append(event)
                    if len(events) == size:
                        self._sent.add(size)
                        return tuple(events), place + 1
            at = start + len(objects)
        self._sent.add(len(events))
        if self._end is not None:
            obj = self._resource_type.bookmark(self._end, initial_events_end=True)
            events.append(Event(EventType.BOOKMARK, obj, str(self._end)))
        return tuple(events), -1

    def _read(self) -> list[tuple[int, Sequence[T | CorruptObject]]]:
        found = self._candidates.found.read()
        assert found is not None  # the current state has no errors of earlier revisions
        lists: list[Sequence[T | CorruptObject]] = [objects for _, objects in found.pieces]
        if self._unreadable:
            lists = [_merged(found, self._unreadable)]
        return list(zip(accumulate(map(len, lists), initial=0), lists, strict=False))

    def _event(self, obj: T | CorruptObject) -> Event[T] | None:
        if isinstance(obj, CorruptObject):
            return Event.unreadable(EventType.ERROR, obj, int(obj.resource_version))
        predicate = self._candidates.predicate
        if not (predicate.empty or predicate.selects(obj)):
            return None
        resource_type = self._resource_type
        version = resource_type.versioner.object_resource_version(obj)
        shown = obj if resource_type.copy is None else resource_type.copy(obj)
        return Event(EventType.ADDED, shown, str(version))


def _merged(found: Range[T], unreadable: Mapping[str, CorruptObject]) -> list[Any]:
    """Return the events of both in the order of their keys."""
    rows: list[tuple[str, Any]] = list(zip(found.keys, found.objects, strict=True))
    rows += unreadable.items()
    rows.sort(key=itemgetter(0))
    return [row[1] for row in rows]
