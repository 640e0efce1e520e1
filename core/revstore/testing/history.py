"""A record of what a store was asked and what it answered, for the checks of
``revstore.testing.checks``."""

from __future__ import annotations

import contextlib
import enum
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import Any, TypeVar

import attrs

from revstore.backend import Backend, BackendWatch, Transaction
from revstore.errors import Closed, OutcomeUnknown, StorageError
from revstore.values import (
    BackendStatus,
    CountResult,
    DeleteResult,
    GetResult,
    KeyValue,
    ListResult,
    PutResult,
    TransactionResult,
    WatchBatch,
)

__all__ = [
    "History",
    "Operation",
    "OperationType",
    "Reading",
    "ReadingType",
    "RecordedWatch",
    "Recorder",
    "WatchRecord",
    "longest_stall",
]

T = TypeVar("T")


class OperationType(enum.StrEnum):
    """The kind of a call about one key."""

    GET = "get"
    PUT = "put"
    DELETE = "delete"


@attrs.frozen(kw_only=True)
class Operation:
    """One call and its answer.

    ``start`` and ``end`` are seconds of one monotonic clock; the call took effect between them,
    or not at all. ``end`` is infinite where the outcome is not known: the write may have landed,
    may land later, or never. ``succeeded`` is whether it changed the key, None if not known, False
    for a read. ``revision`` is the answer's; ``current`` is the key as the answer shows it: for a
    read or a refused write the stored key, for a deletion the removed one, for a put in a
    transaction the previous one, else None.
    ``transaction`` names the step that the operation is a part of, a transaction or the revocation
    of a lease; "" for a call that stands alone.
    """

    type: OperationType
    key: str
    start: float
    end: float = math.inf
    value: bytes = b""
    expected_revision: int = 0
    succeeded: bool | None = None
    revision: int = 0
    current: KeyValue | None = None
    transaction: str = ""


class ReadingType(enum.StrEnum):
    """The kind of a call about many keys, or the store as a whole."""

    LIST = "list"
    COUNT = "count"
    STATUS = "status"


@attrs.frozen(kw_only=True)
class Reading:
    """One read of the latest state below ``prefix``, and its answer.

    ``start`` and ``end`` are seconds of the clock of ``Operation``. ``revision`` is the answer's.
    ``kvs`` is what a list showed, ``count`` what a count did; a status shows its revision only.
    """

    type: ReadingType
    prefix: str
    start: float
    end: float
    revision: int
    kvs: tuple[KeyValue, ...] = ()
    count: int = 0


@attrs.define(kw_only=True)
class WatchRecord:
    """The arguments of one watch, and the batches that it delivered, in order of arrival. ``told``
    is the highest position that it reported. ``error`` is the error that ended it, or None if it
    was closed."""

    key: str
    recursive: bool
    after_revision: int
    batches: list[WatchBatch] = attrs.field(factory=list)
    told: int = 0
    error: Exception | None = None

    @property
    def position(self) -> int:
        """The revision up to which it says that everything was delivered."""
        return max([self.after_revision, self.told, *(batch.revision for batch in self.batches)])

    def covers(self, key: str) -> bool:
        """Return whether the watch must show the events of ``key``."""
        return key.startswith(self.key) if self.recursive else key == self.key


@attrs.define
class History:
    """All that was recorded; many threads add to it."""

    operations: list[Operation] = attrs.field(factory=list)
    watches: list[WatchRecord] = attrs.field(factory=list)
    readings: list[Reading] = attrs.field(factory=list)


def longest_stall(operations: Iterable[Operation]) -> float:
    """Return the longest time, in seconds, in which no write of any client was acknowledged.

    It is between the beginning of the first operation and the last end that is known; 0 without
    operations.
    """
    done = [each for each in operations if each.end < math.inf]
    if not done:
        return 0.0
    acknowledged = [each.end for each in done if each.succeeded]
    begin, end = min(each.start for each in done), max(each.end for each in done)
    moments = sorted([begin, *acknowledged, end])
    return max(later - earlier for earlier, later in pairwise(moments))


class Recorder:
    """Calls a backend and records the outcomes.

    A call that raises an error of ``revstore.errors`` other than ``OutcomeUnknown`` did nothing,
    says the contract, and is not recorded; the error is still raised.
    """

    def __init__(self, backend: Backend, history: History | None = None) -> None:
        self.backend = backend
        self.history = history or History()
        self._lock = threading.Lock()  # guards the history's lists

    def get(self, key: str, *, timeout: float | None = None) -> GetResult:
        """Record a ``Backend.get`` of the latest state."""
        start = time.monotonic()
        result = self.backend.get(key, timeout=timeout)
        self._add(
            Operation(
                type=OperationType.GET,
                key=key,
                start=start,
                end=time.monotonic(),
                succeeded=False,
                revision=result.revision,
                current=result.kv,
            )
        )
        return result

    def list(self, prefix: str, *, timeout: float | None = None) -> ListResult:
        """Record a ``Backend.list`` of the latest state, complete and in one answer."""
        start = time.monotonic()
        result = self.backend.list(prefix, timeout=timeout)
        self._read(ReadingType.LIST, prefix, start, result.revision, kvs=result.kvs)
        return result

    def count(self, prefix: str, *, timeout: float | None = None) -> CountResult:
        """Record a ``Backend.count`` of the latest state."""
        start = time.monotonic()
        result = self.backend.count(prefix, timeout=timeout)
        self._read(ReadingType.COUNT, prefix, start, result.revision, count=result.count)
        return result

    def status(self, *, timeout: float | None = None) -> BackendStatus:
        """Record a ``Backend.status``."""
        start = time.monotonic()
        result = self.backend.status(timeout=timeout)
        self._read(ReadingType.STATUS, "", start, result.revision)
        return result

    def put(
        self, key: str, value: bytes, *, expected_revision: int, timeout: float | None = None
    ) -> PutResult:
        """Record a ``Backend.put``. Give each call another value, so that a read shows which write
        it saw."""
        asked = Operation(
            type=OperationType.PUT,
            key=key,
            start=time.monotonic(),
            value=value,
            expected_revision=expected_revision,
        )
        with self._open_end(asked):
            result = self.backend.put(
                key, value, expected_revision=expected_revision, timeout=timeout
            )
        self._answer(asked, result.succeeded, result.revision, result.current)
        return result

    def delete(
        self, key: str, *, expected_revision: int, timeout: float | None = None
    ) -> DeleteResult:
        """Record a ``Backend.delete``."""
        asked = Operation(
            type=OperationType.DELETE,
            key=key,
            start=time.monotonic(),
            expected_revision=expected_revision,
        )
        with self._open_end(asked):
            result = self.backend.delete(key, expected_revision=expected_revision, timeout=timeout)
        self._answer(asked, result.succeeded, result.revision, result.kv)
        return result

    def transaction(
        self, body: Callable[[Transaction], T], *, timeout: float | None = None
    ) -> TransactionResult[T]:
        """Run and record a ``Backend.transaction``, but not the lists in it.

        Give each put another value, as in ``put``. What the body read is recorded as read at the
        transaction's revision: it must still be so when the writes land.
        """
        start = time.monotonic()
        runs: list[_RecordedBody] = []

        def recorded(seen: Transaction) -> T:
            runs.append(_RecordedBody(seen, start, f"{id(runs)}-{start}"))
            try:
                return body(runs[-1])
            except BaseException:
                runs.clear()  # none of its writes happened
                raise

        try:
            result = self.backend.transaction(recorded, timeout=timeout)
        except BaseException as error:
            if runs and (isinstance(error, OutcomeUnknown) or not isinstance(error, StorageError)):
                self._add(*runs[-1].writes.values())
            raise
        last, at = runs[-1], result.revision
        self._add(
            *(_answered(each, at, succeeded=True) for each in last.writes.values()),
            *(_answered(each, at, succeeded=False) for each in last.reads.values()),
        )
        return result

    def revoke(self, lease: int, keys: Iterable[KeyValue], *, timeout: float | None = None) -> int:
        """Revoke a lease whose keys are ``keys``, and record the deletion of each."""
        start = time.monotonic()
        deletions = [
            Operation(
                type=OperationType.DELETE,
                key=kv.key,
                start=start,
                expected_revision=kv.revision,
                current=kv,
                transaction=f"lease {lease}",
            )
            for kv in keys
        ]
        try:
            revision = self.backend.leases().revoke(lease, timeout=timeout)
        except BaseException as error:
            if isinstance(error, OutcomeUnknown) or not isinstance(error, StorageError):
                self._add(*deletions)
            raise
        self._add(*(_answered(each, revision, succeeded=True) for each in deletions))
        return revision

    def watch(self, key: str, *, recursive: bool, after_revision: int) -> RecordedWatch:
        """Open a watch whose batches are recorded as it is polled."""
        record = WatchRecord(key=key, recursive=recursive, after_revision=after_revision)
        with self._lock:
            self.history.watches.append(record)
        watch = self.backend.watch(key, recursive=recursive, after_revision=after_revision)
        return RecordedWatch(watch, record)

    def _answer(
        self, asked: Operation, succeeded: bool, revision: int, current: KeyValue | None
    ) -> None:
        self._add(
            attrs.evolve(
                asked,
                end=time.monotonic(),
                succeeded=succeeded,
                revision=revision,
                current=current,
            )
        )

    @contextlib.contextmanager
    def _open_end(self, asked: Operation) -> Iterator[None]:
        try:
            yield
        except StorageError as error:
            if isinstance(error, OutcomeUnknown):
                self._add(asked)
            raise
        except BaseException:
            self._add(asked)  # interrupted, or a defect: nobody knows
            raise

    def _read(
        self, kind: ReadingType, prefix: str, start: float, revision: int, **shown: Any
    ) -> None:
        reading = Reading(
            type=kind, prefix=prefix, start=start, end=time.monotonic(), revision=revision, **shown
        )
        with self._lock:
            self.history.readings.append(reading)

    def _add(self, *operations: Operation) -> None:
        with self._lock:
            self.history.operations += operations


def _answered(asked: Operation, revision: int, *, succeeded: bool) -> Operation:
    return attrs.evolve(asked, end=time.monotonic(), revision=revision, succeeded=succeeded)


class _RecordedBody(Transaction):
    """A body's view, and its reads and writes of single keys."""

    def __init__(self, seen: Transaction, start: float, name: str) -> None:
        self._seen = seen
        self._start = start
        self._name = name
        self.reads: dict[str, Operation] = {}
        self.writes: dict[str, Operation] = {}

    @property
    def revision(self) -> int:
        return self._seen.revision

    def get(self, key: str) -> KeyValue | None:
        found = self._seen.get(key)
        if key not in self.writes:
            self.reads[key] = self._operation(OperationType.GET, key, None, current=found)
        return found

    def list(
        self, prefix: str, *, start: str = "", limit: int = 0, keys_only: bool = False
    ) -> tuple[KeyValue, ...]:
        return self._seen.list(prefix, start=start, limit=limit, keys_only=keys_only)

    def put(
        self, key: str, value: bytes, *, ttl: int | None = 0, lease: int | None = 0
    ) -> KeyValue:
        before = self._seen.get(key)
        put = self._seen.put(key, value, ttl=ttl, lease=lease)
        self._write(self._operation(OperationType.PUT, key, before, value=value, current=before))
        return put

    def delete(self, key: str) -> KeyValue | None:
        removed = self._seen.delete(key)
        if removed is not None:
            self._write(self._operation(OperationType.DELETE, key, removed, current=removed))
        return removed

    def _write(self, operation: Operation) -> None:
        self.writes[operation.key] = operation
        self.reads.pop(operation.key, None)

    def _operation(
        self, kind: OperationType, key: str, before: KeyValue | None, **fields: Any
    ) -> Operation:
        return Operation(
            type=kind,
            key=key,
            start=self._start,
            expected_revision=before.revision if before else 0,
            transaction=self._name,
            **fields,
        )


class RecordedWatch(BackendWatch):
    """A backend's watch; what its polls return is in ``record``."""

    def __init__(self, watch: BackendWatch, record: WatchRecord) -> None:
        self._watch = watch
        self.record = record

    @property
    def position(self) -> int:
        position = self._watch.position
        self.record.told = max(self.record.told, position)
        return position

    def poll(self, timeout: float | None = None) -> WatchBatch | None:
        try:
            batch = self._watch.poll(timeout)
        except Closed:
            raise
        except Exception as error:
            self.record.error = error
            raise
        if batch is not None:
            self.record.batches.append(batch)
        return batch

    def request_progress(self) -> None:
        self._watch.request_progress()

    def close(self) -> None:
        self._watch.close()
