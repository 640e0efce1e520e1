"""The thread that fills a cache: it lists, follows, reconnects, and lists again if it must."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

from revstore.errors import (
    Closed,
    Expired,
    IncompatibleStore,
    InternalError,
    StorageError,
    Unsupported,
)
from revstore.onlookers import Log
from revstore.raising import described
from revstore.storage import Change, ChangeBatch, Changes, Storage
from revstore.threads import Wake, start_thread

__all__ = ["Feed"]

T = TypeVar("T")

_log = Log("revstore.cacher")

# After these errors it is unknown what happened meanwhile.
_LOST = (Expired, IncompatibleStore, InternalError)
# Seconds before the next attempt, doubled each time.
_FIRST_RETRY = 0.05
_LAST_RETRY = 5.0
# Seconds between two checks for watches that are due a bookmark.
_TICK = 1.0
# Once this many changes have come meanwhile, they are applied before the next ones are taken.
_TOGETHER = 64


class Feed(Generic[T]):
    """Follows the store and calls back, always from one thread, which ``start`` begins and
    ``close`` ends.

    It calls ``load(changes)`` with each page of a state and ``replace(revision)`` when that is
    complete; ``apply(batch)`` with what follows; ``failed(error, lost)`` when the store cannot be
    followed, where ``lost`` means that a new state comes next; and ``tick()`` about every second.
    """

    def __init__(
        self,
        storage: Storage[T],
        prefix: str,
        *,
        load: Callable[[Sequence[Change[T]]], None],
        replace: Callable[[int], None],
        apply: Callable[[ChangeBatch[T]], None],
        failed: Callable[[StorageError, bool], None],
        tick: Callable[[], None],
    ) -> None:
        self._storage = storage
        self._prefix = prefix
        self._load = load
        self._replace = replace
        self._apply = apply
        self._failed = failed
        self._tick = tick
        self._stopping = Wake()
        self._lock = threading.Lock()  # guards _cut, _refill, _changes
        self._cut = False
        self._refill: StorageError | None = None
        self._changes: Changes[T] | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to follow the store. If this is interrupted, the thread ends."""
        try:
            self._thread = start_thread(self._run, "revstore-cacher")
        except BaseException:
            self._stopping.set()
            raise

    def request_progress(self) -> None:
        """Ask the store for progress on the feed.

        Raises:
            Unsupported: the store cannot report progress.
        """
        with self._lock:
            changes = self._changes
        if changes is not None:
            try:
                changes.request_progress()
            except Unsupported:
                raise
            except StorageError:
                return  # the feed itself will notice

    def cut(self, refill: StorageError | None = None) -> None:
        """End the connection to the store as if it had broken; the feed reconnects. If a reason
        ``refill`` is given, it begins with a new state."""
        with self._lock:
            self._cut, changes = True, self._changes
            self._refill = refill or self._refill
        if changes is not None:
            changes.close()

    def close(self) -> None:
        self._stopping.set()
        self.cut()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(2)

    def _run(self) -> None:
        after: int | None = None
        retry = _FIRST_RETRY
        while not self._stopping.is_set():
            try:
                for position in self._follow(after):
                    after, retry = position, _FIRST_RETRY
            except BaseException as raised:  # noqa: BLE001 - a dead feed would be worse
                if self._stopping.is_set():
                    return
                cut, refill = self._was_cut()
                error = refill or _typed(raised)
                if isinstance(error, Closed) and not cut:
                    self._failed(error, True)  # there will be no more changes
                    return
                lost = refill is not None or isinstance(error, _LOST)
                if lost:
                    after = None
                _log.warning("%s: the feed broke: %s", self._prefix, error)
                self._failed(error, lost)
                if self._sleep(retry):
                    return
                retry = min(retry * 2, _LAST_RETRY)

    def _sleep(self, seconds: float) -> bool:
        """Sleep for ``seconds``; return whether it is time to stop."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if self._stopping.wait(min(left, _TICK)):
                return True
            self._tick()
        return self._stopping.is_set()

    def _was_cut(self) -> tuple[bool, StorageError | None]:
        with self._lock:
            cut, self._cut = self._cut, False
            refill, self._refill = self._refill, None
        return cut, refill

    def _connected(self, after: int | None) -> Changes[T]:
        """Open a new connection; if the feed is cut meanwhile, close it."""
        with self._lock:
            # Until now there was none to cut; but a request for a new state stands.
            self._refill = self._refill if after is not None else None
            self._cut = self._refill is not None
        changes = self._storage.changes(self._prefix, after=after)
        with self._lock:
            self._changes = changes
            cut = self._cut
        if cut or self._stopping.is_set():
            changes.close()
        return changes

    def _follow(self, after: int | None) -> Iterator[int]:
        """Yield the revision reached after each batch, until an error."""
        with self._connected(after) as changes:
            ticked = time.monotonic()
            came: list[ChangeBatch[T]] = []
            while True:
                batch = came.pop(0) if came else changes.poll(_TICK)
                now = time.monotonic()
                if now >= ticked + _TICK:
                    ticked = now
                    self._tick()
                if batch is None:
                    continue
                if batch.initial:
                    self._load(batch.changes)
                    continue
                if after is None:
                    self._replace(batch.revision)
                    after = batch.revision
                self._apply(batch)  # a mark that says nothing new may have been requested
                after = batch.revision
                yield after
                came = came or _came_meanwhile(changes)


def _came_meanwhile(changes: Changes[T]) -> list[ChangeBatch[T]]:
    """Return what can be had without waiting: the changes of several revisions as one batch, since
    most of the cost is per batch, and a mark if one follows."""
    together: list[Change[T]] = []
    revision = 0
    marks: list[ChangeBatch[T]] = []
    while not marks and len(together) < _TOGETHER:
        try:
            batch = changes.poll(0)
        except BaseException:
            if not together:
                raise
            break  # the next poll raises it again
        if batch is None:
            break
        if batch.changes:
            together += batch.changes
            revision = batch.revision
        else:
            marks.append(batch)
    return [ChangeBatch(revision, tuple(together)), *marks] if together else marks


def _typed(error: BaseException) -> StorageError:
    if isinstance(error, StorageError):
        return error
    failure = InternalError(f"the cache's feed failed: {described(error)}")
    failure.__cause__ = error
    _log.error("the cache's feed failed", exc_info=error)
    return failure
