"""What watches show of the shared log: worked out once for all that ask the same."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Hashable, Iterable
from operator import attrgetter
from typing import Generic, TypeVar

import msgspec

from revstore.cacher._config import CacherConfig
from revstore.cacher._event_log import Entry, EventLog, Item, revision_of
from revstore.cacher._match import is_pure, matcher
from revstore.errors import CorruptObject
from revstore.selectors import SelectionPredicate
from revstore.storage import Event, EventType

__all__ = ["Bucket", "Listener", "Numbers", "Reading", "View", "covers", "view_key"]

T = TypeVar("T")

_event = attrgetter("event")


def covers(scope: str, key: str) -> bool:
    """Whether the events of ``key`` belong to ``scope``: a prefix that ends in "/", or a key."""
    return key.startswith(scope) if scope.endswith("/") else key == scope


class Numbers(msgspec.Struct, frozen=True):
    """Sequence numbers into the log, rising: all of a bucket's from ``floor`` on. Only ever
    appended to; to drop the oldest, another takes its place, as with a log's segment."""

    floor: int
    numbers: list[int]


class Listener(Generic[T]):
    """What a generation knows of a watch: its view, where it stands, and what it waits for."""

    __slots__ = ("at", "closed", "pending", "progress", "replays", "timed", "told", "view")

    def __init__(self, cursor: int, position: int, *, progress: bool, replays: bool) -> None:
        #: None until the watch has entered the generation.
        self.view: View[T] | None = None
        #: The number of the next event to be looked at, and the revision up to which everything
        #: has been shown. Replaced as a whole, so that an interrupt finds both or neither.
        self.at = (cursor, position)
        #: Up to which revision events and bookmarks have said so.
        self.told = position
        #: Whether progress of the store is told by bookmarks.
        self.progress = progress
        #: Whether a poll finds something besides what the log has.
        self.pending = False
        #: Guarded by the generation's lock: whether the log is held for this watch, whether the
        #: generation's timer has it, and whether it is closed, as it is until it is entered.
        self.replays = replays
        self.timed = False
        self.closed = True

    def end(self) -> None:
        """Note, after ``closed``, that nothing is to be had but the end."""
        self.pending = True


class Bucket(Generic[T]):
    """Watches with one trigger value, and the events that may concern them. (CWATCH-5, CWATCH-6)

    Its fields are guarded by its generation's lock; ``known`` is replaced as a whole, so that
    readers need none.
    """

    __slots__ = ("_home", "_value", "armed", "known", "views")

    def __init__(self, floor: int, home: dict[str | None, Bucket[T]], value: str) -> None:
        self._home = home
        self._value = value
        self.known = Numbers(floor, [])
        #: Who wants to be told of the next event.
        self.armed: dict[Listener[T], Callable[[], None]] = {}
        #: The keys of the views that read it.
        self.views: set[Hashable] = set()

    def drop(self) -> None:
        """Nobody reads it any more."""
        self._home.pop(self._value, None)

    def add(self, number: int, base: int) -> None:
        """Note an event; forget those that the log has dropped, now and then."""
        numbers = self.known.numbers
        numbers.append(number)
        if len(numbers) % 128 == 0 and numbers[0] < base:
            cut = bisect_left(numbers, base)
            self.known = Numbers(numbers[cut - 1] + 1, numbers[cut:])


class Reading(msgspec.Struct, Generic[T], frozen=True, gc=False):
    """What was read up to the sequence number ``cursor``: ``events``, the last at revision
    ``last``; or the ``error`` that comes next. ``lost``: the log does not reach back so far."""

    events: tuple[Event[T], ...]
    cursor: int
    last: int = 0
    error: CorruptObject | None = None
    lost: bool = False


def view_key(
    scope: str, predicate: SelectionPredicate[T], *, even_if_corrupt: bool = False
) -> Hashable:
    """What tells views apart."""
    return scope, predicate.label, predicate.field, even_if_corrupt


class View(Generic[T]):
    """A scope and a selector over the log. Needs no lock: it remembers one reading, which many
    watches ask for in turn, and replaces it as a whole."""

    __slots__ = (
        "_log",
        "_match",
        "_pure",
        "_tolerant",
        "_whole",
        "bucket",
        "config",
        "key",
        "memo",
        "scope",
        "users",
    )

    def __init__(
        self,
        log: EventLog[T],
        scope: str,
        predicate: SelectionPredicate[T],
        bucket: Bucket[T] | None,
        config: CacherConfig[T],
        *,
        even_if_corrupt: bool = False,
    ) -> None:
        #: Equal for views that show the same.
        self.key = view_key(scope, predicate, even_if_corrupt=even_if_corrupt)
        #: None: every event of the cache is looked at.
        self.bucket = bucket
        self.scope = scope
        self.config = config
        self.users = 0  # guarded by the generation's lock
        self._log = log
        self._pure = is_pure(predicate, config.indexed_fields)
        self._match = None if predicate.empty else matcher(predicate, config.indexed_fields)
        self._tolerant = even_if_corrupt  # shows what cannot be read, instead of ending
        self._whole = bucket is None and predicate.empty and not even_if_corrupt
        #: The last reading: from where, up to where, and what it was.
        self.memo: tuple[int, int, Reading[T]] | None = None

    def read(self, cursor: int, head: int) -> Reading[T]:
        """What the log has from ``cursor`` up to ``head``, which has been published."""
        memo = self.memo
        if memo is not None and memo[0] == cursor and memo[1] == head:
            return memo[2]
        reading = self._read(cursor, head)
        self.memo = cursor, head, reading
        return reading

    def read_after(self, cursor: int, head: int, revision: int) -> Reading[T]:
        """``read`` without what is not above ``revision``."""
        return self._read(cursor, head, revision)

    def _read(self, cursor: int, head: int, after: int = 0) -> Reading[T]:
        if self.bucket is None:
            segment = self._log.segment
            if cursor < segment.base:
                return Reading((), cursor, lost=True)
            entries = segment.items[cursor - segment.base : head - segment.base]
            if self._whole and not after:
                events = tuple(map(_event, entries))
                if None not in events:
                    return Reading(events, head, entries[-1].revision if entries else 0)
            return self._map(zip(range(cursor, head), entries, strict=True), head, after)
        numbers = self._numbers(self.bucket.known, cursor, head)
        segment = self._log.segment
        base = segment.base
        if numbers and numbers[0] < base:
            return Reading((), cursor, lost=True)
        return self._map(((n, segment.items[n - base]) for n in numbers), head, after)

    def _numbers(self, known: Numbers, cursor: int, head: int) -> list[int] | range:
        """The numbers of the events that may concern this view. Before the bucket's first look,
        those of all."""
        numbers = known.numbers
        low = bisect_left(numbers, cursor)
        # Numbers at the head or above it belong to what is being published.
        high = bisect_left(numbers, head, low)
        if cursor >= known.floor:
            return numbers[low:high]
        return range(cursor, head)

    def _map(self, entries: Iterable[tuple[int, Entry[T]]], head: int, after: int) -> Reading[T]:
        found: list[Event[T]] = []
        last = 0
        for number, entry in entries:
            if entry.revision <= after or not covers(self.scope, entry.key):
                continue
            error = entry.error
            if error is None and (self._match is not None or self._tolerant):
                error = entry.previous_error
            if error is None:
                event = self._show(entry)
            elif self._tolerant:
                event = self._show_unreadable(entry)
            else:
                return self._stop(number, entry.revision, found, error)
            if event is not None:
                found.append(event)
                last = entry.revision
        return Reading(tuple(found), head, last)

    def _stop(
        self, number: int, revision: int, found: list[Event[T]], error: CorruptObject
    ) -> Reading[T]:
        """First what came before the error, revisions as a whole; the next time the error."""
        segment = self._log.segment
        start = segment.after(revision - 1, revision_of)
        shown = [event for event in found if event.resource_version != str(revision)]
        if not shown:
            return Reading((), min(number, start), error=error)
        return Reading(tuple(shown), min(number, start), int(shown[-1].resource_version))

    def _show(self, entry: Entry[T]) -> Event[T] | None:
        """What is shown of an event. (WATCH-10)"""
        match = self._match
        if match is None:
            return entry.event
        item, previous, kind = entry.item, entry.previous, entry.type
        was = previous is not None and match(previous)
        if kind is EventType.DELETED or (self._pure and _alike(previous, item)):
            return entry.event if was else None
        now = item is not None and match(item)
        if now and item is not None:
            if was is (kind is EventType.MODIFIED):
                return entry.event
            kind = EventType.MODIFIED if was else EventType.ADDED
            return Event(kind, item.object, str(entry.revision))
        if was and previous is not None:
            last = self.config.resource_type.versioner.update_object(
                previous.object, entry.revision
            )
            return Event(EventType.DELETED, last, str(entry.revision))
        return None

    def _show_unreadable(self, entry: Entry[T]) -> Event[T]:
        """What is shown of an object that cannot be read, or could not be."""
        item, error = entry.item, entry.error
        if error is not None:
            deleted = entry.type is EventType.DELETED
            kind = EventType.DELETED if deleted else EventType.ERROR
            return Event.unreadable(kind, error, entry.revision)
        if item is not None and (self._match is None or self._match(item)):
            return Event(EventType.ADDED, item.object, str(entry.revision))
        assert entry.previous_error is not None
        return Event.unreadable(EventType.DELETED, entry.previous_error, entry.revision)


def _alike(previous: Item[T] | None, item: Item[T] | None) -> bool:
    """Whether both states of an object are there, and have the same attributes."""
    return (
        previous is not None
        and item is not None
        and previous.labels is not None
        and previous.labels == item.labels
        and previous.fields == item.fields
    )
