"""Reads: a pool of connections, and what is asked of them, each from one snapshot."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from itertools import starmap
from typing import Any, TypeVar

import attrs
from sqlalchemy import Engine

from revstore.backend_tools import prefix_end
from revstore.errors import Closed, Compacted, FutureRevision
from revstore.values import (
    CountResult,
    GetResult,
    KeyValue,
    ListResult,
    WatchEvent,
    WatchEventType,
)
from revstore_sqlite import _sql
from revstore_sqlite._connect import Link, StoreFile, patiently
from revstore_sqlite._errors import is_busy, translate

__all__ = ["Header", "LogPage", "Reader"]

T = TypeVar("T")
#: No store has so many keys, and sqlite takes no greater numbers than twice that.
_MOST = 1 << 62
#: Connections kept open between calls; more than that at once are opened and closed again.
_KEPT = 32
#: A page of the log ends after so many bytes of values, that it fits into memory.
_PAGE_BYTES = 8 * 1024 * 1024


@attrs.frozen(slots=True)
class Header:
    """The store's counters in one snapshot."""

    revision: int
    compacted: int
    swept: int
    store_id: str


@attrs.frozen(slots=True)
class LogPage:
    """Events after some revision up to ``upto``, and the store's counters at that moment."""

    header: Header
    upto: int
    events: list[WatchEvent]


def _range_end(prefix: str) -> str | bytes:
    """What every key with ``prefix`` is below: to sqlite every blob is above every text."""
    return prefix_end(prefix) or b""


def _event(row: tuple[Any, ...]) -> WatchEvent:
    key, value, revision, created, version, lease, *old = row
    previous = None if old[1] is None else KeyValue(key, *old)
    if value is None:
        return WatchEvent(WatchEventType.DELETED, KeyValue(key, b"", revision), previous)
    kv = KeyValue(key, value, revision, created, version, lease)
    return WatchEvent(WatchEventType.PUT, kv, previous)


def _header_at(raw: sqlite3.Connection, revision: int) -> Header:
    """The counters, if the store can be read at ``revision`` (0: now)."""
    header = Header(*raw.execute(_sql.HEADER).fetchone())
    if revision > header.revision:
        raise FutureRevision(revision, header.revision)
    if 0 < revision < header.compacted:
        raise Compacted(header.compacted, header.revision)
    return header


class Reader:
    """Answers reads from the committed state; writers are not disturbed and do not disturb."""

    def __init__(self, engine: Engine, store: StoreFile, stop: threading.Event) -> None:
        self._engine = engine
        self._store = store
        self._stop = stop
        self._idle: deque[Link] = deque()  # its own operations are atomic
        self._changed = threading.Condition()
        self._links: set[Link] = set()  # guarded by _changed: every link that is open

    def connect(self, deadline: float) -> Link:
        """A new connection, which close() waits for and which ``release`` gives back."""

        def connect() -> Link:
            return Link(self._engine.raw_connection(), self._stop)

        self._store.check(now=True)  # else this link would be one to another store
        link = patiently(connect, self._store.path, deadline, self._stop)
        link.watch_deadline()
        with self._changed:
            self._links.add(link)
        return link

    def release(self, link: Link) -> None:
        """Keep the connection for the next call, or close it."""
        if len(self._idle) < _KEPT:
            self._idle.append(link)
            if self._stop.is_set():
                self._drain()
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
            except IndexError:
                return
            self._discard(link)

    def run(self, query: Callable[[sqlite3.Connection], T], timeout: float) -> T:
        """``query`` on a connection of the pool; it may be run more than once."""
        deadline = time.monotonic() + timeout
        if self._stop.is_set():
            raise Closed("the backend is closed")
        try:
            link = self._idle.pop()
        except IndexError:
            link = self.connect(deadline)
        link.deadline = deadline
        try:
            return query(link.raw)
        except sqlite3.Error as error:
            link.rollback()
            if is_busy(error):
                return patiently(lambda: query(link.raw), self._store.path, deadline, self._stop)
            if self._stop.is_set():
                raise Closed("the backend is closed") from error
            raise translate(error, self._store.path) from error
        finally:
            self.release(link)

    def _snapshot(self, query: Callable[[sqlite3.Connection], T], timeout: float) -> T:
        """``query`` with all its statements seeing one state of the store."""

        def both(raw: sqlite3.Connection) -> T:
            raw.execute("BEGIN")
            try:
                return query(raw)
            finally:
                if raw.in_transaction:
                    raw.execute("ROLLBACK")

        return self.run(both, timeout)

    def header(self, timeout: float) -> Header:
        return self.run(lambda raw: Header(*raw.execute(_sql.HEADER).fetchone()), timeout)

    def size(self, timeout: float) -> int:
        return self.run(lambda raw: int(raw.execute(_sql.SIZE).fetchone()[0]), timeout)

    def get(self, key: str, revision: int, timeout: float) -> GetResult:
        if revision:
            return self._snapshot(lambda raw: self._get_at(raw, key, revision), timeout)
        row = self.run(lambda raw: raw.execute(_sql.GET, (key,)).fetchone(), timeout)
        return GetResult(row[0], None if row[1] is None else KeyValue(*row[1:]))

    @staticmethod
    def _get_at(raw: sqlite3.Connection, key: str, revision: int) -> GetResult:
        header = _header_at(raw, revision)
        row = raw.execute(_sql.GET_AT, (key, revision)).fetchone()
        found = row is not None and row[1] is not None
        return GetResult(header.revision, KeyValue(*row) if found else None)

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
            now = _header_at(raw, revision).revision
            at = revision or now
            # One more than asked for tells whether any follow.
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
            now = _header_at(raw, revision).revision
            at = revision or now
            return CountResult(at, _count(raw, prefix, _range_end(prefix), at, now))

        return self._snapshot(query, timeout)

    def next_expiry(self, timeout: float) -> int | None:
        """When the first key expires, in milliseconds since 1970; None if none does."""
        found = self.run(lambda raw: raw.execute(_sql.NEXT_EXPIRY).fetchone(), timeout)
        return None if found[0] is None else int(found[0])

    def events(
        self, after: int, upto: int, prefix: str, *, recursive: bool, timeout: float
    ) -> LogPage:
        """The events above ``after`` and at most ``upto`` of one key or of a prefix, in revision
        order; fewer, with a lower ``upto``, if they are large. ``Compacted`` if some are gone."""

        def query(raw: sqlite3.Connection) -> LogPage:
            header = Header(*raw.execute(_sql.HEADER).fetchone())
            if after < header.compacted:
                raise Compacted(header.compacted, header.revision)
            last = min(upto, header.revision)
            if after >= last:
                return LogPage(header, after, [])
            if recursive:
                rows = raw.execute(_sql.EVENTS, (after, last, prefix, _range_end(prefix)))
            else:
                rows = raw.execute(_sql.KEY_EVENTS, (after, last, prefix))
            events: list[WatchEvent] = []
            size = 0
            for row in rows:
                events.append(_event(row))
                size += len(row[1] or b"") + len(row[6] or b"")
                if size > _PAGE_BYTES:
                    return LogPage(header, row[2], events)
            return LogPage(header, last, events)

        return self._snapshot(query, timeout)

    def checkpoint(self, timeout: float) -> None:
        """Move the write-ahead log into the file, and cut it off if nobody reads from it."""
        self.run(lambda raw: raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall(), timeout)

    def close(self, timeout: float) -> None:
        """Close the pool; calls that are under way end with ``Closed``, since ``stop`` is set."""
        self._drain()
        deadline = time.monotonic() + timeout
        with self._changed:
            for link in self._links:
                link.interrupt()
            self._changed.wait_for(
                lambda: not self._links, timeout=max(0.0, deadline - time.monotonic())
            )
        self._engine.dispose()


def _kvs(
    raw: sqlite3.Connection, bounds: tuple[str, str | bytes], limit: int, *, keys_only: bool
) -> tuple[KeyValue, ...]:
    statement = _sql.LIST_KEYS if keys_only else _sql.LIST
    return tuple(starmap(KeyValue, raw.execute(statement, (*bounds, limit))))


def _kvs_at(
    raw: sqlite3.Connection,
    bounds: tuple[str, str | bytes],
    limit: int,
    revision: int,
    *,
    keys_only: bool,
) -> tuple[KeyValue, ...]:
    rows = raw.execute(_sql.LIST_AT, (*bounds, bounds[1], revision, limit))
    if keys_only:
        return tuple(KeyValue(key, b"", *numbers) for key, _, *numbers in rows)
    return tuple(starmap(KeyValue, rows))


def _count(raw: sqlite3.Connection, low: str, high: str | bytes, at: int, now: int) -> int:
    if at == now:
        return int(raw.execute(_sql.COUNT, (low, high)).fetchone()[0])
    return int(raw.execute(_sql.COUNT_AT, (low, high, high, at)).fetchone()[0])
