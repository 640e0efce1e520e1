"""What a cache holds, kept up by its feed; and whether it is ready and fresh."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from typing import Generic, TypeVar

from revstore.cacher._cache_or_store import Horizon
from revstore.cacher._config import CacherConfig, log_capacity
from revstore.cacher._counters import CacherCounters, Counting
from revstore.cacher._event_log import Entry, EventLog
from revstore.cacher._feed import Feed
from revstore.cacher._generation import Generation
from revstore.cacher._state import Attributes, CacheState
from revstore.cacher._view import ViewKit
from revstore.errors import (
    Closed,
    CorruptObject,
    Expired,
    NotReady,
    StorageError,
    Unsupported,
)
from revstore.storage import Change, ChangeBatch, Event, EventType

__all__ = ["Content", "retry_after"]

T = TypeVar("T")

# Seconds that a call without a deadline waits for the cache to be filled.
_READY_TIMEOUT = 30.0
# Seconds between two requests for progress while somebody waits. (CACHE-11)
_PROGRESS_INTERVAL = 0.1
# Seconds for which a store that did not get the cache to a revision is asked itself, and seconds
# that must have been waited for that.
_DISTRUST = 30.0
_CHANCE = 1.0


class Content(Generic[T]):
    """Owner of a cache's state. The feed's thread changes it; any thread reads it, ``lock`` held.

    ``state`` and ``generation`` are replaced as wholes; single look-ups need no lock.
    """

    def __init__(self, config: CacherConfig[T], prefix: str, kit: ViewKit[T]) -> None:
        self._config = config
        self._prefix = prefix
        self._kit = kit
        self._attributes = Attributes(config.labels, config.fields, config.indexed_fields)
        self.counting = Counting()
        self.lock = threading.Lock()  # guards all below
        self._changed = threading.Condition(self.lock)  # of readiness
        self.state: CacheState[T] = CacheState(self._attributes)
        self.generation: Generation[T] | None = None  # None: not ready
        self.closed = False
        self._failure: StorageError | None = None
        self._events_received = 0
        self._waiting: list[tuple[int, threading.Event]] = []
        self._distrusted_until = 0.0
        self._state_since = time.monotonic()
        self._loading: CacheState[T] | None = None  # the feed's thread's own
        self.feed = Feed(
            config.storage,
            prefix,
            load=self._load,
            replace=self._replace,
            apply=self._apply,
            failed=self._failed,
            tick=self._tick,
        )

    # --- for readers ---------------------------------------------------------------------------

    def check_open(self) -> None:
        if self.closed:
            raise Closed("the cache was closed")

    def ready(self) -> Generation[T]:
        """The generation there is, else ``NotReady``. Under lock."""
        self.check_open()
        if self.generation is None:
            why = f": {self._failure}" if self._failure else ""
            raise NotReady(
                f"the cache is (re)initializing{why}",
                retry_after=retry_after(time.monotonic() - self._state_since),
            )
        return self.generation

    def wait_ready(self, timeout: float | None) -> None:
        """Return once the cache is filled; ``NotReady`` if it is not within ``timeout``."""
        self.check_open()
        if self.generation is not None:
            return
        with self.lock:
            self._changed.wait_for(
                lambda: self.closed or self.generation is not None,
                _READY_TIMEOUT if timeout is None else timeout,
            )
            self.ready()

    def revision(self) -> int:
        """Up to which the cache shows everything, 0 if it is not ready."""
        generation = self.generation
        return 0 if generation is None else generation.revision

    def horizon(self) -> Horizon:
        """What can be shown now."""
        generation = self.generation
        progress = not self._distrusted_until or time.monotonic() > self._distrusted_until
        if generation is None:
            return Horizon(0, 0, ready=False, progress=progress)
        return Horizon(generation.log.segment.floor, generation.revision, progress=progress)

    def wait_fresh(self, revision: int, timeout: float | None, *, reached: bool = False) -> bool:
        """Wait until the cache shows ``revision``; False if it does not get there in time. With
        ``reached`` the store is known to be there. (CACHE-10, CACHE-11)"""
        if self.revision() >= revision:
            return True
        patience = self._config.fresh_timeout
        start = time.monotonic()
        end = start + (patience if timeout is None else min(timeout, patience))
        waiter = threading.Event()
        with self.lock:
            self._waiting.append((revision, waiter))
        try:
            enough = start + min(patience, _CHANCE) if reached else math.inf
            fresh = self._wait_fresh(revision, waiter, end, enough)
        finally:
            with self.lock:
                self._waiting = [each for each in self._waiting if each[1] is not waiter]
        self.counting.add("read_waits")
        self.counting.add("read_wait_seconds", time.monotonic() - start)
        if not fresh:
            self.counting.add("read_waits_failed")
        return fresh

    def _wait_fresh(
        self, revision: int, waiter: threading.Event, end: float, enough: float = math.inf
    ) -> bool:
        asked = True
        while self.revision() < revision:
            self.check_open()
            left = end - time.monotonic()
            if left <= 0:
                if not asked and time.monotonic() >= enough:  # marks do not come by themselves
                    self._distrusted_until = time.monotonic() + _DISTRUST
                return False
            try:
                self.feed.request_progress()
            except Unsupported:
                asked = False  # then events or marks may bring it, or not
            waiter.wait(min(left, _PROGRESS_INTERVAL))
            waiter.clear()  # the cache may begin anew before the next look
        return True

    def counters(self) -> CacherCounters:
        """A reading of all counters."""
        with self.lock:
            values = self.counting.values()
            generation, objects = self.generation, len(self.state)
            values["events_received"] = self._events_received
            values["unreadable"] = len(self.state.corrupt)
        if generation is not None:
            length = len(generation.log.segment.entries)
            self.counting.highest("log_length_max", length)
            values["log_length_max"] = max(length, values.get("log_length_max", 0))
            values["terminated_watches"] = (
                values.get("terminated_watches", 0) + generation.terminated_watches
            )
            values |= {
                "watches": generation.watches,
                "log_length": length,
                "resource_version": generation.revision,
            }
        values |= {"objects": objects, "log_capacity": log_capacity(self._config)}
        return CacherCounters(**values)

    def close(self) -> None:
        with self.lock:
            if self.closed:
                return
            self.closed = True
            generation = self.generation
            self._changed.notify_all()
            for _, waiter in self._waiting:
                waiter.set()
        if generation is not None:
            generation.end(Closed("the cache was closed"))
        self.feed.close()

    # --- for the feed's thread -----------------------------------------------------------------

    def _load(self, changes: Sequence[Change[T]]) -> None:
        """Take a page of a new state."""
        if self._loading is None:
            self._loading = CacheState(self._attributes)
        for change in changes:
            try:
                self._loading.load(change.key, change.load())
            except CorruptObject as error:
                self._loading.corrupt[change.key] = error

    def _replace(self, revision: int) -> None:
        """The new state is whole. (CACHE-6)"""
        state, self._loading = self._loading or CacheState(self._attributes), None
        with self.lock:
            log: EventLog[T] = EventLog(
                revision,
                base=0,
                capacity=log_capacity(self._config),
                window=self._config.event_history_window,
            )
            self.state = state
            self.generation = Generation(log, revision, root=self._prefix, kit=self._kit)
            self._failure = None
            self.counting.add("initializations")
            self.counting.note("initialization_seconds", time.monotonic() - self._state_since)
            self._state_since = time.monotonic()
            self._changed.notify_all()
            self._wake(revision)

    def _apply(self, batch: ChangeBatch[T]) -> None:
        loaded: list[tuple[Change[T], T | CorruptObject]] = []
        for change in batch.changes:
            try:
                loaded.append((change, change.load()))
            except CorruptObject as error:
                loaded.append((change, error))
        now = time.monotonic()
        entries: list[Entry[T]] = []
        with self.lock:
            generation = self.generation
            assert generation is not None
            if loaded:
                entries = [self._enter(change, obj, now) for change, obj in loaded]
                generation.log.append(entries)
                self.state.forget_before(generation.log.segment.floor)
                self._events_received += len(entries)
            generation.revision = batch.revision
            if self._waiting:
                self._wake(batch.revision)
        generation.publish(entries, batch.revision)

    def _enter(self, change: Change[T], obj: T | CorruptObject, now: float) -> Entry[T]:
        """Take a change into the state; its entry for the log. Under lock."""
        kind, key, revision = change.type, change.key, change.revision
        state = self.state
        corrupt = state.corrupt.get(key)
        if isinstance(obj, CorruptObject):
            before = state.remove(key)
            if kind is not EventType.DELETED:
                state.corrupt[key] = obj
            return Entry(kind, key, revision, now, None, before, None, obj)
        item = self._attributes.of(obj)
        before = state.remove(key) if kind is EventType.DELETED else state.put(key, item)
        event = Event(kind, obj, str(revision))
        return Entry(kind, key, revision, now, item, before, event, previous_error=corrupt)

    def _wake(self, revision: int) -> None:
        """Wake who waits for ``revision`` or an earlier one. Under lock."""
        for wanted, waiter in self._waiting:
            if wanted <= revision:
                waiter.set()

    def _failed(self, error: StorageError, lost: bool) -> None:
        self._loading = None
        self.counting.add("initialization_errors")
        with self.lock:
            self._failure = error
            generation = self.generation
            if not lost or generation is None or self.closed:  # who closes ends it
                return
            self.generation = None
            self._state_since = time.monotonic()
            self.counting.add("terminated_watches", generation.terminated_watches)
        ended: StorageError = Expired(
            "the resource version is too old: the cache had to be filled anew, and what happened "
            "meanwhile is not known; list again and watch from there"
        )
        generation.end(error if isinstance(error, Closed) else ended)

    def _tick(self) -> None:
        generation = self.generation
        if generation is not None:
            generation.tick()


def retry_after(seconds: float) -> int:
    """When to try again, ``seconds`` after the cache began to be filled. (CACHE-8)"""
    return int(min(max(math.exp(0.06 * min(seconds, 1000.0)), 1.0), 30.0))
