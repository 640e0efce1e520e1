"""Calls of the main thread, executed by other threads.

An exception from a signal handler, such as Ctrl-C, can occur in the main thread at any instruction.
Within a call of grpc it leaves the channel's lock held, and every other thread then waits for it
for ever. So the main thread passes its calls to workers and waits; its own steps meanwhile are
single steps of the interpreter, and an exception comes before or after each. The other threads call
by themselves.
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
#: Seconds between two checks whether there is still a worker for the call.
_LOOK = 1.0
#: The most workers that wait for calls.
_SPARE = 2


class _Job(Generic[T]):
    """A call, and its outcome once ``done`` has been released."""

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


class MainThreadCalls:
    """Workers for the main thread, which take jobs from one queue; None in the queue ends one
    worker.

    Every step of the main thread is a single one of the interpreter, so an exception before or
    after it loses nothing. While one worker is busy, another is idle: a call that was interrupted
    runs until it ends by itself, and the next call does not wait for it.
    """

    def __init__(self) -> None:
        self._main = threading.main_thread().ident
        self._jobs: SimpleQueue[_Job[Any] | None] = SimpleQueue()
        # Changed and copied in single steps; the second one has an entry for each worker that waits
        # for a job.
        self._workers: set[threading.Thread] = set()
        self._waiting: list[None] = []
        self._closed = False

    def run(self, work: Callable[[], T]) -> T:
        """Call ``work`` and return its result or raise its error.

        In the main thread a worker calls it. An exception of a signal handler then comes out at
        once, and the call runs on, but nobody waits for it.
        """
        if threading.get_ident() != self._main:
            return work()
        if not self._workers:
            self._hire()
        job = _Job(work)
        self._jobs.put(job)
        while not job.done.acquire(timeout=_LOOK):
            if self._closed and not self._workers:
                raise Closed("the backend is closed")
        if job.error is not None:
            try:
                raise job.error
            finally:
                del job  # whose error keeps this frame
        return job.result  # type: ignore[return-value]

    def _hire(self) -> None:
        start_thread(self._serve, "revstore-etcd3-call")

    def _serve(self) -> None:
        me = threading.current_thread()
        self._workers.add(me)
        try:
            while not self._closed:
                self._waiting.append(None)
                job = self._jobs.get()
                self._waiting.pop()
                if job is None:
                    return
                if not self._waiting:
                    with contextlib.suppress(BackendError):  # no room for a thread
                        self._hire()
                job.do()
                job.done.release()
                del job
                if len(self._waiting) >= _SPARE:
                    return
        finally:
            self._workers.discard(me)

    def close(self) -> None:
        """End the workers. Calls under way end when what they wait for ends."""
        self._closed = True
        workers = list(self._workers)
        for _ in workers:
            self._jobs.put(None)
        for worker in workers:
            if worker is not threading.current_thread():
                worker.join(_PATIENCE)
