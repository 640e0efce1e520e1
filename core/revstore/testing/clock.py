"""A clock that goes on only when it is told to."""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["FakeClock"]


class FakeClock:
    """Called, it gives seconds since 1970, as ``time.time`` does: the same until a test changes it.

    For whatever takes a ``clock``: ``MemoryBackend``, ``Registry``, ``HealthCheck``. Every method
    may be called from many threads.
    """

    def __init__(self, now: float = 1_000_000_000.0) -> None:
        self._lock = threading.Lock()  # guards _now and _told
        self._now = now
        self._told: list[Callable[[], object]] = []

    def __call__(self) -> float:
        with self._lock:
            return self._now

    def advance(self, seconds: float) -> None:
        """Let ``seconds``, 0 or more, pass, then call what ``on_change`` was given, here and in
        order: what is due has happened when this returns."""
        if seconds < 0:
            raise ValueError(f"time goes on, not by {seconds} seconds; jump() sets a clock back")
        self.jump(seconds)

    def jump(self, seconds: float) -> None:
        """As ``advance``, also back: as when somebody sets the machine's clock. Not for those who
        need a clock that never goes back, as ``MemoryBackend`` does."""
        with self._lock:
            self._now += seconds
            told = [*self._told]
        for tell in told:
            tell()

    def on_change(self, tell: Callable[[], object]) -> None:
        """Call ``tell`` after each change; what it returns is ignored, what it raises is not."""
        with self._lock:
            self._told.append(tell)
