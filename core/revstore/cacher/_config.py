"""What a cache is made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

import attrs

from revstore.copier import Copier
from revstore.errors import InvalidArgument
from revstore.objects import field_value, labels_of
from revstore.storage import Storage
from revstore.versioner import Versioner

__all__ = ["CacherConfig", "log_capacity"]

T = TypeVar("T")

# The log's upper bound for a window of 75 s, the least there is. (HIST-1, CACHE-1)
_CAPACITY = 102_400
_WINDOW = 75.0


@attrs.frozen(kw_only=True)
class CacherConfig(Generic[T]):
    """What a ``Cacher`` is made of (cacher.Config, with the arguments of StorageWithCacher).

    ``storage`` is the storage that it decorates and closes; ``object_type`` and
    ``resource_prefix`` are those of that storage. ``capacity`` bounds the event log (None: by
    ``event_history_window``, 102,400 events for up to 75 s); events of the last
    ``event_history_window`` seconds are kept within it, at least 75. ``indexed_fields`` are the
    field paths by which lists are found without a scan and by which watches are only shown
    what may concern them (TriggerPublisherFunc, Indexers); labels are always indexed for lists.
    ``versioner``, ``copier``, ``labels``, ``fields`` (AttrFunc) and ``new_object`` are as
    ``TypedStorage`` has them. Keys come from the storage's feed, lists are always an
    ``ObjectList`` and the storage decodes: there is no key function, new-list function or codec.

    A consistent read waits up to ``fresh_timeout`` seconds for the cache to be as new as the
    store, then asks the store. Raises ``InvalidArgument`` that names a field out of its range.
    """

    storage: Storage[T]
    object_type: type[T]
    resource_prefix: str
    capacity: int | None = None
    event_history_window: float = _WINDOW
    indexed_fields: tuple[str, ...] = ()
    versioner: Versioner[T] | None = None
    copier: Copier[T] | None = None
    labels: Callable[[T], Mapping[str, str]] = labels_of
    fields: Callable[[T, str], str] = field_value
    new_object: Callable[[], T] | None = None
    fresh_timeout: float = 3.0
    bookmark_interval: float = 60.0

    def __attrs_post_init__(self) -> None:
        if self.event_history_window < _WINDOW:
            raise InvalidArgument(
                "event_history_window", self.event_history_window, "75 seconds or more"
            )
        if self.capacity is not None and self.capacity < 1:
            raise InvalidArgument("capacity", self.capacity, "1 or more")
        path = self.resource_prefix
        if not isinstance(path, str) or not path.startswith("/") or not path.strip("/"):
            raise InvalidArgument("resource_prefix", path, "that of the storage, such as '/pods'")
        for name in ("fresh_timeout", "bookmark_interval"):
            if getattr(self, name) <= 0:
                raise InvalidArgument(name, getattr(self, name), "seconds above 0")


def log_capacity(config: CacherConfig[T]) -> int:
    """The log's upper bound: doubled for each doubling of the window. (HIST-1)"""
    if config.capacity is not None:
        return config.capacity
    doublings = max(0, math.ceil(math.log2(config.event_history_window / _WINDOW)))
    return _CAPACITY << min(doublings, 14)
