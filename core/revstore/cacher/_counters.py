"""What a cache has done so far, in numbers."""

from __future__ import annotations

import threading
from typing import Any

import attrs

__all__ = ["CacherCounters", "Counting"]


@attrs.frozen(kw_only=True)
class CacherCounters:
    """A reading of a cache's counters. Those that only rise do so from the cache's making.

    The names in parentheses are the original's metrics.
    """

    #: Events from the store (apiserver_watch_cache_events_received_total).
    events_received: int = 0
    #: Times the cache was filled, and times its feed broke
    #: (apiserver_watch_cache_initializations_total, ..._initialization_errors_total).
    initializations: int = 0
    initialization_errors: int = 0
    #: Seconds that the last filling took (..._initialization_duration_seconds).
    initialization_seconds: float = 0.0
    #: Initial events that watches began with (apiserver_init_events_total).
    init_events: int = 0
    #: Lists answered from memory, and handed on to the store.
    served_by_cache: int = 0
    served_by_store: int = 0
    #: Reads that waited for the cache to be fresh, the seconds all of them together, and those
    #: that waited in vain (..._read_wait_seconds, ..._consistent_read_total).
    read_waits: int = 0
    read_wait_seconds: float = 0.0
    read_waits_failed: int = 0
    #: Watches that fell behind the log (apiserver_terminated_watchers_total).
    terminated_watches: int = 0
    #: Checks against the store, and those that found a difference
    #: (apiserver_storage_consistency_checks_total).
    consistency_checks: int = 0
    inconsistencies: int = 0
    #: Objects, those that cannot be read, watches, and events that the log holds and may hold
    #: at most (..._watch_cache_capacity), now; and the most there have been.
    objects: int = 0
    unreadable: int = 0
    watches: int = 0
    log_length: int = 0
    log_capacity: int = 0
    watches_max: int = 0
    log_length_max: int = 0
    #: Up to which the cache shows everything (..._resource_version); 0: it is not ready.
    resource_version: int = 0


class Counting:
    """Counters that many threads raise."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the field below
        self._values: dict[str, Any] = {}

    def add(self, name: str, amount: float = 1) -> None:
        with self._lock:
            self._values[name] = self._values.get(name, 0) + amount

    def note(self, name: str, value: float) -> None:
        """Set a value."""
        with self._lock:
            self._values[name] = value

    def highest(self, name: str, value: float) -> None:
        """Raise a high-water mark. (DISP-6)"""
        if value > self._values.get(name, 0):
            with self._lock:
                self._values[name] = max(value, self._values.get(name, 0))

    def values(self) -> dict[str, Any]:
        """All so far."""
        with self._lock:
            return dict(self._values)
