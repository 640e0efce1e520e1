"""A watch for the tasks of an event loop."""

from __future__ import annotations

import abc
import asyncio
import math
import os
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Generic, Protocol, Self, TypeVar

from revstore.aio._wakeups import wakeups_of
from revstore.deadlines import check_poll
from revstore.errors import Closed
from revstore.storage import Event

__all__ = ["AsyncClosing", "AsyncWatch", "Readable"]

T = TypeVar("T")

# Watches on which the child of a fork would wait for ever.
_open: weakref.WeakSet[AsyncWatch[Any]] = weakref.WeakSet()
_NONE_LEFT: Iterator[Any] = iter(())


class Readable(Protocol[T]):
    """The part of ``Watch`` that is needed: it reports when it is readable. ``poll`` is only called
    with 0 and does not wait."""

    def poll(self, timeout: float, /) -> tuple[Event[T], ...] | None: ...

    def on_readable(self, callback: Callable[[], None] | None, /) -> None: ...

    @property
    def resource_version(self) -> str: ...

    def close(self) -> None: ...


class AsyncClosing(abc.ABC):
    """Base of classes whose instances are closed when an ``async with`` block ends."""

    __slots__ = ()

    @abc.abstractmethod
    async def close(self) -> None:
        """Release all resources. Idempotent."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class AsyncWatch(AsyncClosing, Generic[T]):
    """A running watch, see ``revstore.storage.Watch``: the same events in the same order, and the
    same ends. ``watch`` of an ``AsyncStorage`` or ``AsyncRegistry`` opens it.

    It belongs to the loop in which it was opened, and one task may wait on it at a time; otherwise
    it raises ``RuntimeError``. A task that waits can be cancelled: no event is lost, and the next
    poll or iteration gets them. An iteration that was left goes on where it stopped.
    """

    __slots__ = ("__weakref__", "_left", "_loop", "_told", "_waiter", "_wakeups", "_watch")

    def __init__(self, watch: Readable[T]) -> None:
        self._watch = watch
        self._loop = asyncio.get_running_loop()
        self._wakeups = wakeups_of(self._loop)
        #: What an iteration has taken from the watch and not returned yet.
        self._left: Iterator[Event[T]] = _NONE_LEFT
        #: Whether a poll may find something. Set in any thread, cleared before a poll.
        self._told = True
        #: The future that the waiting task waits for.
        self._waiter: asyncio.Future[None] | None = None
        watch.on_readable(self._tell)
        _open.add(self)

    async def poll(self, timeout: float | None = None) -> tuple[Event[T], ...] | None:
        """Wait for the next events, at most ``timeout`` seconds; return None if there were none.

        0 does not wait, None waits without end. It raises the errors of ``Watch.poll``. If the
        storage has no cache, a thread reads ahead, up to a few hundred events; 0 returns what it
        has read.
        """
        timeout = check_poll(timeout)
        end = math.inf if timeout is None else self._loop.time() + timeout
        events: tuple[Event[T], ...] = ()
        try:
            events = tuple(self._left)
            if not events and self._told:
                await asyncio.sleep(0)  # a busy watch lets other tasks run too
                events = self._take()
            while not events and (left := end - self._loop.time()) > 0:
                await self._wait_for(left)
                events = self._take()
            return events or None
        except BaseException:
            if events:  # an interrupt came
                self._left = iter(events)
            raise

    @property
    def resource_version(self) -> str:
        """The same as ``Watch.resource_version``: a watch from here goes on after all that ``poll``
        has delivered.

        If you leave an iteration in the middle for good, go on from the version of the last event
        that you have handled instead.
        """
        return self._watch.resource_version

    async def close(self) -> None:
        """End the watch: a task that waits on it gets ``Closed``, or its iteration ends.

        It is idempotent, never raises, and does not wait.
        """
        self._left = _NONE_LEFT
        self._watch.close()
        self._tell()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event[T]:
        # All in one coroutine: each further one costs memory for every task that waits.
        while True:
            # On one line, so that no interrupt comes in between.
            for event in self._left: return event  # noqa: E701  # fmt: skip
            await (asyncio.sleep(0) if self._told else self._wait())  # see poll
            try:
                self._left = iter(self._take())
            except Closed:
                raise StopAsyncIteration from None

    def _take(self) -> tuple[Event[T], ...]:
        if not self._told:
            return ()
        self._told = False  # first: the poll asks for the next call, which may come at once
        try:
            return self._watch.poll(0) or ()
        except BaseException:
            self._told = True  # it will be raised again, without another call
            raise

    async def _wait_for(self, seconds: float) -> None:
        waiter = self._wait()
        if seconds == math.inf:
            await waiter
            return
        timer = self._loop.call_later(seconds, _resolve, waiter)
        try:
            await waiter
        finally:
            timer.cancel()

    def _wait(self) -> asyncio.Future[None]:
        """Return a future that is done when a poll may find something."""
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            raise RuntimeError("another task is already waiting for this watch")
        waiter = self._waiter = self._loop.create_future()
        # After the waiter can be found: the thread that calls back has set it, or finds the waiter.
        if self._told:
            waiter.set_result(None)
        return waiter

    def in_child(self) -> None:
        """Have a waiting task look again in the child of a fork, where no thread reports that the
        watch is closed."""
        self._tell()

    def _tell(self) -> None:
        """Wake the task that waits, since a poll may find something; any thread may call this."""
        self._told = True
        waiter = self._waiter
        if waiter is not None:
            wakeups = self._wakeups
            wakeups.ready.append(waiter)
            if not wakeups.scheduled:
                wakeups.schedule()


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _after_fork_in_child() -> None:
    for watch in list(_open):
        watch.in_child()


os.register_at_fork(after_in_child=_after_fork_in_child)
