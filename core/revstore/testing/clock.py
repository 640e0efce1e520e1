"""A clock that moves only when a test moves it."""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["FakeClock"]


class FakeClock:
    """A clock that returns seconds since 1970, as ``time.time`` does: the same until a test changes
    it.

    Use it as the ``clock`` of ``MemoryBackend``, ``Registry`` or ``HealthCheck``. Every method may
    be called from many threads.
    """

    def __init__(self, now: float = 1_000_000_000.0) -> None:
        self._lock = threading.Lock()  # guards _now and _told
        self._now = now
        self._told: list[Callable[[], object]] = []

    def __call__(self) -> float:
        with self._lock:
            return self._now

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass, then run the callbacks of ``on_change``, in this thread and in
        order.

        When this returns, what was due has happened.

        Raises:
            ValueError: ``seconds`` is negative.
        """
        if seconds < 0:
            raise ValueError(f"time cannot pass by {seconds} seconds; jump() sets a clock back")
        self.jump(seconds)

    def jump(self, seconds: float) -> None:
        """Move the clock by ``seconds``, even back, as if somebody set the machine's clock.

        Do not move it back for objects that need a clock that never goes back, such as
        ``MemoryBackend``.
        """
        with self._lock:
            self._now += seconds
            told = [*self._told]
        for tell in told:
            tell()

    def on_change(self, tell: Callable[[], object]) -> None:
        """Call ``tell`` after each change; its result is ignored, and its errors come out."""
        with self._lock:
            self._told.append(tell)
