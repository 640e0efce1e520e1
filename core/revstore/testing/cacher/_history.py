"""The objects of a store at each revision, and what a list or watch must show of them."""

from __future__ import annotations

import builtins
import time
from bisect import bisect_right
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any

import attrs

from revstore.objects import with_metadata
from revstore.storage import Changes, Event, EventType
from revstore.testing.storage._parts import Pod

__all__ = ["EVERYTHING", "Ask", "Happening", "History", "Selection"]

_revision = attrgetter("revision")


def _everything(_: Pod) -> bool:
    return True


@attrs.frozen
class Selection:
    """A label and a field selector, and which Pods they select, computed in another way."""

    label: str = ""
    field: str = ""
    matches: Callable[[Pod], bool] = _everything

    @property
    def options(self) -> dict[str, Any]:
        """As arguments of ``list`` and ``watch``."""
        return {"label_selector": self.label, "field_selector": self.field}


EVERYTHING = Selection()


@attrs.frozen
class Ask:
    """The objects that a list or watch is about: those below ``key``, or the one there."""

    key: str
    recursive: bool = True
    selection: Selection = EVERYTHING

    @property
    def options(self) -> dict[str, Any]:
        """As arguments of ``list`` and ``watch``, besides the key."""
        return {"recursive": self.recursive, **self.selection.options}

    def covers(self, key: str) -> bool:
        """Return whether ``key`` is in its scope."""
        return key.startswith(self.key.rstrip("/") + "/") if self.recursive else key == self.key

    def among(self, state: Mapping[str, Pod]) -> list[Pod]:
        """Return what a list shows of ``state``."""
        return [
            state[key]
            for key in sorted(state)
            if self.covers(key) and self.selection.matches(state[key])
        ]


@attrs.frozen
class Happening:
    """One change of ``key``: ``old`` and ``new`` are None where there was, or is, nothing;
    ``last`` is what a deletion shows."""

    revision: int
    key: str
    old: Pod | None
    new: Pod | None
    last: Pod | None = None

    def seen(self, ask: Ask) -> Event[Pod] | None:
        """Return what a watch shows of it. (WATCH-10)"""
        if not ask.covers(self.key):
            return None
        matches, version = ask.selection.matches, str(self.revision)
        was = self.old is not None and matches(self.old)
        if self.new is not None and matches(self.new):
            return Event(EventType.MODIFIED if was else EventType.ADDED, self.new, version)
        if not was:
            return None
        last = self.last or with_metadata(self.old, resource_version=version)
        return Event(EventType.DELETED, last, version)


class History:
    """All changes since ``start``, at which revision the objects were ``state``, by key."""

    def __init__(self, start: int, state: Mapping[str, Pod] | None = None) -> None:
        self.start = start
        self.now: dict[str, Pod] = dict(state or {})
        self.changes: builtins.list[Happening] = []

    def follow(self, changes: Changes[Pod], upto: int, patience: float) -> None:
        """Note what a storage's feed delivers, until it shows revision ``upto``."""
        deadline = time.monotonic() + patience
        while changes.revision < upto:
            batch = changes.poll(max(0.0, deadline - time.monotonic()))
            assert batch is not None, f"the feed stands at {changes.revision}, wanted {upto}"
            for change in batch.changes:
                if change.type is EventType.DELETED:
                    self.drop(change.key, change.load())
                else:
                    self.put(change.key, change.load())

    @property
    def last(self) -> int:
        """The revision of the latest change."""
        return self.changes[-1].revision if self.changes else self.start

    def put(self, key: str, obj: Pod) -> None:
        """Note that ``obj`` was stored. It may be there already: then nothing was written."""
        old = self.now.get(key)
        if old == obj:
            return
        self._note(Happening(int(obj.metadata.resource_version), key, old, obj))

    def drop(self, key: str, last: Pod) -> None:
        """Note a deletion; ``last`` is what it returned."""
        version = int(last.metadata.resource_version)
        self._note(Happening(version, key, self.now[key], None, last))

    def at(self, revision: int) -> dict[str, Pod]:
        """Return the objects as they were at ``revision``, which must not be below ``start``."""
        assert revision >= self.start, f"{revision} is before the history begins"
        state = dict(self.now)
        for change in reversed(self.changes[self._after(revision) :]):
            if change.old is None:
                del state[change.key]
            else:
                state[change.key] = change.old
        return state

    def between(self, after: int, upto: int) -> builtins.list[Happening]:
        """Return the changes above ``after`` up to ``upto``."""
        return self.changes[self._after(after) : self._after(upto)]

    def events(self, ask: Ask, after: int, upto: int) -> builtins.list[Event[Pod]]:
        """Return what a watch shows of the changes above ``after`` up to ``upto``."""
        seen = (change.seen(ask) for change in self.between(after, upto))
        return [event for event in seen if event is not None]

    def initial(self, ask: Ask, revision: int) -> builtins.list[Event[Pod]]:
        """Return what a watch shows of the state at ``revision``."""
        return [
            Event(EventType.ADDED, obj, obj.metadata.resource_version)
            for obj in ask.among(self.at(revision))
        ]

    def _after(self, revision: int) -> int:
        return bisect_right(self.changes, revision, key=_revision)

    def _note(self, change: Happening) -> None:
        if self.changes:
            latest = self.changes[-1]
            assert (latest.revision, latest.key) < (change.revision, change.key), "out of order"
        self.changes.append(change)
        if change.new is None:
            del self.now[change.key]
        else:
            self.now[change.key] = change.new
