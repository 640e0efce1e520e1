"""Where a watch begins: with the cache's state, or somewhere in its event log."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

import attrs

from revstore.cacher._counters import Counter
from revstore.cacher._generation import Generation
from revstore.cacher._lists import Candidates, find
from revstore.cacher._state import CacheState
from revstore.cacher._view import covers
from revstore.errors import Expired, StorageError, TooLargeResourceVersion
from revstore.plans import ListPlan, WatchPlan
from revstore.resource_type import ResourceType
from revstore.selectors import SelectionPredicate
from revstore.storage import Event, EventType

__all__ = ["WatchStart", "start_after", "start_with_state"]

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


def start_with_state(
    generation: Generation[T],
    state: CacheState[T],
    resource_type: ResourceType[T],
    *,
    plan: WatchPlan,
    scope: str,
    predicate: SelectionPredicate[T],
    sent: Counter,
) -> WatchStart[T]:
    """Begin with the state there is; with an error, if it is older than the plan's revision. Under
    the cache's lock. (CWATCH-1)"""
    segment, revision = generation.log.segment, generation.revision
    found = find(state, segment, scope, ListPlan(), predicate)
    assert found is not None
    error: StorageError | None = None
    if revision < plan.revision:
        error = TooLargeResourceVersion(plan.revision, revision, retry_after=1)
    for key in sorted(state.corrupt):
        if covers(scope, key):
            error = error or state.corrupt[key]
    end = revision if plan.end_bookmark else None
    events = _initial_events(found, resource_type, end, sent)
    return WatchStart(segment.head, revision, events, error)


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
    cursor = max(segment.after(revision), segment.base)
    return WatchStart(cursor, revision, None, error, ahead=revision > generation.revision)


def _initial_events(
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
