"""The shared log of the latest events. One thread appends; readers need no lock."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Generic, TypeVar

import msgspec

from revstore.errors import CorruptObject
from revstore.storage import Event, EventType

__all__ = ["Entry", "EventLog", "Item", "Segment"]

T = TypeVar("T")

_revision = attrgetter("revision")
_time = attrgetter("time")

# However old they are, so many events are kept. (HIST-1)
_LOWER = 100


class Item(msgspec.Struct, Generic[T], frozen=True, gc=False):
    """An object and what it is selected by: its labels, and the values of the indexed fields in
    their order; None for what could not be had of it, which no selector matches. (LIST-6)"""

    object: T
    labels: Mapping[str, str] | None
    fields: tuple[str | None, ...]


class Entry(msgspec.Struct, Generic[T], frozen=True, gc=False):
    """One event. ``item`` is the new object, of a deletion the last one at the deletion's version;
    ``previous`` the one before, None if there was none. ``event`` is what a watch without a
    selector shows, made once for all. ``error`` is set if the new object cannot be read,
    ``previous_error`` if the one before could not."""

    type: EventType
    key: str
    revision: int
    time: float
    item: Item[T] | None
    previous: Item[T] | None
    event: Event[T] | None
    error: CorruptObject | None = None
    previous_error: CorruptObject | None = None


class Segment(msgspec.Struct, Generic[T], frozen=True):
    """``entries[0]`` has the sequence number ``base``; all with a revision above ``floor`` are
    there. Entries are only ever appended; to drop the oldest, another segment takes its place, so
    that whoever holds one sees base and entries that belong together."""

    base: int
    floor: int
    entries: list[Entry[T]]

    @property
    def head(self) -> int:
        """The sequence number of the next entry."""
        return self.base + len(self.entries)

    def after(self, revision: int) -> int:
        """The sequence number of the first entry above ``revision``."""
        return self.base + bisect_right(self.entries, revision, key=_revision)


class EventLog(Generic[T]):
    """Keeps events for ``window`` seconds, but at least 100 and at most ``capacity``."""

    def __init__(self, revision: int, *, base: int, capacity: int, window: float) -> None:
        #: Replaced as a whole, by the appending thread only.
        self.segment: Segment[T] = Segment(base, revision, [])
        self._capacity = capacity
        self._window = window
        #: How many watches replay a state that this log goes on from: while there are any, age
        #: drops nothing, or whoever replays slowly would never get through. Guarded by the
        #: generation's lock.
        self.held = 0

    def append(self, entries: Sequence[Entry[T]]) -> None:
        """Add the events of one revision, in one step for whoever reads."""
        segment = self.segment
        segment.entries.extend(entries)
        length = len(segment.entries)
        # An eighth is dropped at a time, so that an append moves a few entries on average.
        if length % 128 < len(entries):
            cut = self._superfluous(segment.entries)
            if cut >= max(length // 8, 1) or length > self._capacity + self._capacity // 8:
                floor = segment.entries[cut - 1].revision
                self.segment = Segment(segment.base + cut, floor, segment.entries[cut:])

    def _superfluous(self, entries: list[Entry[T]]) -> int:
        """How many of the oldest may go; never a part of a revision's."""
        old = bisect_left(entries, entries[-1].time - self._window, key=_time)
        spare = len(entries) - min(_LOWER, self._capacity)
        cut = max(0 if self.held else min(old, spare), len(entries) - self._capacity)
        if cut <= 0:
            return 0
        return bisect_right(entries, entries[cut - 1].revision, key=_revision)
