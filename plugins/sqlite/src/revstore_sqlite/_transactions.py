"""Transactions of several keys, which share a commit of the writer."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from revstore import backend
from revstore.backend_tools import Overlay, let_out, prefix_end
from revstore.errors import LeaseNotFound, StorageError, ValueTooLarge
from revstore.values import KeyValue, TransactionResult
from revstore_sqlite import _sql
from revstore_sqlite._errors import DRIVER_ERRORS
from revstore_sqlite._ops import Operation, Transaction
from revstore_sqlite._rows import key_value, key_values

__all__ = ["MAX_VALUE", "Bodies"]

T = TypeVar("T")
#: sqlite's own limit for a row, minus what the other columns may take.
MAX_VALUE = 1_000_000_000 - 1_000


class _Body(Overlay):
    """The view of one body: the state within the write transaction."""

    def __init__(self, txn: Transaction) -> None:
        super().__init__(txn.revision)
        self._txn = txn
        #: What ``Transaction.write`` would read again.
        self.rows: dict[str, tuple[Any, ...] | None] = {}
        self._known: dict[str, KeyValue | None] = {}
        #: The error with which sqlite failed, whatever the body did with it.
        self.failure: Exception | None = None

    def _rows(self, statement: str, parameters: Sequence[Any]) -> sqlite3.Cursor:
        try:
            return self._txn.raw.execute(statement, parameters)
        except DRIVER_ERRORS as error:
            self.failure = error
            raise

    def _row(self, statement: str, key: str | int) -> Any:
        try:
            return self._txn.row(statement, key)
        except DRIVER_ERRORS as error:
            self.failure = error
            raise

    def stored(self, key: str) -> KeyValue | None:
        if key not in self._known:
            row = self._row(_sql.FIND_VALUE, key)
            self.rows[key] = None if row is None else row[2:6] + row[-2:]
            self._known[key] = None if row is None else key_value(*row[:-2])
        return self._known[key]

    def stored_range(
        self, prefix: str, start: str, limit: int, *, keys_only: bool
    ) -> Sequence[KeyValue]:
        bounds = (max(prefix, start), prefix_end(prefix) or b"", limit or -1)
        rows = self._rows(_sql.LIST_KEYS if keys_only else _sql.LIST, bounds)
        return key_values(rows, checked=not keys_only)

    def check_writable(self) -> None:
        self._txn.check_writable()

    def check_lease(self, lease: int) -> None:
        if self._row(_sql.LEASE, lease) is None:
            raise LeaseNotFound(lease)

    def put(
        self, key: str, value: bytes, *, ttl: int | None = 0, lease: int | None = 0
    ) -> KeyValue:
        if isinstance(value, bytes) and len(value) > MAX_VALUE:
            text = f"the value of {len(value)} bytes is over sqlite's limit of {MAX_VALUE}"
            raise ValueTooLarge(text, key=key)
        return super().put(key, value, ttl=ttl, lease=lease)


class Bodies(Operation[list[TransactionResult[T] | BaseException]], Generic[T]):
    """Run bodies, each with its own revision."""

    __slots__ = ("bodies", "clock")

    def __init__(
        self, bodies: Sequence[Callable[[backend.Transaction], T]], clock: Callable[[], float]
    ) -> None:
        self.bodies = bodies
        self.clock = clock

    def run(self, txn: Transaction) -> list[TransactionResult[T] | BaseException]:
        results: list[TransactionResult[T] | BaseException] = []
        for body in self.bodies:
            seen = _Body(txn)
            try:
                value = seen.run(body)
            except BaseException as error:
                let_out(error)
                # The caller of another body may run this one, and must not fail because of it. In
                # the main thread it is Ctrl-C.
                main = threading.current_thread() is threading.main_thread()
                if main and not isinstance(error, Exception):
                    raise
                if seen.failure is not None:
                    raise seen.failure from None
                results.append(error)
                continue
            if seen.failure is not None:
                raise seen.failure
            results.append(self._write(txn, value, seen))
        return results

    def _write(
        self, txn: Transaction, value: T, seen: _Body
    ) -> TransactionResult[T] | StorageError:
        changes = seen.changes()
        if changes:
            try:
                txn.write(changes, self.clock, seen.rows)
            except StorageError as error:  # no revisions are left: nothing was written yet
                let_out(error)
                return error
        return TransactionResult(value, txn.revision, bool(changes))
