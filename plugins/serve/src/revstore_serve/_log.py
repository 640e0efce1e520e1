"""The events of all watches, encoded for clients, and which watches a key concerns."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Generic, TypeVar

from revstore.values import KeyValue, WatchBatch, WatchEvent, WatchEventType
from revstore_serve._keys import KeyRange, to_bytes
from revstore_serve._wire import key_values, varint

__all__ = ["Entry", "Index", "revision_of"]

T = TypeVar("T")

# The tag of the field "events" of a WatchResponse, and what an event consists of.
_EVENTS = b"\x5a"
_DELETED, _KV, _PREV_KV = b"\x08\x01", b"\x12", b"\x1a"


class Entry:
    """All events of one revision. Each is encoded once, however many watches there are."""

    __slots__ = ("_encoded", "came", "events", "keys", "revision", "size")

    def __init__(self, batch: WatchBatch) -> None:
        self.revision = batch.revision
        self.events = batch.events
        self.keys = tuple(to_bytes(event.kv.key) for event in batch.events)
        self._encoded: dict[tuple[int, bool], bytes] = {}
        #: Its size in bytes, roughly.
        self.size = sum(map(_size, batch.events))
        self.came = time.monotonic()

    def encoded(self, number: int, *, prev_kv: bool) -> bytes:
        """Return an event as a field of a response; fields can be put one after the other."""
        found = self._encoded.get((number, prev_kv))
        if found is None:
            event = _event(self.keys[number], self.events[number], prev_kv)
            found = self._encoded[number, prev_kv] = _EVENTS + varint(len(event)) + event
        return found


def revision_of(entry: Entry) -> int:
    """Return an entry's revision."""
    return entry.revision


def _event(key: bytes, event: WatchEvent, prev_kv: bool) -> bytes:
    if event.type is WatchEventType.PUT:
        parts = key_values(_KV, [(key, event.kv)])
    else:
        parts = [_DELETED, *key_values(_KV, [(key, KeyValue("", b"", event.kv.revision))])]
    if prev_kv and event.previous is not None:
        parts += key_values(_PREV_KV, [(key, event.previous)])
    return b"".join(parts)


def _size(event: WatchEvent) -> int:
    # The values are held once as they are, and once or twice encoded.
    before = len(event.previous.value) if event.previous else 0
    return 500 + 3 * (len(event.kv.key) + len(event.kv.value) + before)


class Index(Generic[T]):
    """Things by the ranges of keys for which they were added. Finding those of a key costs a
    look-up for each length of a prefix, and one for each range that is no prefix."""

    def __init__(self) -> None:
        self._exact: dict[bytes, dict[T, None]] = {}
        self._prefixes: dict[int, dict[bytes, dict[T, None]]] = {}
        self._ranges: dict[T, KeyRange] = {}

    def add(self, keys: KeyRange, thing: T) -> None:
        """Add a thing for a range. A thing has one range only."""
        prefix = keys.prefix
        if keys.single:
            self._exact.setdefault(keys.first, {})[thing] = None
        elif prefix is not None:
            same_length = self._prefixes.setdefault(len(prefix), {})
            same_length.setdefault(prefix, {})[thing] = None
        else:
            self._ranges[thing] = keys

    def discard(self, keys: KeyRange, thing: T) -> None:
        """Remove a thing, if it is there."""
        prefix = keys.prefix
        if keys.single:
            _discard(self._exact, keys.first, thing)
        elif prefix is not None:
            same_length = self._prefixes.get(len(prefix), {})
            _discard(same_length, prefix, thing)
            if not same_length:
                self._prefixes.pop(len(prefix), None)
        else:
            self._ranges.pop(thing, None)

    def find(self, key: bytes) -> Iterator[T]:
        """Yield the things whose ranges contain ``key``."""
        yield from self._exact.get(key, ())
        for length, prefixes in self._prefixes.items():
            yield from prefixes.get(key[:length], ())
        for thing, keys in self._ranges.items():
            if key in keys:
                yield thing

    def __iter__(self) -> Iterator[T]:
        for things in self._exact.values():
            yield from things
        for prefixes in self._prefixes.values():
            for things in prefixes.values():
                yield from things
        yield from self._ranges


def _discard(of: dict[bytes, dict[T, None]], key: bytes, thing: T) -> None:
    things = of.get(key)
    if things is not None:
        things.pop(thing, None)
        if not things:
            del of[key]
