"""The wait of a read until the cache is fresh enough for it. (CACHE-10, CACHE-11)"""

from __future__ import annotations

import math
import threading
import time
import weakref
from collections.abc import Callable, Iterable

from revstore.cacher._counters import Counting
from revstore.call_times import Waiting
from revstore.errors import Unsupported
from revstore.threads import Wake

__all__ = ["Freshness"]

# Seconds between two requests for progress while a read waits. (CACHE-11)
_PROGRESS_INTERVAL = 0.1
# Seconds for which the store itself is asked after it did not get the cache to a revision, and
# seconds that a read must have waited before.
_DISTRUST = 30.0
_CHANCE = 1.0


class _Waiter(Wake):
    """Wakes a thread that waits for ``revision``."""

    __slots__ = ("revision",)

    def __init__(self, revision: int) -> None:
        super().__init__()
        self.revision = revision


class Freshness:
    """Reads that wait, ``patience`` seconds at most, until ``revision()`` is high enough.
    ``check_open`` raises once no more changes will come."""

    def __init__(
        self,
        patience: float,
        counting: Counting,
        *,
        revision: Callable[[], int],
        check_open: Callable[[], None],
    ) -> None:
        self._patience = patience
        self._counting = counting
        self._revision = revision
        self._check_open = check_open
        self._lock = threading.Lock()  # guards _waiting
        # Weak, so that the waiter of an interrupted read goes with it.
        self._waiting: weakref.WeakSet[_Waiter] = weakref.WeakSet()
        self._distrusted_until = 0.0

    @property
    def trusted(self) -> bool:
        """False for a while after the store did not get the cache to the revision that the store
        had."""
        return not self._distrusted_until or time.monotonic() > self._distrusted_until

    def wait(
        self,
        revision: int,
        timeout: float | None,
        request_progress: Callable[[], None],
        *,
        reached: bool = False,
    ) -> bool:
        """Wait until the cache shows ``revision``; return False if it does not in time.

        ``request_progress`` asks the store to report its revision on the feed. ``reached`` says
        that the store is known to have reached ``revision``.
        """
        if self._revision() >= revision:
            return True
        start = time.monotonic()
        end = start + (self._patience if timeout is None else min(timeout, self._patience))
        enough = start + min(self._patience, _CHANCE) if reached else math.inf
        waiter = _Waiter(revision)
        with self._lock:
            self._waiting.add(waiter)
        with Waiting():
            fresh = self._wait(waiter, request_progress, end=end, enough=enough)
        self._counting.read_waits.add()
        self._counting.read_wait_seconds.add(time.monotonic() - start)
        if not fresh:
            self._counting.read_waits_failed.add()
        return fresh

    def in_child(self) -> None:
        """Replace the lock, which nobody may release in the child of a fork."""
        self._lock = threading.Lock()

    def wake(self, revision: float) -> None:
        """Wake the readers that wait for ``revision`` or an earlier one."""
        if not self._waiting:  # a read that comes just now checks before it waits
            return
        with self._lock:
            _wake(self._waiting, revision)

    def _wait(
        self,
        waiter: _Waiter,
        request_progress: Callable[[], None],
        *,
        end: float,
        enough: float = math.inf,
    ) -> bool:
        asked = True
        while self._revision() < waiter.revision:
            self._check_open()
            left = end - time.monotonic()
            if left <= 0:
                if not asked and time.monotonic() >= enough:  # marks do not come by themselves
                    self._distrusted_until = time.monotonic() + _DISTRUST
                return False
            try:
                request_progress()
            except Unsupported:
                asked = False  # then events or marks may or may not bring it
            waiter.wait(min(left, _PROGRESS_INTERVAL))
        return True


def _wake(waiting: Iterable[_Waiter], revision: float) -> None:
    for waiter in waiting:
        if waiter.revision <= revision:
            waiter.set()
