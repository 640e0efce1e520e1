"""The data of a ``MemoryBackend``: keys, history, log and expiry, without locks or threads.

Every method except the log's is called under the backend's lock.
"""

from __future__ import annotations

import heapq
import math
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from operator import attrgetter
from types import MappingProxyType

import msgspec

from revstore.backend_tools import Change, SharedLog
from revstore.errors import Compacted, FutureRevision
from revstore.memory._lease_table import LeaseTable
from revstore.memory._sorted_keys import SortedKeys
from revstore.values import KeyValue, WatchEvent, WatchEventType

__all__ = ["Noted", "State", "revision_of"]

_NOTHING: Mapping[str, int] = MappingProxyType({})

#: The revision of an event.
revision_of: Callable[[WatchEvent], int] = attrgetter("kv.revision")


class Noted(msgspec.Struct, frozen=True):
    """A revision that is being made: its events, in key order; when keys of it expire; the leases
    of its keys; and the lease that it ends, 0: none."""

    events: list[WatchEvent]
    deadlines: Mapping[str, float] = _NOTHING
    attached: Mapping[str, int] = _NOTHING
    ended: int = 0


class State:
    """All that is stored. The state at an older revision is computed from each key's history."""

    def __init__(self) -> None:
        self.revision = 1
        self.compacted = 0
        self.current: dict[str, KeyValue] = {}
        self.log: SharedLog[WatchEvent] = SharedLog(floor=0)
        self._keys = SortedKeys()
        # Keys that do not exist now, but did at a revision that can still be read.
        self._gone = SortedKeys()
        # The events of the log by key.
        self._history: dict[str, list[WatchEvent]] = {}
        self._deadlines: dict[str, float] = {}
        self.noted: Noted | None = None
        #: Why nothing may be written, "" if it may.
        self.fenced = ""
        self.leases = LeaseTable()
        # (deadline, key); an entry counts only if the key still has that deadline.
        self._heap: list[tuple[float, str]] = []
        # Keys whose entries were taken off the heap, until they are deleted.
        self._due: set[str] = set()

    # Reads

    def check_revision(self, revision: int) -> None:
        """Check that the state at ``revision`` can be read.

        Raises:
            Compacted: ``revision`` is below the compacted one.
            FutureRevision: ``revision`` is above the current one.
        """
        if revision > self.revision:
            raise FutureRevision(revision, self.revision)
        if revision < self.compacted:
            raise Compacted(self.compacted, self.revision)

    def at(self, key: str, revision: int) -> KeyValue | None:
        """Return the key as it was at ``revision``: the previous state in the first event after
        it."""
        history = self._history.get(key, ())
        index = bisect_right(history, revision, key=revision_of)
        return history[index].previous if index < len(history) else self.current.get(key)

    def page(self, prefix: str, start: str, limit: int) -> tuple[list[KeyValue], int]:
        """Return the first ``limit`` (0: all) current keys of the range, and how many follow
        them."""
        keys: list[str] = []
        for some in self._keys.among(prefix, start, limit or sys.maxsize):
            keys += some
            if len(keys) >= limit > 0:
                del keys[limit:]
                break
        following = self._keys.count(prefix, start) - len(keys) if limit else 0
        return [self.current[key] for key in keys], following

    def count(self, prefix: str) -> int:
        """Return how many current keys start with ``prefix``."""
        return self._keys.count(prefix)

    def walk(self, prefix: str, start: str, revision: int) -> Iterator[KeyValue]:
        """Yield the keys of the range as they were at ``revision``, in key order."""
        # Lazily, since a page needs only the beginning of a range.
        spans = [
            chain.from_iterable(keys.among(prefix, start)) for keys in (self._keys, self._gone)
        ]
        for key in heapq.merge(*spans):
            kv = self.at(key, revision)
            if kv is not None:
                yield kv

    # Writes. A change is made in two parts, since a signal's handler may raise between any two
    # steps: all of it is noted in one step, and then applied by steps that may be repeated.

    def put(self, key: str, value: bytes, ttl: int | None, clock: Callable[[], float]) -> KeyValue:
        """Note the write of one key at the next revision; ``ttl`` as in ``Backend.put``."""
        previous = self.current.get(key)
        revision = self.revision + 1
        if previous is None:
            kv = KeyValue(key, value, revision, revision, 1, ttl or 0)
        else:
            lease = previous.lease if ttl is None else ttl
            created, version = previous.create_revision, previous.version + 1
            kv = KeyValue(key, value, revision, created, version, lease)
        events = [WatchEvent(WatchEventType.PUT, kv, previous)]
        self.noted = Noted(events, *self._expiry(key, ttl, clock)) if kv.lease else Noted(events)
        return kv

    def write(self, changes: list[Change], clock: Callable[[], float]) -> None:
        """Note the writes of a transaction's body as the next revision."""
        revision = self.revision + 1
        events = []
        deadlines: dict[str, float] = {}
        attached: dict[str, int] = {}
        for change in changes:
            key, value, previous = change.key, change.value, change.previous
            if value is None:
                gone = KeyValue(key, b"", revision)
                events.append(WatchEvent(WatchEventType.DELETED, gone, previous))
                continue
            lease = change.lease or change.ttl
            if change.keep:
                lease = previous.lease if previous else 0
            created = previous.create_revision if previous else revision
            version = previous.version + 1 if previous else 1
            kv = KeyValue(key, value, revision, created, version, lease)
            events.append(WatchEvent(WatchEventType.PUT, kv, previous))
            if change.lease:
                attached[key] = change.lease
            elif lease:
                more, kept = self._expiry(key, None if change.keep else change.ttl, clock)
                deadlines.update(more)
                attached.update(kept)
        self.noted = Noted(events, deadlines, attached)

    def _expiry(
        self, key: str, ttl: int | None, clock: Callable[[], float]
    ) -> tuple[Mapping[str, float], Mapping[str, int]]:
        """Return the deadline or the lease of a key that expires: by ``ttl``; None: those it
        has."""
        if ttl:
            return {key: clock() + ttl}, _NOTHING
        if key in self.leases.of:
            return _NOTHING, {key: self.leases.of[key]}
        return {key: self._deadlines[key]}, _NOTHING

    def delete(self, keys: list[str], *, lease: int = 0) -> None:
        """Note that existing keys, given in key order, were deleted in one revision, which also
        ends ``lease``."""
        revision = self.revision + 1
        events = [
            WatchEvent(WatchEventType.DELETED, KeyValue(key, b"", revision), self.current[key])
            for key in keys
        ]
        self.noted = Noted(events, ended=lease)

    def carry_out(self, noted: Noted) -> None:
        """Apply the revision that was noted; a step that was already done does nothing."""
        events = noted.events
        revision = events[0].kv.revision
        for event in events:
            key, kv, previous = event.kv.key, event.kv, event.previous
            history = self._history.get(key)
            if not history or history[-1] is not event:
                if previous is None and history is not None:
                    self._gone.remove(key)
                self._history.setdefault(key, []).append(event)
            if kv.lease or (previous is not None and previous.lease):
                self._expire_at(key, noted.deadlines.get(key))
                self.leases.attach(key, noted.attached.get(key, 0))
            if event.type is WatchEventType.PUT:
                self.current[key] = kv
                if previous is None:
                    self._keys.add(key)
            else:
                self.current.pop(key, None)
                self._keys.remove(key)
                self._gone.add(key)
        # One step, so that a reader without the lock never meets half a revision.
        if not self.log.items or self.log.items[-1].kv.revision < revision:
            self.log.items.extend(events)
        self.revision = revision
        if noted.ended:
            self.leases.drop(noted.ended)

    def remaining(self, key: str, now: float) -> float | None:
        """Return the seconds until the key expires, None if it does not."""
        lease = self.leases.of.get(key)
        deadline = self._deadlines.get(key) if lease is None else self.leases.find(lease).deadline
        return None if deadline is None else max(0.0, deadline - now)

    def compact(self, revision: int) -> None:
        """Drop the events at or below ``revision``, which is in the readable range."""
        # First: what is dropped in part cannot be read.
        self.compacted = revision
        cut = self.log.after(revision, revision_of) - self.log.base
        for key in {event.kv.key for event in self.log.items[:cut]}:
            history = self._history.get(key, [])
            del history[: bisect_right(history, revision, key=revision_of)]
            if not history:
                self._history.pop(key, None)
                self._gone.remove(key)
        self.log = self.log.without(cut, revision)

    # Expiry

    @property
    def next_deadline(self) -> float | None:
        """The next expiry of a key by the backend's clock, or earlier; None if no key expires."""
        return self._heap[0][0] if self._heap else None

    def due(self, now: float, limit: int) -> list[str]:
        """Return the keys that have expired, at most ``limit``, in key order. The caller deletes
        them."""
        due = {key for key in self._due if self._is_due(key, now)}
        while self._heap and self._heap[0][0] <= now and len(due) < limit:
            key = self._heap[0][1]
            self._due.add(key)
            heapq.heappop(self._heap)
            if self._is_due(key, now):
                due.add(key)
        self._due = due
        return sorted(due)

    def _is_due(self, key: str, now: float) -> bool:
        return self._deadlines.get(key, math.inf) <= now

    def _expire_at(self, key: str, deadline: float | None) -> None:
        if deadline is None:
            self._deadlines.pop(key, None)
            return
        if self._deadlines.get(key) == deadline:
            return
        self._deadlines[key] = deadline
        heapq.heappush(self._heap, (deadline, key))
        # Renewals leave dead entries behind: rebuild once they are the larger part.
        if len(self._heap) > 64 + 2 * len(self._deadlines):
            self._heap = [(when, name) for name, when in self._deadlines.items()]
            heapq.heapify(self._heap)
