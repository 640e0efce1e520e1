"""The keys of a ``MemoryBackend`` in order."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from operator import itemgetter

from revstore.backend_tools import prefix_end

__all__ = ["SortedKeys"]

# The most keys of a part: an insertion moves the others of its part, and counting a range looks at
# each part.
_MOST = 4096

_first = itemgetter(0)


class SortedKeys:
    """A sorted set of keys, in parts, none of which is empty.

    Each change is one step: if an exception of a signal handler interrupts it, it is complete or
    has no effect, and may be repeated.
    """

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts: list[list[str]] = []

    def add(self, key: str) -> None:
        """Add ``key``, unless it exists."""
        parts = self._parts
        if not parts:
            parts.append([key])
            return
        at = self._part_of(key)
        part = parts[at]
        place = bisect_left(part, key)
        if place == len(part) or part[place] != key:
            part.insert(place, key)
        if len(part) > _MOST:
            half = len(part) // 2
            parts[at : at + 1] = [part[:half], part[half:]]

    def remove(self, key: str) -> None:
        """Remove ``key``, if it exists."""
        parts = self._parts
        if not parts:
            return
        at = self._part_of(key)
        part = parts[at]
        place = bisect_left(part, key)
        if place < len(part) and part[place] == key:
            if len(part) == 1:
                del parts[at]
            else:
                del part[place]

    def count(self, prefix: str, start: str = "") -> int:
        """Return how many keys start with ``prefix`` and are not before ``start``."""
        low, high = self._place(max(prefix, start)), self._end(prefix)
        if low >= high:
            return 0
        return sum(map(len, self._parts[low[0] : high[0]])) - low[1] + high[1]

    def among(self, prefix: str, start: str = "", limit: int = _MOST) -> Iterator[list[str]]:
        """Yield the keys that start with ``prefix`` and are not before ``start``, in order, in
        lists of one to ``limit``. The keys must not change meanwhile."""
        (part, place), end = self._place(max(prefix, start)), self._end(prefix)
        while (part, place) < end:
            stop = end[1] if part == end[0] else len(self._parts[part])
            if place < stop:
                yield self._parts[part][place : min(stop, place + limit)]
                place += limit
            if place >= stop:
                part, place = part + 1, 0

    def _part_of(self, key: str) -> int:
        """Return the part where ``key`` is or belongs; there must be a part."""
        return max(bisect_right(self._parts, key, key=_first) - 1, 0)

    def _place(self, key: str) -> tuple[int, int]:
        """Return the part and the place in it of the first key that is not before ``key``."""
        if not self._parts:
            return 0, 0
        part = self._part_of(key)
        return part, bisect_left(self._parts[part], key)

    def _end(self, prefix: str) -> tuple[int, int]:
        """Return the place after the last key that may start with ``prefix``."""
        end = prefix_end(prefix)
        return self._place(end) if end else (len(self._parts), 0)
