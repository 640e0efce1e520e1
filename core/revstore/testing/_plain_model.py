"""A model of a backend that is too simple to be wrong: it keeps every state that ever was."""

from __future__ import annotations

import attrs
import msgspec

from revstore.values import KeyValue, WatchEvent, WatchEventType

__all__ = ["PlainModel", "PlainWrite", "plain", "plain_event"]


def plain(kv: KeyValue | None) -> KeyValue | None:
    """Return the key with its lease as 0 or 1, since the number itself depends on the store."""
    return None if kv is None else msgspec.structs.replace(kv, lease=int(kv.lease != 0))


def plain_event(event: WatchEvent) -> WatchEvent:
    """Return the event with plain KeyValues."""
    kv = plain(event.kv)
    assert kv is not None
    return WatchEvent(event.type, kv, plain(event.previous))


@attrs.frozen
class PlainWrite:
    """One write; ``value`` None: a deletion; ``ttl`` None keeps the expiry or the lease."""

    key: str
    value: bytes | None
    ttl: int | None = 0
    lease: int = 0


@attrs.define
class PlainModel:
    """Every state by the revision that began it. Revisions are those the backend gave out, so
    that gaps do not matter; ``versions`` is whether it counts versions."""

    start: int
    versions: bool
    compacted: int = 0
    states: list[tuple[int, dict[str, KeyValue]]] = attrs.field(factory=list)
    events: list[WatchEvent] = attrs.field(factory=list)
    #: The leases that were granted, and the lease of each key that has one.
    leases: set[int] = attrs.field(factory=set)
    attached: dict[str, int] = attrs.field(factory=dict)

    def __attrs_post_init__(self) -> None:
        self.states.append((self.start, {}))

    @property
    def revision(self) -> int:
        """The current revision."""
        return self.states[-1][0]

    @property
    def now(self) -> dict[str, KeyValue]:
        """The current state."""
        return self.states[-1][1]

    def at(self, revision: int) -> dict[str, KeyValue]:
        """Return the state at ``revision``; 0 is now."""
        if not revision:
            return self.now
        return [state for began, state in self.states if began <= revision][-1]

    def range(self, prefix: str, start: str = "", revision: int = 0) -> list[KeyValue]:
        """Return the keys of the range in byte order, by looking at all of them."""
        state = self.at(revision)
        keys = sorted(state, key=lambda key: key.encode())
        return [
            state[key] for key in keys if key.startswith(prefix) and key.encode() >= start.encode()
        ]

    def put(self, key: str, value: bytes, revision: int, ttl: int | None) -> None:
        """Apply a put that the backend answered with ``revision``."""
        self.write([PlainWrite(key, value, ttl)], revision)

    def delete(self, key: str, revision: int) -> None:
        """Apply a deletion that the backend answered with ``revision``."""
        self.write([PlainWrite(key, None)], revision)

    def write(self, writes: list[PlainWrite], revision: int) -> None:
        """Apply writes of different keys that share ``revision``."""
        state = dict(self.now)
        for each in sorted(writes, key=lambda each: each.key.encode()):
            key, previous = each.key, state.pop(each.key, None)
            if each.value is None:
                kv = KeyValue(key, b"", revision)
                self.attached.pop(key, None)
                self.events.append(WatchEvent(WatchEventType.DELETED, kv, previous))
                continue
            created = previous.create_revision if previous else revision
            version = (previous.version if previous else 0) + 1 if self.versions else 0
            if each.ttl is None:
                lease = previous.lease if previous else 0
            else:
                lease = int(each.ttl > 0 or each.lease != 0)
                self.attached.pop(key, None)
            if each.lease:
                self.attached[key] = each.lease
            kv = state[key] = KeyValue(key, each.value, revision, created, version, lease)
            self.events.append(WatchEvent(WatchEventType.PUT, kv, previous))
        self.states.append((revision, state))

    def keys_of(self, lease: int) -> list[str]:
        """Return the keys that are attached to a lease, in order."""
        return sorted(key for key, its in self.attached.items() if its == lease)

    def raise_to(self, revision: int) -> None:
        """Apply that the store's revision was raised."""
        self.states.append((revision, self.now))

    def pending(self, key: str, recursive: bool, after: int) -> list[WatchEvent]:
        """Return the events above ``after`` that a watch covers."""
        return [
            event
            for event in self.events
            if event.kv.revision > after
            and (event.kv.key.startswith(key) if recursive else event.kv.key == key)
        ]
