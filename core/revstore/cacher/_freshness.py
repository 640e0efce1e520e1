"""Waiting until a cache is as new as a read wants it. (CACHE-10, CACHE-11)"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from revstore.cacher._counters import Counting
from revstore.errors import Unsupported

__all__ = ["Freshness"]

# Seconds between two requests for progress while somebody waits. (CACHE-11)
_PROGRESS_INTERVAL = 0.1
# Seconds for which a store that did not get the cache to a revision is asked itself, and seconds
# that must have been waited for that.
_DISTRUST = 30.0
_CHANCE = 1.0


class Freshness:
    """Reads that wait, ``patience`` seconds at most, until ``revision()`` is what they want;
    ``check_open`` raises once nothing will come any more."""

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
        self._waiting: list[tuple[int, threading.Event]] = []
        self._distrusted_until = 0.0

    @property
    def trusted(self) -> bool:
        """False for a while after the store could not get the cache to where it was itself."""
        return not self._distrusted_until or time.monotonic() > self._distrusted_until

    def wait(
        self,
        revision: int,
        timeout: float | None,
        request_progress: Callable[[], None],
        *,
        reached: bool = False,
    ) -> bool:
        """Wait until the cache shows ``revision``; False if it does not get there in time.
        ``request_progress`` asks the store to bring that about, and ``reached`` says that the store
        is known to be there."""
        if self._revision() >= revision:
            return True
        start = time.monotonic()
        end = start + (self._patience if timeout is None else min(timeout, self._patience))
        enough = start + min(self._patience, _CHANCE) if reached else math.inf
        waiter = threading.Event()
        with self._lock:
            self._waiting.append((revision, waiter))
        try:
            fresh = self._wait(revision, waiter, request_progress, end=end, enough=enough)
        finally:
            with self._lock:
                self._waiting = [each for each in self._waiting if each[1] is not waiter]
        self._counting.read_waits.add()
        self._counting.read_wait_seconds.add(time.monotonic() - start)
        if not fresh:
            self._counting.read_waits_failed.add()
        return fresh

    def in_child(self) -> None:
        """Replace the lock, which nobody may release in the child of a fork."""
        self._lock = threading.Lock()

    def wake(self, revision: float) -> None:
        """Have those look again who wait for ``revision`` or an earlier one."""
        if not self._waiting:  # who comes just now looks before waiting
            return
        with self._lock:
            for wanted, waiter in self._waiting:
                if wanted <= revision:
                    waiter.set()

    def _wait(
        self,
        revision: int,
        waiter: threading.Event,
        request_progress: Callable[[], None],
        *,
        end: float,
        enough: float = math.inf,
    ) -> bool:
        asked = True
        while self._revision() < revision:
            self._check_open()
            left = end - time.monotonic()
            if left <= 0:
                if not asked and time.monotonic() >= enough:  # marks do not come by themselves
                    self._distrusted_until = time.monotonic() + _DISTRUST
                return False
            try:
                request_progress()
            except Unsupported:
                asked = False  # then events or marks may bring it, or not
            waiter.wait(min(left, _PROGRESS_INTERVAL))
            waiter.clear()  # the cache may begin anew before the next look
        return True
