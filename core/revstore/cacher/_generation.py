"""From one list to the next: the log, who watches it, and who is told of what."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Generic, TypeVar

from revstore.cacher._config import CacherConfig
from revstore.cacher._event_log import Entry, EventLog
from revstore.cacher._view import Bucket, Listener, View, view_key
from revstore.errors import StorageError
from revstore.selectors import SelectionPredicate

__all__ = ["Generation"]

T = TypeVar("T")

_log = logging.getLogger("revstore.cacher")

# So many timers of closed watches are left, and half as many as there are in all.
_IDLE_TIMERS = 64


class Generation(Generic[T]):
    """What happens between two lists of the store. One thread publishes.

    A watch stands in the bucket of its trigger: an indexed field's value, else its scope, else the
    one of all events. An event costs a look-up for each kind of trigger, however many watch.
    """

    def __init__(
        self,
        log: EventLog[T],
        revision: int,
        config: CacherConfig[T],
    ) -> None:
        self.log = log
        #: The cache shows everything up to it. Guarded by the cache's lock.
        self.revision = revision
        #: What watches may read: up to which sequence number, and up to which revision that is.
        #: Replaced as a whole, so that both belong together.
        self.shown = (log.segment.end, revision)
        #: Set once no more will come: what every watch ends with.
        self.ended: StorageError | None = None
        self._root = config.resource_type.root
        self._config = config
        # Guards the buckets, the users of views, and the fields from _views to terminated_watches.
        self._lock = threading.Lock()
        self._views: dict[Hashable, View[T]] = {}
        self._everything: Bucket[T] = Bucket(0, {}, "")  # its numbers are those of the log itself
        self._scopes: dict[str | None, Bucket[T]] = {}
        # By the value of each indexed field; None is nobody's value.
        self._fields: tuple[dict[str | None, Bucket[T]], ...] = tuple(
            {} for _ in config.indexed_fields
        )
        self._progress: dict[Listener[T], Callable[[], None]] = {}
        self._timers: list[tuple[float, int, Listener[T]]] = []
        self._idle_timers = 0  # those of watches that are closed, about
        self._order = count()
        #: Whether somebody has asked that progress be told; and up to which revision it is told
        #: as soon as it can be, for that reason.
        self.asked = False
        self.marked = 0
        #: How many watches there are, and how many fell behind.
        self.watches = 0
        self.terminated_watches = 0

    def enter(
        self,
        watch: Listener[T],
        scope: str,
        predicate: SelectionPredicate[T],
        *,
        even_if_corrupt: bool = False,
    ) -> None:
        """Give a watch its view, and count it until it leaves by ``release``. For one that
        ``replays`` a state first, the log is held until ``replayed``."""
        key = view_key(scope, predicate, even_if_corrupt=even_if_corrupt)
        log = self.log
        with self._lock:
            view = self._views.get(key)
            if view is None:
                bucket = self._bucket(scope, predicate)
                view = View(
                    log, scope, predicate, bucket, self._config, even_if_corrupt=even_if_corrupt
                )
                if bucket is not None:
                    bucket.views.add(key)
                self._views[key] = view
            watch.view = view
            # On one line: an interrupt comes before it or after it.
            held = log.held + watch.replays
            self.watches, view.users, log.held, watch.closed = self.watches + 1, view.users + 1, held, False  # noqa: E501  # fmt: skip

    def replayed(self, watch: Listener[T]) -> None:
        """The watch needs no more that the log is held for its initial events."""
        with self._lock:
            self.log.held, watch.replays = self.log.held - watch.replays, False

    def terminated(self) -> None:
        """Count a watch that fell behind."""
        with self._lock:
            self.terminated_watches += 1

    def release(self, watch: Listener[T]) -> Callable[[], None] | None:
        """Close a watch, and forget it and what served only it; return whom to tell, if it was
        waiting, until that is taken back by ``disarm``."""
        with self._lock:
            view = watch.view
            if view is None:
                return None  # it has not entered
            bucket = view.bucket
            told = self._bucket_of(watch).armed.get(watch)
            if not watch.closed:
                if view.users == 1:
                    self._views.pop(view.key, None)
                    if bucket is not None:
                        bucket.views.discard(view.key)
                        if not bucket.views:
                            bucket.drop()
                held = self.log.held - watch.replays
                self.watches, view.users, self.log.held, watch.replays, watch.closed = self.watches - 1, view.users - 1, held, False, True  # noqa: E501  # fmt: skip
                self._idle_timers += watch.timed
                if self._idle_timers > _IDLE_TIMERS + len(self._timers) // 2:
                    self._drop_idle_timers()
            watch.end()
            return told

    def arm(self, watch: Listener[T], callback: Callable[[], None]) -> None:
        """Call ``callback`` once, when there may be something beyond the watch's cursor; at once
        if there is already."""
        with self._lock:
            if (
                self.shown[0] <= watch.at[0]
                and self.ended is None
                and not watch.pending
                and not (watch.progress and watch.told < self.marked)
            ):
                self._bucket_of(watch).armed[watch] = callback
                if watch.progress:
                    self._progress[watch] = callback
                return
        _call([callback], Exception)

    def disarm(self, watch: Listener[T]) -> None:
        """The callback is not wanted any more."""
        with self._lock:
            self._bucket_of(watch).armed.pop(watch, None)
            self._progress.pop(watch, None)

    def call_at(self, moment: float, watch: Listener[T]) -> None:
        """Tell the watch, if it is armed, that ``moment`` has passed, some time after it."""
        with self._lock:
            if not (watch.timed or watch.closed or self.ended is not None):
                watch.timed = True
                heappush(self._timers, (moment, next(self._order), watch))

    def tick(self) -> bool:
        """Call whom it is time to; whether there are more."""
        now = time.monotonic()
        told = []
        with self._lock:
            while self._timers and self._timers[0][0] <= now:
                watch = heappop(self._timers)[2]
                armed = self._bucket_of(watch).armed
                if watch in armed:
                    told.append(armed.pop(watch))
                self._idle_timers -= watch.closed
                watch.timed = False
            more = bool(self._timers)
        _call(told)
        return more

    def publish(self, entries: Sequence[Entry[T]], revision: int) -> None:
        """Show what was appended to the log, or progress only; tell whom it may concern."""
        told: list[Callable[[], None]] = []
        with self._lock:
            number = self.shown[0]
            if entries:
                _take(self._everything, told)
                if self._scopes or any(self._fields):
                    self._sort_in(entries, number, told)
            self.shown = number + len(entries), revision
            if self.asked and not entries:  # the store's answer
                self.asked, self.marked = False, revision
                told.extend(self._progress.values())
                self._progress.clear()
        _call(told)

    def end(self, error: StorageError, swallowed: type[BaseException] = BaseException) -> None:
        """End every watch with ``error``, after what is in the log. Callbacks that raise what is
        ``swallowed`` are logged."""
        told: list[Callable[[], None]] = []
        with self._lock:
            self.ended = error
            for bucket in self._buckets():
                told.extend(bucket.armed.values())
            self._timers.clear()
            self._progress.clear()
        _call(told, swallowed)
        with self._lock:
            for bucket in self._buckets():
                bucket.armed = {}

    def in_child(self, error: StorageError) -> None:
        """End every watch in the child of a fork, where nobody else runs, and nobody waits."""
        self._lock = threading.Lock()
        self.ended = error

    def _drop_idle_timers(self) -> None:
        """Forget the timers of closed watches, which would stay until their time."""
        self._timers = [each for each in self._timers if not each[2].closed]
        heapify(self._timers)
        self._idle_timers = 0

    def _sort_in(
        self, entries: Iterable[Entry[T]], number: int, told: list[Callable[[], None]]
    ) -> None:
        base = self.log.segment.base
        for at, entry in enumerate(entries, number):
            for bucket in self._concerned(entry):
                bucket.add(at, base)
                _take(bucket, told)

    def _concerned(self, entry: Entry[T]) -> list[Bucket[T]]:
        """The buckets that an event belongs to; of a field both its values. (CWATCH-6)"""
        found = []
        if self._scopes:
            key, end = entry.key, len(self._root)
            # The key itself, and each prefix of it that ends in a slash.
            while (end := key.find("/", end) + 1) > 0:
                if key[:end] in self._scopes:
                    found.append(self._scopes[key[:end]])
            if key in self._scopes:
                found.append(self._scopes[key])
        item, previous = entry.item, entry.previous
        unreadable = entry.error is not None or entry.previous_error is not None
        for at, buckets in enumerate(self._fields):
            if not buckets:
                continue
            if unreadable:  # who it concerns cannot be known
                found += buckets.values()
                continue
            new = None if item is None else item.fields[at]
            old = new if previous is None else previous.fields[at]
            if new in buckets:
                found.append(buckets[new])
            if old != new and old in buckets:
                found.append(buckets[old])
        return found

    def _bucket(self, scope: str, predicate: SelectionPredicate[T]) -> Bucket[T] | None:
        head = self.shown[0]
        for path, buckets in zip(self._config.indexed_fields, self._fields, strict=True):
            value = predicate.field.exact(path)
            if value is not None:
                return _in(buckets, value, head)
        if scope == self._root:
            return None
        return _in(self._scopes, scope, head)

    def _bucket_of(self, watch: Listener[T]) -> Bucket[T]:
        view = watch.view
        bucket = None if view is None else view.bucket
        return self._everything if bucket is None else bucket

    def _buckets(self) -> Iterator[Bucket[T]]:
        yield self._everything
        yield from self._scopes.values()
        for buckets in self._fields:
            yield from buckets.values()


def _in(home: dict[str | None, Bucket[T]], value: str, head: int) -> Bucket[T]:
    bucket = home.get(value)
    if bucket is None:
        bucket = home[value] = Bucket(head, home, value)
    return bucket


def _take(bucket: Bucket[T], told: list[Callable[[], None]]) -> None:
    if bucket.armed:
        told.extend(bucket.armed.values())
        bucket.armed = {}


def _call(
    callbacks: Iterable[Callable[[], None]], swallowed: type[BaseException] = BaseException
) -> None:
    """Call what is the user's: nothing that it raises may end a thread of ours. In the user's own
    thread Ctrl-C goes on, so that only an ``Exception`` may be ``swallowed``."""
    for callback in callbacks:
        try:
            callback()
        except swallowed:
            _log.exception("the callback of a watch failed")
