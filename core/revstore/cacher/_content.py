"""The content of a cache, updated by its feed, and the answers from it."""

from __future__ import annotations

import math
import threading
import time
import weakref
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from revstore.cacher._cache_or_store import Horizon
from revstore.cacher._collector import collector_paused, drop_one_by_one
from revstore.cacher._config import CacherConfig, log_capacity
from revstore.cacher._counters import CacherCounters, Counting
from revstore.cacher._event_log import Entry, EventLog, Item, revision_of
from revstore.cacher._feed import Feed
from revstore.cacher._freshness import Freshness
from revstore.cacher._generation import Generation
from revstore.cacher._lists import find, select
from revstore.cacher._ordered import below
from revstore.cacher._state import Attributes, CacheState
from revstore.cacher._view import covers
from revstore.cacher._watch import CacheWatch
from revstore.cacher._watch_start import InitialEvents, WatchStart, start_after
from revstore.call_times import Waiting
from revstore.errors import (
    Closed,
    CorruptObject,
    Expired,
    NotReady,
    StorageError,
    TooLargeResourceVersion,
    Unreachable,
)
from revstore.plans import ListPlan, WatchPlan
from revstore.raising import described
from revstore.selectors import SelectionPredicate
from revstore.storage import Change, ChangeBatch, Event, EventType, ObjectList
from revstore.threads import Waiters

__all__ = ["Content", "retry_after"]

T = TypeVar("T")

# Seconds that a call without a deadline waits for the cache to be filled.
_READY_TIMEOUT = 30.0
# A revision of more changes is applied beside the state that is shown, since it would hold the lock
# for 5 us a change.
_MANY = 256


class Content(Generic[T]):
    """Owner of a cache's state, which the feed's thread changes and any thread reads.

    ``state`` and ``generation`` are replaced as wholes, so single look-ups need no lock. Calls that
    need both raise ``NotReady`` while the cache is being filled.
    """

    def __init__(self, config: CacherConfig[T]) -> None:
        resource_type = config.resource_type
        self._config = config
        self._attributes = Attributes(
            resource_type.labels, resource_type.fields, config.indexed_fields
        )
        self.counting = Counting()
        # Guards state, generation, _failure, _events_received, _state_since.
        self._lock = threading.Lock()
        self._waiters = Waiters()  # for readiness
        self.state: CacheState[T] = CacheState(self._attributes)
        self.generation: Generation[T] | None = None  # None: not ready
        #: Why there will be no more answers; "" while the cache is open.
        self.ended = ""
        # Generations that may still have watches.
        self._generations: weakref.WeakSet[Generation[T]] = weakref.WeakSet()
        self._failure: StorageError | None = None
        self._events_received = 0
        self._state_since = time.monotonic()
        self._loading: CacheState[T] | None = None  # only the feed's thread uses it
        self._freshness = Freshness(
            config.fresh_timeout,
            self.counting,
            revision=self.revision,
            check_open=self.check_open,
        )
        self.feed = Feed(
            config.storage,
            resource_type.root,
            load=self._load,
            replace=self._replace,
            apply=self._apply,
            failed=self._failed,
            tick=self._tick,
        )

    # --- for readers ---------------------------------------------------------------------------

    def check_open(self) -> None:
        if self.ended:
            raise Closed(self.ended)

    def ready(self) -> None:
        """Return if the cache is filled.

        Raises:
            NotReady: it is not.
        """
        self.check_open()
        with self._lock:
            self._ready()

    def wait_ready(self, timeout: float | None) -> None:
        """Return once the cache is filled.

        Raises:
            NotReady: it is not filled after ``timeout`` seconds.
        """
        self.check_open()
        if self.generation is not None:
            return
        with Waiting():
            self._waiters.wait_for(
                lambda: self.ended != "" or self.generation is not None,
                _READY_TIMEOUT if timeout is None else timeout,
            )
        with self._lock:
            self._ready()

    def revision(self) -> int:
        """Return the revision up to which the cache shows everything, 0 if it is not ready."""
        generation = self.generation
        return 0 if generation is None else generation.revision

    def horizon(self) -> Horizon:
        """Return the content that the cache can show now."""
        generation = self.generation
        progress = self._freshness.trusted
        if generation is None:
            return Horizon(0, 0, ready=False, progress=progress)
        return Horizon(generation.log.segment.floor, generation.revision, progress=progress)

    def wait_fresh(self, revision: int, timeout: float | None, *, reached: bool = False) -> bool:
        """Wait until the cache shows ``revision``; return False if it does not in time.

        ``reached`` says that the store is known to have reached it. (CACHE-10, CACHE-11)
        """
        request_progress = self.feed.request_progress
        return self._freshness.wait(revision, timeout, request_progress, reached=reached)

    def request_progress(self) -> None:
        """Ask the store for progress, and have watches report it.

        Raises:
            Unsupported: the store cannot report progress.
        """
        generation = self.generation
        if generation is not None:
            generation.asked = True
        self.feed.request_progress()

    def look_up(self, key: str) -> tuple[T | None, bool]:
        """Return the object at ``key`` and whether it cannot be read, both at the same moment."""
        with self._lock:
            return self.state.get(key), key in self.state.corrupt

    def find(
        self, scope: str, plan: ListPlan, predicate: SelectionPredicate[T], limit: int
    ) -> ObjectList[T] | None:
        """Return the answer to a list; None if the storage must be asked."""
        whole = not (limit or plan.revision or plan.start)
        question = (scope, predicate.label, predicate.field)
        with self._lock:
            generation, state = self._ready(), self.state
            revision, version = plan.revision or generation.revision, state.version
            if not plan.revision and state.corrupt and state.corrupt_below(scope):
                return None
            items = state.answer(question) if whole else None
            if items is None:
                segment = generation.log.segment
                now = generation.revision
                found = find(state, segment, scope, plan, predicate, revision=now, limit=limit)
        token, remaining = "", None
        if items is None:
            if found is None:
                return None  # DELEG-10
            selected = select(found, scope, revision, limit)
            if selected is None:
                return None  # DELEG-10
            items, token, remaining = selected
            if whole:
                with self._lock:
                    if state.version == version:
                        state.remember(question, items)
        copy = self._config.resource_type.copy
        if copy is not None:
            items = tuple(map(copy, items))
        return ObjectList(items, str(revision), token, remaining)

    def begin_watch(
        self,
        scope: str,
        plan: WatchPlan,
        predicate: SelectionPredicate[T],
        deadline: float | None,
        *,
        even_if_corrupt: bool,
    ) -> CacheWatch[T]:
        """Return a new watch, which runs until ``deadline`` by the monotonic clock."""
        config = self._config
        watch: CacheWatch[T] | None = None
        try:
            with self._lock:
                generation = self._ready()
                if plan.initial:
                    start = self._start_with_state(
                        generation, scope, plan, predicate, even_if_corrupt=even_if_corrupt
                    )
                else:
                    start = start_after(generation, plan.revision)
                watch = CacheWatch(
                    generation,
                    config.resource_type,
                    start,
                    deadline=deadline,
                    bookmark_interval=config.bookmark_interval,
                    periodic=plan.periodic,
                    progress=plan.progress,
                )
                generation.enter(watch, scope, predicate, even_if_corrupt=even_if_corrupt)
            watch.settle()
            self.counting.watches_max.raise_to(generation.watches)
            return watch
        except BaseException:  # it was interrupted, and nobody will close what was opened
            if watch is not None:
                watch.close()
            raise

    def versions_at(self, revision: int) -> tuple[dict[str, int], frozenset[str]] | None:
        """Return the versions of all objects at ``revision``, by their keys, and the keys of those
        that could not be read there; None if that state is not remembered."""
        resource_type = self._config.resource_type
        with self._lock:
            segment = self._ready().log.segment
            if revision < segment.floor:
                return None
            later = segment.items[segment.after(revision, revision_of) - segment.base :]
            past = self.state.at(revision, resource_type.root, later)
        tree, unreadable = past.then()
        version_of = resource_type.versioner.object_resource_version
        pieces = below(tree, resource_type.root).pieces
        versions = {k: version_of(obj) for piece in pieces for k, obj in zip(*piece, strict=True)}
        return versions, unreadable

    def counters(self) -> CacherCounters:
        """Return a reading of all counters."""
        with self._lock:
            generation, objects = self.generation, len(self.state)
            received, unreadable = self._events_received, len(self.state.corrupt)
        values = self.counting.values()
        if generation is not None:
            length = len(generation.log.segment.items)
            self.counting.log_length_max.raise_to(length)
            values["log_length_max"] = self.counting.log_length_max.value
            values["terminated_watches"] += generation.terminated_watches
            values |= {
                "watches": generation.watches,
                "log_length": length,
                "resource_version": generation.revision,
            }
        return CacherCounters(
            **values,
            events_received=received,
            objects=objects,
            unreadable=unreadable,
            log_capacity=log_capacity(self._config),
        )

    def close(self) -> None:
        """End watches, waiting calls and the feed. If this is interrupted, it may be called
        again."""
        self._end("the cache was closed")
        self.feed.close()

    def in_child(self, why: str) -> None:
        """End everything in the child of a fork, without a lock and without waking anybody."""
        self.ended = why
        self._lock = threading.Lock()
        self._waiters = Waiters()
        self._freshness.in_child()
        self.generation = None
        for generation in list(self._generations):
            generation.in_child(Closed(why))

    def _end(self, why: str) -> None:
        with self._lock:
            self.ended = self.ended or why
            self.generation = None  # so that no call is answered from memory
        self._waiters.wake()
        self._freshness.wake(math.inf)
        for generation in list(self._generations):
            generation.end(Closed(self.ended))

    def _start_with_state(
        self,
        generation: Generation[T],
        scope: str,
        plan: WatchPlan,
        predicate: SelectionPredicate[T],
        *,
        even_if_corrupt: bool,
    ) -> WatchStart[T]:
        """Begin with the current state, or with an error if that is older than the plan's revision.

        Call it under the lock. (CWATCH-1)
        """
        segment, revision = generation.log.segment, generation.revision
        corrupt = {key: self.state.corrupt[key] for key in self.state.corrupt if covers(scope, key)}
        # With the keys, if errors are to be sorted in.
        state, named = self.state, bool(corrupt)
        found = find(state, segment, scope, ListPlan(), predicate, revision=revision, named=named)
        assert found is not None
        error: StorageError | None = None
        if revision < plan.revision:
            error = TooLargeResourceVersion(plan.revision, revision, retry_after=1)
        elif corrupt and not even_if_corrupt:
            error = corrupt[min(corrupt)]
        end = revision if plan.end_bookmark else None
        sent = self.counting.init_events
        events = InitialEvents(found, corrupt, self._config.resource_type, end, sent)
        return WatchStart(segment.end, revision, events, error)

    def _ready(self) -> Generation[T]:
        """Return the current generation. Call it under the lock.

        Raises:
            NotReady: there is none.
        """
        self.check_open()
        if self.generation is None:
            why = f": {self._failure}" if self._failure else ""
            raise NotReady(
                f"the cache is (re)initializing{why}",
                retry_after=retry_after(time.monotonic() - self._state_since),
            )
        return self.generation

    # --- for the feed's thread -----------------------------------------------------------------

    def _load(self, changes: Sequence[Change[T]]) -> None:
        """Add a page of a new state."""
        if self._loading is None:
            self._loading = CacheState(self._attributes)
        objects: dict[str, T] = {}
        with collector_paused():
            for change in changes:
                obj = _loaded(change)
                if isinstance(obj, CorruptObject):
                    self._loading.corrupt[change.key] = obj
                else:
                    objects[change.key] = obj
            self._loading.load(objects)

    def _replace(self, revision: int) -> None:
        """Replace the state by the new one, which is complete. (CACHE-6)"""
        state, self._loading = self._loading, None
        if state is None:  # not "or": one whose objects are all unreadable has the length 0
            state = CacheState(self._attributes)
        with self._lock:
            log: EventLog[T] = EventLog(
                revision,
                base=0,
                capacity=log_capacity(self._config),
                window=self._config.event_history_window,
            )
            if self.ended:
                return
            old, self.state = self.state, state
            self.generation = Generation(log, revision, self._config)
            self._generations.add(self.generation)
            self._failure = None
            now = time.monotonic()
            self.counting.initializations.add()
            self.counting.initialization_seconds.value = now - self._state_since
            self._state_since = now
        self._waiters.wake()
        self._freshness.wake(revision)
        parts = old.parts()
        del old
        drop_one_by_one(parts)

    def _apply(self, batch: ChangeBatch[T]) -> None:
        """Apply the changes of a revision, or note the revision that the store has reached."""
        loaded = [(change, self._with_attributes(_loaded(change))) for change in batch.changes]
        now = time.monotonic()
        generation, state, branch = self.generation, self.state, None
        if generation is None:  # closed just now
            return
        if len(loaded) > _MANY:
            branch = state.branch()
            entries = [_enter(branch, change, item, now) for change, item in loaded]
            state.prepare(branch)
        parts: list[Any] = [*generation.log.make_room(len(loaded), now)]
        with self._lock:
            if self.generation is None:
                return
            if branch is not None:
                state.merge(branch)
            else:
                entries = [_enter(state, change, item, now) for change, item in loaded]
            if entries:
                generation.log.append(entries)
                state.forget_before(generation.log.segment.floor)
                self._events_received += len(entries)
            generation.revision = batch.revision
        self._freshness.wake(batch.revision)
        generation.publish(entries, batch.revision)
        if branch is not None:
            parts += branch.parts()
            del branch
        drop_one_by_one(parts)

    def _with_attributes(self, obj: T | CorruptObject) -> Item[T] | CorruptObject:
        return obj if isinstance(obj, CorruptObject) else self._attributes.of(obj)

    def _failed(self, error: StorageError, lost: bool) -> None:
        self._loading = None
        self.counting.initialization_errors.add()
        with self._lock:
            self._failure = error
            generation = self.generation
            final = lost and isinstance(error, Closed)  # there will be no more changes
            if not final and (not lost or generation is None):
                return
            self.generation = None
            self._state_since = time.monotonic()
            if generation is not None:
                self.counting.terminated_watches.add(generation.terminated_watches)
        if final:
            self._end(f"the storage of the cache is closed: {error}")
            return
        assert generation is not None
        ended: StorageError = Expired(
            "the resource version is too old: the cache was rebuilt, and events in between are "
            "unavailable; list again and watch from there"
        )
        generation.end(ended)

    def _tick(self) -> None:
        generation = self.generation
        if generation is not None:
            generation.tick()


def _enter(
    state: CacheState[T], change: Change[T], item: Item[T] | CorruptObject, now: float
) -> Entry[T]:
    """Apply a change to the state; return its entry for the log."""
    kind, key, revision = change.type, change.key, change.revision
    corrupt = state.corrupt.get(key)
    if isinstance(item, CorruptObject):
        before = state.remove(key)
        if kind is not EventType.DELETED:
            state.corrupt[key] = item
        return Entry(kind, key, revision, now, None, before, None, item, corrupt)
    before = state.remove(key) if kind is EventType.DELETED else state.put(key, item)
    event = Event(kind, item.object, str(revision))
    return Entry(kind, key, revision, now, item, before, event, previous_error=corrupt)


def _loaded(change: Change[T]) -> Any:
    """Return the new object of a change, or the error if it cannot be read: whatever a user's codec
    raises must not end the feed.

    Raises:
        Unreachable: the transformer cannot read it now; the feed tries again.
    """
    try:
        return change.load()
    except CorruptObject as error:
        return error
    except Unreachable:
        raise
    except BaseException as error:  # noqa: BLE001 - such as SystemExit
        corrupt = CorruptObject(
            change.key,
            described(error),
            resource_version=str(change.revision),
        )
        corrupt.__cause__ = error
        return corrupt


def retry_after(seconds: float) -> int:
    """Return when to try again, ``seconds`` after the cache began to be filled. (CACHE-8)"""
    return int(min(max(math.exp(0.06 * min(seconds, 1000.0)), 1.0), 30.0))
