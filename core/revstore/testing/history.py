"""A record of what a store was asked and what it answered, for the checks of
``revstore.testing.checks``."""

from __future__ import annotations

import contextlib
import enum
import math
import threading
import time
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

import attrs

from revstore.backend import Backend, BackendWatch
from revstore.errors import Closed, OutcomeUnknown, StorageError
from revstore.values import (
    BackendStatus,
    CountResult,
    DeleteResult,
    GetResult,
    KeyValue,
    ListResult,
    PutResult,
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


class OperationType(enum.StrEnum):
    """What was asked of one key."""

    GET = "get"
    PUT = "put"
    DELETE = "delete"


@attrs.frozen(kw_only=True)
class Operation:
    """One call and its answer.

    ``start`` and ``end`` are seconds of one monotonic clock; the call took effect between them,
    or not at all. ``end`` is infinite where the outcome is not known: the write may have landed,
    may land later, or never. ``succeeded`` is whether it changed the key, None if not known, False
    for a read. ``revision`` is the answer's; ``current`` is the key as the answer shows it: of a
    read or a refused write what is there, of a deletion what was removed, else None.
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


class ReadingType(enum.StrEnum):
    """What was asked of many keys, or of the store as a whole."""

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
    """What one watch was opened for and what it delivered, batches in the order of their coming.
    ``told`` is the highest position that it named. ``error`` is what ended it, None if it was
    closed."""

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
    """Calls a backend and writes down what came of it.

    A call that raises an error of ``revstore.errors`` other than ``OutcomeUnknown`` did nothing,
    says the contract, and is not recorded; the error is raised all the same.
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

    def _add(self, operation: Operation) -> None:
        with self._lock:
            self.history.operations.append(operation)


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
