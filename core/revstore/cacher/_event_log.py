"""The log of the latest events, which all watches read: how it grows and is cut."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any, Generic, TypeVar

import msgspec

from revstore.errors import CorruptObject
from revstore.shared_log import SharedLog
from revstore.storage import Event, EventType

__all__ = ["Entry", "EventLog", "Item", "revision_of"]

T = TypeVar("T")

#: The revision of an entry.
revision_of: Callable[[Entry[Any]], int] = attrgetter("revision")
_time = attrgetter("time")

# This many events are kept, however old they are. (HIST-1)
_LOWER = 100


class Item(msgspec.Struct, Generic[T], frozen=True, gc=False):
    """An object and what it is selected by: its labels, and the values of the indexed fields in
    their order. None marks what could not be computed, which no selector matches. (LIST-6)"""

    object: T
    labels: Mapping[str, str] | None
    fields: tuple[str | None, ...]


class Entry(msgspec.Struct, Generic[T], frozen=True, gc=False):
    """One event. ``item`` is the new object, or for a deletion the last one at the deletion's
    version; ``previous`` is the one before, None if there was none. ``event`` is what a watch
    without a selector shows, created once for all. ``error`` is set if the new object cannot be
    read, ``previous_error`` if the one before could not."""

    type: EventType
    key: str
    revision: int
    time: float
    item: Item[T] | None
    previous: Item[T] | None
    event: Event[T] | None
    error: CorruptObject | None = None
    previous_error: CorruptObject | None = None


class EventLog(Generic[T]):
    """Keeps events for ``window`` seconds, but at least 100 and at most ``capacity``."""

    def __init__(self, revision: int, *, base: int, capacity: int, window: float) -> None:
        #: Replaced as a whole, by the appending thread only.
        self.segment: SharedLog[Entry[T]] = SharedLog(floor=revision, base=base)
        self._capacity = capacity
        self._window = window
        #: How many watches replay a state that this log goes on from. While there are any, no event
        #: is dropped because of its age, or a slow replay would never finish. Guarded by the
        #: generation's lock.
        self.held = 0

    def make_room(self, count: int, now: float) -> list[Entry[T]]:
        """Drop events that are superfluous once ``count`` more are added, and return them, since
        freeing them may take long."""
        segment = self.segment
        length = len(segment.items) + count
        # An eighth is dropped at a time, so that an append moves only a few entries on average.
        if length % 128 < count:
            cut = self._superfluous(segment.items, count, now)
            if cut >= max(length // 8, 1) or length > self._capacity + self._capacity // 8:
                dropped = segment.items[:cut]
                if dropped:
                    self.segment = segment.without(cut, dropped[-1].revision)
                return dropped
        return []

    def append(self, entries: Sequence[Entry[T]]) -> None:
        """Add the events of one revision; all readers see them in one step."""
        self.segment.items.extend(entries)

    def _superfluous(self, entries: list[Entry[T]], count: int, now: float) -> int:
        """Return how many of the oldest events may be dropped; a revision is never dropped in
        part."""
        length = len(entries) + count
        old = bisect_left(entries, now - self._window, key=_time)
        spare = length - min(_LOWER, self._capacity)
        cut = max(0 if self.held else min(old, spare), length - self._capacity)
        cut = min(cut, len(entries))
        if cut <= 0:
            return 0
        return bisect_right(entries, entries[cut - 1].revision, key=revision_of)
