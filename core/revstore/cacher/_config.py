"""The configuration of a cache."""

from __future__ import annotations

import math
from typing import Generic, TypeVar

import attrs

from revstore.deadlines import check_count, check_seconds
from revstore.resource_type import ResourceType
from revstore.storage import Storage

__all__ = ["CacherConfig", "log_capacity"]

T = TypeVar("T")

# The log's upper bound for a window of 75 s, the minimum. (HIST-1, CACHE-1)
_CAPACITY = 102_400
_WINDOW = 75.0


@attrs.frozen(kw_only=True)
class CacherConfig(Generic[T]):
    """The configuration of a ``Cacher`` (cacher.Config, with the arguments of StorageWithCacher).

    The cache decorates ``storage`` and closes it. ``resource_type`` is the type of its objects;
    only the storage needs the codec. ``capacity`` bounds the event log (None: it follows from
    ``event_history_window``, 102,400 events for up to 75 s). Within it, events of the last
    ``event_history_window`` seconds are kept, at least 75 s. ``indexed_fields`` are the field paths
    by which lists are found without a scan, and by which watches receive only events that may
    concern them (TriggerPublisherFunc, Indexers); labels are always indexed for lists. Keys come
    from the storage's feed, and lists are always an ``ObjectList``: there is no key function and no
    new-list function.

    A consistent read waits up to ``fresh_timeout`` seconds for the cache to be as new as the store,
    then asks the store.

    Raises:
        InvalidArgument: a field is out of its range; the error names it.
    """

    storage: Storage[T]
    resource_type: ResourceType[T]
    capacity: int | None = None
    event_history_window: float = _WINDOW
    indexed_fields: tuple[str, ...] = ()
    fresh_timeout: float = 3.0
    bookmark_interval: float = 60.0

    def __attrs_post_init__(self) -> None:
        check_seconds("event_history_window", self.event_history_window, _WINDOW)
        if self.capacity is not None:
            check_count("capacity", self.capacity, 1)
        check_seconds("fresh_timeout", self.fresh_timeout, above=True)
        check_seconds("bookmark_interval", self.bookmark_interval, above=True)


def log_capacity(config: CacherConfig[T]) -> int:
    """Return the log's upper bound: it doubles for each doubling of the window. (HIST-1)"""
    if config.capacity is not None:
        return config.capacity
    doublings = max(0, math.ceil(math.log2(min(config.event_history_window, 1e12) / _WINDOW)))
    return _CAPACITY << min(doublings, 14)
