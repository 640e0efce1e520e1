"""Where a watch begins: with the cache's state, or somewhere in its event log."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

import attrs

from revstore.cacher._counters import Counter
from revstore.cacher._event_log import revision_of
from revstore.cacher._generation import Generation
from revstore.cacher._lists import Candidates
from revstore.errors import Expired, StorageError
from revstore.resource_type import ResourceType
from revstore.storage import Event, EventType

__all__ = ["WatchStart", "initial_events", "start_after"]

T = TypeVar("T")


@attrs.frozen
class WatchStart(Generic[T]):
    """Where a watch begins: at the log's ``cursor``, with changes above ``revision``, after the
    ``initial`` events; or with an ``error``. ``ahead``: at the cursor the log had not got to
    ``revision``, so that there may be events to leave out."""

    cursor: int
    revision: int
    initial: Iterator[Event[T]] | None = None
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


def initial_events(
    candidates: Candidates[T], resource_type: ResourceType[T], end: int | None, sent: Counter
) -> Iterator[Event[T]]:
    """The objects as events, counted by ``sent``; then the bookmark at ``end``, if there is one."""
    version_of, copy = resource_type.versioner.object_resource_version, resource_type.copy
    predicate = candidates.predicate
    for obj in candidates.found.objects:
        if predicate.empty or predicate.selects(obj):
            sent.add()
            shown = obj if copy is None else copy(obj)
            yield Event(EventType.ADDED, shown, str(version_of(obj)))
    if end is not None:
        obj = resource_type.bookmark(end, initial_events_end=True)
        yield Event(EventType.BOOKMARK, obj, str(end))
