"""The objects that a cache holds now, in key order, and what they were a little ago."""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Generic, TypeVar

import attrs

from revstore._cacher_log import Entry
from revstore.errors import CorruptObject

__all__ = ["CacheState", "Range"]

T = TypeVar("T")

_SNAPSHOTS = 8


_ANSWERS = 32


@attrs.frozen(slots=True)
class Range(Generic[T]):
    """Keys in order, and their objects; ``more``: how many follow."""

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


class _Index(Generic[T]):
    """Keys by one attribute's value. Dicts serve as sets that keep an order, which makes sorting
    what comes out of them near linear."""

    def __init__(self, value_of: Callable[[T], Mapping[str, str]]) -> None:
        self._values_of = value_of
        self._keys: dict[tuple[str, str], dict[str, None]] = {}

    def change(self, key: str, before: T | None, after: T | None) -> None:
        old, new = self._of(before), self._of(after)
        if old == new:
            return
        for item in old.items() - new.items():
            keys = self._keys[item]
            del keys[key]
            if not keys:
                del self._keys[item]
        for item in new.items() - old.items():
            self._keys.setdefault(item, {})[key] = None

    def _of(self, obj: T | None) -> Mapping[str, str]:
        if obj is None:
            return {}
        try:
            return self._values_of(obj)
        except Exception:  # noqa: BLE001 - what has no attributes is found by none (LIST-6)
            return {}

    def keys(self, name: str, value: str) -> Iterable[str]:
        return self._keys.get((name, value), ())


class CacheState(Generic[T]):
    """One flat list of keys and one of objects beside it: a list is a slice. Not thread-safe: its
    owner's lock is held around every call but ``get``."""

    def __init__(
        self,
        labels: Callable[[T], Mapping[str, str]],
        fields: Callable[[T], Mapping[str, str]],
    ) -> None:
        self._by_key: dict[str, T] = {}
        self._keys: list[str] = []
        self._objects: list[T] = []
        self._labels = _Index(labels)
        self._fields = _Index(fields)
        #: Keys whose objects cannot be read.
        self.corrupt: dict[str, CorruptObject] = {}
        #: Which objects are there: another number after each change.
        self.version = 0
        self._answers: OrderedDict[Hashable, tuple[T, ...]] = OrderedDict()
        self._snapshots: OrderedDict[tuple[int, str], Range[T]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._keys)

    def get(self, key: str) -> T | None:
        """The object at ``key``. Needs no lock."""
        return self._by_key.get(key)

    def load(self, pairs: Iterable[tuple[str, T]]) -> None:
        """Fill an empty state with objects in key order."""
        for key, obj in pairs:
            self._keys.append(key)
            self._objects.append(obj)
            self._by_key[key] = obj
            self._labels.change(key, None, obj)
            self._fields.change(key, None, obj)

    def put(self, key: str, obj: T) -> T | None:
        """Set the object at ``key``; the one before."""
        self._changed()
        before = self._by_key.get(key)
        at = bisect_left(self._keys, key)
        if before is None:
            self._keys.insert(at, key)
            self._objects.insert(at, obj)
        else:
            self._objects[at] = obj
        self._by_key[key] = obj
        self._labels.change(key, before, obj)
        self._fields.change(key, before, obj)
        self.corrupt.pop(key, None)
        return before

    def remove(self, key: str) -> T | None:
        """Drop the object at ``key``; the one before."""
        self._changed()
        self.corrupt.pop(key, None)
        before = self._by_key.pop(key, None)
        if before is not None:
            at = bisect_left(self._keys, key)
            del self._keys[at], self._objects[at]
            self._labels.change(key, before, None)
            self._fields.change(key, before, None)
        return before

    def below(self, prefix: str, start: str = "", limit: int = 0) -> Range[T]:
        """What lies below ``prefix``, from ``start`` on."""
        low, high = _bounds(self._keys, prefix, start)
        end = min(high, low + limit) if limit else high
        return Range(self._keys[low:end], tuple(self._objects[low:end]), high - end)

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
        return self._pick(self._labels.keys(name, value), prefix)

    def with_field(self, name: str, value: str, prefix: str) -> Range[T]:
        """What lies below ``prefix`` and has the value in the indexed field."""
        return self._pick(self._fields.keys(name, value), prefix)

    def corrupt_below(self, prefix: str) -> bool:
        """Whether objects below ``prefix`` cannot be read."""
        return any(key.startswith(prefix) for key in self.corrupt)

    def at(self, revision: int, prefix: str, later: Sequence[Entry[T]]) -> Range[T] | None:
        """What lay below ``prefix`` at ``revision``; ``later`` are all events since. None if
        there was something that could not be read."""
        found = self._snapshots.get((revision, prefix))
        if found is None:
            found = self._undo(prefix, later)
            if found is None:
                return None
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

    def _undo(self, prefix: str, later: Sequence[Entry[T]]) -> Range[T] | None:
        before: dict[str, T | None] = {}
        for entry in later:
            if entry.key.startswith(prefix) and entry.key not in before:
                if entry.previous_error is not None:
                    return None
                before[entry.key] = entry.previous
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
        return Range(keys, tuple(objects))

    def _pick(self, keys: Iterable[str], prefix: str) -> Range[T]:
        chosen = sorted(key for key in keys if key.startswith(prefix))
        by_key = self._by_key
        return Range(chosen, tuple(by_key[key] for key in chosen))


def _bounds(keys: list[str], prefix: str, start: str = "") -> tuple[int, int]:
    # The prefix ends in "/", and "0" is the character after that.
    low = bisect_left(keys, max(prefix, start))
    high = bisect_left(keys, prefix[:-1] + "0", low)
    return low, high
