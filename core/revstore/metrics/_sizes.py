"""The number and size of objects, and the size of a store, read at intervals. (STAT-3)"""

from __future__ import annotations

import time
from typing import Any

from revstore.backend import Backend
from revstore.errors import Closed
from revstore.onlookers import Log
from revstore.raising import let_out, text_of
from revstore.storage import Storage

__all__ = ["FAILED", "Sizes", "StoreSize"]

_log = Log("revstore.metrics")

#: Means a figure that could not be read.
FAILED = -1


class Sizes:
    """The figures of one storage, counted at most every ``period`` seconds; 0: never."""

    def __init__(self, storage: Storage[Any], period: float) -> None:
        self._storage = storage
        self._period = period
        self._due = 0.0
        #: Whether the storage was closed; there are no figures then.
        self.ended = False
        #: None: unknown. Both are FAILED if the last count failed.
        self.objects: int | None = None
        self.size: int | None = None

    def recount(self, deadline: float) -> None:
        """Count again if it is time to, unless ``deadline`` (of ``time.monotonic``) has passed. An
        error of the storage replaces the figures."""
        now = time.monotonic()
        if self.ended or not self._period or now < self._due or now >= deadline:
            return
        # Also after a failure: a store in trouble is not asked more often.
        self._due = now + self._period
        try:
            stats = self._storage.stats(timeout=deadline - now)
        except Closed:
            self.end()
        except Exception as error:  # noqa: BLE001 - the others are still scraped
            let_out(error)
            _log.warning("counting the objects for metrics failed: %s", text_of(error))
            self.objects = self.size = FAILED
        else:
            self.objects = stats.object_count
            unknown = stats.object_count > 0 and not stats.average_size
            self.size = FAILED if unknown else stats.object_count * stats.average_size

    def end(self) -> None:
        """Drop the figures, since the storage was closed."""
        self.ended = True
        self.objects = self.size = None


class StoreSize:
    """The size of one store, read at most every ``period`` seconds; 0: never."""

    def __init__(self, backend: Backend, period: float) -> None:
        self._backend = backend
        self._period = period
        self._due = 0.0
        #: None: unknown; FAILED if asking failed.
        self.bytes: int | None = None

    def ask(self, deadline: float) -> None:
        """Read the size again if it is time to, unless ``deadline`` (of ``time.monotonic``) has
        passed. An error of the store replaces the figure."""
        now = time.monotonic()
        if not self._period or now < self._due or now >= deadline:
            return
        self._due = now + self._period
        try:
            self.bytes = self._backend.size(timeout=deadline - now)
        except Closed:
            self.bytes = None
        except Exception as error:  # noqa: BLE001 - the others are still scraped
            let_out(error)
            _log.warning("asking a store for its size failed: %s", text_of(error))
            self.bytes = FAILED
