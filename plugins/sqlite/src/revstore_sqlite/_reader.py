"""Reads: a pool of connections, and their queries, each from one snapshot."""

from __future__ import annotations

import sqlite3
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import closing
from itertools import groupby
from operator import attrgetter
from typing import TypeVar, cast

import attrs
import msgspec

from revstore.backend_tools import ignoring, let_out, prefix_end
from revstore.errors import (
    Closed,
    Compacted,
    CorruptStore,
    FutureRevision,
    StorageError,
    Timeout,
)
from revstore.values import (
    CountResult,
    GetResult,
    KeyValue,
    ListResult,
    WatchEvent,
)
from revstore_sqlite import _sql
from revstore_sqlite._connect import Link, StoreFile, patiently
from revstore_sqlite._errors import DRIVER_ERRORS, busy, error_code, is_busy, translate
from revstore_sqlite._fork import enlist
from revstore_sqlite._rows import (
    GREATEST_REVISION,
    Header,
    event,
    header_of,
    key_value,
    key_values,
    last_id,
)

__all__ = ["Header", "LogPage", "Reader"]

T = TypeVar("T")
#: No store has so many keys, and sqlite accepts no numbers above twice that.
_MOST = 1 << 62
#: Connections kept open between calls; more than that at once are opened and closed again.
_KEPT = 32
#: Seconds that a read may go on while a fork waits for it.
_CUT_OFF = 0.05
#: The number of revisions that are always undone to count the keys of an earlier revision; and how
#: many of them take as long as one key does at that revision.
_FEW = 1000
_KEY_COST = 5
#: A page of the log ends after this many bytes of values, so that it fits into memory.
_PAGE_BYTES = 8 * 1024 * 1024


@attrs.frozen(slots=True)
class LogPage:
    """Events after some revision up to ``upto``, a tuple for each revision that has any, and the
    store's counters at that moment."""

    header: Header
    upto: int
    events: list[tuple[WatchEvent, ...]]


def _range_end(prefix: str) -> str | bytes:
    """Return an upper bound of every key with ``prefix``: sqlite sorts every blob after every
    text."""
    return prefix_end(prefix) or b""


class Reader:
    """Answers reads from the committed state; reads and writes do not delay each other.

    A connection goes back to the pool only after a call that succeeded, or ended with an error of
    the contract. After any other exception, such as one of a signal's handler at any line, it is
    closed. So no connection is left in a transaction.
    """

    def __init__(self, store: StoreFile, stop: threading.Event) -> None:
        self._store = store
        self._stop = stop
        self._idle: deque[Link] = deque()  # its single operations are atomic
        self._changed = threading.Condition()
        self._links: weakref.WeakSet[Link] = weakref.WeakSet()  # open ones; guarded by _changed
        self._open = threading.Event()  # cleared before a fork: no new connections
        self._open.set()
        self._held: list[Link] = []  # kept from use during a fork; only the forking thread uses it
        self._awaited = False  # a thread waits for connections to come back
        enlist(self)

    def _connect(self, deadline: float) -> Link:
        """Return a new connection, which close() waits for."""
        path = self._store.path
        left = max(0.0, deadline - time.monotonic())
        if not self._open.wait(min(left, threading.TIMEOUT_MAX)):
            raise Timeout(f"{path}: the process was being forked until the deadline")
        link = patiently(lambda: self._store.connect(self._stop), path, deadline, self._stop)
        with self._changed:
            self._links.add(link)
        return link

    def _give_back(self, link: Link) -> None:
        """Keep the connection for the next call, or close it."""
        if len(self._idle) < _KEPT:
            self._idle.append(link)
            if self._stop.is_set():
                self._drain()
            if self._awaited:
                with self._changed:
                    self._changed.notify_all()
        else:
            self._discard(link)

    def _discard(self, link: Link) -> None:
        link.close()
        with self._changed:
            self._links.discard(link)
            self._changed.notify_all()

    def _drain(self) -> None:
        while True:
            try:
                link = self._idle.pop()
            except IndexError as error:
                let_out(error)
                return
            self._discard(link)

    def run(self, query: Callable[[sqlite3.Connection], T], timeout: float) -> T:
        """Return the result of ``query`` on a connection of the pool; it may run more than once."""
        now = time.monotonic()
        deadline = now + timeout
        if self._stop.is_set():
            raise Closed("the backend is closed")
        if now > self._store.check_at:
            self._store.check()
        try:
            return self._once(query, deadline)
        except DRIVER_ERRORS as error:
            if is_busy(error):
                return patiently(
                    lambda: self._once(query, deadline), self._store.path, deadline, self._stop
                )
            if self._stop.is_set():
                raise Closed("the backend is closed") from error
            raise translate(error, self._store.path) from error

    def _once(self, query: Callable[[sqlite3.Connection], T], deadline: float) -> T:
        link: Link | None = None
        try:
            try:
                link = self._idle.pop()
            except IndexError as error:
                let_out(error)
                link = self._connect(deadline)
            link.cutoff.deadline = deadline
            with link.used:
                if not self._open.is_set():  # the fork may have seen the connection unused
                    raise busy(f"{self._store.path}: a fork goes first")
                result = query(link.raw)
            # From here on an exception may lose the connection, but leaves no closed one in the
            # pool.
            done, link = link, None
            self._give_back(done)
        except DRIVER_ERRORS as error:
            if link is not None:
                self._fail(link, error, deadline)
            raise
        except BaseException:
            if link is not None:
                self._discard(link)
            raise
        return result

    def _fail(self, link: Link, error: Exception, deadline: float) -> None:
        """Close the connection, and raise the error behind sqlite's error, if there is one."""
        self._discard(link)
        if link.cutoff.failure is not None:
            raise link.cutoff.failure
        cut_off = error_code(error) & 0xFF == sqlite3.SQLITE_INTERRUPT
        if cut_off and not self._stop.is_set() and time.monotonic() <= deadline:
            raise busy(f"{self._store.path}: a fork interrupted the call") from error

    def _snapshot(self, query: Callable[[sqlite3.Connection], T], timeout: float) -> T:
        """Return the result of ``query``, whose statements all see one state of the store."""

        def both(raw: sqlite3.Connection) -> T | StorageError:
            raw.execute("BEGIN")
            try:
                result: T | StorageError = query(raw)
            except StorageError as error:
                let_out(error)
                result = error
            raw.execute("ROLLBACK")
            return result

        found = self.run(both, timeout)
        if isinstance(found, StorageError):
            raise found
        return found

    def header(self, timeout: float) -> Header:
        row = self.run(lambda raw: raw.execute(_sql.HEADER).fetchone(), timeout)
        return header_of(row, self._store.path)

    def _header_at(self, raw: sqlite3.Connection, revision: int) -> Header:
        """Return the counters, if the store can be read at ``revision`` (0: now)."""
        header = header_of(raw.execute(_sql.HEADER).fetchone(), self._store.path)
        if revision > header.revision:
            raise FutureRevision(revision, header.revision)
        if 0 < revision < header.compacted:
            raise Compacted(header.compacted, header.revision)
        return header

    def size(self, timeout: float) -> int:
        return self.run(lambda raw: int(raw.execute(_sql.SIZE).fetchone()[0]), timeout)

    def get(self, key: str, revision: int, timeout: float) -> GetResult:
        if revision:
            return self._snapshot(lambda raw: self._get_at(raw, key, revision), timeout)
        row = self.run(lambda raw: raw.execute(_sql.GET, (key,)).fetchone(), timeout)
        if row is None or type(row[0]) is not int or not 0 < row[0] <= GREATEST_REVISION:
            raise CorruptStore(f"{self._store.path}: the store is damaged (its counters are {row})")
        return GetResult(row[0], None if row[1] is None else key_value(*row[1:]))

    def _get_at(self, raw: sqlite3.Connection, key: str, revision: int) -> GetResult:
        header = self._header_at(raw, revision)
        row = raw.execute(_sql.GET_AT, (key, last_id(revision))).fetchone()
        found = row is not None and (row[1] is not None or row[4])
        return GetResult(header.revision, key_value(*row) if found else None)

    def list(
        self,
        prefix: str,
        start: str,
        limit: int,
        revision: int,
        *,
        keys_only: bool,
        remaining: bool,
        timeout: float,
    ) -> ListResult:
        low, high = max(prefix, start), _range_end(prefix)

        def query(raw: sqlite3.Connection) -> ListResult:
            now = self._header_at(raw, revision).revision
            at = revision or now
            # One more than asked for shows whether any follow.
            wanted = min(limit, _MOST) + 1 if limit > 0 else -1
            if at == now:
                kvs = _kvs(raw, (low, high), wanted, keys_only=keys_only)
            else:
                kvs = _kvs_at(raw, (low, high), wanted, at, keys_only=keys_only)
            more = 0 < limit < len(kvs)
            if more:
                kvs = kvs[:limit]
            left = None
            if remaining:
                left = _count(raw, kvs[-1].key + "\0", high, at, now) if more else 0
            return ListResult(at, kvs, more, left)

        return self._snapshot(query, timeout)

    def count(self, prefix: str, revision: int, timeout: float) -> CountResult:
        def query(raw: sqlite3.Connection) -> CountResult:
            now = self._header_at(raw, revision).revision
            at = revision or now
            return CountResult(at, _count(raw, prefix, _range_end(prefix), at, now))

        return self._snapshot(query, timeout)

    def next_expiry(self, timeout: float) -> int | None:
        """Return when the first key expires, in milliseconds since 1970; None if none does."""
        return self._one(_sql.NEXT_EXPIRY, (), timeout)

    def next_lease_expiry(self, timeout: float) -> int | None:
        """Return when the first lease expires, in milliseconds since 1970; None if none does."""
        return self._one(_sql.NEXT_LEASE_EXPIRY, (), timeout)

    def expiry(self, key: str, timeout: float) -> int | None:
        """Return when a key expires; None if it does not, or does not exist."""
        return self._one(_sql.EXPIRY, (key,), timeout)

    def _one(self, statement: str, parameters: tuple[object, ...], timeout: float) -> int | None:
        found = self.run(lambda raw: raw.execute(statement, parameters).fetchone(), timeout)
        return None if found is None else cast("int | None", found[0])

    def leases(self, timeout: float) -> tuple[int, ...]:
        """Return the ids of all leases, in order."""
        rows = self.run(lambda raw: raw.execute(_sql.LEASES).fetchall(), timeout)
        return tuple(id_ for (id_,) in rows)

    def lease(
        self, lease: int, *, keys: bool, timeout: float
    ) -> tuple[int, int, tuple[str, ...]] | None:
        """Return a lease's ttl, when it expires, and its keys if they are asked for."""

        def query(raw: sqlite3.Connection) -> tuple[int, int, tuple[str, ...]] | None:
            row = raw.execute(_sql.LEASE, (lease,)).fetchone()
            attached = raw.execute(_sql.LEASE_KEYS, (lease,)).fetchall() if keys else ()
            return row and (*row, tuple(key for (key,) in attached))

        return self._snapshot(query, timeout)

    def events(
        self, after: int, upto: int, prefix: str, *, recursive: bool, timeout: float
    ) -> LogPage:
        """Return the events above ``after`` and at most ``upto`` of one key or of a prefix, in
        revision order.

        If they are large, there are fewer of them, with a lower ``upto``.

        Raises:
            Compacted: some of them are gone.
        """

        def query(raw: sqlite3.Connection) -> LogPage:
            header = self._header_at(raw, 0)
            if after < header.compacted:
                raise Compacted(header.compacted, header.revision)
            last = min(upto, header.revision)
            if after >= last:
                return LogPage(header, after, [])
            ids = (last_id(after), last_id(last))
            if recursive:
                rows = raw.execute(_sql.EVENTS, (*ids, prefix, _range_end(prefix)))
            else:
                rows = raw.execute(_sql.KEY_EVENTS, (*ids, prefix))
            events: list[tuple[WatchEvent, ...]] = []
            size = 0
            with closing(rows):
                for revision, group in groupby(map(event, rows), _revision_of):
                    events.append(tuple(group))
                    size += sum(map(_size, events[-1]))
                    if size > _PAGE_BYTES:
                        return LogPage(header, revision, events)
            if not events:
                # Skip revisions that were never taken, as after the store's revision was raised.
                (entry,) = raw.execute(_sql.NEXT_ENTRY, (ids[1],)).fetchone()
                last = header.revision if entry is None else max(last, (entry >> 20) - 1)
            return LogPage(header, last, events)

        return self._snapshot(query, timeout)

    def checkpoint(self, timeout: float) -> None:
        """Move the write-ahead log into the file, and cut it off if nobody reads from it."""
        self.run(lambda raw: raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall(), timeout)

    def close(self, timeout: float) -> None:
        """Close the pool; calls under way end with ``Closed``, since ``stop`` is set."""
        self._open.set()
        self._drain()
        deadline = time.monotonic() + timeout
        with self._changed:
            for link in list(self._links):
                link.interrupt()
            self._changed.wait_for(
                lambda: not self._in_use(), timeout=max(0.0, deadline - time.monotonic())
            )

    def pause(self, deadline: float) -> bool:
        """Keep all connections from use, and cut off the reads that do not end by themselves."""
        self._open.clear()
        self._awaited = True
        patience = min(deadline, time.monotonic() + _CUT_OFF)
        while not self.paused():
            now = time.monotonic()
            if now > deadline:
                return False
            with self._changed:
                if now > patience:
                    for link in list(self._links):
                        link.interrupt()
                self._changed.wait(0.01)
        return True

    def paused(self) -> bool:
        while self._idle:
            with ignoring(IndexError):
                self._held.append(self._idle.pop())
        with self._changed:
            return not self._in_use()

    def _in_use(self) -> bool:
        """Return whether a call is inside SQLite; the caller holds ``_changed``."""
        return any(link.used.locked() for link in self._links)

    def resume(self) -> None:
        self._awaited = False
        while self._held:
            self._idle.append(self._held.pop())
        self._open.set()

    def begin_anew(self) -> None:
        self._held.clear()  # closed, or the parent's


_revision_of = attrgetter("kv.revision")


def _size(event: WatchEvent) -> int:
    return len(event.kv.value) + (len(event.previous.value) if event.previous else 0)


def _kvs(
    raw: sqlite3.Connection, bounds: tuple[str, str | bytes], limit: int, *, keys_only: bool
) -> tuple[KeyValue, ...]:
    statement = _sql.LIST_KEYS if keys_only else _sql.LIST
    return key_values(raw.execute(statement, (*bounds, limit)), checked=not keys_only)


def _kvs_at(
    raw: sqlite3.Connection,
    bounds: tuple[str, str | bytes],
    limit: int,
    revision: int,
    *,
    keys_only: bool,
) -> tuple[KeyValue, ...]:
    kvs = key_values(raw.execute(_sql.LIST_AT, (*bounds, bounds[1], last_id(revision), limit)))
    if keys_only:
        return tuple(msgspec.structs.replace(kv, value=b"", damaged=False) for kv in kvs)
    return kvs


def _count(raw: sqlite3.Connection, low: str, high: str | bytes, at: int, now: int) -> int:
    count = int(raw.execute(_sql.COUNT, (low, high)).fetchone()[0])
    if at == now:
        return count
    # Go back from now revision by revision, or look at that revision alone, key by key: a key costs
    # more.
    if now - at <= max(_FEW, _KEY_COST * count):
        return count + int(raw.execute(_sql.COUNT_BACK, (last_id(at), low, high)).fetchone()[0])
    return int(raw.execute(_sql.COUNT_AT, (low, high, high, last_id(at))).fetchone()[0])
