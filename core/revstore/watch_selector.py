"""One thread serves many watches: it learns which of them have something, and polls only those.

::

    with WatchSelector() as selector:
        for name in names:
            selector.add(pods.watch(namespace=name), name)
        while True:
            for watch, name in selector.select():
                for event in watch.poll(0) or ():
                    print(name, event.type)

For asyncio see ``revstore.aio``.
"""

from __future__ import annotations

import queue
import threading
from itertools import repeat, starmap
from types import MethodType
from typing import Any

from revstore.closing import Closing
from revstore.deadlines import Deadline, check_poll
from revstore.errors import InvalidArgument
from revstore.forks import OpenGuard
from revstore.raising import ignoring
from revstore.storage import Watch
from revstore.threads import slices

__all__ = ["WatchSelector"]


class WatchSelector(Closing):
    """Selects, out of many watches, those that have something to poll.

    One thread calls ``select`` and polls the watches that it returns; all other methods may be
    called from any thread. The watches belong to the caller: the selector never polls or closes
    one.
    """

    def __init__(self) -> None:
        # Only a C function runs in the thread of the writer, and nothing is locked there.
        self._told: queue.SimpleQueue[Watch[Any] | None] = queue.SimpleQueue()
        self._tell = self._told.put
        # What was reported and not returned yet; only the thread that selects uses it.
        self._taken: list[Watch[Any] | None] = []
        self._lock = threading.Lock()  # guards _served
        # Each with what select returns for it, created once.
        self._served: dict[Watch[Any] | None, tuple[Watch[Any], Any]] = {}
        self._guard = OpenGuard(self, what="watch selector", in_child=WatchSelector._in_child)

    def __len__(self) -> int:
        """Return how many watches it serves."""
        return len(self._served)

    def add(self, watch: Watch[Any], data: object = None) -> None:
        """Serve one more watch; ``select`` returns ``data`` with it.

        Raises:
            Unsupported: the watch cannot report when it is readable, as those of a storage without
                a cache.
            InvalidArgument: this or another selector serves it already.
            Closed: the selector is closed.
        """
        self._guard.check()
        with self._lock:
            self._guard.check()
            if watch in self._served or watch.callback is not None:
                raise InvalidArgument("watch", watch, "a watch that no selector serves yet")
            try:
                self._served[watch] = watch, data
                # Under the lock, so that a removal meanwhile comes before or after both. The method
                # does what a partial does, with a third of its memory.
                watch.on_readable(MethodType(self._tell, watch))
            except BaseException:
                del self._served[watch]
                watch.on_readable(None)
                raise

    def remove(self, watch: Watch[Any]) -> None:
        """Stop serving the watch; from here on ``select`` does not return it.

        Do nothing if it is not served. Remove a watch that has ended, too.
        """
        self._guard.check()
        with self._lock:
            if watch in self._served:
                watch.on_readable(None)
                del self._served[watch]

    def select(self, timeout: float | None = None) -> list[tuple[Watch[Any], Any]]:
        """Return the watches that have something to poll, each once, with their data, in the order
        in which they got it.

        Wait at most ``timeout`` seconds, None without end, 0 not at all; return an empty list if
        there was none. Poll each returned watch once with ``poll(0)``; it may find nothing, or
        raise the error that ended the watch. A watch is not returned again before it has been
        polled. If this call is interrupted, the next one returns what it would have returned.

        Raises:
            Closed: the selector is closed, perhaps during this call.
        """
        deadline = Deadline(check_poll(timeout), "")
        taken = self._taken
        while True:
            self._guard.check()
            if not (taken or self._told.qsize() or self._wait(deadline.rest())):
                return []
            # From here on no byte code for each watch: this is the cost of an event.
            taken.extend(starmap(self._told.get_nowait, repeat((), self._told.qsize())))
            with self._lock:
                # A watch may report once too often, and may have been removed since.
                found = list(filter(None, map(self._served.get, dict.fromkeys(taken))))
            kept = taken[:]
            try:
                taken.clear()
                if found:
                    return found
            except BaseException:
                taken[:] = kept
                raise

    def _wait(self, timeout: float | None) -> bool:
        """Wait until a watch has told, and add it to ``_taken``; return False if none has."""
        for seconds in slices(timeout):
            with ignoring(queue.Empty):
                # One call in C, so that no interrupt comes between the two steps.
                self._taken.extend(starmap(self._told.get, ((True, seconds),)))
                return True
        return False

    def close(self) -> None:
        """Stop serving; the watches stay open, and a ``select`` that waits raises ``Closed``.

        Idempotent; in a child after a fork it does nothing.
        """
        with self._guard.closing():
            pass
        if self._guard.inherited:
            return
        with self._lock:
            self._told.put(None)
            for watch, _ in self._served.values():
                watch.on_readable(None)
            self._served.clear()

    def _in_child(self) -> None:
        self._lock = threading.Lock()
        self._told = queue.SimpleQueue()
