"""A watch: a cursor that first follows the log in the file, then the hub's tail in memory."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from revstore.arguments import check_poll
from revstore.backend import BackendWatch
from revstore.backend_tools import SharedLog, ignoring, key_matcher, let_out
from revstore.errors import Closed, StorageError, Timeout
from revstore.threads import acquire
from revstore.values import WatchBatch, WatchEvent
from revstore_sqlite._hub import READ_TIMEOUT, Hub, Listener
from revstore_sqlite._reader import Reader

__all__ = ["SQLiteWatch"]

#: Revisions of the log that one read covers: this limits by how much a poll exceeds its timeout.
_PAGE = 2000
#: A waiting watch that lags this far behind is woken to follow, although nothing concerns it:
#: otherwise the tail would be cut before it, and it would have to go back to the file.
_LAG = 2048
#: Seconds that a poll may look through history although its timeout is shorter.
_LOOK = 0.05


class SQLiteWatch(BackendWatch, Listener):
    """A watch of one key or of a prefix.

    ``_cursor`` is the revision up to which everything was looked at; ``position`` the one up to
    which batches were delivered. Only the polling thread uses ``_cursor``, ``_ready`` and
    ``_in_tail``; the hub's lock guards the rest.
    """

    def __init__(
        self,
        hub: Hub,
        reader: Reader,
        key: str,
        *,
        recursive: bool,
        after_revision: int,
        check_open: Callable[[], None],
    ) -> None:
        self._hub = hub
        self._reader = reader
        self._key = key
        self._recursive = recursive
        self._covers = key_matcher(key, recursive=recursive)
        self._check_open = check_open
        self._cursor = after_revision
        self._position = after_revision
        self._ready: deque[tuple[WatchEvent, ...]] = deque()
        self._in_tail = False
        self._mark_at: int | None = None
        self._error: StorageError | None = None
        self._mark_wanted = False
        self._mark_owed = False  # requested and not delivered
        self._torn = False  # a poll is under way, or was interrupted
        self._closed = False
        self._waiting = False
        self._wakeup = threading.Lock()
        self._wakeup.acquire()
        hub.join(self)

    def poll(self, timeout: float | None = None) -> WatchBatch | None:
        timeout = check_poll(timeout)
        if self._torn:
            self._rewind()
        self._torn = True
        batch = self._poll(timeout)
        position = self._position if batch is None else batch.revision
        owed = self._mark_owed and (batch is None or bool(batch.events))
        # One line: no exception comes between the two, and after an earlier one the next call
        # returns the batch.
        self._position, self._mark_owed, self._torn = position, owed, False; return batch  # noqa: E702  # fmt: skip

    def _rewind(self) -> None:
        """Go back to the last delivered batch, since the last poll was interrupted."""
        self._ready.clear()
        self._cursor = self._position
        with self._hub.lock:
            self._mark_wanted = self._mark_owed

    def _poll(self, timeout: float | None) -> WatchBatch | None:
        began = time.monotonic()
        deadline = None if timeout is None else began + timeout
        # Even a poll that does not wait looks through what is available, but not for long.
        patience = None if deadline is None else max(deadline, began + _LOOK)
        while True:
            self._check()
            try:
                batch, looked_at_all = self._next()
            except Timeout as error:
                # Reading the log was interrupted, and nothing is lost: go on while there is time.
                let_out(error)
                batch, looked_at_all = None, False
            except StorageError as error:
                let_out(error)
                self._check()
                self._error = error
                self._hub.leave(self)
                raise
            if batch is not None:
                return batch
            if looked_at_all and not self._wait(deadline):
                self._check()
                return None
            if not looked_at_all and patience is not None and time.monotonic() > patience:
                return None

    def _check(self) -> None:
        if self._closed:
            raise Closed("the watch is closed")
        self._check_open()
        if self._error is not None:
            raise self._error

    def _next(self) -> tuple[WatchBatch | None, bool]:
        """Return the next batch, if there is one, and whether the cursor has reached the end."""
        if self._ready:
            events = self._ready.popleft()
            return WatchBatch(events[0].kv.revision, events), False
        if self._mark_wanted:
            self._mark_wanted = False  # before the look: a request during it needs another one
            try:
                self._mark_at = self._hub.catch_up()
            except Timeout:
                self._mark_wanted = True
                raise
        if self._hub.error is not None:
            raise self._hub.error
        tail = self._hub.tail
        if tail is None:
            self._hub.catch_up()
            return None, False
        if not self._in_tail or self._cursor < tail.base:
            at_end = self._follow_log(tail)
        else:
            at_end = self._follow_tail(tail)
        if at_end and not self._ready and self._mark_due(tail.end):
            self._mark_at = None
            return WatchBatch(max(self._cursor, self._position)), True
        return None, at_end and not self._ready

    def _mark_due(self, head: int) -> bool:
        """Return whether a mark is wanted and the store, at ``head``, has reached where this watch
        begins."""
        return self._mark_at is not None and head >= self._cursor

    def _follow_log(self, tail: SharedLog[tuple[WatchEvent, ...]]) -> bool:
        """Look at a page of the log.

        The first look is always here: it shows whether the revisions after ``after_revision`` are
        compacted, which the tail does not know.
        """
        upto = max(self._cursor, min(self._cursor + _PAGE, tail.end))
        page = self._reader.events(
            self._cursor, upto, self._key, recursive=self._recursive, timeout=READ_TIMEOUT
        )
        self._cursor = max(self._cursor, page.upto)
        self._ready.extend(page.events)
        self._in_tail = self._cursor >= tail.base
        return self._cursor >= tail.end

    def _follow_tail(self, tail: SharedLog[tuple[WatchEvent, ...]]) -> bool:
        events = tail.read(self._cursor, _PAGE)
        if events:
            self._cursor += len(events)
            for each in events:
                ours = tuple([event for event in each if self._covers(event.kv.key)])
                if ours:
                    self._ready.append(ours)
        return self._cursor >= tail.end

    def _wait(self, deadline: float | None) -> bool:
        """Wait for something to look at; return False if the deadline comes first."""
        with self._hub.lock:
            tail = self._hub.tail
            news = tail is None or tail.end > self._cursor or self._mark_due(tail.end)
            if news or self._mark_wanted or self._closed or self._hub.error is not None:
                return True
            self._waiting = True
        woken = False
        try:
            # The backend's stop flag is set before the hub wakes all, so check it after _waiting.
            self._check_open()
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            woken = acquire(self._wakeup, left)
        finally:
            if not woken:
                with self._hub.lock:
                    self._waiting = False
                    woken = self._wakeup.acquire(blocking=False)  # at the last moment
        return woken

    def concerns(self, events: Sequence[tuple[WatchEvent, ...]], head: int) -> bool:
        if not self._waiting:
            return False
        if self._mark_due(head):
            return True
        if head <= self._cursor:
            return False
        return head - self._cursor > _LAG or any(
            self._covers(event.kv.key) for each in events for event in each
        )

    def wake(self) -> None:
        if self._waiting:
            # Already released if a wait was interrupted, before it or in it.
            with ignoring(RuntimeError):
                self._wakeup.release()
            self._waiting = False

    @property
    def position(self) -> int:
        return self._position

    def request_progress(self) -> None:
        self._check()
        with self._hub.lock:
            self._mark_owed = self._mark_wanted = True
            self.wake()

    def close(self) -> None:
        if self._closed:
            return
        try:
            self._check_open()
        except Closed as error:
            let_out(error)
            self._closed = True
            return
        with self._hub.lock:
            self._closed = True
            self.wake()
        self._hub.leave(self)
