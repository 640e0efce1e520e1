"""The data of a ``MemoryBackend``: keys, history, log and expiry, without locks or threads.

Every method but the log's is called under the backend's lock.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Callable, Iterator
from operator import attrgetter

from revstore.backend_tools import EventLog, prefix_end
from revstore.errors import Compacted, FutureRevision
from revstore.values import KeyValue, WatchEvent, WatchEventType

__all__ = ["State", "revision_of"]

#: The revision of an event.
revision_of: Callable[[WatchEvent], int] = attrgetter("kv.revision")


def _span(keys: list[str], prefix: str, start: str = "") -> tuple[int, int]:
    """The indices between which ``keys`` start with ``prefix`` and are not below ``start``."""
    end = prefix_end(prefix)
    high = bisect_left(keys, end) if end else len(keys)
    low = bisect_left(keys, max(prefix, start))
    return min(low, high), high


class State:
    """All that is stored. The state at an older revision is read through each key's history."""

    def __init__(self) -> None:
        self.revision = 1
        self.compacted = 0
        self.current: dict[str, KeyValue] = {}
        self.log: EventLog[WatchEvent] = EventLog(floor=0)
        # Sorted. A flat list beats trees up to several hundred thousand keys.
        self._keys: list[str] = []
        # Sorted: the keys that do not exist now, but did at a revision that can still be read.
        self._gone: list[str] = []
        # The events of the log by key.
        self._history: dict[str, list[WatchEvent]] = {}
        self._deadlines: dict[str, float] = {}
        # (deadline, key); an entry counts only if the key still has that deadline.
        self._heap: list[tuple[float, str]] = []

    # Reads

    def check_revision(self, revision: int) -> None:
        """Raise unless the state at ``revision`` can be read."""
        if revision > self.revision:
            raise FutureRevision(revision, self.revision)
        if revision < self.compacted:
            raise Compacted(self.compacted, self.revision)

    def at(self, key: str, revision: int) -> KeyValue | None:
        """The key as it was at ``revision``: what the first event after it found."""
        history = self._history.get(key, ())
        index = bisect_right(history, revision, key=revision_of)
        return history[index].previous if index < len(history) else self.current.get(key)

    def page(self, prefix: str, start: str, limit: int) -> tuple[list[KeyValue], int]:
        """The first ``limit`` (0: all) current keys of the range, and how many follow them."""
        low, high = _span(self._keys, prefix, start)
        stop = min(high, low + limit) if limit else high
        return [self.current[key] for key in self._keys[low:stop]], high - stop

    def count(self, prefix: str) -> int:
        """How many current keys start with ``prefix``."""
        low, high = _span(self._keys, prefix)
        return high - low

    def walk(self, prefix: str, start: str, revision: int) -> Iterator[KeyValue]:
        """The keys of the range as they were at ``revision``, in key order."""
        # Lazily, for a page needs but the beginning of a range.
        spans = [
            map(keys.__getitem__, range(*_span(keys, prefix, start)))
            for keys in (self._keys, self._gone)
        ]
        for key in heapq.merge(*spans):
            kv = self.at(key, revision)
            if kv is not None:
                yield kv

    # Writes

    def put(self, key: str, value: bytes, ttl: int | None, clock: Callable[[], float]) -> KeyValue:
        """Write one key at the next revision; ``ttl`` as in ``Backend.put``."""
        previous = self.current.get(key)
        revision = self.revision + 1
        if previous is None:
            kv = KeyValue(key, value, revision, revision, 1, ttl or 0)
            insort(self._keys, key)
            if key in self._history:
                del self._gone[bisect_left(self._gone, key)]
        else:
            lease = previous.lease if ttl is None else ttl
            created, version = previous.create_revision, previous.version + 1
            kv = KeyValue(key, value, revision, created, version, lease)
        if ttl:
            self._expire_at(key, clock() + ttl)
        elif ttl == 0 and previous is not None and previous.lease:
            del self._deadlines[key]
        self.current[key] = kv
        self._record([WatchEvent(WatchEventType.PUT, kv, previous)])
        return kv

    def delete(self, keys: list[str]) -> list[WatchEvent]:
        """Delete keys that exist, given in key order, in one revision."""
        revision = self.revision + 1
        events = []
        for key in keys:
            previous = self.current.pop(key)
            if previous.lease:
                del self._deadlines[key]
            events.append(
                WatchEvent(WatchEventType.DELETED, KeyValue(key, b"", revision), previous)
            )
            del self._keys[bisect_left(self._keys, key)]
            insort(self._gone, key)
        self._record(events)
        return events

    def _record(self, events: list[WatchEvent]) -> None:
        for event in events:
            self._history.setdefault(event.kv.key, []).append(event)
        # One step, so that a reader without the lock never meets half a revision.
        self.log.items.extend(events)
        self.revision += 1

    def compact(self, revision: int) -> None:
        """Drop the events at or below ``revision``, which is in the readable range."""
        cut = self.log.after(revision, revision_of) - self.log.base
        dropped = Counter(event.kv.key for event in self.log.items[:cut])
        for key, count in dropped.items():
            history = self._history[key]
            if count == len(history):
                del self._history[key]
            else:
                del history[:count]
        self._gone = [key for key in self._gone if key in self._history]
        self.log = self.log.without(cut, revision)
        self.compacted = revision

    # Expiry

    @property
    def next_deadline(self) -> float | None:
        """When the next key expires, by the backend's clock; None if none does. May be early."""
        return self._heap[0][0] if self._heap else None

    def due(self, now: float) -> list[str]:
        """The keys whose time has come, in key order. The caller deletes them."""
        keys = set()
        while self._heap and self._heap[0][0] <= now:
            deadline, key = heapq.heappop(self._heap)
            if self._deadlines.get(key) == deadline:
                keys.add(key)
        return sorted(keys)

    def _expire_at(self, key: str, deadline: float) -> None:
        self._deadlines[key] = deadline
        heapq.heappush(self._heap, (deadline, key))
        # Renewals leave dead entries behind: rebuild once they are the larger part.
        if len(self._heap) > 64 + 2 * len(self._deadlines):
            self._heap = [(when, name) for name, when in self._deadlines.items()]
            heapq.heapify(self._heap)
