"""The events of the shared log that watches show, computed once for all of the same selection."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Hashable, Iterable, Iterator
from operator import attrgetter
from typing import Any, Generic, TypeAlias, TypeVar

import msgspec

from revstore.cacher._config import CacherConfig
from revstore.cacher._event_log import Entry, EventLog, Item, revision_of
from revstore.cacher._match import Match, is_pure, matcher
from revstore.errors import CorruptObject
from revstore.selectors import FieldSelector, LabelSelector, SelectionPredicate
from revstore.storage import Event, EventType

__all__ = [
    "Bucket",
    "FieldBucket",
    "LabelBucket",
    "Listener",
    "Numbers",
    "Reading",
    "View",
    "covers",
    "view_key",
]

T = TypeVar("T")

_event = attrgetter("event")

#: A callback that says that there may be something for a watch.
Callback: TypeAlias = Callable[[], None]
#: A scope, selectors, and whether unreadable objects are shown.
ViewKey: TypeAlias = tuple[str, LabelSelector, FieldSelector, bool]


def covers(scope: str, key: str) -> bool:
    """Return whether the events of ``key`` belong to ``scope``: a prefix that ends in "/", or a
    key."""
    return key.startswith(scope) if scope.endswith("/") else key == scope


class Numbers(msgspec.Struct, frozen=True):
    """Sequence numbers into the log, rising: all those of a bucket from ``floor`` on. Numbers are
    only appended. To drop the oldest, or if this one is a tuple, another takes its place."""

    floor: int
    numbers: list[int] | tuple[()]


class Listener(Generic[T]):
    """The data that a generation keeps about a watch: its view, its position, and what it waits
    for."""

    __slots__ = ("at", "closed", "pending", "progress", "replays", "timed", "told", "view", "wake")

    def __init__(self, cursor: int, position: int, *, progress: bool, replays: bool) -> None:
        #: None until the watch has entered the generation.
        self.view: View[T] | None = None
        #: The number of the next event to look at, and the revision up to which everything has been
        #: shown. Replaced as a whole, so that an interrupt finds both or neither.
        self.at = (cursor, position)
        #: The revision up to which events and bookmarks have reported.
        self.told = position
        #: Whether bookmarks report the store's progress.
        self.progress = progress
        #: The callback for its view, if its view has only this one. Guarded by the generation's
        #: lock.
        self.wake: Callback | None = None
        #: Whether a poll finds something besides what the log has.
        self.pending = False
        #: Guarded by the generation's lock: whether the log is held for this watch, whether the
        #: generation's timer has it, and whether it is closed, which it is until it is entered.
        self.replays = replays
        self.timed = False
        self.closed = True

    def end(self) -> None:
        """Note, after ``closed``, that only the end remains to be delivered."""
        self.pending = True


class Bucket(Generic[T]):
    """Views with one trigger value, and the events that may concern them. (CWATCH-5, CWATCH-6)

    Its fields are guarded by its generation's lock; ``known`` is replaced as a whole, so that
    readers need none.
    """

    __slots__ = ("_home", "_others", "_value", "_view", "known")

    def __init__(self, known: Numbers, home: dict[Any, Any], value: Hashable) -> None:
        self._home = home
        self._value = value
        self.known = known
        # Most buckets have one view, and a dict of one takes more memory than everything else.
        self._view: View[T] | None = None
        self._others: dict[Hashable, View[T]] | None = None

    @property
    def views(self) -> Iterator[View[T]]:
        """The views that read it."""
        if self._view is not None:
            yield self._view
        if self._others is not None:
            yield from self._others.values()

    def find(self, key: Hashable) -> View[T] | None:
        """Return the view with the key, None if there is none."""
        if self._view is not None and self._view.key == key:
            return self._view
        return None if self._others is None else self._others.get(key)

    def enter(self, view: View[T]) -> None:
        if self._view is None:
            self._view = view
        else:
            self._others = self._others or {}
            self._others[view.key] = view

    def leave(self, view: View[T]) -> None:
        """Forget a view, and the bucket itself after the last one."""
        if self._view is view:
            self._view = None
        elif self._others is not None:
            self._others.pop(view.key, None)
        if self._view is None and not self._others and self._home.get(self._value) is self:
            del self._home[self._value]

    def add(self, number: int, base: int) -> None:
        """Note an event; now and then forget those that the log has dropped."""
        numbers = self.known.numbers
        if isinstance(numbers, tuple):
            self.known = Numbers(self.known.floor, [number])
            return
        numbers.append(number)
        if len(numbers) % 128 == 0 and numbers[0] < base:
            cut = bisect_left(numbers, base)
            self.known = Numbers(numbers[cut - 1] + 1, numbers[cut:])

    def take(self, told: list[Callback], head: int) -> None:
        """Add the callbacks of watches that wait for an event; there are some up to ``head``."""
        if self._view is not None:
            self._view.take(told, head)
        if self._others is not None:
            for view in self._others.values():
                view.take(told, head)

    def between(self, cursor: int, head: int) -> list[int] | range:
        """Return the numbers of the events that may concern it: of all events, before its first
        look."""
        known = self.known
        numbers = known.numbers
        if cursor < known.floor:
            return range(cursor, head)
        if isinstance(numbers, tuple):
            return []
        low = bisect_left(numbers, cursor)
        # Numbers at the head or above it belong to events that are just being published.
        return numbers[low : bisect_left(numbers, head, low)]


class ValueBucket(Bucket[T]):
    """Views that select a value, which those that select nothing else all show alike."""

    __slots__ = ("memo",)

    def __init__(self, known: Numbers, home: dict[Any, Any], value: Hashable) -> None:
        super().__init__(known, home, value)
        #: As of a view.
        self.memo: tuple[int, int, Reading[T] | None] | None = None

    def read(self, log: EventLog[T], cursor: int, head: int) -> Reading[T] | None:
        """Return what each view shows that selects only by the value, whatever other values.

        Return None if these may differ.
        """
        reading = self._read(log, cursor, head)
        self.memo = cursor, head, reading
        return reading

    def _read(self, log: EventLog[T], cursor: int, head: int) -> Reading[T] | None:
        numbers = self.between(cursor, head)
        if isinstance(numbers, range):
            return None
        segment = log.segment
        if numbers and numbers[0] < segment.base:
            return None
        events, last = [], 0
        for number in numbers:
            entry = segment.items[number - segment.base]
            # Unless the value is unchanged, or comes or goes with its object.
            if entry.error is not None or entry.previous_error is not None:
                return None
            item, previous = entry.item, entry.previous
            if item is not None and not self._has(item):
                return None
            if previous is not None and not self._has(previous):
                return None
            events.append(entry.event)
            last = entry.revision
        return Reading(tuple(events), head, last)  # type: ignore[arg-type]

    def _has(self, item: Item[T]) -> bool:
        raise NotImplementedError


class LabelBucket(ValueBucket[T]):
    """Views of a scope that select a value of a label, perhaps among other values."""

    __slots__ = ("name",)

    def __init__(self, known: Numbers, home: dict[Any, Any], value: str) -> None:
        super().__init__(known, home, value)
        #: The name of the label.
        self.name = ""

    def _has(self, item: Item[T]) -> bool:
        return item.labels is not None and item.labels.get(self.name) == self._value


class FieldBucket(ValueBucket[T]):
    """Views that select a value of an indexed field."""

    __slots__ = ("at",)

    def __init__(self, known: Numbers, home: dict[Any, Any], value: str) -> None:
        super().__init__(known, home, value)
        #: The place of the field among the indexed ones.
        self.at = 0

    def _has(self, item: Item[T]) -> bool:
        return item.fields[self.at] == self._value


class Reading(msgspec.Struct, Generic[T], frozen=True, gc=False):
    """The result of reading up to the sequence number ``cursor``: ``events``, the last at revision
    ``last``; or the ``error`` that comes next. ``lost``: the log does not reach back so far."""

    events: tuple[Event[T], ...]
    cursor: int
    last: int = 0
    error: CorruptObject | None = None
    lost: bool = False


def view_key(
    scope: str, predicate: SelectionPredicate[T], *, even_if_corrupt: bool = False
) -> ViewKey:
    """Return a key that distinguishes views."""
    return scope, predicate.label, predicate.field, even_if_corrupt


class View(Generic[T]):
    """A scope and a selector over the log. It needs no lock: it remembers one reading, which many
    watches ask for in turn, and replaces it as a whole."""

    __slots__ = (
        "_alone",
        "_field",
        "_label",
        "_log",
        "_match",
        "_pure",
        "_tolerant",
        "armed",
        "buckets",
        "config",
        "head",
        "memo",
        "scope",
        "users",
    )

    def __init__(
        self,
        log: EventLog[T],
        scope: str,
        predicate: SelectionPredicate[T],
        buckets: Bucket[T] | tuple[LabelBucket[T], ...] | None,
        config: CacherConfig[T],
        *,
        head: int,
        even_if_corrupt: bool = False,
    ) -> None:
        self._label, self._field = predicate.label, predicate.field
        #: Where its events are: in one bucket, or in those of several values of a label; None: it
        #: looks at every event of the cache.
        self.buckets = buckets
        self.scope = scope
        self.config = config
        self.users = 0  # guarded by the generation's lock
        #: The watches that have a callback, guarded by the generation's lock: one, whose callback
        #: ``wake`` is, or many.
        self.armed: Listener[T] | dict[Listener[T], Callback] | None = None
        #: The end of the log at the latest event that may concern it. A watch that has read up to
        #: there waits for the next event; the callback of one that has not was called already.
        #: Written under the generation's lock, after ``Generation.shown`` and before ``at`` of any
        #: watch is read, so that a poll that looks at it after setting ``at`` misses nothing.
        self.head = head
        self._log = log
        self._pure = is_pure(predicate, config.indexed_fields)
        # Created when needed: many views only ever wait.
        self._match: Match[T] | None = None
        self._tolerant = even_if_corrupt  # shows unreadable objects, instead of ending
        # Whether it shows the same as its buckets, unless the label or the field changes.
        if even_if_corrupt:
            self._alone = False
        elif isinstance(buckets, FieldBucket):
            everything = scope == config.resource_type.root
            one = predicate.label.empty and len(predicate.field.requirements) == 1
            self._alone = everything and one
        else:
            one = predicate.field.empty and len(predicate.label.requirements) == 1
            self._alone = isinstance(buckets, LabelBucket | tuple) and one
        #: The last reading: its start, its end, and its result.
        self.memo: tuple[int, int, Reading[T]] | None = None

    @property
    def key(self) -> ViewKey:
        """A key that is equal for views that show the same."""
        return self.scope, self._label, self._field, self._tolerant

    def arm(self, watch: Listener[T], callback: Callback) -> None:
        armed = self.armed
        if armed is None or armed is watch:
            watch.wake = callback
            self.armed = watch
        elif isinstance(armed, dict):
            armed[watch] = callback
        else:
            assert armed.wake is not None
            self.armed = {armed: armed.wake, watch: callback}

    def disarm(self, watch: Listener[T]) -> None:
        """Remove the callback of ``arm``."""
        armed = self.armed
        if isinstance(armed, dict):
            armed.pop(watch, None)
        elif armed is watch:
            self.armed = None
        watch.wake = None  # the function of a selector refers to the watch

    def waiting(self, watch: Listener[T]) -> Callback | None:
        """Return the callback of ``arm``, if it has not been called since the last poll."""
        armed = self.armed
        if watch.at[0] < self.head:
            return None
        if isinstance(armed, dict):
            return armed.get(watch)
        return watch.wake if armed is watch else None

    def take(self, told: list[Callback], head: int) -> None:
        """Add the callbacks of the watches that wait for an event; there are some up to ``head``.

        These callbacks are not called again before a poll.
        """
        before, self.head = self.head, head
        armed = self.armed
        if isinstance(armed, dict):
            told += [callback for watch, callback in armed.items() if watch.at[0] >= before]
        elif armed is not None and armed.wake is not None and armed.at[0] >= before:
            told.append(armed.wake)

    def callbacks(self) -> list[Callback]:
        """Return the callbacks of the watches that wait."""
        armed = self.armed
        if isinstance(armed, dict):
            return [callback for watch, callback in armed.items() if watch.at[0] >= self.head]
        waits = armed is not None and armed.at[0] >= self.head
        return [armed.wake] if waits and armed is not None and armed.wake is not None else []

    def read(self, cursor: int, head: int) -> Reading[T]:
        """Read the log from ``cursor`` up to ``head``, which has been published."""
        memo = self.memo
        if memo is not None and memo[0] == cursor and memo[1] == head:
            return memo[2]
        reading = self._read_buckets(cursor, head) if self._alone else None
        if reading is None:
            reading = self._read(cursor, head)
        if self.users > 1:
            self.memo = cursor, head, reading
        return reading

    def read_after(self, cursor: int, head: int, revision: int) -> Reading[T]:
        """Read as ``read`` does, but only events above ``revision``."""
        return self._read(cursor, head, revision)

    def _read_buckets(self, cursor: int, head: int) -> Reading[T] | None:
        """Return what was read for all views of the value; None if this view may show something
        else."""
        found: Reading[T] | None = None
        buckets: Any = self.buckets
        for bucket in buckets if isinstance(buckets, tuple) else (buckets,):
            known = bucket.known
            if known.numbers or cursor < known.floor:
                memo = bucket.memo
                if memo is not None and memo[0] == cursor and memo[1] == head:
                    reading = memo[2]
                else:
                    reading = bucket.read(self._log, cursor, head)
                if reading is None or (found is not None and found.events and reading.events):
                    return None
                if found is None or reading.events:
                    found = reading
        return found

    def _read(self, cursor: int, head: int, after: int = 0) -> Reading[T]:
        segment = self._log.segment
        if self.buckets is None:
            if cursor < segment.base:
                return Reading((), cursor, lost=True)
            entries = segment.items[cursor - segment.base : head - segment.base]
            if self._empty and not (self._tolerant or after):
                events = tuple(map(_event, entries))
                if None not in events:
                    return Reading(events, head, entries[-1].revision if entries else 0)
            return self._map(zip(range(cursor, head), entries, strict=True), head, after)
        numbers = self._numbers(cursor, head)
        segment = self._log.segment
        base = segment.base
        if numbers and numbers[0] < base:
            return Reading((), cursor, lost=True)
        return self._map(((n, segment.items[n - base]) for n in numbers), head, after)

    @property
    def _empty(self) -> bool:
        """True if the view has no selector."""
        return self._label.empty and self._field.empty

    def _numbers(self, cursor: int, head: int) -> list[int] | range:
        """Return the numbers of the events that may concern this view."""
        if isinstance(self.buckets, Bucket):
            return self.buckets.between(cursor, head)
        assert self.buckets is not None
        found: set[int] = set()
        for bucket in self.buckets:
            numbers = bucket.between(cursor, head)
            if isinstance(numbers, range):
                return numbers
            found.update(numbers)
        return sorted(found)

    def _map(self, entries: Iterable[tuple[int, Entry[T]]], head: int, after: int) -> Reading[T]:
        if self._match is None and not self._empty:
            predicate = self.config.resource_type.predicate(self._label, self._field)
            self._match = matcher(predicate, self.config.indexed_fields)
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
        """Return the events before the error, whole revisions only; the next call returns the
        error."""
        segment = self._log.segment
        start = segment.after(revision - 1, revision_of)
        shown = [event for event in found if event.resource_version != str(revision)]
        if not shown:
            return Reading((), min(number, start), error=error)
        return Reading(tuple(shown), min(number, start), int(shown[-1].resource_version))

    def _show(self, entry: Entry[T]) -> Event[T] | None:
        """Return the event that a watch shows of one in the log. (WATCH-10)"""
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
        """Return the event about an object that cannot be read, or could not be."""
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
    """Return whether both states of an object exist and have the same attributes."""
    return (
        previous is not None
        and item is not None
        and previous.labels is not None
        and previous.labels == item.labels
        and previous.fields == item.fields
    )
