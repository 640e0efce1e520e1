"""Objects in the order of their keys: trees of two levels, which share the parts they have in
common."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from typing import Generic, TypeAlias, TypeVar

__all__ = ["Range", "Tree", "below", "extend", "leaves_of", "put", "remove"]

T = TypeVar("T")

# The most objects that a leaf holds. This is enough that a list joins few of them, and few enough
# that an insert moves little, that a copy takes about 1 us, and that the garbage collector never
# has long to traverse what a bulk deletion copies.
_MOST = 512
# The most objects that are copied for a reader. If there are more, it gets the leaves themselves.
_COPIED = 4096
# A dict of a leaf's objects is created if more than one in this many is looked up.
_DENSE = 8


class Leaf(Generic[T]):
    """Keys in order, and an object for each. Only its ``owner`` may change it; all others copy it
    first."""

    __slots__ = ("keys", "objects", "owner")

    def __init__(self, keys: list[str], objects: list[T], owner: object) -> None:
        self.keys = keys
        self.objects = objects
        self.owner = owner

    def copy(self, owner: object) -> Leaf[T]:
        return Leaf(self.keys[:], self.objects[:], owner)

    def put(self, key: str, obj: T) -> bool:
        """Set the object at ``key``; return whether the key is new."""
        keys = self.keys
        at = bisect_left(keys, key)
        if at < len(keys) and keys[at] == key:
            self.objects[at] = obj
            return False
        keys.insert(at, key)
        self.objects.insert(at, obj)
        return True

    def remove(self, key: str) -> bool:
        """Remove ``key``, if it is there; return whether it was."""
        keys = self.keys
        at = bisect_left(keys, key)
        if at == len(keys) or keys[at] != key:
            return False
        del keys[at], self.objects[at]
        return True

    def split(self) -> Leaf[T]:
        """Move the upper half to a new leaf, and return that."""
        keys, objects, middle = self.keys, self.objects, len(self.keys) // 2
        upper = Leaf(keys[middle:], objects[middle:], self.owner)
        del keys[middle:], objects[middle:]
        return upper


class Node(Generic[T]):
    """Leaves in order, none of them empty. ``counts[n]`` is the length of ``leaves[n]``, whose keys
    are ``bounds[n]`` or above and below ``bounds[n + 1]``. Only its ``owner`` may change it."""

    __slots__ = ("bounds", "counts", "leaves", "owner")

    def __init__(
        self, bounds: list[str], leaves: list[Leaf[T]], counts: list[int], owner: object
    ) -> None:
        self.bounds = bounds  # the first is ""
        self.leaves = leaves
        self.counts = counts
        self.owner = owner

    def copy(self, owner: object) -> Node[T]:
        return Node(self.bounds[:], self.leaves[:], self.counts[:], owner)

    def owned_leaf(self, at: int) -> Leaf[T]:
        """Return the leaf at a place, after it was copied if another owns it."""
        leaf = self.leaves[at]
        if leaf.owner is not self.owner:
            leaf = self.leaves[at] = leaf.copy(self.owner)
        return leaf

    def insert(self, at: int, leaf: Leaf[T]) -> None:
        self.bounds.insert(at, leaf.keys[0])
        self.leaves.insert(at, leaf)
        self.counts.insert(at, len(leaf.keys))

    def remove(self, at: int) -> None:
        del self.bounds[at], self.leaves[at], self.counts[at]
        if at == 0 and self.bounds:
            self.bounds[0] = ""


#: A tree with one object or more; None is the empty one.
Tree: TypeAlias = Leaf[T] | Node[T]


class Range(Generic[T]):
    """Objects in the order of their keys. ``pieces`` are lists of keys, which are empty if they
    were not asked for, and of objects; ``more`` objects follow. If it is ``shared``, the lists
    belong to a tree, whose owner must no longer change them."""

    __slots__ = ("more", "pieces", "shared")

    def __init__(
        self,
        pieces: Sequence[tuple[Sequence[str], Sequence[T]]] = (),
        more: int = 0,
        *,
        shared: bool = False,
    ) -> None:
        self.pieces = pieces
        self.more = more
        self.shared = shared

    def __len__(self) -> int:
        return sum(len(objects) for _, objects in self.pieces)

    @property
    def keys(self) -> Sequence[str]:
        return _joined([keys for keys, _ in self.pieces])

    @property
    def objects(self) -> Sequence[T]:
        return _joined([objects for _, objects in self.pieces])

    def read(self) -> Range[T]:
        return self

    def pick(self, keys: Range[None]) -> Range[T]:
        """Return the objects at some of the keys."""
        names = list(_joined([each for each, _ in keys.pieces]))
        found: list[tuple[Sequence[str], Sequence[T]]] = []
        at = 0
        for there, objects in self.pieces:
            end = bisect_right(names, there[-1], at)
            wanted = names[at:end]
            if len(wanted) * _DENSE > len(there):
                find = dict(zip(there, objects, strict=True)).__getitem__
                found.append((wanted, list(map(find, wanted))))
            elif wanted:
                found.append((wanted, [objects[bisect_left(there, key)] for key in wanted]))
            at = end
        return Range(found, keys.more)


def _joined(lists: Sequence[Sequence[T]]) -> Sequence[T]:
    if len(lists) == 1:
        return lists[0]
    # Adding lists is twice as fast as chain.
    joined: list[T] = []
    for each in lists:
        joined += each
    return joined


def extend(
    tree: Tree[T] | None, keys: Sequence[str], objects: Sequence[T], owner: object
) -> Tree[T]:
    """Add objects after all existing ones, and return the tree.

    ``keys`` rise and are not empty; the tree belongs to ``owner``.
    """
    if tree is None and len(keys) <= _MOST:
        return Leaf([*keys], [*objects], owner)
    node = tree if isinstance(tree, Node) else Node([], [], [], owner)
    if isinstance(tree, Leaf):
        node.insert(0, tree)
    at = 0
    if node.leaves:
        leaf = node.leaves[-1]
        at = _MOST - len(leaf.keys)
        leaf.keys += keys[:at]
        leaf.objects += objects[:at]
        node.counts[-1] = len(leaf.keys)
    for begin in range(at, len(keys), _MOST):
        part = slice(begin, begin + _MOST)
        node.insert(len(node.leaves), Leaf([*keys[part]], [*objects[part]], owner))
    if len(node.leaves) == 1:
        return node.leaves[0]
    node.bounds[0] = ""
    return node


def put(tree: Tree[T] | None, key: str, obj: T, owner: object) -> Tree[T]:
    """Set the object at ``key``; return the tree, which is a new one unless it belonged to
    ``owner``."""
    if tree is None:
        return Leaf([key], [obj], owner)
    if tree.owner is not owner:
        tree = tree.copy(owner)
    if isinstance(tree, Leaf):
        if tree.put(key, obj) and len(tree.keys) > _MOST:
            node = Node([""], [tree], [len(tree.keys)], owner)
            _split(node, 0)
            return node
        return tree
    at = bisect_right(tree.bounds, key) - 1
    if tree.owned_leaf(at).put(key, obj):
        tree.counts[at] += 1
        if tree.counts[at] > _MOST:
            _split(tree, at)
    return tree


def _split(node: Node[T], at: int) -> None:
    leaf = node.leaves[at]
    node.insert(at + 1, leaf.split())
    node.counts[at] = len(leaf.keys)


def remove(tree: Tree[T], key: str, owner: object) -> Tree[T] | None:
    """Remove ``key``, if it exists; return the tree, which is a new one unless it belonged to
    ``owner``."""
    if tree.owner is not owner:
        tree = tree.copy(owner)
    if isinstance(tree, Leaf):
        tree.remove(key)
        return tree if tree.keys else None
    at = bisect_right(tree.bounds, key) - 1
    if tree.owned_leaf(at).remove(key):
        tree.counts[at] -= 1
        if not tree.counts[at]:
            tree.remove(at)
    return tree if tree.leaves else None


def leaves_of(tree: Tree[T] | None) -> Sequence[Leaf[T]]:
    """Return the leaves of a tree."""
    if isinstance(tree, Node):
        return tree.leaves
    return () if tree is None else (tree,)


def below(
    tree: Tree[T] | None, prefix: str, start: str = "", limit: int = 0, *, named: bool = True
) -> Range[T]:
    """Return the objects below ``prefix``, which ends in "/", from the key ``start`` on.

    There are at most ``limit`` objects; 0: all. Keys cost as much as objects, so they may be left
    out unless ``named``.
    """
    if tree is None:
        return Range()
    low, high = max(prefix, start), prefix[:-1] + "0"  # "0" is the character after "/"
    if isinstance(tree, Leaf):
        leaves, keys = [tree], tree.keys
        if not start and keys[0].startswith(prefix) and keys[-1].startswith(prefix):
            begin, count = 0, len(keys)  # which is common, and each key that is compared costs time
        else:
            begin = bisect_left(keys, low)
            count = bisect_left(keys, high, begin) - begin
    else:
        first = bisect_right(tree.bounds, low) - 1
        last = bisect_left(tree.bounds, high, first + 1) - 1
        leaves = tree.leaves[first : last + 1]
        begin, end = bisect_left(leaves[0].keys, low), bisect_left(leaves[-1].keys, high)
        count = sum(tree.counts[first:last]) + end - begin
    taken = min(count, limit) if limit else count
    if taken > _COPIED:
        return Range(list(_shared(leaves, begin, taken)), count - taken, shared=True)
    if not taken:
        return Range((), count)
    return Range([_copied(leaves, begin, taken, named=named)], count - taken)


def _copied(
    leaves: Sequence[Leaf[T]], begin: int, count: int, *, named: bool
) -> tuple[list[str], list[T]]:
    """Return a copy of ``count`` objects, from the place ``begin`` in the first of the leaves
    on."""
    end = begin + count
    keys = leaves[0].keys[begin:end] if named else []
    objects = leaves[0].objects[begin:end]
    for leaf in leaves[1:]:
        left = count - len(objects)
        if left < len(leaf.keys):
            leaf = Leaf(leaf.keys[:left], leaf.objects[:left], None)  # noqa: PLW2901
        objects += leaf.objects
        if named:
            keys += leaf.keys
        if len(objects) == count:
            break
    return keys, objects


def _shared(
    leaves: Sequence[Leaf[T]], begin: int, count: int
) -> Iterator[tuple[list[str], list[T]]]:
    """Yield the same objects; copy only those of the first and the last leaf."""
    for leaf in leaves:
        size = min(len(leaf.keys) - begin, count)
        if size == len(leaf.keys):
            yield leaf.keys, leaf.objects
        elif size:
            yield leaf.keys[begin : begin + size], leaf.objects[begin : begin + size]
        count -= size
        begin = 0
