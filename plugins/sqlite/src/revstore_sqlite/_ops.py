"""The steps inside a write transaction: one operation's reads and writes."""

from __future__ import annotations

import abc
import itertools
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from revstore.backend_tools import Change
from revstore.errors import Compacted, FutureRevision, NoSpace, ReadOnly
from revstore.values import DeleteResult, KeyValue, PutResult, WatchEvent, WatchEventType
from revstore_sqlite import _sql
from revstore_sqlite._rows import (
    GREATEST_REVISION,
    checksum,
    first_id,
    header_of,
    key_value,
    last_id,
)

__all__ = [
    "Compact",
    "Delete",
    "Expire",
    "Fence",
    "Operation",
    "Put",
    "RaiseRevision",
    "Sweep",
    "Transaction",
    "expiry",
]

T = TypeVar("T")

#: Seconds that one transaction deletes keys, before other writes have their turn.
_TURN = 0.005
#: The most rows of one statement, and the most rows and bytes of values that are kept back.
_ROWS = 16
_MOST_ROWS = 256
_MOST_HELD = 1 << 20


class Transaction:
    """One write transaction, perhaps shared by many operations. It raises ``CorruptStore``.

    ``revision`` rises with every write. ``events`` collects them for the watches, a tuple for each
    revision from ``first`` on; None if nobody watches, or if they have to be read from the log.

    Rows of writes are kept back, so that one statement can write many: each statement costs more
    around SQLite than in it. ``raw`` and ``row`` write them before a read that could miss them.
    """

    __slots__ = (
        "_gone",
        "_held",
        "_keys",
        "_log",
        "_raw",
        "_states",
        "compacted",
        "events",
        "fence",
        "first",
        "path",
        "revision",
        "swept",
    )

    def __init__(self, raw: sqlite3.Connection, path: str, *, watched: bool) -> None:
        header = header_of(raw.execute(_sql.HEADER).fetchone(), path)
        self._raw = raw
        # Rows of the tables ``log`` and ``state``, and keys to delete from ``state``.
        self._log: list[tuple[Any, ...]] = []
        self._states: list[tuple[Any, ...]] = []
        self._gone: list[tuple[str]] = []
        # The keys of these rows, and the bytes of their values.
        self._keys: set[str] = set()
        self._held = 0
        self.path = path
        self.revision, self.compacted, self.swept = (
            header.revision,
            header.compacted,
            header.swept,
        )
        self.fence = header.fence
        self.first = self.revision + 1
        self.events: list[tuple[WatchEvent, ...]] | None = [] if watched else None

    @property
    def raw(self) -> sqlite3.Connection:
        """The connection, through which all writes so far can be seen."""
        if self._keys:
            self.flush()
        return self._raw

    def row(self, statement: str, key: str | int) -> Any:
        """Return the row of a statement that reads one key, or one lease, and nothing else."""
        if key in self._keys:
            self.flush()
        return self._raw.execute(statement, (key,)).fetchone()

    def flush(self) -> None:
        """Write the rows that were kept back.

        A row is forgotten only after it was written. If this is interrupted and repeated, SQLite
        refuses the second one.
        """
        for rows, statement in (
            (self._log, _sql.insert_log),
            (self._states, _sql.set_states),
            (self._gone, _sql.delete_states),
        ):
            while rows:
                some = rows[:_ROWS]
                self._raw.execute(statement(len(some)), [*itertools.chain.from_iterable(some)])
                del rows[:_ROWS]
        self._keys.clear()
        self._held = 0

    def check_writable(self) -> None:
        """Check that the store is not fenced.

        Raises:
            ReadOnly: it is.
        """
        if self.fence:
            raise ReadOnly(self.fence)

    def next_revision(self) -> int:
        """Return the revision of the next write.

        Raises:
            NoSpace: there are no more revisions.
        """
        if self.revision >= GREATEST_REVISION:
            raise NoSpace(f"{self.path}: the store has used up its {GREATEST_REVISION} revisions")
        return self.revision + 1

    def current(self, key: str) -> KeyValue | None:
        """Return the key as stored now."""
        row = self.row(_sql.FIND_VALUE, key)
        return None if row is None else key_value(*row[:-2])

    def log(self, kv: KeyValue, replaced: int | None, number: int = 0) -> None:
        """Add the write ``number`` of its revision to the log, after the one with the id
        ``replaced``.

        The write is ``kv``, or a deletion if the version of ``kv`` is 0.
        """
        self._log.append(
            (
                (kv.revision << 20) + number,
                kv.key,
                kv.value if kv.version else None,
                kv.create_revision,
                kv.version,
                replaced,
                kv.lease,
                checksum(kv),
            )
        )
        self._keys.add(kv.key)
        self._held += len(kv.value)
        if self._held > _MOST_HELD or len(self._log) >= _MOST_ROWS:
            self.flush()

    def remove(self, keys: Iterable[str]) -> int:
        """Delete those of ``keys``, given in order, that exist, in one revision; return their
        number."""
        revision = self.next_revision()
        events: list[WatchEvent] = []
        for key in keys:
            row = self.row(_sql.FIND_VALUE, key)
            if row is not None:
                self._delete(key_value(*row[:-2]), row[-1], revision, events)
        if events:
            self.done(revision, events)
        return len(events)

    def remove_one(self, previous: KeyValue, entry: int) -> int:
        """Delete the key whose state is ``previous``; return the revision of the deletion."""
        events: list[WatchEvent] = []
        self._delete(previous, entry, self.next_revision(), events)
        self.done(self.revision + 1, events)
        return self.revision

    def _delete(
        self, previous: KeyValue, entry: int, revision: int, events: list[WatchEvent]
    ) -> None:
        gone = KeyValue(previous.key, b"", revision)
        self._gone.append((previous.key,))
        self.log(gone, entry, len(events))
        events.append(WatchEvent(WatchEventType.DELETED, gone, previous))

    def write(
        self,
        changes: Sequence[Change],
        clock: Callable[[], float],
        known: Mapping[str, tuple[Any, ...] | None],
    ) -> None:
        """Make the changes, each of another key and in key order, in one revision.

        ``known`` are rows of FIND that were read since the last write.
        """
        revision = self.next_revision()
        events: list[WatchEvent] = []
        for change in changes:
            if change.key in known:
                row = known[change.key]
            else:
                row = self.row(_sql.FIND, change.key)
            if change.value is None:
                if row is not None and change.previous is not None:
                    self._delete(change.previous, row[-1], revision, events)
                continue
            lease, expires_at = change.lease, None
            if change.keep:
                lease, expires_at = (row[3], row[4]) if row else (0, None)
            elif change.ttl:
                lease, expires_at = change.ttl, expiry(clock, change.ttl)
            created = row[1] if row else revision
            version = min(row[2] + 1, GREATEST_REVISION) if row else 1
            entry = (revision << 20) + len(events)
            self._states.append((change.key, entry, created, version, lease, expires_at))
            kv = KeyValue(change.key, change.value, revision, created, version, lease)
            self.log(kv, row[-1] if row else None, len(events))
            events.append(WatchEvent(WatchEventType.PUT, kv, change.previous))
        self.done(revision, events)

    def done(self, revision: int, events: Iterable[WatchEvent]) -> None:
        """Note that the writes of ``revision`` were made."""
        self.revision = revision
        if self.events is not None:
            self.events.append(tuple(events))


def expiry(clock: Callable[[], float], ttl: int) -> int:
    """Return when something that begins now and lasts ``ttl`` seconds ends, in milliseconds."""
    # The extra millisecond makes up for the rounding of the division: a ttl is a lower bound.
    return int(clock() * 1000) + 1 + ttl * 1000


def time_left(expires_at: int, now: float) -> float:
    """Return the seconds until a time from ``expiry``: whole milliseconds, never above the ttl."""
    return max(0, expires_at - int(now * 1000) - 1) / 1000


class Operation(abc.ABC, Generic[T]):
    """One step of a write transaction.

    If ``run`` raises an error of the contract, it must leave the store untouched; after an error of
    sqlite the whole transaction is rolled back. It may run again in another transaction.
    """

    __slots__ = ()
    key = ""
    expected_revision = 0

    @abc.abstractmethod
    def run(self, txn: Transaction) -> T: ...


class Put(Operation[PutResult]):
    __slots__ = ("clock", "expected_revision", "key", "ttl", "value")

    def __init__(
        self,
        key: str,
        value: bytes,
        expected_revision: int,
        ttl: int | None,
        clock: Callable[[], float],
    ) -> None:
        self.key = key
        self.clock = clock
        self.value = value
        self.expected_revision = expected_revision
        self.ttl = ttl

    def run(self, txn: Transaction) -> PutResult:
        txn.check_writable()
        # A create needs no look-up: it works, or it changes nothing.
        if not self.expected_revision and self._create(txn):
            return PutResult(True, txn.revision)
        row = txn.row(_sql.FIND, self.key)
        if row is None or row[0] != self.expected_revision:
            return PutResult(False, txn.revision, txn.current(self.key) if row else None)
        self._replace(txn, row)
        return PutResult(True, txn.revision)

    def _create(self, txn: Transaction) -> bool:
        revision = txn.next_revision()
        lease, expires_at = self._expiry(None)
        entry = (self.key, first_id(revision), revision, 1, lease, expires_at)
        if not txn.raw.execute(_sql.INSERT_STATE, entry).rowcount:
            return False
        self._log(txn, KeyValue(self.key, self.value, revision, revision, 1, lease), None)
        return True

    def _replace(self, txn: Transaction, row: tuple[int, ...]) -> None:
        revision = txn.next_revision()
        previous = txn.current(self.key) if txn.events is not None else None
        created, version = row[1], min(row[2] + 1, GREATEST_REVISION)
        lease, expires_at = self._expiry(row)
        txn.raw.execute(
            _sql.UPDATE_STATE, (first_id(revision), version, lease, expires_at, self.key)
        )
        kv = KeyValue(self.key, self.value, revision, created, version, lease)
        self._log(txn, kv, previous, row[-1])

    def _log(
        self, txn: Transaction, kv: KeyValue, previous: KeyValue | None, replaced: int | None = None
    ) -> None:
        txn.log(kv, replaced)
        txn.revision = kv.revision
        if txn.events is not None:
            txn.events.append((WatchEvent(WatchEventType.PUT, kv, previous),))

    def _expiry(self, row: tuple[int, ...] | None) -> tuple[int, int | None]:
        if self.ttl is None:
            return (row[3], row[4]) if row else (0, None)
        if not self.ttl:
            return 0, None
        return self.ttl, expiry(self.clock, self.ttl)


class Delete(Operation[DeleteResult]):
    __slots__ = ("expected_revision", "key")

    def __init__(self, key: str, expected_revision: int) -> None:
        self.key = key
        self.expected_revision = expected_revision

    def run(self, txn: Transaction) -> DeleteResult:
        txn.check_writable()
        row = txn.row(_sql.FIND_VALUE, self.key)
        current = None if row is None else key_value(*row[:-2])
        if current is None or current.revision != self.expected_revision:
            return DeleteResult(False, txn.revision, current)
        return DeleteResult(True, txn.remove_one(current, row[-1]), current)


class Expire(Operation[int]):
    """Delete expired keys, each with its own revision; the result is their number. If there are
    many, not all are deleted, since other writes wait meanwhile.

    The transaction itself decides which are due. So a key whose ttl was just renewed stays, and if
    several processes sweep, only one of them deletes a key.
    """

    __slots__ = ("clock", "limit")

    def __init__(self, limit: int, clock: Callable[[], float]) -> None:
        self.limit = limit
        self.clock = clock

    def run(self, txn: Transaction) -> int:
        if txn.fence:
            return 0
        now = int(self.clock() * 1000)
        gone = 0
        until = time.monotonic() + _TURN
        for (key,) in txn.raw.execute(_sql.DUE, (now, self.limit)).fetchall():
            if gone and time.monotonic() > until:
                break
            gone += txn.remove([key])
        return gone


class Compact(Operation[None]):
    """Move the compacted revision. From then on nobody reads what is below, so the rows can be
    deleted in parts, and a crash in between leaves only rows that nobody sees."""

    __slots__ = ("revision",)

    def __init__(self, revision: int) -> None:
        self.revision = revision

    def run(self, txn: Transaction) -> None:
        if self.revision > txn.revision:
            raise FutureRevision(self.revision, txn.revision)
        if self.revision <= txn.compacted:
            raise Compacted(txn.compacted, txn.revision)
        txn.raw.execute(_sql.SET_COMPACTED, (self.revision,))
        txn.compacted = self.revision


class Sweep(Operation[bool]):
    """Delete a batch of the log rows that compaction made superfluous; the result is whether more
    are left.

    A write at or below the compacted revision makes the one that it replaced superfluous, and if it
    is a deletion also itself. So it is enough to go once over the rows that were added since.
    """

    __slots__ = ("limit",)

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def run(self, txn: Transaction) -> bool:
        upto = min(txn.compacted, txn.swept + self.limit)
        if upto <= txn.swept:
            return False
        gone: list[tuple[int]] = []
        bounds = (last_id(txn.swept), last_id(upto))
        superseded = txn.raw.execute(_sql.SUPERSEDED, bounds).fetchall()
        for revision, replaced, deletion in superseded:
            if replaced is not None:
                gone.append((replaced,))
            if deletion:
                gone.append((revision,))
        if not superseded:
            # Skip revisions that were never taken, as after the store's revision was raised.
            (entry,) = txn.raw.execute(_sql.NEXT_ENTRY, (last_id(upto),)).fetchone()
            upto = txn.compacted if entry is None else min(txn.compacted, (entry >> 20) - 1)
        txn.raw.executemany(_sql.DELETE_LOG, gone)
        txn.raw.execute(_sql.SET_SWEPT, (upto,))
        txn.swept = upto
        return upto < txn.compacted


class RaiseRevision(Operation[None]):
    """Raise the store's revision."""

    __slots__ = ("revision",)

    def __init__(self, revision: int) -> None:
        self.revision = revision

    def run(self, txn: Transaction) -> None:
        if self.revision > txn.revision:
            txn.revision = self.revision
            txn.events = None  # the hub notices the gap by itself


class Fence(Operation[None]):
    """Begin or change the fence; "" ends it."""

    __slots__ = ("reason",)

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def run(self, txn: Transaction) -> None:
        txn.raw.execute(_sql.SET_FENCE, (self.reason or None,))
        txn.fence = self.reason
