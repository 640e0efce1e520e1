"""From one list of the store to the next: the log, its watches, and which of them an event
concerns."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Any, Generic, TypeVar

from revstore.cacher._config import CacherConfig
from revstore.cacher._event_log import Entry, EventLog
from revstore.cacher._view import (
    Bucket,
    FieldBucket,
    LabelBucket,
    Listener,
    Numbers,
    View,
    view_key,
)
from revstore.errors import StorageError
from revstore.onlookers import shown_to_all
from revstore.selectors import SelectionPredicate

__all__ = ["Generation"]

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)
B = TypeVar("B", bound=Bucket[Any])

_CALLBACK = "the callback of a watch"
# This many timers of closed watches may be left, plus half as many as there are in all.
_IDLE_TIMERS = 64
# The most entries that are sorted in under the lock at a time; opening a watch waits for it.
_SLICE = 1000
# The most values of one label that a watch may want and still be sorted by them.
_VALUES = 16


class Generation(Generic[T]):
    """The events between two lists of the store. One thread publishes them.

    A watch is in the bucket of its trigger: an indexed field's value, else the values of a label in
    its scope, else its scope, else the bucket of all events. An event costs one look-up for each
    kind of trigger, no matter how many watches there are.
    """

    def __init__(
        self,
        log: EventLog[T],
        revision: int,
        config: CacherConfig[T],
    ) -> None:
        self.log = log
        #: The revision up to which the cache shows everything. Guarded by the cache's lock.
        self.revision = revision
        #: What watches may read: up to which sequence number, and the revision of that. Replaced as
        #: a whole, so that both belong together.
        self.shown = (log.segment.end, revision)
        #: Set once there will be no more events: the error with which every watch ends.
        self.ended: StorageError | None = None
        self._root = config.resource_type.root
        self._config = config
        # Guards the buckets, the fields of views that say so, and the fields from _fresh to
        # terminated_watches.
        self._lock = threading.Lock()
        # What new buckets know: nothing has happened from there on.
        self._fresh = Numbers(log.segment.end, ())
        # The views that came while entries were sorted in, slice by slice.
        self._late: list[View[T]] = []
        # Its views look at the whole log.
        self._everything: Bucket[T] = Bucket(self._fresh, {}, "")
        self._scopes: dict[str, Bucket[T]] = {}
        # By scope, then by name, then by value.
        self._labels: dict[str, dict[str, dict[str, LabelBucket[T]]]] = {}
        # By the value of each indexed field; None is never a value.
        self._fields: tuple[dict[str | None, FieldBucket[T]], ...] = tuple(
            {} for _ in config.indexed_fields
        )
        self._progress: dict[Listener[T], Callable[[], None]] = {}
        self._timers: list[tuple[float, int, Listener[T]]] = []
        self._idle_timers = 0  # roughly how many belong to closed watches
        self._order = count()
        #: Whether somebody has requested progress; and the revision that is therefore reported as
        #: soon as possible.
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
        """Give a watch its view, and count it until ``release``.

        If the watch ``replays`` a state first, hold the log until ``replayed``.
        """
        key = view_key(scope, predicate, even_if_corrupt=even_if_corrupt)
        log = self.log
        with self._lock:
            buckets = self._buckets_for(scope, predicate)
            homes = _homes(buckets) or (self._everything,)
            view = homes[0].find(key)
            if view is None:
                view = View(
                    log,
                    scope,
                    predicate,
                    buckets,
                    self._config,
                    head=self.shown[0],
                    even_if_corrupt=even_if_corrupt,
                )
                for bucket in homes:
                    bucket.enter(view)
                if self._fresh.floor > self.shown[0]:  # its bucket may be too late for events
                    self._late.append(view)
            watch.view = view
            # On one line: an interrupt comes before it or after it.
            held = log.held + watch.replays
            self.watches, view.users, log.held, watch.closed = self.watches + 1, view.users + 1, held, False  # noqa: E501  # fmt: skip

    def replayed(self, watch: Listener[T]) -> None:
        """Stop holding the log for the watch's initial events."""
        with self._lock:
            self.log.held, watch.replays = self.log.held - watch.replays, False

    def terminated(self) -> None:
        """Count a watch that fell behind."""
        with self._lock:
            self.terminated_watches += 1

    def release(self, watch: Listener[T]) -> Callable[[], None] | None:
        """Close a watch, and forget it and what served only it.

        Return the callback that is to be called if it waits, until ``disarm`` removes that.
        """
        with self._lock:
            view = watch.view
            if view is None:
                return None  # it has not entered
            told = view.waiting(watch)
            if not watch.closed:
                if view.users == 1:
                    for bucket in _homes(view.buckets) or (self._everything,):
                        bucket.leave(view)
                    if isinstance(view.buckets, LabelBucket | tuple):
                        self._drop_empty(view.scope)
                held = self.log.held - watch.replays
                self.watches, view.users, self.log.held, watch.replays, watch.closed = self.watches - 1, view.users - 1, held, False, True  # noqa: E501  # fmt: skip
                self._idle_timers += watch.timed
                if self._idle_timers > _IDLE_TIMERS + len(self._timers) // 2:
                    self._drop_idle_timers()
            watch.end()
            return told

    def arm(self, watch: Listener[T], callback: Callable[[], None]) -> bool:
        """Call ``callback`` as soon as there may be something beyond the watch's cursor.

        If there is now, call it and return False. Else return True: it is called then, and after
        the poll that finds it again, until ``disarm``.
        """
        with self._lock:
            if (
                self.shown[0] <= watch.at[0]
                and self.ended is None
                and not watch.closed
                and not watch.pending
                and not (watch.progress and watch.told < self.marked)
            ):
                if watch.view is not None:
                    watch.view.arm(watch, callback)
                if watch.progress:
                    self._progress[watch] = callback
                return True
        shown_to_all(_CALLBACK, [callback])
        return False

    def disarm(self, watch: Listener[T]) -> None:
        """Forget the callback of the watch."""
        with self._lock:
            if watch.view is not None:
                watch.view.disarm(watch)
            self._progress.pop(watch, None)

    def call_at(self, moment: float, watch: Listener[T]) -> None:
        """Run the watch's callback, if there is one, some time after ``moment`` has passed."""
        with self._lock:
            if not (watch.timed or watch.closed or self.ended is not None):
                watch.timed = True
                heappush(self._timers, (moment, next(self._order), watch))

    def tick(self) -> bool:
        """Run callbacks whose timer has expired; return True if timers remain."""
        now = time.monotonic()
        told = []
        with self._lock:
            while self._timers and self._timers[0][0] <= now:
                watch = heappop(self._timers)[2]
                callback = None if watch.view is None else watch.view.waiting(watch)
                if callback is not None:
                    told.append(callback)
                self._idle_timers -= watch.closed
                watch.timed = False
            more = bool(self._timers)
        shown_to_all(_CALLBACK, told)
        return more

    def publish(self, entries: Sequence[Entry[T]], revision: int) -> None:
        """Show what was appended to the log, or progress only; wake the watches that it may
        concern."""
        told: list[Callable[[], None]] = []
        concerned: list[Bucket[T]] = []
        sorted_in = 0
        while len(entries) - sorted_in > _SLICE:
            with self._lock:
                self._fresh = Numbers(self.shown[0] + len(entries), ())
                self._sort_in(entries[sorted_in : sorted_in + _SLICE], sorted_in, concerned)
            sorted_in += _SLICE
        with self._lock:
            number = self.shown[0]
            if entries:
                self._sort_in(entries[sorted_in:] if sorted_in else entries, sorted_in, concerned)
            head = number + len(entries)
            self.shown = head, revision
            if entries:
                self._everything.take(told, head)
                for bucket in concerned:
                    bucket.take(told, head)
                for view in self._late:
                    view.take(told, head)
                self._late.clear()
            if self.asked and not entries:  # the store's answer
                self.asked, self.marked = False, revision
                told.extend(self._progress.values())
                self._progress.clear()
        shown_to_all(_CALLBACK, told)

    def end(self, error: StorageError) -> None:
        """End every watch with ``error``, after the events in the log."""
        told: list[Callable[[], None]] = []
        with self._lock:
            self.ended = error
            views = {view: None for bucket in self._buckets() for view in bucket.views}
            for view in views:
                told += view.callbacks()
            self._timers.clear()
            self._progress.clear()
        shown_to_all(_CALLBACK, told)
        with self._lock:  # not before: the calls may be interrupted
            for view in views:
                view.armed = None

    def in_child(self, error: StorageError) -> None:
        """End every watch in the child of a fork, where no other thread runs or waits."""
        self._lock = threading.Lock()
        self.ended = error

    def _drop_empty(self, scope: str) -> None:
        """Forget those labels of a scope that no watch asks for any more."""
        names = self._labels[scope]
        for name in [name for name, buckets in names.items() if not buckets]:
            del names[name]
        if not names:
            del self._labels[scope]

    def _drop_idle_timers(self) -> None:
        """Forget the timers of closed watches, which would otherwise stay until they expire."""
        self._timers = [each for each in self._timers if not each[2].closed]
        heapify(self._timers)
        self._idle_timers = 0

    def _sort_in(self, entries: Sequence[Entry[T]], first: int, concerned: list[Bucket[T]]) -> None:
        """Note the entries in their buckets; ``first`` is the place of the first one in what is
        published."""
        if not (self._scopes or self._labels or any(self._fields)):
            return
        base = self.log.segment.base
        for number, entry in enumerate(entries, self.shown[0] + first):
            for bucket in self._concerned(entry):
                bucket.add(number, base)
                concerned.append(bucket)

    def _concerned(self, entry: Entry[T]) -> list[Bucket[T]]:
        """Return the buckets of an event; for a field or a label, those of both its values."""
        found: list[Bucket[T]] = []
        scopes, labels = self._scopes, self._labels
        if scopes or labels:
            key, end = entry.key, len(self._root)
            if self._root in labels:
                found += _with_labels(entry, labels[self._root])
            # The key itself, and each prefix of it that ends in a slash.
            while (end := key.find("/", end) + 1) > 0:
                prefix = key[:end]
                if prefix in scopes:
                    found.append(scopes[prefix])
                if prefix in labels:
                    found += _with_labels(entry, labels[prefix])
            if key in scopes:
                found.append(scopes[key])
            if key in labels:
                found += _with_labels(entry, labels[key])
        item, previous = entry.item, entry.previous
        for at, buckets in enumerate(self._fields):
            if not buckets:
                continue
            if _unreadable(entry):  # which watches it concerns is unknown
                found += buckets.values()
                continue
            new = None if item is None else item.fields[at]
            old = new if previous is None else previous.fields[at]
            if new in buckets:
                found.append(buckets[new])
            if old != new and old in buckets:
                found.append(buckets[old])
        return found

    def _buckets_for(
        self, scope: str, predicate: SelectionPredicate[T]
    ) -> Bucket[T] | tuple[LabelBucket[T], ...] | None:
        """Return the buckets of a new view, None for that of all events; create them if needed.
        (CWATCH-5)"""
        fresh = max(self.shown[0], self._fresh.floor)
        if fresh != self._fresh.floor:
            self._fresh = Numbers(fresh, ())
        for at, path in enumerate(self._config.indexed_fields):
            value = predicate.field.exact(path)
            if value is not None:
                by_field = self._in(self._fields[at], value, FieldBucket)
                by_field.at = at
                return by_field
        for label in predicate.label.requirements:
            if label.operator == "in" and len(label.values) <= _VALUES:
                home = self._labels.setdefault(scope, {}).setdefault(label.key, {})
                found = [self._in(home, value, LabelBucket) for value in sorted(label.values)]
                for bucket in found:
                    bucket.name = label.key
                return tuple(found) if len(found) > 1 else found[0]
        return None if scope == self._root else self._in(self._scopes, scope, Bucket)

    def _in(self, home: dict[K, B], value: K, kind: type[B]) -> B:
        bucket = home.get(value)
        if bucket is None:
            bucket = home[value] = kind(self._fresh, home, value)
        return bucket

    def _buckets(self) -> Iterator[Bucket[T]]:
        yield self._everything
        yield from self._scopes.values()
        for labels in self._labels.values():
            for values in labels.values():
                yield from values.values()
        for buckets in self._fields:
            yield from buckets.values()


def _homes(
    buckets: Bucket[T] | tuple[LabelBucket[T], ...] | None,
) -> tuple[Bucket[T], ...]:
    if isinstance(buckets, Bucket):
        return (buckets,)
    return buckets or ()


def _with_labels(
    entry: Entry[T], buckets: Mapping[str, Mapping[str, LabelBucket[T]]]
) -> list[LabelBucket[T]]:
    """Return the buckets of the labels that the object of an event has or had."""
    if _unreadable(entry):  # the labels are unknown
        return [bucket for values in buckets.values() for bucket in values.values()]
    found = []
    item, previous = entry.item, entry.previous
    has = {} if item is None or item.labels is None else item.labels
    had = has if previous is None or previous.labels is None else previous.labels
    for name in buckets.keys() & has.keys():
        value = has[name]
        if isinstance(value, str) and value in buckets[name]:
            found.append(buckets[name][value])
    for name in buckets.keys() & had.keys() if had is not has else ():
        value, new = had[name], has.get(name)
        changed = isinstance(value, str) and not (isinstance(new, str) and new == value)
        if changed and value in buckets[name]:
            found.append(buckets[name][value])
    return found


def _unreadable(entry: Entry[T]) -> bool:
    return entry.error is not None or entry.previous_error is not None
