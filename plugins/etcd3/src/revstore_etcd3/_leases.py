"""Leases, shared by keys that expire at about the same time. (TTL-2 to TTL-5)"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

__all__ = ["LeaseManager", "reuse_window"]


def reuse_window(ttl: int, configured: float) -> int:
    """Return how many seconds longer than asked a lease may live: 5 % of the ttl, at most the
    configured number. (TTL-2)"""
    return int(min(ttl * 0.05, configured))


class LeaseManager:
    """Remembers the last lease that it granted."""

    def __init__(
        self, grant: Callable[[int, float], int], *, reuse: float, max_objects: int
    ) -> None:
        self._grant = grant
        self._reuse = reuse
        self._max_objects = max_objects if max_objects > 0 else 1000
        self._lock = threading.Lock()  # guards _lease, _expires and _count
        self._lease = 0
        self._expires = 0.0
        self._count = 0

    def forget(self, lease: int) -> None:
        """Do not give ``lease`` to other keys: the server no longer has it."""
        with self._lock:
            if self._lease == lease:
                self._lease = 0
                self._expires = 0.0

    def get(self, ttl: int, timeout: float) -> int:
        """Return a lease that lives for ``ttl`` seconds or a little longer."""
        window = reuse_window(ttl, self._reuse)
        with self._lock:
            end = time.monotonic() + ttl
            if end < self._expires <= end + window and self._count < self._max_objects:
                self._count += 1
                return self._lease
        began = time.monotonic()
        lease = self._grant(ttl + window, timeout)
        if window:
            with self._lock:
                self._lease, self._expires, self._count = lease, began + ttl + window, 1
        return lease
