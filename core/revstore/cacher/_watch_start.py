"""Where a watch begins: with the cache's state, or somewhere in its event log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any, Generic, TypeVar

import attrs

from revstore.cacher._counters import Counter
from revstore.cacher._event_log import revision_of
from revstore.cacher._generation import Generation
from revstore.cacher._lists import Candidates
from revstore.cacher._state import Range
from revstore.errors import CorruptObject, Expired, StorageError
from revstore.resource_type import ResourceType
from revstore.storage import Event, EventType

__all__ = ["InitialEvents", "WatchStart", "start_after"]

T = TypeVar("T")


@attrs.frozen
class WatchStart(Generic[T]):
    """Where a watch begins: at the log's ``cursor``, with changes above ``revision``, after the
    ``initial`` events; or with an ``error``. ``ahead``: at the cursor the log had not got to
    ``revision``, so that there may be events to leave out."""

    cursor: int
    revision: int
    initial: InitialEvents[T] | None = None
    error: StorageError | None = None
    ahead: bool = False


def start_after(generation: Generation[T], revision: int) -> WatchStart[T]:
    """Begin with what comes after ``revision``, 0: now. Under the cache's lock. (HIST-4)"""
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
    """Objects as events, those that cannot be read in their places, then the bookmark at ``end``,
    if there is one. ``sent`` counts objects."""

    __slots__ = ("_end", "_objects", "_predicate", "_resource_type", "_sent")

    def __init__(
        self,
        candidates: Candidates[T],
        unreadable: Mapping[str, CorruptObject],
        resource_type: ResourceType[T],
        end: int | None,
        sent: Counter,
    ) -> None:
        found = candidates.found
        self._objects: Sequence[T | CorruptObject] = found.objects
        if unreadable:
            self._objects = _merged(found, unreadable)
        self._predicate = candidates.predicate
        self._resource_type = resource_type
        self._end = end
        self._sent = sent

    def page(self, at: int, size: int) -> tuple[tuple[Event[T], ...], int]:
        """Return ``size`` events from the place ``at`` on, or the last ones, and where it goes on;
        -1: nowhere. Changes nothing: what is interrupted can be asked for again."""
        events: list[Event[T]] = []
        objects = self._objects
        for place in range(at, len(objects)):
            event = self._event(objects[place])
            if event is not None:
                events.append(event)
                if len(events) == size:
                    self._sent.add(size)
                    return tuple(events), place + 1
        self._sent.add(len(events))
        if self._end is not None:
            obj = self._resource_type.bookmark(self._end, initial_events_end=True)
            events.append(Event(EventType.BOOKMARK, obj, str(self._end)))
        return tuple(events), -1

    def _event(self, obj: T | CorruptObject) -> Event[T] | None:
        if isinstance(obj, CorruptObject):
            return Event.unreadable(EventType.ERROR, obj, int(obj.resource_version))
        if not (self._predicate.empty or self._predicate.selects(obj)):
            return None
        resource_type = self._resource_type
        version = resource_type.versioner.object_resource_version(obj)
        shown = obj if resource_type.copy is None else resource_type.copy(obj)
        return Event(EventType.ADDED, shown, str(version))


def _merged(found: Range[T], unreadable: Mapping[str, CorruptObject]) -> list[Any]:
    """Both in the order of their keys."""
    rows: list[tuple[str, Any]] = list(zip(found.keys, found.objects, strict=True))
    rows += unreadable.items()
    rows.sort(key=itemgetter(0))
    return [row[1] for row in rows]
