"""Calls of an event loop's tasks that run in threads."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import threading
import weakref
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, Protocol, TypeVar

from revstore.aio._threads import ThreadedWatch
from revstore.aio._watch import AsyncClosing, AsyncWatch, Readable
from revstore.closing import Closing
from revstore.deadlines import check_count
from revstore.errors import Closed, Unsupported
from revstore.forks import OpenGuard
from revstore.storage import Watch
from revstore.threads import start_thread

__all__ = ["Calls", "Opening", "check_threads", "opened_in_thread"]

T = TypeVar("T")
R = TypeVar("R")
C = TypeVar("C", bound="_Closes")
A = TypeVar("A", bound=AsyncClosing)


class _Closes(Protocol):
    def close(self) -> None: ...


def check_threads(threads: int) -> None:
    """Check that ``threads`` is at least 1.

    Raises:
        InvalidArgument: it is not.
    """
    check_count("threads", threads, 1)


class Calls:
    """Calls of ``target``: at most ``threads`` run at once, and more wait for their turn.

    It also opens the watches that need a thread each. Several loops may use it.
    """

    def __init__(self, target: Closing, threads: int) -> None:
        check_threads(threads)
        self._target = target
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="revstore-aio")
        self._lock = threading.Lock()  # guards _threaded and _closing
        self._threaded: list[ThreadedWatch[Any]] = []
        self._closing: tuple[Future[None], threading.Thread] | None = None
        self._guard = OpenGuard(self, what="storage", in_child=Calls._in_child)

    async def run(self, call: Callable[[], R]) -> R:
        """Return the result of ``call`` or raise its error.

        A call that is cancelled before its turn never runs. One that is cancelled later runs on,
        and its outcome is discarded.
        """
        return await _wrapped(self._submit(call))

    async def watch(self, call: Callable[[], Watch[T]]) -> AsyncWatch[T]:
        """Return the watch that ``call`` opens; close it if this is cancelled meanwhile."""
        return AsyncWatch(await _kept(self._submit(lambda: self._readable(call()))))

    async def close(self) -> None:
        """Close the target, then end the threads.

        Calls that wait for their turn fail with what the closed target raises. If this is
        cancelled, it goes on in the background. Idempotent.
        """
        if self._guard.inherited:  # the threads are the parent's
            return
        with self._lock:
            if self._closing is None:
                self._closing = _in_own_thread(self._finish)
            done, thread = self._closing
        await _wrapped(done)
        thread.join()  # nothing but its end is left of it

    def _submit(self, call: Callable[[], R]) -> Future[R]:
        self._guard.check()
        context = contextvars.copy_context()
        with self._lock:
            if self._closing is not None:
                raise Closed("the storage was closed")
            return self._pool.submit(context.run, call)

    def _readable(self, watch: Watch[T]) -> Readable[T]:
        try:
            watch.on_readable(None)
        except Unsupported:
            try:
                threaded = ThreadedWatch(watch)
            except BaseException:
                watch.close()
                raise
            with self._lock:
                self._threaded = [each for each in self._threaded if each.running]
                self._threaded.append(threaded)
            return threaded
        return watch

    def _in_child(self) -> None:
        self._lock = threading.Lock()
        for watch in self._threaded:
            watch.in_child(self._guard.ended)

    def _finish(self) -> None:
        try:
            self._target.close()
        finally:
            self._pool.shutdown()
            # No more calls that could open something are under way.
            for watch in self._threaded:
                watch.close()
            for watch in self._threaded:
                watch.join()


class Opening(Generic[A]):
    """Something that is about to be opened: ``await`` it, or use it in ``async with``, which closes
    it at the end. Nothing happens before that. It can be used once only."""

    def __init__(self, opened: Coroutine[Any, Any, A]) -> None:
        self._opened = opened
        self._entered: A | None = None

    def __await__(self) -> Generator[Any, Any, A]:
        return self._opened.__await__()

    async def __aenter__(self) -> A:
        self._entered = await self._opened
        return self._entered

    async def __aexit__(self, *_: object) -> None:
        assert self._entered is not None
        await self._entered.close()


async def opened_in_thread(opened: Callable[[], C]) -> C:
    """Call ``opened`` in a new thread and return what it returns; if cancelled meanwhile, close
    that."""
    future, _ = _in_own_thread(opened)
    return await _kept(future)


async def _kept(future: Future[C]) -> C:
    try:
        return await _wrapped(future)
    except asyncio.CancelledError:
        future.add_done_callback(_close_result)
        raise


# Futures that tasks wait for, and that no thread in the child of a fork will complete.
_awaited: weakref.WeakSet[asyncio.Future[Any]] = weakref.WeakSet()


def _wrapped(future: Future[R]) -> asyncio.Future[R]:
    wrapped = asyncio.wrap_future(future)
    _awaited.add(wrapped)
    return wrapped


def _after_fork_in_child() -> None:
    for future in list(_awaited):
        with contextlib.suppress(RuntimeError):  # its loop is closed
            future.get_loop().call_soon_threadsafe(_end_in_child, future)


def _end_in_child(future: asyncio.Future[Any]) -> None:
    if not future.done():
        future.set_exception(
            Closed("the call was made before a fork; repeat it in the child process")
        )


os.register_at_fork(after_in_child=_after_fork_in_child)


def _close_result(future: Future[Any]) -> None:
    if not future.cancelled() and future.exception() is None:
        future.result().close()


def _in_own_thread(call: Callable[[], R]) -> tuple[Future[R], threading.Thread]:
    future: Future[R] = Future()
    future.set_running_or_notify_cancel()  # so that nothing can cancel it

    def run() -> None:
        try:
            result = call()
        except BaseException as error:  # noqa: BLE001 - passed to the task that waits
            future.set_exception(error)
        else:
            future.set_result(result)

    return future, start_thread(run, "revstore-aio")
