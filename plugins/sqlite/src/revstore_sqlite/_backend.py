"""The backend itself: it checks arguments, and calls reader, writer and hub."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from revstore.arguments import (
    check_compact,
    check_delete,
    check_fence,
    check_get,
    check_key,
    check_list,
    check_put,
    check_raise_revision,
    check_timeout,
    check_transactions,
    check_watch,
)
from revstore.backend import DEFAULT_TIMEOUT, Backend, BackendWatch, Leases, Transaction
from revstore.backend_tools import Log, OpenGuard, let_out
from revstore.deadlines import check_seconds
from revstore.errors import Closed, OutcomeUnknown, StorageError, ValueTooLarge
from revstore.values import (
    BackendStatus,
    Capability,
    CountResult,
    DeleteResult,
    GetResult,
    ListResult,
    PutResult,
    TransactionResult,
)
from revstore_sqlite._expiry import Housekeeper, sweep_log
from revstore_sqlite._hub import Hub
from revstore_sqlite._leases import LiftLeases, SQLiteLeases
from revstore_sqlite._open import open_store
from revstore_sqlite._ops import Compact, Delete, Fence, Put, RaiseRevision, time_left
from revstore_sqlite._options import SQLiteOptions
from revstore_sqlite._reader import Reader
from revstore_sqlite._transactions import MAX_VALUE, Bodies
from revstore_sqlite._watch import SQLiteWatch
from revstore_sqlite._writer import Writer

__all__ = ["SQLiteBackend"]

_log = Log("revstore_sqlite")
T = TypeVar("T")
_CAPABILITIES = frozenset(
    {
        Capability.HISTORICAL_READS,
        Capability.TTL,
        Capability.PROGRESS,
        Capability.COMPACTION,
        Capability.VERSIONS,
        Capability.NESTED_KEYS,
        Capability.TRANSACTIONS,
        Capability.LEASES,
        Capability.REMAINING_TTL,
        Capability.RAISE_REVISION,
        Capability.FENCE,
        Capability.CROSS_PROCESS_WATCH,
    }
)


class SQLiteBackend(Backend):
    """A store in a sqlite file; see the package's README for what it guarantees."""

    def __init__(
        self,
        options: SQLiteOptions,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Open the file, and create it if needed; errors are those of ``open_store`` in ``_open``.

        ``clock`` returns the seconds since 1970 by which keys expire.
        """
        self._clock = clock
        self._guard = OpenGuard(self)
        self._stop = threading.Event()
        self._closed = False
        self._closes: list[Callable[[], None]] = []  # what close() does, in order
        try:
            self._open(options, timeout)
        except BaseException:
            self.close()
            raise

    def _open(self, options: SQLiteOptions, timeout: float) -> None:
        self._store, link = open_store(options, timeout, self._stop)
        self._closes.append(link.close)
        self.path = self._store.path
        self._reader = Reader(self._store, self._stop)
        self._closes.insert(0, lambda: self._reader.close(0.5))
        self._reader.header(timeout)  # a damaged file shows here at the latest
        self._hub = Hub(self._reader, self._store, options.poll_interval, self._stop)
        self._writer = Writer(link, self._store, self._stop, self._hub)
        self._housekeeper = Housekeeper(self._reader, self._writer, self._stop, self._clock)
        self._leases = SQLiteLeases(self._reader, self._writer, self._clock, self._wait)
        self._closes[:] = [
            lambda: self._hub.close(0.4),
            self._housekeeper.wake,
            lambda: self._writer.close(0.6),
            lambda: self._housekeeper.close(0.4),
            lambda: self._reader.close(0.5),
        ]
        durable = {Capability.DURABLE} if options.synchronous == "FULL" else set()
        self._capabilities = _CAPABILITIES | durable

    def _wait(self, timeout: float | None) -> float:
        self._guard.check()
        return DEFAULT_TIMEOUT if timeout is None else check_timeout(timeout, DEFAULT_TIMEOUT)

    @property
    def capabilities(self) -> frozenset[Capability]:
        return self._capabilities

    def status(self, *, timeout: float | None = None) -> BackendStatus:
        header = self._reader.header(self._wait(timeout))
        return BackendStatus(
            store_id=header.store_id,
            revision=header.revision,
            compacted_revision=header.compacted,
            server=f"sqlite {sqlite3.sqlite_version}",
        )

    def get(
        self,
        key: str,
        *,
        revision: int = 0,
        linearizable: bool = True,
        timeout: float | None = None,
    ) -> GetResult:
        check_get(key, revision)
        return self._reader.get(key, revision, self._wait(timeout))

    def list(
        self,
        prefix: str,
        *,
        start: str = "",
        limit: int = 0,
        revision: int = 0,
        keys_only: bool = False,
        remaining: bool = False,
        linearizable: bool = True,
        timeout: float | None = None,
    ) -> ListResult:
        check_list(prefix, revision, start=start, limit=limit)
        return self._reader.list(
            prefix,
            start,
            limit,
            revision,
            keys_only=keys_only,
            remaining=remaining,
            timeout=self._wait(timeout),
        )

    def count(self, prefix: str, *, revision: int = 0, timeout: float | None = None) -> CountResult:
        check_list(prefix, revision)
        return self._reader.count(prefix, revision, self._wait(timeout))

    def put(
        self,
        key: str,
        value: bytes,
        *,
        expected_revision: int,
        ttl: int | None = 0,
        timeout: float | None = None,
    ) -> PutResult:
        check_put(key, value, expected_revision, ttl)
        if len(value) > MAX_VALUE:
            raise ValueTooLarge(
                f"the value of {len(value)} bytes is over sqlite's limit of {MAX_VALUE}", key=key
            )
        operation = Put(key, value, expected_revision, ttl, self._clock)
        return self._writer.submit(operation, self._wait(timeout))

    def delete(
        self, key: str, *, expected_revision: int, timeout: float | None = None
    ) -> DeleteResult:
        check_delete(key, expected_revision)
        return self._writer.submit(Delete(key, expected_revision), self._wait(timeout))

    def transactions(
        self, bodies: Sequence[Callable[[Transaction], T]], *, timeout: float | None = None
    ) -> Sequence[TransactionResult[T] | Exception]:
        """Run bodies as in the contract; all share one commit."""
        check_transactions(bodies)
        wait = self._wait(timeout)
        if not bodies:
            return []
        try:
            results = self._writer.submit(Bodies(bodies, self._clock), wait)
        except OutcomeUnknown as error:
            let_out(error)
            return [error] * len(bodies)
        answers: list[TransactionResult[T] | Exception] = []
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, Exception):
                raise result
            answers.append(result)
        return answers

    def leases(self, *, grace: float = 10.0, timeout: float | None = None) -> Leases:
        check_seconds("grace", grace)
        wait = self._wait(timeout)
        if not self._housekeeper.sweeps_leases:
            self._writer.submit(LiftLeases(grace, self._clock), wait)
            self._housekeeper.sweeps_leases = True
            self._housekeeper.wake()
        return self._leases

    def remaining_ttl(self, key: str, *, timeout: float | None = None) -> float | None:
        check_key(key)
        expires_at = self._reader.expiry(key, self._wait(timeout))
        return None if expires_at is None else time_left(expires_at, self._clock())

    def raise_revision(self, revision: int, *, timeout: float | None = None) -> None:
        check_raise_revision(revision)
        self._writer.submit(RaiseRevision(revision), self._wait(timeout))

    def fence(self, reason: str, *, timeout: float | None = None) -> None:
        check_fence(reason)
        self._writer.submit(Fence(reason), self._wait(timeout))

    def unfence(self, *, timeout: float | None = None) -> None:
        self._writer.submit(Fence(""), self._wait(timeout))
        self._housekeeper.wake()

    def watch(
        self, key: str, *, recursive: bool, after_revision: int, progress: bool = True
    ) -> BackendWatch:
        check_watch(key, recursive=recursive, after_revision=after_revision)
        self._guard.check()
        return SQLiteWatch(
            self._hub,
            self._reader,
            key,
            recursive=recursive,
            after_revision=after_revision,
            check_open=self._guard.check,
        )

    def compact(self, revision: int, *, timeout: float | None = None) -> None:
        """Compact as in the contract.

        The call has succeeded once the compacted revision is moved. Rows that it cannot delete
        within its timeout are deleted later, by the housekeeper of any process.
        """
        check_compact(revision)
        deadline = time.monotonic() + self._wait(timeout)
        self._writer.submit(Compact(revision), deadline - time.monotonic())
        try:
            sweep_log(self._writer, deadline)
            self._reader.checkpoint(min(1.0, deadline - time.monotonic()))
        except Closed:
            raise
        except StorageError as error:
            let_out(error)
            _log.warning("%s: the rest of a compaction is postponed: %s", self.path, error)

    def size(self, *, timeout: float | None = None) -> int | None:
        return self._reader.size(self._wait(timeout))

    def close(self) -> None:
        # Each step may be repeated: the next close finishes an interrupted one.
        with self._guard.closing():
            if self._closed or self._guard.inherited:
                return
            self._stop.set()
            for close in self._closes:
                close()
            self._closed = True
