"""The objects that a cache holds now, in key order, and what they were a little ago."""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import attrs

from revstore.cacher._event_log import Entry, Item
from revstore.errors import CorruptObject

__all__ = ["Attributes", "CacheState", "Range"]

T = TypeVar("T")

_SNAPSHOTS = 8
_ANSWERS = 32
_NO_LABELS: Mapping[str, str] = {}


@attrs.frozen(slots=True)
class Range(Generic[T]):
    """Objects in the order of their keys, and these if they were asked for; ``more``: how many
    follow."""

    keys: Sequence[str]
    objects: Sequence[T]
    more: int = 0

    def page(self, start: str, limit: int) -> Range[T]:
        """The part from the key ``start`` on, of ``limit`` objects, 0: all."""
        low = bisect_left(self.keys, start) if start else 0
        high = len(self.keys)
        end = min(high, low + limit) if limit else high
        if low == 0 and end == high:
            return self
        return Range(self.keys[low:end], self.objects[low:end], high - end)


class Attributes(Generic[T]):
    """What objects are found by: labels, and the values of some fields. The functions are the
    user's, and may raise anything: they are called in the feed's thread."""

    def __init__(
        self,
        labels: Callable[[T], Mapping[str, str]],
        fields: Callable[[T, str], str],
        paths: tuple[str, ...],
    ) -> None:
        self._labels = labels
        self._fields = fields
        self.paths = paths

    def of(self, obj: T) -> Item[T]:
        """The object with its attributes."""
        labels: Any
        try:
            labels = self._labels(obj)
            if not isinstance(labels, dict):  # nothing of the user's is compared or tested later
                labels = dict(labels) if isinstance(labels, Mapping) else None
        except BaseException:  # noqa: BLE001 - then no selector on them matches
            labels = None
        return Item(obj, labels, tuple([self._field(obj, path) for path in self.paths]))

    def _field(self, obj: T, path: str) -> str | None:
        try:
            value = self._fields(obj, path)
            return value if isinstance(value, str) else None
        except BaseException:  # noqa: BLE001 - then no selector on it matches
            return None


class _Ordered(Generic[T]):
    """One flat list of keys in order and one of objects beside it: a list is a slice."""

    __slots__ = ("keys", "objects")

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.objects: list[T] = []

    def append(self, key: str, obj: T) -> None:
        """Add an object behind all that are there."""
        self.keys.append(key)
        self.objects.append(obj)

    def put(self, key: str, obj: T) -> None:
        keys = self.keys
        at = bisect_left(keys, key)
        if at < len(keys) and keys[at] == key:
            self.objects[at] = obj
        else:
            keys.insert(at, key)
            self.objects.insert(at, obj)

    def remove(self, key: str) -> None:
        at = bisect_left(self.keys, key)
        del self.keys[at], self.objects[at]

    def below(self, prefix: str, start: str = "", limit: int = 0, *, named: bool) -> Range[T]:
        """What lies below ``prefix``, which ends in "/", from ``start`` on; the keys too if
        ``named``."""
        keys, objects = self.keys, self.objects
        if keys and keys[0].startswith(prefix) and keys[-1].startswith(prefix) and not start:
            low, high = 0, len(keys)  # which is common, and each key looked at costs
        else:
            low = bisect_left(keys, max(prefix, start))
            high = bisect_left(keys, prefix[:-1] + "0", low)  # "0" is the character after "/"
        end = min(high, low + limit) if limit else high
        found = tuple(objects if end - low == len(keys) else objects[low:end])
        return Range(keys[low:end] if named else (), found, high - end)


class _FieldIndex(Generic[T]):
    """Objects by the value of a field."""

    def __init__(self) -> None:
        self._objects: dict[str, _Ordered[T]] = {}

    def of(self, value: str) -> _Ordered[T]:
        """Those with ``value``; a new place for them if there are none."""
        found = self._objects.get(value)
        if found is None:
            found = self._objects[value] = _Ordered()
        return found

    def below(self, value: str, prefix: str, *, named: bool) -> Range[T]:
        found = self._objects.get(value)
        return Range((), ()) if found is None else found.below(prefix, named=named)

    def remove(self, value: str, key: str) -> None:
        found = self._objects[value]
        found.remove(key)
        if not found.keys:
            del self._objects[value]


class _LabelIndex:
    """Keys by a label. Dicts serve as sets that keep an order, which makes sorting what comes out
    of them near linear."""

    def __init__(self) -> None:
        self._keys: dict[Hashable, dict[str, None]] = {}

    def change(self, key: str, old: Iterable[Hashable], new: Iterable[Hashable]) -> None:
        for value in old:
            keys = self._keys[value]
            del keys[key]
            if not keys:
                del self._keys[value]
        for value in new:
            self.add(key, value)

    def add(self, key: str, value: Hashable) -> None:
        keys = self._keys.get(value)
        if keys is None:
            self._keys[value] = {key: None}
        else:
            keys[key] = None

    def keys(self, value: Hashable) -> Iterable[str]:
        return self._keys.get(value, ())


class CacheState(Generic[T]):
    """The objects, all in one order and those of each indexed field's value in another. Not
    thread-safe: its owner's lock is held around every call but ``get``."""

    def __init__(self, attributes: Attributes[T]) -> None:
        self._attributes = attributes
        #: Those of the indexed fields.
        self.paths = attributes.paths
        self._items: dict[str, Item[T]] = {}
        self._all: _Ordered[T] = _Ordered()
        self._labels = _LabelIndex()
        self._fields: tuple[_FieldIndex[T], ...] = tuple(_FieldIndex() for _ in attributes.paths)
        #: Keys whose objects cannot be read.
        self.corrupt: dict[str, CorruptObject] = {}
        #: Which objects are there: another number after each change.
        self.version = 0
        self._answers: OrderedDict[Hashable, tuple[T, ...]] = OrderedDict()
        self._snapshots: OrderedDict[tuple[int, str], tuple[Range[T], frozenset[str]]] = (
            OrderedDict()
        )

    def __len__(self) -> int:
        return len(self._items)

    def get(self, key: str) -> T | None:
        """The object at ``key``. Needs no lock."""
        item = self._items.get(key)
        return None if item is None else item.object

    def load(self, key: str, obj: T) -> None:
        """Add an object behind all that are there."""
        item = self._attributes.of(obj)
        self._all.append(key, obj)
        self._items[key] = item
        for pair in _pairs(item.labels) if item.labels else ():
            self._labels.add(key, pair)
        for index, value in zip(self._fields, item.fields, strict=True):
            if value is not None:
                index.of(value).append(key, obj)

    def put(self, key: str, item: Item[T]) -> Item[T] | None:
        """Set the object at ``key``; the one before."""
        self._changed()
        before = self._items.get(key)
        self._all.put(key, item.object)
        self._items[key] = item
        self._reindex(key, before, item)
        if self.corrupt:
            self.corrupt.pop(key, None)
        return before

    def remove(self, key: str) -> Item[T] | None:
        """Drop the object at ``key``; the one before."""
        self._changed()
        self.corrupt.pop(key, None)
        before = self._items.pop(key, None)
        if before is not None:
            self._all.remove(key)
            self._reindex(key, before, None)
        return before

    def below(
        self, prefix: str, start: str = "", limit: int = 0, *, named: bool = True
    ) -> Range[T]:
        """What lies below ``prefix``, from ``start`` on. Keys cost as much as objects: not
        ``named``, they are left out."""
        return self._all.below(prefix, start, limit, named=named)

    def answer(self, question: Hashable) -> tuple[T, ...] | None:
        """What was remembered for ``question`` since the last change."""
        return self._answers.get(question)

    def remember(self, question: Hashable, answer: tuple[T, ...]) -> None:
        """Keep an answer until the next change."""
        self._answers[question] = answer
        if len(self._answers) > _ANSWERS:
            self._answers.popitem(last=False)

    def labelled(self, name: str, value: str, prefix: str) -> Range[T]:
        """What lies below ``prefix`` and has the label."""
        return self._pick(self._labels.keys((name, value)), prefix)

    def with_field(self, path: str, value: str, prefix: str, *, named: bool = True) -> Range[T]:
        """What lies below ``prefix`` and has the value in the indexed field."""
        index = self._fields[self.paths.index(path)]
        return index.below(value, prefix, named=named)

    def corrupt_below(self, prefix: str) -> bool:
        """Whether objects below ``prefix`` cannot be read."""
        return any(key.startswith(prefix) for key in self.corrupt)

    def at(
        self, revision: int, prefix: str, later: Sequence[Entry[T]]
    ) -> tuple[Range[T], frozenset[str]]:
        """What lay below ``prefix`` at ``revision``, and the keys of what could not be read there;
        ``later`` are all events since."""
        found = self._snapshots.get((revision, prefix))
        if found is None:
            found = self._undo(prefix, later)
            self._snapshots[revision, prefix] = found
            if len(self._snapshots) > _SNAPSHOTS:
                self._snapshots.popitem(last=False)
        else:
            self._snapshots.move_to_end((revision, prefix))
        return found

    def forget_before(self, revision: int) -> None:
        """Drop snapshots of revisions below ``revision``."""
        for old in [key for key in self._snapshots if key[0] < revision]:
            del self._snapshots[old]

    def _changed(self) -> None:
        self.version += 1
        if self._answers:
            self._answers.clear()

    def _reindex(self, key: str, old: Item[T] | None, new: Item[T] | None) -> None:
        had = (old.labels if old is not None else None) or _NO_LABELS
        has = (new.labels if new is not None else None) or _NO_LABELS
        if had != has:
            before, after = _pairs(had), _pairs(has)
            self._labels.change(key, before - after, after - before)
        for at, index in enumerate(self._fields):
            was = None if old is None else old.fields[at]
            now = None if new is None else new.fields[at]
            if was is not None and was != now:
                index.remove(was, key)
            if new is not None and now is not None:
                index.of(now).put(key, new.object)

    def _undo(self, prefix: str, later: Sequence[Entry[T]]) -> tuple[Range[T], frozenset[str]]:
        before: dict[str, T | None] = {}
        unreadable = {key for key in self.corrupt if key.startswith(prefix)}
        for entry in later:
            if entry.key.startswith(prefix) and entry.key not in before:
                if entry.previous_error is not None:
                    unreadable.add(entry.key)
                else:
                    unreadable.discard(entry.key)
                before[entry.key] = None if entry.previous is None else entry.previous.object
        now = self.below(prefix)
        keys, objects = list(now.keys), list(now.objects)
        for key, obj in before.items():
            at = bisect_left(keys, key)
            there = at < len(keys) and keys[at] == key
            if obj is None:
                if there:
                    del keys[at], objects[at]
            elif there:
                objects[at] = obj
            else:
                keys.insert(at, key)
                objects.insert(at, obj)
        return Range(keys, tuple(objects)), frozenset(unreadable)

    def _pick(self, keys: Iterable[str], prefix: str) -> Range[T]:
        chosen = sorted([key for key in keys if key.startswith(prefix)])
        items = self._items
        return Range(chosen, tuple([items[key].object for key in chosen]))


def _pairs(labels: Mapping[str, str]) -> set[Hashable]:
    try:
        return set(labels.items())
    except TypeError:  # what is no text is no label, and matches no selector
        return {pair for pair in labels.items() if isinstance(pair[1], str)}
