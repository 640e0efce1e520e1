"""How many objects a storage has, and how large they are together, counted now and then. (STAT-3)"""

from __future__ import annotations

import logging
import time
from typing import Any

from revstore.errors import Closed, StorageError
from revstore.storage import Stats, Storage

__all__ = ["FAILED", "Sizes"]

_log = logging.getLogger("revstore.metrics")

#: Stands for a figure that could not be had.
FAILED = -1


class Sizes:
    """The figures of one storage, counted anew at most every ``period`` seconds; 0: never."""

    def __init__(self, storage: Storage[Any], period: float) -> None:
        self._storage = storage
        self._period = period
        self._due = 0.0
        #: None: not known yet. Both are FAILED if the last count failed.
        self.objects: int | None = None
        self.size: int | None = None

    def recount(self, deadline: float) -> None:
        """Count anew if it is time to, and the moment ``deadline`` (of ``time.monotonic``) has
        not passed. Raises ``Closed`` if the storage was closed; any other error of the store's
        becomes the figures."""
        now = time.monotonic()
        if not self._period or now < self._due or now >= deadline:
            return
        # Also after a failure: a store in trouble is not asked more often.
        self._due = now + self._period
        try:
            self._take(self._storage.stats(timeout=deadline - now))
        except Closed:
            raise
        except StorageError as error:
            _log.warning("counting the objects for metrics failed: %s", error)
            self.objects = self.size = FAILED

    def _take(self, stats: Stats) -> None:
        self.objects = stats.object_count
        unknown = stats.object_count > 0 and not stats.average_size
        self.size = FAILED if unknown else stats.object_count * stats.average_size
