"""The objects that a cache holds now, in key order, and their recent states."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Generic, TypeAlias, TypeVar

import attrs

from revstore.cacher._event_log import Entry, Item
from revstore.cacher._ordered import Range, Tree, below, extend, leaves_of, put, remove
from revstore.errors import CorruptObject

__all__ = ["Attributes", "CacheState", "Past", "PastPage", "Picked"]

T = TypeVar("T")
V = TypeVar("V")

_SNAPSHOTS = 8
_ANSWERS = 32
# This many objects are looked up by their keys under the owner's lock, at 0.35 us each if there are
# a million. If there are more, they are picked from all, which takes three times as long.
_LOOKED_UP = 10_000

#: Trees by what their objects have in common.
Index: TypeAlias = dict[Hashable, Tree[T]]


class Attributes(Generic[T]):
    """The attributes by which objects are found: labels, and the values of some fields. The
    functions are the user's and may raise anything: the feed's thread calls them."""

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
        """Return the object with its attributes."""
        labels: Any
        try:
            labels = self._labels(obj)
            if not isinstance(labels, dict):  # no user's value is compared or tested later
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


class Past(Generic[T]):
    """The objects below a prefix at an earlier revision: a current tree, and how to undo the
    changes."""

    def __init__(
        self,
        tree: Tree[T] | None,
        unreadable: set[str],
        prefix: str,
        later: Sequence[Entry[T]],
    ) -> None:
        self.prefix = prefix
        self._now = tree, unreadable, later
        # Computed by the first thread that asks, perhaps by two at a time; replaced as a whole.
        self._then: tuple[Tree[T] | None, frozenset[str]] | None = None

    def then(self) -> tuple[Tree[T] | None, frozenset[str]]:
        """Return the objects, among others that are not below the prefix, and the keys below it
        whose objects could not be read.

        Hold no lock: this takes longer the more has changed since.
        """
        if self._then is None:
            self._then = self._undo(*self._now)
        return self._then

    def _undo(
        self, tree: Tree[T] | None, unreadable: set[str], later: Sequence[Entry[T]]
    ) -> tuple[Tree[T] | None, frozenset[str]]:
        prefix, owner = self.prefix, object()
        first: dict[str, Entry[T]] = {}
        for entry in later:
            if entry.key.startswith(prefix):
                first.setdefault(entry.key, entry)
        unreadable = {key for key in unreadable if key.startswith(prefix) and key not in first}
        for key, entry in first.items():
            if entry.previous is not None:
                tree = put(tree, key, entry.previous.object, owner)
            elif tree is not None:
                tree = remove(tree, key, owner)
            if entry.previous_error is not None:
                unreadable.add(key)
        return tree, frozenset(unreadable)


@attrs.frozen(slots=True)
class PastPage(Generic[T]):
    """A page of the past: ``limit`` objects, 0: all, from the key ``start`` on."""

    past: Past[T]
    start: str
    limit: int

    def read(self) -> Range[T] | None:
        """Return the range; None if an object could not be read at that time."""
        tree, unreadable = self.past.then()
        return None if unreadable else below(tree, self.past.prefix, self.start, self.limit)


@attrs.frozen(slots=True)
class Picked(Generic[T]):
    """Those of ``objects`` that have one of ``keys``."""

    objects: Range[T]
    keys: Range[None]

    def read(self) -> Range[T]:
        return self.objects.pick(self.keys)


class _Overlay(dict[Any, V | None]):
    """Changes to a dict, which stays unchanged until ``merge``. None marks a removed key."""

    def __init__(self, base: dict[Any, V]) -> None:
        super().__init__()
        self._base = base
        self._put: dict[Any, V] = {}
        self._gone: list[Any] = []
        #: What the dict had, and no longer has after ``merge``.
        self.replaced: list[V] = []

    def get(self, key: Any, default: Any = None) -> Any:
        return self[key] if key in self else self._base.get(key, default)

    def __missing__(self, key: Any) -> V:
        return self._base[key]

    def __delitem__(self, key: Any) -> None:
        self[key] = None

    def before(self) -> dict[Any, V | None]:
        """Return the items of the dict at the changed keys."""
        return {key: self._base.get(key) for key in self}

    def sort_out(self) -> None:
        """Do everything that can be done before ``merge``."""
        self._put = {key: value for key, value in self.items() if value is not None}
        self._gone = [key for key, value in self.items() if value is None and key in self._base]
        self.replaced = [self._base[key] for key in self if key in self._base]

    def merge(self) -> None:
        """Apply the changes that were sorted out."""
        base = self._base
        base.update(self._put)
        for key in self._gone:
            del base[key]


class CacheState(Generic[T]):
    """The objects, all in one order, and those with a label or an indexed field's value in another.

    Not thread-safe: hold the owner's lock around every call except ``get`` and the calls of a
    ``branch``.
    """

    def __init__(self, attributes: Attributes[T]) -> None:
        self._attributes = attributes
        #: Those of the indexed fields.
        self.paths = attributes.paths
        self._items: dict[str, Item[T]] = {}
        self._all: Tree[T] | None = None
        # By name and value. Of keys only: most changes of an object leave its labels as they were.
        self._labels: Index[None] = {}
        self._fields: tuple[Index[T], ...] = tuple({} for _ in attributes.paths)
        # The owner of those parts of trees that no reader has. It is replaced when a reader gets
        # some parts, so that they are copied before they are changed.
        self._owner = object()
        # While a branch is merged: the state before, which is still shown.
        self._before: Mapping[str, Item[T] | None] | None = None
        #: Keys whose objects cannot be read.
        self.corrupt: dict[str, CorruptObject] = {}
        #: Identifies the set of objects: another number after each change.
        self.version = 0
        self._answers: OrderedDict[Hashable, tuple[T, ...]] = OrderedDict()
        self._snapshots: OrderedDict[tuple[int, str], Past[T]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._items)

    def get(self, key: str) -> T | None:
        """Return the object at ``key``. Needs no lock."""
        item = self._items.get(key)
        # After the look-up: what a merge has put in must not be shown before it is over.
        before = self._before
        if before is not None and key in before:
            item = before[key]
        return None if item is None else item.object

    def load(self, objects: Mapping[str, T]) -> None:
        """Add objects after all existing ones; their keys rise."""
        if not objects:
            return
        items = {key: self._attributes.of(obj) for key, obj in objects.items()}
        self._items.update(items)
        self._all = extend(self._all, [*objects], [*objects.values()], self._owner)
        labels: dict[Hashable, list[str]] = {}
        fields: tuple[dict[Hashable, list[str]], ...] = tuple({} for _ in self.paths)
        for key, item in items.items():
            for pair in _label_pairs(item) if item.labels else ():
                labels.setdefault(pair, []).append(key)
            for found, value in zip(fields, item.fields, strict=True):
                if value is not None:
                    found.setdefault(value, []).append(key)
        _extend(self._labels, labels, lambda key: None, self._owner)
        for index, found in zip(self._fields, fields, strict=True):
            _extend(index, found, objects.__getitem__, self._owner)

    def put(self, key: str, item: Item[T]) -> Item[T] | None:
        """Set the object at ``key``; return the one before."""
        self._changed()
        before = self._items.get(key)
        self._all = put(self._all, key, item.object, self._owner)
        self._items[key] = item
        self._reindex(key, before, item)
        if self.corrupt:
            self.corrupt.pop(key, None)
        return before

    def remove(self, key: str) -> Item[T] | None:
        """Drop the object at ``key``; return the one before."""
        self._changed()
        self.corrupt.pop(key, None)
        before = self._items.get(key)
        if before is not None:
            del self._items[key]
            assert self._all is not None
            self._all = remove(self._all, key, self._owner)
            self._reindex(key, before, None)
        return before

    def branch(self) -> CacheState[T]:
        """Return a copy of this state that can be changed without the owner's lock. This one does
        not change until ``merge``."""
        branch = CacheState(self._attributes)
        branch._items = _Overlay(self._items)  # type: ignore[assignment]
        branch._all = self._all
        branch._labels = _Overlay(self._labels)  # type: ignore[assignment]
        branch._fields = tuple(map(_Overlay, self._fields))  # type: ignore[arg-type]
        branch.corrupt = self.corrupt.copy()
        return branch

    def below(
        self, prefix: str, start: str = "", limit: int = 0, *, named: bool = True
    ) -> Range[T]:
        """Return the objects below ``prefix``, from ``start`` on.

        Keys cost as much as objects, so they may be left out unless ``named``.
        """
        return self._lent(below(self._all, prefix, start, limit, named=named))

    def answer(self, question: Hashable) -> tuple[T, ...] | None:
        """Return the answer to ``question`` remembered since the last change."""
        return self._answers.get(question)

    def remember(self, question: Hashable, answer: tuple[T, ...]) -> None:
        """Keep an answer until the next change."""
        self._answers[question] = answer
        if len(self._answers) > _ANSWERS:
            self._answers.popitem(last=False)

    def labelled(self, name: str, value: str, prefix: str) -> Range[T] | Picked[T]:
        """Return the objects below ``prefix`` that have the label."""
        keys = self._lent(below(self._labels.get((name, value)), prefix))
        if len(keys) > _LOOKED_UP or self._before is not None:
            return Picked(self.below(prefix), keys)
        items = self._items
        return Range([(names, [items[key].object for key in names]) for names, _ in keys.pieces])

    def with_field(self, path: str, value: str, prefix: str, *, named: bool = True) -> Range[T]:
        """Return the objects below ``prefix`` that have the value in the indexed field."""
        index = self._fields[self.paths.index(path)]
        return self._lent(below(index.get(value), prefix, named=named))

    def corrupt_below(self, prefix: str) -> bool:
        """Return whether objects below ``prefix`` cannot be read."""
        return any(key.startswith(prefix) for key in self.corrupt)

    def at(self, revision: int, prefix: str, later: Sequence[Entry[T]]) -> Past[T]:
        """Return the objects below ``prefix`` at ``revision``; ``later`` are all events since."""
        found = self._snapshots.get((revision, prefix))
        if found is None:
            self._owner = object()
            found = Past(self._all, set(self.corrupt), prefix, later)
            self._snapshots[revision, prefix] = found
            if len(self._snapshots) > _SNAPSHOTS:
                self._snapshots.popitem(last=False)
        else:
            self._snapshots.move_to_end((revision, prefix))
        return found

    def remember_now(self, revision: int, prefix: str) -> None:
        """Keep the objects below ``prefix`` for further pages of a list at ``revision``, the
        current one, so that those pages need not undo changes."""
        self.at(revision, prefix, ())

    def forget_before(self, revision: int) -> None:
        """Drop snapshots of revisions below ``revision``."""
        if self._snapshots:
            for old in [key for key in self._snapshots if key[0] < revision]:
                del self._snapshots[old]

    def prepare(self, branch: CacheState[T]) -> None:
        """Do the part of ``merge`` that needs no lock. It has no visible effect."""
        items: Any = branch._items
        for index in branch._indexes():
            index.sort_out()
        items.sort_out()
        self._before = items.before()
        items.merge()

    def merge(self, branch: CacheState[T]) -> None:
        """Become what the branch is, which was prepared and is no longer used.

        The time depends on the number of labels and indexed values that the branch has changed.
        """
        self._changed()
        self._all, branch._all = branch._all, self._all
        self._owner, self.corrupt = branch._owner, branch.corrupt
        for index in branch._indexes():
            index.merge()
        # It goes with the branch, as freeing many takes a while.
        self._before, branch._before = None, self._before

    def parts(self) -> list[Any]:
        """Return those parts of a state that take long to free, to be dropped after the state
        itself."""
        trees: list[Tree[Any] | None] = [self._all]
        for index in self._indexes():
            trees += index.replaced if isinstance(index, _Overlay) else index.values()
        return [*itertools.chain(*map(leaves_of, trees)), *self._items.values()]

    def _indexes(self) -> tuple[Any, ...]:
        return (self._labels, *self._fields)

    def _lent(self, found: Range[V]) -> Range[V]:
        """Return the same range. Data that it shares with the state must no longer be changed."""
        if found.shared:
            self._owner = object()
        return found

    def _changed(self) -> None:
        self.version += 1
        if self._answers:
            self._answers.clear()

    def _reindex(self, key: str, old: Item[T] | None, new: Item[T] | None) -> None:
        owner = self._owner
        had = None if old is None else old.labels
        has = None if new is None else new.labels
        if had != has:
            before, after = _label_pairs(old), _label_pairs(new)
            for pair in before - after:
                _remove(self._labels, pair, key, owner)
            for pair in after - before:
                self._labels[pair] = put(self._labels.get(pair), key, None, owner)
        for at, index in enumerate(self._fields):
            was = None if old is None else old.fields[at]
            now = None if new is None else new.fields[at]
            if was is not None and was != now:
                _remove(index, was, key, owner)
            if new is not None and now is not None:
                index[now] = put(index.get(now), key, new.object, owner)


def _extend(
    index: Index[V],
    added: Mapping[Hashable, list[str]],
    object_at: Callable[[str], V],
    owner: object,
) -> None:
    for value, keys in added.items():
        index[value] = extend(index.get(value), keys, [*map(object_at, keys)], owner)


def _remove(index: Index[V], value: Hashable, key: str, owner: object) -> None:
    tree = remove(index[value], key, owner)
    if tree is None:
        del index[value]
    else:
        index[value] = tree


def _label_pairs(item: Item[T] | None) -> set[tuple[str, str]]:
    """Return the labels of an object."""
    labels = None if item is None else item.labels
    if not labels:
        return set()
    try:
        return set(labels.items())
    except TypeError:  # what is not text is not a label, and matches no selector
        return {pair for pair in labels.items() if isinstance(pair[1], str)}
