"""A watch over the shared log: a cursor and a view."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from revstore.cacher._generation import Generation
from revstore.cacher._view import Listener, Reading, View
from revstore.cacher._watch_start import WatchStart
from revstore.deadlines import check_poll
from revstore.errors import Closed, Expired, StorageError
from revstore.raising import fresh_copy
from revstore.storage import Event, EventType, Watch

__all__ = ["CacheWatch"]

T = TypeVar("T")

# Initial objects that one poll returns at most.
_PAGE = 500
# Seconds before its end that a watch gets its last bookmark.
_BEFORE_END = 2.0


class CacheWatch(Listener[T], Watch[T]):
    """But for ``close``, only the polling thread touches its state."""

    __slots__ = (
        "_after",
        "_bookmark_due",
        "_callback",
        "_deadline",
        "_error",
        "_failed",
        "_generation",
        "_initial",
        "_initial_at",
        "_interval",
        "_told",
        "plain",
    )

    def __init__(
        self,
        generation: Generation[T],
        view: View[T],
        start: WatchStart[T],
        *,
        lifetime: float | None,
        bookmark_interval: float,
        progress: bool,
    ) -> None:
        super().__init__(
            view,
            start.cursor,
            start.revision,
            progress=progress,
            replays=start.initial is not None,
        )
        self._generation = generation
        self._initial = start.initial
        self._initial_at = 0
        self._told = start.revision
        # Until then events are left out. What the generation shows by now says nothing about it.
        self._after = start.revision if start.ahead else 0
        self._error = start.error
        self._failed = False  # the error was raised
        self._interval = bookmark_interval
        self._deadline = None if lifetime is None else time.monotonic() + lifetime
        self._bookmark_due = self._next_bookmark()
        self._callback: Callable[[], None] | None = None
        #: Whether nothing but the log is to be looked at.
        self.plain = False
        self._settle()

    @property
    def resource_version(self) -> str:
        return "" if self._initial is not None else str(self.position)

    def poll(self, timeout: float | None = None) -> tuple[Event[T], ...] | None:
        events = self._take_plain() if self.plain else ()
        if not events:
            events = self._take()
            if not events and timeout != 0:
                events = self._wait(timeout)
        callback = self._callback
        if callback is not None:
            if self.plain:
                self._generation.arm(self, callback)
            else:
                self._arm(callback)
        return events or None

    def on_readable(self, callback: Callable[[], None] | None) -> None:
        self._callback = callback
        if callback is None:
            self._generation.disarm(self)
        else:
            self._arm(callback)

    def close(self) -> None:
        told = self._generation.release(self)
        self._replayed()
        if told is not None:
            told()

    def _take_plain(self) -> tuple[Event[T], ...]:
        """What most polls find, which is what the view has ready; () leaves it to ``_take``. Kept
        short: it is the cost of a delivery."""
        generation = self._generation
        head, revision = generation.shown
        cursor, view = self.cursor, self.view
        if cursor >= head or generation.ended is not None:
            return ()
        memo = view.memo
        if memo is not None and memo[0] == cursor and memo[1] == head:
            reading = memo[2]
        else:
            reading = view.read(cursor, head)
        if reading.cursor != head or reading.lost:
            return ()
        self.position = revision
        self.cursor = head
        return reading.events

    def _settle(self) -> None:
        """Note whether polls have anything to look at besides the log, now that it may be less."""
        self.pending = self._initial is not None or self._error is not None
        self.plain = not (
            self.pending
            or self._after
            or self._interval
            or self.progress
            or self._deadline is not None
            or self.view.config.resource_type.copy is not None
        )
        if self.closed:  # by another thread, maybe meanwhile
            self.end()

    def end(self) -> None:
        super().end()
        self.plain = False

    def _arm(self, callback: Callable[[], None]) -> None:
        self._generation.arm(self, callback)
        due = self._due()
        if due is not None and not self.timed:
            self.timed = True
            self._generation.call_at(due, self)

    def _due(self) -> float | None:
        moments = [each for each in (self._deadline, self._bookmark_due) if each is not None]
        return min(moments, default=None)

    def _wait(self, timeout: float | None) -> tuple[Event[T], ...]:
        timeout = check_poll(timeout)
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            waiter = threading.Event()
            self._generation.arm(self, waiter.set)
            moments = [each for each in (end, self._due()) if each is not None]
            left = max(0.0, min(moments) - time.monotonic()) if moments else None
            try:
                waiter.wait(left)
            finally:
                self._generation.disarm(self)
            events = self._take()
            if events or (end is not None and time.monotonic() >= end):
                return events

    def _take(self) -> tuple[Event[T], ...]:
        """What there is now; raises how the watch ends."""
        if self.pending or self._deadline is not None:
            events = self._first()
            if events:
                return events
        generation = self._generation
        ended = generation.ended  # before the rest: then all there was is shown
        if isinstance(ended, Closed):
            self._fail(ended)  # who closes does not want what is left
        head, revision = generation.shown
        events = ()
        if self.cursor < head:
            events = self._read(head, revision)
        elif revision > self.position:
            self.position = revision
        if events:
            if self._interval:
                self._bookmark_due = self._next_bookmark()
            return events
        if ended is not None:
            self._fail(ended)
        return self._bookmark()

    def _first(self) -> tuple[Event[T], ...]:
        """What comes before the log."""
        if self._error is not None and (self._failed or not self.closed):
            self._fail(self._error)
        if self._deadline is not None and time.monotonic() >= self._deadline:
            self.close()
        if self.closed:
            raise Closed("the watch was closed")
        if self._initial is None:
            return ()
        events, self._initial_at = self._initial.page(self._initial_at, _PAGE)
        if self._initial_at < 0:
            self._initial = None
            self._settle()
            self._replayed()
        return events

    def _replayed(self) -> None:
        if self.replays:
            self._generation.replayed(self)

    def _read(self, head: int, revision: int) -> tuple[Event[T], ...]:
        if self._after:
            segment = self._generation.log.segment
            if segment.floor <= self._after:  # what is dropped was not to be shown
                self.cursor = max(self.cursor, segment.base)
            reading = self.view.read_after(self.cursor, head, self._after)
            if revision >= self._after and reading.error is None:
                self._after = 0
                self._settle()
        else:
            reading = self.view.read(self.cursor, head)
        if reading.error is not None:
            self._fail(reading.error)
        if reading.lost:
            self._generation.terminated()
            self._fail(
                Expired(
                    "the watch fell behind what the cache remembers; list again and watch from "
                    "there",
                    resource_version=str(self._generation.revision),
                )
            )
        return self._advance(reading, head, revision)

    def _advance(self, reading: Reading[T], head: int, revision: int) -> tuple[Event[T], ...]:
        events = reading.events
        copy = self.view.config.resource_type.copy
        if copy is not None:
            events = tuple(
                [
                    Event(e.type, copy(e.object), e.resource_version) if e.error is None else e
                    for e in events
                ]
            )
        if events:
            self._told = reading.last
        # Progress that is to be told is not shown before; nor what lies behind an error.
        to_tell = events and (self.progress or reading.cursor != head)
        self.position = max(self.position, reading.last if to_tell else revision)
        self.cursor = reading.cursor
        return events

    def _next_bookmark(self) -> float | None:
        """After the interval, or shortly before the watch's end; then none. (BOOK-1)"""
        if not self._interval:
            return None
        now = time.monotonic()
        due = now + self._interval
        if self._deadline is None or due <= self._deadline - _BEFORE_END:
            return due
        last = self._deadline - _BEFORE_END
        return last if now < last else None

    def _bookmark(self) -> tuple[Event[T], ...]:
        """One that is due, or that tells of progress. (BOOK-1 to BOOK-3)"""
        due = self._bookmark_due is not None and time.monotonic() >= self._bookmark_due
        if not due and not (self.progress and self.position > self._told):
            return ()
        self._bookmark_due = self._next_bookmark()
        self._told = self.position
        obj = self.view.config.resource_type.bookmark(self.position)
        return (Event(EventType.BOOKMARK, obj, str(self.position)),)

    def _fail(self, error: StorageError) -> None:
        self._error, self._failed = error, True
        self._settle()
        self.close()
        # Many watches end with one error.
        raise fresh_copy(error, self.view.scope.removesuffix("/")) from error.__cause__
