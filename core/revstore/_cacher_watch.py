"""A watch over the shared log: a cursor, and what it shows of each event."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Generic, TypeVar

import attrs

from revstore._cacher_log import Entry, EventLog
from revstore.errors import Closed, Expired, StorageError
from revstore.selectors import SelectionPredicate
from revstore.storage import Event, EventType, Watch

__all__ = ["CacheWatch", "Generation", "WatchScope", "covers"]

T = TypeVar("T")

# Initial objects that one poll returns at most.
_PAGE = 500


def covers(scope: str, key: str) -> bool:
    """Whether the events of ``key`` belong to ``scope``: a prefix that ends in "/", or a key."""
    return key.startswith(scope) if scope.endswith("/") else key == scope


class Generation(Generic[T]):
    """The log between two lists, and who waits for it to grow."""

    def __init__(self, log: EventLog[T], revision: int) -> None:
        self.log = log
        #: The cache shows everything up to it. Written by the feed, after the events it covers.
        self.revision = revision
        #: Set once the log will grow no more: what every watch ends with.
        self.ended: StorageError | None = None
        self._lock = threading.Lock()  # guards the two below
        self._waiting: set[threading.Event] = set()
        self.head = log.segment.head

    def publish(self, revision: int) -> None:
        """Wake who waits, after the log grew or showed progress up to ``revision``."""
        self.revision = revision
        with self._lock:
            self.head = self.log.segment.head
            waiting, self._waiting = self._waiting, set()
        for waiter in waiting:
            waiter.set()

    def end(self, error: StorageError) -> None:
        """End every watch with ``error``, after what is in the log."""
        with self._lock:
            self.ended = error
            waiting, self._waiting = self._waiting, set()
        for waiter in waiting:
            waiter.set()

    def wait(self, waiter: threading.Event, cursor: int, timeout: float | None) -> None:
        """Return when the log has something at ``cursor``, has ended, ``waiter`` is set, or the
        time is over; may return early."""
        with self._lock:
            if self.head > cursor or self.ended is not None:
                return
            self._waiting.add(waiter)
        waiter.wait(timeout)
        with self._lock:
            self._waiting.discard(waiter)


@attrs.frozen
class WatchScope(Generic[T]):
    """What a watch shows: ``scope`` as ``covers`` has it, changes after ``revision``, filtered by
    ``predicate``; a bookmark every ``bookmark_interval`` seconds without events, 0: none; with
    ``progress`` one whenever the store has shown progress."""

    scope: str
    revision: int
    predicate: SelectionPredicate[T]
    lifetime: float | None = None
    bookmark_interval: float = 0.0
    progress: bool = False


class CacheWatch(Watch[T]):
    """But for ``close``, only the polling thread touches its state."""

    def __init__(
        self,
        generation: Generation[T],
        cursor: int,
        scope: WatchScope[T],
        initial: Iterator[Event[T]] | None,
        *,
        copy: Callable[[T], T] | None,
        selects: Callable[[SelectionPredicate[T], T], bool],
        at_version: Callable[[T, int], T],
        bookmark: Callable[[int], T],
        on_close: Callable[[Watch[T]], None],
        error: StorageError | None = None,
    ) -> None:
        self._generation = generation
        self._cursor = cursor
        self._scope = scope
        self._predicate = None if scope.predicate.empty else scope.predicate
        self._initial = initial
        self._copy = copy
        self._selects = selects
        self._at_version = at_version
        self._make_bookmark = bookmark
        self._on_close = on_close
        self._position = scope.revision
        self._told = scope.revision  # the last version that an event or a bookmark had
        now = time.monotonic()
        self._deadline = None if scope.lifetime is None else now + scope.lifetime
        self._bookmark_due = now + scope.bookmark_interval if scope.bookmark_interval else None
        self._error = error
        self._closed = False
        self._waiter: threading.Event | None = None

    @property
    def resource_version(self) -> str:
        return "" if self._initial is not None else str(self._position)

    def poll(self, timeout: float | None = None) -> tuple[Event[T], ...] | None:
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            if self._error is not None:
                raise self._error
            now = time.monotonic()
            if self._deadline is not None and now >= self._deadline:
                self.close()
            if self._closed:
                raise Closed("the watch was closed")
            events = self._next(now)
            if events:
                if self._bookmark_due is not None:
                    self._bookmark_due = now + self._scope.bookmark_interval
                return events
            if end is not None and now >= end:
                return None
            self._wait(now, end)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        waiter = self._waiter
        if waiter is not None:
            waiter.set()
        self._on_close(self)

    def _wait(self, now: float, end: float | None) -> None:
        moments = [each for each in (end, self._deadline, self._bookmark_due) if each is not None]
        waiter = self._waiter = threading.Event()
        # Closed after the look above, but before the waiter was there to be set?
        if not self._closed:
            timeout = max(0.0, min(moments) - now) if moments else None
            self._generation.wait(waiter, self._cursor, timeout)
        self._waiter = None

    def _next(self, now: float) -> tuple[Event[T], ...]:
        if self._initial is not None:
            events = tuple(islice(self._initial, _PAGE))
            if len(events) < _PAGE:
                self._initial = None
            if events:
                return events
        generation = self._generation
        # Before the log is read, so that all events up to it are in what is read.
        revision, ended = generation.revision, generation.ended
        events = self._read()
        if events or self._error is not None:
            return events
        self._position = max(self._position, revision)
        if ended is not None:
            raise self._fail(ended)
        due = self._bookmark_due is not None and now >= self._bookmark_due
        if due or (self._scope.progress and self._position > self._told):
            self._told = self._position
            obj = self._make_bookmark(self._position)
            return (Event(EventType.BOOKMARK, obj, str(self._position)),)
        return ()

    def _read(self) -> tuple[Event[T], ...]:
        segment = self._generation.log.segment
        if self._cursor < segment.base:
            raise self._fail(
                Expired(
                    "the watch fell behind what the cache remembers; list again and watch from "
                    "there",
                    resource_version=str(self._generation.revision),
                )
            )
        entries = segment.entries[self._cursor - segment.base :]
        scope, after = self._scope.scope, self._scope.revision
        found: list[Event[T]] = []
        for count, entry in enumerate(entries):
            if entry.revision <= after or not covers(scope, entry.key):
                continue
            unreadable = entry.error or (self._predicate and entry.previous_error)
            if unreadable:
                self._cursor += count
                if found:
                    return tuple(found)  # first what came before it
                raise self._fail(unreadable)
            event = self._map(entry)
            if event is not None:
                found.append(event)
                self._told = entry.revision
        self._cursor += len(entries)
        if entries:
            # With bookmarks of progress, what lies outside the scope shows as one.
            shown = found and self._scope.progress
            self._position = max(self._told if shown else entries[-1].revision, self._position)
        return tuple(found)

    def _map(self, entry: Entry[T]) -> Event[T] | None:
        """What this watch shows of an event. (WATCH-10)"""
        if self._predicate is None:
            event = entry.event
            assert event is not None
            if self._copy is None:
                return event
            return Event(event.type, self._copy(event.object), event.resource_version)
        before, after = entry.previous, entry.object
        gone = entry.type is EventType.DELETED
        was = before is not None and self._selects(self._predicate, before)
        now = not gone and after is not None and self._selects(self._predicate, after)
        if now and after is not None:
            kind = EventType.MODIFIED if was else EventType.ADDED
            return self._event(kind, after, entry.revision)
        if was and before is not None:
            last = after if gone and after is not None else self._at_version(before, entry.revision)
            return self._event(EventType.DELETED, last, entry.revision)
        return None

    def _event(self, kind: EventType, obj: T, revision: int) -> Event[T]:
        return Event(kind, obj if self._copy is None else self._copy(obj), str(revision))

    def _fail(self, error: StorageError) -> StorageError:
        self._error = error
        self._closed = True
        self._on_close(self)
        return error
