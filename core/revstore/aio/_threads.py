"""Threads of the asyncio facade: one for each watch that cannot report when it is readable."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

import attrs

from revstore.errors import Closed
from revstore.onlookers import shown_to
from revstore.storage import Event, Watch
from revstore.threads import start_thread

__all__ = ["ThreadedWatch"]

T = TypeVar("T")


# How many events are read ahead, not counting the rest of the last poll.
_AHEAD = 500
# Seconds after which the position of a quiet watch is read.
_GLANCE = 5.0


@attrs.frozen(slots=True)
class _Answer(Generic[T]):
    events: tuple[Event[T], ...]
    version: str


class ThreadedWatch(Generic[T]):
    """Makes a watch readable: a thread polls it, keeps the result until it is taken, and only then
    polls again. The thread ends with the watch."""

    def __init__(self, watch: Watch[T]) -> None:
        self._watch = watch
        self._lock = threading.Lock()  # guards _found and _callback
        self._found: _Answer[T] | BaseException | None = None
        self._callback: Callable[[], None] | None = None
        # Written by the thread while nothing is found, else by the caller that takes it.
        self._version = watch.resource_version
        self._turns: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._thread = start_thread(self._run, "revstore-aio-watch")

    @property
    def resource_version(self) -> str:
        return self._version

    def poll(self, _timeout: float = 0, /) -> tuple[Event[T], ...] | None:
        """Return the thread's findings; do not wait."""
        with self._lock:
            found, version = self._found, self._version
            if found is None:
                return None
            if isinstance(found, BaseException):
                raise found
        try:
            with self._lock:
                if self._found is found:
                    self._found, self._version = None, found.version
            # On one line, so that no interrupt comes in between.
            self._turns.put(None); return found.events  # noqa: E702  # fmt: skip
        except BaseException:
            with self._lock:
                if self._found is None:
                    self._found, self._version = found, version
            raise

    def on_readable(self, callback: Callable[[], None] | None) -> None:
        """Set the callback, as ``Watch.on_readable`` does."""
        with self._lock:
            self._callback = callback
            found = self._found
        if callback is not None and found is not None:
            callback()

    def close(self) -> None:
        """End the watch, and soon afterwards the thread."""
        self._watch.close()
        with self._lock:
            # Events that were found and not taken are lost at the end, as with any watch.
            if not isinstance(self._found, BaseException):
                self._found = Closed("the watch was closed")
        self._turns.put(None)

    def in_child(self, why: str) -> None:
        """End it in the child of a fork, where its thread does not exist."""
        self._lock = threading.Lock()
        self._found = Closed(why)

    @property
    def running(self) -> bool:
        """True until its thread has ended."""
        return self._thread.is_alive()

    def join(self) -> None:
        """Wait for the thread's end, after ``close``."""
        self._thread.join()

    def _run(self) -> None:
        while True:
            found = self._look()
            with self._lock:
                if not isinstance(self._found, BaseException):
                    self._found = found
                callback = self._callback
            if callback is not None:
                shown_to("the callback of a watch", callback)
            if isinstance(found, BaseException):
                return
            self._turns.get()

    def _look(self) -> _Answer[T] | BaseException:
        watch = self._watch
        try:
            while not (first := watch.poll(_GLANCE)):
                self._version = watch.resource_version
        except BaseException as error:  # noqa: BLE001 - passed to the poll
            return error
        events = list(first)
        try:
            while len(events) < _AHEAD and (more := watch.poll(0)):
                events += more
        except BaseException:  # noqa: BLE001, S110 - the next poll raises it, after the events
            pass
        return _Answer(tuple(events), watch.resource_version)
