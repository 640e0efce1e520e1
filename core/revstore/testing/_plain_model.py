"""A model of a backend that is too simple to be wrong: it keeps every state there ever was."""

from __future__ import annotations

import attrs
import msgspec

from revstore.values import KeyValue, WatchEvent, WatchEventType

__all__ = ["PlainModel", "plain"]


def plain(kv: KeyValue | None) -> KeyValue | None:
    """The key with its lease as 0 or 1, for the number itself is the store's own."""
    return None if kv is None else msgspec.structs.replace(kv, lease=int(kv.lease != 0))


def plain_event(event: WatchEvent) -> WatchEvent:
    """The event with plain KeyValues."""
    kv = plain(event.kv)
    assert kv is not None
    return WatchEvent(event.type, kv, plain(event.previous))


@attrs.define
class PlainModel:
    """Every state by the revision that began it. Revisions are those the backend gave out, so
    that gaps do not matter; ``versions`` is whether it counts versions."""

    start: int
    versions: bool
    compacted: int = 0
    states: list[tuple[int, dict[str, KeyValue]]] = attrs.field(factory=list)
    events: list[WatchEvent] = attrs.field(factory=list)

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
        """The state at ``revision``; 0 is now."""
        if not revision:
            return self.now
        return [state for began, state in self.states if began <= revision][-1]

    def range(self, prefix: str, start: str = "", revision: int = 0) -> list[KeyValue]:
        """The keys of the range in byte order, by looking at all of them."""
        state = self.at(revision)
        keys = sorted(state, key=lambda key: key.encode())
        return [
            state[key] for key in keys if key.startswith(prefix) and key.encode() >= start.encode()
        ]

    def put(self, key: str, value: bytes, revision: int, ttl: int | None) -> None:
        """Apply a put that the backend answered with ``revision``."""
        previous = self.now.get(key)
        created = previous.create_revision if previous else revision
        version = (previous.version if previous else 0) + 1 if self.versions else 0
        lease = (previous.lease if previous else 0) if ttl is None else int(ttl > 0)
        kv = KeyValue(key, value, revision, created, version, lease)
        self.states.append((revision, {**self.now, key: kv}))
        self.events.append(WatchEvent(WatchEventType.PUT, kv, previous))

    def delete(self, key: str, revision: int) -> None:
        """Apply a deletion that the backend answered with ``revision``."""
        state = dict(self.now)
        previous = state.pop(key)
        self.states.append((revision, state))
        kv = KeyValue(key, b"", revision)
        self.events.append(WatchEvent(WatchEventType.DELETED, kv, previous))

    def pending(self, key: str, recursive: bool, after: int) -> list[WatchEvent]:
        """The events above ``after`` that a watch covers."""
        return [
            event
            for event in self.events
            if event.kv.revision > after
            and (event.kv.key.startswith(key) if recursive else event.kv.key == key)
        ]
