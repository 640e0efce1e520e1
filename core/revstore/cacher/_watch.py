"""A watch over the shared log: a cursor and a view."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from revstore.cacher._generation import Generation
from revstore.cacher._view import Listener, Reading
from revstore.cacher._watch_start import WatchStart
from revstore.deadlines import check_poll
from revstore.errors import Closed, Expired, StorageError
from revstore.onlookers import shown_to
from revstore.raising import fresh_copy
from revstore.resource_type import ResourceType
from revstore.storage import Event, EventType, Watch
from revstore.threads import Wake

__all__ = ["CacheWatch"]

T = TypeVar("T")

_CALLBACK = "the callback of a watch"
# The most initial objects that one poll returns.
_PAGE = 500
# Seconds before its end at which a watch gets its last bookmark.
_BEFORE_END = 2.0


class CacheWatch(Listener[T], Watch[T]):
    """A watch over the shared log. Except for ``close``, only the polling thread uses its state.

    A poll that is interrupted, by Ctrl-C or by what a user's function raises, leaves the watch
    unchanged: the next one finds the same events, and a callback that waits is called again.
    """

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
        "_periodic",
        "_replaced",
        "_resource_type",
        "plain",
    )

    def __init__(
        self,
        generation: Generation[T],
        resource_type: ResourceType[T],
        start: WatchStart[T],
        *,
        deadline: float | None,
        bookmark_interval: float,
        periodic: bool,
        progress: bool,
    ) -> None:
        super().__init__(
            start.cursor, start.revision, progress=progress, replays=start.initial is not None
        )
        if self.at == generation.shown:
            self.at = generation.shown  # one for all idle watches
            self.told = self.at[1]
        self._generation = generation
        self._resource_type = resource_type
        self._initial = start.initial
        self._initial_at = 0
        # Until then events are left out. What the generation shows by now says nothing about it.
        self._after = start.revision if start.ahead else 0
        self._error = start.error
        self._failed = False  # the error was raised
        self._interval = bookmark_interval if periodic or progress else 0.0
        self._periodic = periodic  # bookmarks come whether there is progress or not
        self._deadline = deadline
        self._bookmark_due = self._next_bookmark()
        self._callback: Callable[[], None] | None = None
        # Whether the generation may not have the callback, as while a poll waits.
        self._replaced = False
        #: Whether polls look at nothing but the log.
        self.plain = False

    @property
    def resource_version(self) -> str:
        if self._initial is not None:
            return ""
        # Progress that is to be reported is not shown before.
        return str(self.told if self.progress else self.at[1])

    @property
    def callback(self) -> Callable[[], None] | None:
        return self._callback

    def poll(self, timeout: float | None = None) -> tuple[Event[T], ...] | None:
        # On one line with the "try", so that no interrupt comes before it.
        try: return self._poll_plain(timeout) if self.plain else self._poll(timeout)  # noqa: E701  # fmt: skip
        except BaseException as error:
            callback = self._callback
            if callback is not None and not isinstance(error, StorageError):
                shown_to(_CALLBACK, callback)  # the events are still there
            raise

    def on_readable(self, callback: Callable[[], None] | None) -> None:
        self._replace_callback()
        self._callback = callback
        if callback is not None:
            self._arm(callback)
            return
        self._generation.disarm(self)
        self._replaced = False
        self.settle()

    def close(self) -> None:
        told = self._generation.release(self)
        if told is not None:
            shown_to(_CALLBACK, told)
            self._generation.disarm(self)

    def settle(self) -> None:
        """Note whether polls have to look at anything besides the log; there may be less to look at
        now."""
        self.pending = self._initial is not None or self._error is not None
        self.plain = not (
            self.pending
            or self._replaced
            or self._after
            or self._interval
            or self._deadline is not None
            or self._resource_type.copy is not None
        )
        if self.closed:  # by another thread, perhaps meanwhile
            self.end()

    def end(self) -> None:
        super().end()
        self.plain = False

    def _poll_plain(self, timeout: float | None) -> tuple[Event[T], ...] | None:
        """Return what the view has ready, which is what most polls find; else call ``_poll``.

        It is short because it is the cost of a delivery.
        """
        generation = self._generation
        before, shown, view = self.at, generation.shown, self.view
        cursor, head = before[0], shown[0]
        if cursor < head and generation.ended is None and view is not None:
            memo = view.memo
            if memo is not None and memo[0] == cursor and memo[1] == head:
                reading = memo[2]
            else:
                reading = view.read(cursor, head)
            if reading.events and reading.cursor == head:
                try:
                    self.at = shown
                    if view.head > head and self._callback is not None:  # meanwhile
                        generation.arm(self, self._callback)
                    return reading.events
                except BaseException:
                    self.at = before
                    raise
        return self._poll(timeout)

    def _poll(self, timeout: float | None) -> tuple[Event[T], ...] | None:
        end: float | None = 0.0  # whose time has passed
        if timeout != 0:
            timeout = check_poll(timeout)
            end = None if timeout is None else time.monotonic() + timeout
        before = self.at, self.told, self._bookmark_due, self._initial, self._initial_at, self._after  # noqa: E501  # fmt: skip
        try:
            while not (events := self._take()) and (end is None or time.monotonic() < end):
                before = self._noted()
                self._wait(end)
            if self._callback is not None:
                self._arm(self._callback)
            return events or None
        except BaseException:
            self._go_back(before)
            raise

    def _noted(self) -> tuple[Any, ...]:
        """Return all that a poll changes, for ``_go_back``."""
        return self.at, self.told, self._bookmark_due, self._initial, self._initial_at, self._after

    def _go_back(self, noted: tuple[Any, ...]) -> None:
        if not self.closed:
            (
                self.at,
                self.told,
                self._bookmark_due,
                self._initial,
                self._initial_at,
                self._after,
            ) = noted
            self.settle()

    def _replace_callback(self) -> None:
        """Have the next poll give the callback to the generation again."""
        self._replaced = True
        self.plain = False

    def _arm(self, callback: Callable[[], None]) -> None:
        waits = self._generation.arm(self, callback)
        if waits is self._replaced:
            self._replaced = not waits
            self.settle()
        due = self._due()
        if due is not None and not self.timed:
            self._generation.call_at(due, self)

    def _due(self) -> float | None:
        moments = [each for each in (self._deadline, self._bookmark_due) if each is not None]
        return min(moments, default=None)

    def _wait(self, end: float | None) -> None:
        """Wait until there may be something to deliver, or until ``end``."""
        waiter = Wake()
        moments = [each for each in (end, self._due()) if each is not None]
        if self._callback is not None:
            self._replace_callback()
        try:
            self._generation.arm(self, waiter.set)
            left = max(0.0, min(moments) - time.monotonic()) if moments else None
            waiter.wait(left)
        finally:
            self._generation.disarm(self)

    def _take(self) -> tuple[Event[T], ...]:
        """Return the available events; raise the error that ends the watch."""
        if self.pending or self._deadline is not None:
            events = self._first()
            if events:
                return events
        generation = self._generation
        ended = generation.ended  # before the rest: then all there was is shown
        if isinstance(ended, Closed):
            self._fail(ended)  # a caller that closes does not want what is left
        shown = generation.shown
        events = ()
        if self.at[0] < shown[0]:
            events = self._read(shown)
        elif shown[1] > self.at[1]:
            self.at = self.at[0], shown[1]
        if events:
            if self._interval:
                self._bookmark_due = self._next_bookmark()
            return events
        if ended is not None:
            self._fail(ended)
        return self._bookmark() if self._interval else ()

    def _first(self) -> tuple[Event[T], ...]:
        """Return the events before those of the log."""
        if self._error is not None and (self._failed or not self.closed):
            self._fail(self._error)
        if self._deadline is not None and time.monotonic() >= self._deadline:
            self.close()
        if self.closed:
            self._end_initial()
            raise Closed("the watch was closed")
        if self._initial is None:
            return ()
        ended = self._generation.ended
        if isinstance(ended, Closed):  # as by a fork: its caller does not want what is left
            self._fail(ended)
        events, self._initial_at = self._initial.page(self._initial_at, _PAGE)
        if self._initial_at < 0:
            self._end_initial()
        return events

    def _end_initial(self) -> None:
        self._initial = None
        self.settle()
        if self.replays:
            self._generation.replayed(self)

    def _read(self, shown: tuple[int, int]) -> tuple[Event[T], ...]:
        view, head = self.view, shown[0]
        assert view is not None
        cursor = self.at[0]
        if self._after:
            segment = self._generation.log.segment
            if segment.floor <= self._after:  # what is dropped was not meant to be shown
                cursor = max(cursor, segment.base)
            reading = view.read_after(cursor, head, self._after)
            if shown[1] >= self._after and reading.error is None:
                self._after = 0
                self.settle()
        else:
            reading = view.read(cursor, head)
        if reading.error is not None:
            self._fail(reading.error)
        if reading.lost:
            self._generation.terminated()
            self._fail(
                Expired(
                    "the watch fell behind the history in the cache; list again and watch from "
                    "there",
                    resource_version=str(self._generation.revision),
                )
            )
        return self._advance(reading, shown)

    def _advance(self, reading: Reading[T], shown: tuple[int, int]) -> tuple[Event[T], ...]:
        events = reading.events
        copy = self._resource_type.copy
        if copy is not None:
            events = tuple(
                [
                    Event(e.type, copy(e.object), e.resource_version) if e.error is None else e
                    for e in events
                ]
            )
        if events:
            self.told = reading.last
        # What comes after an error is not shown before it.
        position = reading.last if events and reading.cursor != shown[0] else shown[1]
        self.at = reading.cursor, max(self.at[1], position)
        return events

    def _next_bookmark(self) -> float | None:
        """Return the time of the next bookmark: after the interval, or shortly before the watch's
        end; None after that. (BOOK-1)"""
        if not self._interval:
            return None
        now = time.monotonic()
        due = now + self._interval
        if self._deadline is None or due <= self._deadline - _BEFORE_END:
            return due
        last = self._deadline - _BEFORE_END
        return last if now < last else None

    def _bookmark(self) -> tuple[Event[T], ...]:
        """Return a bookmark that is due or was requested. (BOOK-1 to BOOK-3)"""
        position = self.at[1]
        if self.progress and self.told < self._generation.marked:
            due = position > self.told
        elif self._bookmark_due is None or time.monotonic() < self._bookmark_due:
            return ()
        else:
            due = self._periodic or position > self.told
        self._bookmark_due = self._next_bookmark()
        self.told = max(position, self.told)
        if not due:
            return ()
        obj = self._resource_type.bookmark(position)
        return (Event(EventType.BOOKMARK, obj, str(position)),)

    def _fail(self, error: StorageError) -> None:
        self._error, self._failed = error, True
        self.settle()
        self.close()
        view = self.view
        named = "" if view is None else view.scope.removesuffix("/")
        # Many watches end with the same error.
        raise fresh_copy(error, named) from error.__cause__
