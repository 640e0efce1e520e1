"""Calls of the main thread, done by other threads.

An exception from a signal handler, as Ctrl-C, can strike the main thread at any instruction. Within
a call of grpc it leaves the channel's lock held, on which every other thread then waits for ever.
So the main thread hands its calls to workers and waits; what it does meanwhile are single steps of
the interpreter, which an exception comes before or after. The other threads call by themselves.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from revstore.errors import BackendError, Closed
from revstore.threads import start_thread

__all__ = ["MainThreadCalls"]

T = TypeVar("T")
#: Seconds that ``close`` waits for a worker.
_PATIENCE = 0.5


class _Job(Generic[T]):
    """A call, and what came of it once ``done`` has been released."""

    __slots__ = ("_work", "done", "error", "result")

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self.result: T | None = None
        self.error: BaseException | None = None
        self.done = threading.Lock()
        self.done.acquire()

    def do(self) -> None:
        try:
            self.result = self._work()
        except BaseException as error:  # noqa: BLE001 - raised by the thread that waits
            self.error = error


class _Worker:
    """A thread, and its queue, in which None ends it."""

    __slots__ = ("jobs", "thread")

    def __init__(self) -> None:
        self.jobs: SimpleQueue[_Job[Any] | None] = SimpleQueue()
        self.thread: threading.Thread | None = None


class MainThreadCalls:
    """Workers for the main thread. Each field is a list, changed in single steps.

    There is a worker to spare while one works: a call that was interrupted goes on until it ends
    by itself, and the next one does not wait for it, nor does the main thread start a thread.
    """

    def __init__(self) -> None:
        self._main = threading.main_thread().ident
        self._all: list[_Worker] = []
        self._free: list[_Worker] = []
        self._closed = False

    def run(self, work: Callable[[], T]) -> T:
        """Call ``work`` and return what it returns, or raise what it raises.

        In the main thread a worker calls it; an exception of a signal handler then comes out at
        once, and the call goes on without anybody who waits for it.
        """
        if threading.get_ident() != self._main:
            return work()
        job = _Job(work)
        while True:
            try:
                worker = self._free.pop()
                break
            except IndexError:
                self._hire()
        worker.jobs.put(job)
        job.done.acquire()
        if job.error is not None:
            try:
                raise job.error
            finally:
                del job  # whose error keeps this frame
        return job.result  # type: ignore[return-value]

    def _hire(self) -> None:
        if self._closed:
            raise Closed("the backend is closed")
        worker = _Worker()
        self._all.append(worker)
        worker.thread = start_thread(lambda: self._serve(worker), "revstore-etcd3-call")
        self._free.append(worker)

    def _serve(self, worker: _Worker) -> None:
        while (job := worker.jobs.get()) is not None:
            if not self._free:
                with contextlib.suppress(BackendError, Closed):  # closed, or no room for a thread
                    self._hire()
            job.do()
            self._free.append(worker)
            job.done.release()
            del job

    def close(self) -> None:
        """End the workers. Calls that are under way are ended by what they wait for."""
        self._closed = True
        for worker in list(self._all):
            worker.jobs.put(None)
        for worker in list(self._all):
            thread = worker.thread
            if thread is not None and thread is not threading.current_thread():
                thread.join(_PATIENCE)
