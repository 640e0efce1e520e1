"""The writer: one connection, and transactions that concurrent callers share.

There is no writer thread. The first caller that finds nobody writing leads. It takes sqlite's write
lock, executes all operations that are queued by then in one transaction, its own first, and commits
once. Then it passes the lead to the first caller that came in the meantime, and returns. So a
single thread does not wait for another, many threads share each commit, and nobody leads for more
than one commit.

Any caller may be interrupted at any line, even the leader. Then the transaction is rolled back by
closing the connection, the other operations go back into the queue, and the next caller leads.
"""

from __future__ import annotations

import itertools
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar, cast

from revstore.backend_tools import ignoring, let_out
from revstore.errors import (
    Closed,
    OutcomeUnknown,
    StorageError,
    Timeout,
)
from revstore.threads import acquire
from revstore_sqlite import _sql
from revstore_sqlite._connect import Link, StoreFile, patiently
from revstore_sqlite._errors import DRIVER_ERRORS, busy, error_code, is_busy, translate
from revstore_sqlite._fork import Turn
from revstore_sqlite._hub import Hub
from revstore_sqlite._ops import Operation, Transaction

__all__ = ["Writer"]

T = TypeVar("T")

#: The most operations in one commit, so that one batch does not delay its callers for long.
_MAX_BATCH = 256
#: If COMMIT ends with one of these, it has certainly not happened.
_NOT_COMMITTED = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_READONLY)


class _Ticket:
    """An operation and its caller, who waits for ``wake`` to be released.

    ``batch`` is what the caller leads. The leader sets the other fields, and ``done`` last.
    """

    __slots__ = ("batch", "committing", "deadline", "done", "error", "operation", "result", "wake")

    def __init__(self, operation: Operation[Any], deadline: float) -> None:
        self.operation = operation
        self.deadline = deadline
        self.wake = threading.Lock()
        self.wake.acquire()
        self.batch: list[_Ticket] = []
        self.committing = False
        self.done = False
        self.result: Any = None
        self.error: StorageError | None = None

    def unknown(self, reason: str) -> OutcomeUnknown:
        return OutcomeUnknown(self.operation.key, self.operation.expected_revision, reason)

    def settle(self, result: Any) -> None:
        """Set the result of the operation, which may be an error of the contract."""
        if isinstance(result, StorageError):
            self.error = result
        else:
            self.result = result
        self.done = True

    def rouse(self) -> None:
        """Wake the caller; to do so twice does no harm."""
        with ignoring(RuntimeError):
            self.wake.release()


class Writer:
    """Executes operations, each atomically, in the order in which they came."""

    def __init__(self, link: Link, store: StoreFile, stop: threading.Event, hub: Hub) -> None:
        self._store = store
        self._stop = stop
        self._hub = hub
        self._lock = threading.Lock()
        self._queue: deque[_Ticket] = deque()  # guarded by _lock
        self._leader: _Ticket | None = None  # guarded by _lock; what one caller is to lead
        self._turn = Turn()
        self._link: Link | None = link  # guarded by _turn
        self._sound = True  # guarded by _turn: the link is in no transaction

    def submit(self, operation: Operation[T], timeout: float) -> T:
        """Return the result of ``operation``, once it is committed.

        Raises:
            Timeout: its turn did not come in time, and nothing was done.
            OutcomeUnknown: its transaction was under way when the time passed, or sqlite could not
                say whether it was committed.
        """
        ticket = _Ticket(operation, time.monotonic() + timeout)
        try:
            with self._lock:
                if self._stop.is_set():
                    raise Closed("the backend is closed")
                self._queue.append(ticket)
                if self._leader is None:
                    self._leader = ticket
            if self._leader is ticket or self._wait(ticket):
                self._lead(ticket)
                self._settle(ticket)
        except BaseException:
            self._settle(ticket)
            raise
        if ticket.error is not None:
            raise ticket.error
        return cast("T", ticket.result)

    def _wait(self, ticket: _Ticket) -> bool:
        """Wait until the ticket is done (False) or has to lead (True)."""
        while True:
            woken = acquire(ticket.wake, ticket.deadline - time.monotonic())
            if self._leader is ticket or ticket.done:
                return not ticket.done
            if not woken:
                return self._overdue(ticket)

    def _overdue(self, ticket: _Ticket) -> bool:
        with self._lock:
            if ticket.done or self._leader is ticket:
                return not ticket.done
            queued = ticket in self._queue
            if queued:
                self._queue.remove(ticket)
        if queued:
            raise Timeout(f"{self._store.path}: the deadline passed in the queue; nothing was done")
        raise ticket.unknown("the deadline passed during the commit")

    def _settle(self, ticket: _Ticket) -> None:
        """Leave, with a result or interrupted at any line.

        What the caller led and did not begin to commit is queued again, the others are woken, and
        another caller leads. If this is interrupted itself, it may be called again.
        """
        with self._lock:
            again = []
            for other in ticket.batch:
                if other.done or other is ticket:
                    continue
                if other.committing:
                    other.settle(other.unknown("the writer was interrupted"))
                else:
                    again.append(other)
            rest = (each for each in self._queue if each not in again)
            if again or ticket in self._queue:
                self._queue = deque(each for each in (*again, *rest) if each is not ticket)
            if self._leader is ticket:
                self._leader = self._queue[0] if self._queue else None
            leader = self._leader
        for other in ticket.batch:
            other.rouse()
        if leader is not None:
            leader.rouse()
        # It has the ticket itself: such a circle would keep values until the next collection.
        ticket.batch = []

    def _lead(self, ticket: _Ticket) -> None:
        """Commit one batch, which includes the ticket's operation."""
        try:
            self._patiently(ticket, lambda: self._take_queue(ticket))
        except StorageError as error:  # nothing was begun
            let_out(error)
            ticket.settle(error)
            return
        # If sqlite failed one operation, the others must not suffer: each gets its own transaction.
        for other in ticket.batch:
            if not other.done:
                try:
                    self._patiently(other, lambda other=other: [other])  # type: ignore[misc]
                except StorageError as error:
                    let_out(error)
                    other.settle(error)

    def _patiently(self, ticket: _Ticket, take: Callable[[], list[_Ticket]]) -> None:
        patiently(
            lambda: self._attempt(ticket, take), self._store.path, ticket.deadline, self._stop
        )

    def _attempt(self, ticket: _Ticket, take: Callable[[], list[_Ticket]]) -> None:
        """Run one transaction; raise sqlite's busy error if somebody else is in one."""
        if self._turn.wanted:
            raise busy("a fork goes first")
        with self._turn.lock:
            link = self._connected()
            self._sound = False
            try:
                if time.monotonic() > self._store.check_at:
                    self._store.check()
                link.cutoff.deadline = ticket.deadline
                link.raw.execute("BEGIN IMMEDIATE")
                self._execute(link, take())
                self._sound = not link.raw.in_transaction
            except DRIVER_ERRORS as error:
                link.rollback()
                if link.cutoff.failure is not None:
                    raise link.cutoff.failure from error
                self._sound = is_busy(error) and not link.raw.in_transaction
                raise
            except StorageError:
                self._sound = not link.raw.in_transaction
                raise
            finally:
                if not self._sound or self._stop.is_set():
                    self._disconnect()

    def _connected(self) -> Link:
        if not self._sound:
            self._disconnect()  # its owner was interrupted a second time
        if self._link is None:
            self._link = self._store.connect(self._stop)
            self._sound = True
        return self._link

    def _disconnect(self) -> None:
        link = self._link
        if link is not None:
            link.close()
            self._link = None

    def _take_queue(self, ticket: _Ticket) -> list[_Ticket]:
        # Only now that the transaction is open: until then a caller may still give up.
        with self._lock:
            ticket.batch = list(itertools.islice(self._queue, _MAX_BATCH))
            self._queue = deque(itertools.islice(self._queue, _MAX_BATCH, None))
        return ticket.batch

    def _execute(self, link: Link, batch: list[_Ticket]) -> None:
        """Run the operations of a batch in the transaction that was begun, commit, and settle the
        tickets. Those that are not done afterwards have changed nothing."""
        raw = link.raw
        link.cutoff.deadline = max(ticket.deadline for ticket in batch)
        try:
            txn = Transaction(raw, self._store.path, watched=self._hub.watched())
            results: list[Any] = []
            for ticket in batch:
                try:
                    results.append(ticket.operation.run(txn))
                except StorageError as error:
                    let_out(error)
                    results.append(error)
            txn.flush()
            if txn.revision >= txn.first:
                raw.execute(_sql.SET_REVISION, (txn.revision,))
        except DRIVER_ERRORS as error:
            self._failed(link, batch, error)
            return
        if self._commit(link, batch):
            try:
                if txn.revision >= txn.first:
                    self._hub.publish(txn.first, txn.revision, txn.events)
            finally:
                for ticket, result in zip(batch, results, strict=True):
                    ticket.settle(result)

    def _commit(self, link: Link, batch: list[_Ticket]) -> bool:
        """Commit; return whether it is certain that the commit is in the store's file."""
        for ticket in batch:
            ticket.committing = True
        try:
            link.raw.execute("COMMIT")
        except DRIVER_ERRORS as error:
            if error_code(error) & 0xFF in _NOT_COMMITTED:
                for ticket in batch:
                    ticket.committing = False
                self._failed(link, batch, error)
                return False
            reason = f"the commit failed: {error}"
            cause: Exception | None = error
        else:
            lost = self._store.lost()
            if not lost:
                return True
            reason = f"{lost} was removed or replaced during the commit"
            cause = None
        for ticket in batch:
            unknown = ticket.unknown(reason)
            unknown.__cause__ = cause
            ticket.settle(unknown)
        return False

    def _failed(self, link: Link, batch: list[_Ticket], error: Exception) -> None:
        """Handle a batch that sqlite failed: a single operation gets the error, several are tried
        again."""
        link.rollback()
        if link.cutoff.failure is not None:
            raise link.cutoff.failure from error
        if len(batch) == 1:
            mine: StorageError = translate(error, self._store.path)
            mine.__cause__ = error
            batch[0].settle(mine)

    def close(self, timeout: float) -> None:
        """Fail what is queued with ``Closed``, let the batch under way finish, close the
        connection. ``stop`` must already be set."""
        with self._lock:
            queued, leader = self._queue, self._leader
            self._queue = deque([leader] if leader is not None and leader in queued else ())
        for ticket in queued:
            if ticket is not leader:
                ticket.settle(Closed("the backend is closed"))
                ticket.rouse()
        if self._turn.lock.acquire(timeout=timeout):
            try:
                self._disconnect()
            finally:
                self._turn.lock.release()
