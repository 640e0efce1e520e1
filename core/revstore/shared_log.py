"""A log of events in memory that one thread appends to and many watches read without a lock."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["SharedLog"]

T = TypeVar("T")


class SharedLog(Generic[T]):
    """Events in revision order, numbered from ``base`` on; numbers do not change when the oldest
    events are dropped.

    A watch keeps a cursor: the number of the next event that it will look at. The owner chooses
    what an event is: a ``WatchEvent``, or all events of a revision.

    ``items`` is only ever extended, by whole revisions in one step (``list.extend``), and
    ``without`` creates another log. So a reader that takes the log from its owner once, and uses
    that one to the end, needs no lock. Writers need a lock among themselves.
    """

    __slots__ = ("base", "floor", "items")

    def __init__(self, *, floor: int, base: int = 0, items: list[T] | None = None) -> None:
        #: Every event with a revision above it is in the log, or has not come yet. A watch that has
        #: not seen everything up to it must find its events elsewhere, or is ``Compacted``.
        self.floor = floor
        #: The number of the first event.
        self.base = base
        self.items: list[T] = [] if items is None else items

    @property
    def end(self) -> int:
        """The number that the next event will have: the cursor of a watch that has seen all."""
        return self.base + len(self.items)

    def read(self, cursor: int, limit: int | None = None) -> list[T]:
        """Return at most ``limit`` events from ``cursor`` on, which must not be below ``base``."""
        start = cursor - self.base
        return self.items[start : None if limit is None else start + limit]

    def after(self, revision: int, revision_of: Callable[[T], int]) -> int:
        """Return the number of the first event whose revision, by ``revision_of``, is above
        ``revision``."""
        return self.base + bisect_right(self.items, revision, key=revision_of)

    def without(self, count: int, floor: int) -> SharedLog[T]:
        """Return a log without the oldest ``count`` events, which end at the revision ``floor``."""
        return SharedLog(floor=floor, base=self.base + count, items=self.items[count:])
