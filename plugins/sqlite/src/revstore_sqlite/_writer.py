"""The writer: one connection, and transactions that concurrent callers share.

There is no writer thread. The first caller that finds nobody writing leads: it takes sqlite's
write lock, executes all operations that are queued by then in one transaction, its own first,
commits once, hands the lead to the first caller that came in the meantime, and returns. So one
thread alone pays no hop, many share each commit, and nobody leads for more than one commit.
"""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar, cast

from revstore.errors import (
    Closed,
    OutcomeUnknown,
    StorageError,
    Timeout,
)
from revstore.values import WatchEvent
from revstore_sqlite import _sql
from revstore_sqlite._connect import Link, StoreFile, patiently
from revstore_sqlite._errors import error_code, translate
from revstore_sqlite._ops import Operation, Transaction

__all__ = ["Publish", "Writer"]

T = TypeVar("T")
#: Called after a commit, before its callers return, with the first new revision, the last one,
#: and the events between them (None: they were not collected).
Publish = Callable[[int, int, "list[WatchEvent] | None"], None]

#: Operations in one commit, so that one batch does not keep its callers long.
_MAX_BATCH = 256
#: COMMIT answered by one of these has provably not happened.
_NOT_COMMITTED = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_READONLY)


class _Ticket:
    """An operation and its caller, who waits on ``wake``. Guarded by the writer's lock, but for
    ``result`` and ``error``, which the leader sets before ``done``."""

    __slots__ = ("deadline", "done", "error", "leads", "operation", "result", "taken", "wake")

    def __init__(self, operation: Operation[Any], deadline: float) -> None:
        self.operation = operation
        self.deadline = deadline
        self.wake = threading.Lock()
        self.wake.acquire()
        self.leads = False
        self.taken = False
        self.done = False
        self.result: Any = None
        self.error: StorageError | None = None

    def unknown(self, reason: str) -> OutcomeUnknown:
        return OutcomeUnknown(self.operation.key, self.operation.expected_revision, reason)


class Writer:
    """Executes operations, each atomically, in the order in which they came."""

    def __init__(
        self,
        link: Link,
        store: StoreFile,
        stop: threading.Event,
        watched: Callable[[], bool],
        publish: Publish,
    ) -> None:
        self._link = link
        self._store = store
        self._stop = stop
        self._watched = watched
        self._publish = publish
        self._lock = threading.Lock()
        self._queue: deque[_Ticket] = deque()  # guarded by _lock
        self._leading = False  # guarded by _lock: somebody leads or was just told to
        # Held by the leader while it uses the connection; close() takes it to close that.
        self._connection = threading.Lock()

    def submit(self, operation: Operation[T], timeout: float) -> T:
        """The result of ``operation``, once it is committed.

        ``Timeout`` if its turn did not come in time and nothing was done; ``OutcomeUnknown`` if
        its transaction was under way then, or sqlite could not say whether it was committed.
        """
        ticket = _Ticket(operation, time.monotonic() + timeout)
        try:
            with self._lock:
                if self._stop.is_set():
                    raise Closed("the backend is closed")
                self._queue.append(ticket)
                ticket.leads = not self._leading
                self._leading = True
            if ticket.leads or self._wait(ticket):
                self._lead(ticket)
        except BaseException:
            self._abandon(ticket)
            raise
        if ticket.error is not None:
            raise ticket.error
        return cast("T", ticket.result)

    def _wait(self, ticket: _Ticket) -> bool:
        """Wait until the ticket is done (False) or has to lead (True)."""
        left = max(0.0, ticket.deadline - time.monotonic())
        woken = ticket.wake.acquire(timeout=min(left, threading.TIMEOUT_MAX))
        return ticket.leads if woken else self._overdue(ticket)

    def _overdue(self, ticket: _Ticket) -> bool:
        with self._lock:
            if ticket.done or ticket.leads:
                return ticket.leads
            if ticket.taken:
                ticket.error = ticket.unknown("the deadline passed during the commit")
                raise ticket.error
            self._queue.remove(ticket)
        raise Timeout(f"{self._store.path}: the deadline passed in the queue; nothing was done")

    def _abandon(self, ticket: _Ticket) -> None:
        """The caller leaves (with an error, or interrupted): nobody may wait for it to lead."""
        with self._lock:
            with contextlib.suppress(ValueError):
                self._queue.remove(ticket)
            if ticket.leads:
                self._hand_over(ticket)

    def _hand_over(self, ticket: _Ticket) -> None:
        """Make the first in the queue the leader. The caller holds the lock."""
        ticket.leads = False
        if self._queue:
            self._queue[0].leads = True
            self._queue[0].wake.release()
        else:
            self._leading = False

    def _lead(self, ticket: _Ticket) -> None:
        """Commit one batch, the ticket's operation among it, and hand over."""
        batch: list[_Ticket] = []
        try:
            with self._connection:
                try:
                    self._take_lock(ticket.deadline)
                    self._take_queue(batch)
                    self._commit(batch)
                finally:
                    self._link.rollback()
        except StorageError as error:
            ticket.error = error
        finally:
            self._settle(ticket, batch)

    def _take_queue(self, batch: list[_Ticket]) -> None:
        # Only now that the transaction is open: until then a caller may still give up.
        with self._lock:
            batch.extend(itertools.islice(self._queue, _MAX_BATCH))
            for other in batch:
                other.taken = True
                self._queue.popleft()

    def _settle(self, ticket: _Ticket, batch: list[_Ticket]) -> None:
        """Wake the batch's callers and hand over, also after the leader was interrupted."""
        with self._lock:
            if not ticket.done:
                with contextlib.suppress(ValueError):
                    self._queue.remove(ticket)
            for other in batch:
                if other.error is None and not other.done:
                    other.error = other.unknown("the writer was interrupted")
                other.done = True
            self._hand_over(ticket)
        for other in batch:
            if other is not ticket:
                other.wake.release()

    def _take_lock(self, deadline: float) -> None:
        self._store.check()
        patiently(
            lambda: self._link.raw.execute("BEGIN IMMEDIATE"),
            self._store.path,
            deadline,
            self._stop,
        )

    def _commit(self, batch: list[_Ticket]) -> None:
        """Execute the batch in the transaction that was begun, and settle its tickets. If sqlite
        fails one operation, the others must not suffer: then each gets its own transaction."""
        try:
            self._execute(batch)
            return
        except sqlite3.Error as error:
            self._link.rollback()
            if len(batch) == 1:
                batch[0].error = self._explain(error)
                return
        for ticket in batch:
            try:
                self._take_lock(ticket.deadline)
                self._execute([ticket])
            except sqlite3.Error as error:
                self._link.rollback()
                ticket.error = self._explain(error)
            except StorageError as error:
                ticket.error = error

    def _explain(self, error: Exception) -> StorageError:
        mine: StorageError = translate(error, self._store.path)
        mine.__cause__ = error
        return mine

    def _execute(self, batch: list[_Ticket]) -> None:
        raw = self._link.raw
        txn = Transaction(raw, watched=self._watched())
        results: list[Any] = []
        for ticket in batch:
            try:
                results.append(ticket.operation.run(txn))
            except StorageError as error:
                results.append(error)
        if txn.revision >= txn.first:
            raw.execute(_sql.SET_REVISION, (txn.revision,))
        try:
            raw.execute("COMMIT")
        except sqlite3.Error as error:
            if error_code(error) & 0xFF in _NOT_COMMITTED:
                raise
            for ticket in batch:
                ticket.error = ticket.unknown(f"the commit failed: {error}")
                ticket.error.__cause__ = error
            return
        if txn.revision >= txn.first:
            self._publish(txn.first, txn.revision, txn.events)
        for ticket, result in zip(batch, results, strict=True):
            if isinstance(result, StorageError):
                ticket.error = result
            else:
                ticket.result = result
            ticket.done = True

    def close(self, timeout: float) -> None:
        """Fail what is queued with ``Closed``, let the batch under way finish, close the
        connection. ``stop`` has been set before."""
        with self._lock:
            for ticket in [t for t in self._queue if not t.leads]:
                self._queue.remove(ticket)
                ticket.error = Closed("the backend is closed")
                ticket.done = True
                ticket.wake.release()
        if self._connection.acquire(timeout=timeout):
            try:
                self._link.close()
            finally:
                self._connection.release()
