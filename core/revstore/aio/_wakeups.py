"""Wake-ups of an event loop from any thread: one for all that comes at once."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections import deque

__all__ = ["Wakeups", "wakeups_of"]

# Tasks that go on in one step of the loop. Each costs the loop a handle until it runs: more of them
# at once would trigger the garbage collector.
_AT_ONCE = 256


class Wakeups:
    """The futures of one loop whose tasks are to go on.

    Any thread puts a future into ``ready`` and then, if not ``scheduled``, calls ``schedule``. No
    lock is needed: a thread adds a future before it looks at the flag, and the loop clears the flag
    before it empties the queue. So at worst a future is found twice.
    """

    __slots__ = ("_loop", "ready", "scheduled")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)
        self.ready: deque[asyncio.Future[None]] = deque()
        self.scheduled = False

    def schedule(self) -> None:
        """Have the loop empty the queue; do nothing if it is closed, since nobody waits on it any
        more."""
        self.scheduled = True
        loop = self._loop()
        try:
            if loop is not None:
                loop.call_soon_threadsafe(self._empty)
                return
        except RuntimeError:  # closed, perhaps just now
            pass
        self.scheduled = False
        self.ready.clear()

    def _empty(self) -> None:
        self.scheduled = False
        ready = self.ready
        for _ in range(min(len(ready), _AT_ONCE)):
            waiter = ready.popleft()
            if not waiter.done():
                waiter.set_result(None)
        if ready and not self.scheduled:
            self.schedule()


_lock = threading.Lock()  # guards _of_loop
_of_loop = weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Wakeups]()


def wakeups_of(loop: asyncio.AbstractEventLoop) -> Wakeups:
    """Return the ``Wakeups`` that all watches of a loop share."""
    with _lock:
        found = _of_loop.get(loop)
        if found is None:
            found = _of_loop[loop] = Wakeups(loop)
        return found
