"""The counters of a cache."""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable
from typing import Any

import attrs

__all__ = ["CacherCounters", "Counter", "Counting"]


def _merged_by(merge: Callable[[float, float], float], default: float) -> Any:
    """Declare a number that cannot be summed over several caches."""
    return attrs.field(default=default, metadata={_merged_by: merge})


@attrs.frozen(kw_only=True)
class CacherCounters:
    """A reading of a cache's counters. Those that only rise do so since the cache was created.

    The names in parentheses are the original's metrics.
    """

    #: Events from the store (apiserver_watch_cache_events_received_total).
    events_received: int = 0
    #: Times the cache was filled, and times its feed broke
    #: (apiserver_watch_cache_initializations_total, ..._initialization_errors_total).
    initializations: int = 0
    initialization_errors: int = 0
    #: Seconds that the last filling took (..._initialization_duration_seconds).
    initialization_seconds: float = _merged_by(max, 0.0)
    #: Initial events that watches began with (apiserver_init_events_total).
    init_events: int = 0
    #: Lists answered from memory, and lists passed on to the store.
    served_by_cache: int = 0
    served_by_store: int = 0
    #: Reads that waited for the cache to be fresh, the seconds of all of them together, and those
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
    #: The current numbers of objects, of those that cannot be read, of watches, and of events that
    #: the log holds and may hold at most (..._watch_cache_capacity); and the highest numbers so
    #: far.
    objects: int = 0
    unreadable: int = 0
    watches: int = 0
    log_length: int = 0
    log_capacity: int = 0
    watches_max: int = _merged_by(max, 0)
    log_length_max: int = _merged_by(max, 0)
    #: The revision up to which the cache shows everything (..._resource_version); 0: it is not
    #: ready.
    resource_version: int = _merged_by(min, 0)

    def merged(self, other: CacherCounters) -> CacherCounters:
        """Return the counters of two caches of one resource as those of one.

        They are sums, the higher of two maxima, and the version of the cache that is further
        behind.
        """
        return CacherCounters(
            **{
                field.name: field.metadata.get(_merged_by, operator.add)(
                    getattr(self, field.name), getattr(other, field.name)
                )
                for field in attrs.fields(CacherCounters)
            }
        )


class Counter:
    """A number that many threads change."""

    __slots__ = ("_lock", "value")

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards value
        self.value: Any = 0

    def add(self, amount: float = 1) -> None:
        with self._lock:
            self.value += amount

    def raise_to(self, value: float) -> None:
        """Set it to ``value`` unless it is higher: a high-water mark. (DISP-6)"""
        if value > self.value:
            with self._lock:
                self.value = max(value, self.value)


class Counting:
    """The counters of ``CacherCounters`` that the cache keeps, by the same names."""

    def __init__(self) -> None:
        self.initializations = Counter()
        self.initialization_errors = Counter()
        self.initialization_seconds = Counter()
        self.init_events = Counter()
        self.served_by_cache = Counter()
        self.served_by_store = Counter()
        self.read_waits = Counter()
        self.read_wait_seconds = Counter()
        self.read_waits_failed = Counter()
        self.terminated_watches = Counter()
        self.consistency_checks = Counter()
        self.inconsistencies = Counter()
        self.watches_max = Counter()
        self.log_length_max = Counter()

    def values(self) -> dict[str, Any]:
        """Return all counters so far, by name."""
        return {name: counter.value for name, counter in vars(self).items()}
