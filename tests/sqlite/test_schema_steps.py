"""Files of earlier schema versions are brought up to date when they are opened."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing

from revstore.values import KeyValue, WatchEventType
from revstore_sqlite._backend import SQLiteBackend
from revstore_sqlite._rows import checksum
from revstore_sqlite._schema import APPLICATION_ID, SCHEMA_VERSION

Open = Callable[..., SQLiteBackend]

#: As version 1 made it.
VERSION_1 = """
CREATE TABLE meta (id INTEGER PRIMARY KEY CHECK (id = 1), store_id TEXT NOT NULL, \
revision INTEGER NOT NULL, compacted INTEGER NOT NULL, swept INTEGER NOT NULL);
CREATE TABLE state (key TEXT NOT NULL PRIMARY KEY, revision INTEGER NOT NULL, \
create_revision INTEGER NOT NULL, version INTEGER NOT NULL, lease INTEGER NOT NULL, \
expires_at INTEGER) WITHOUT ROWID;
CREATE INDEX state_expires_at ON state (expires_at) WHERE expires_at IS NOT NULL;
CREATE TABLE log (revision INTEGER PRIMARY KEY, key TEXT NOT NULL, value BLOB, \
create_revision INTEGER NOT NULL, version INTEGER NOT NULL, prev_revision INTEGER, \
lease INTEGER NOT NULL, checksum INTEGER NOT NULL);
CREATE INDEX log_key ON log (key);
PRAGMA journal_mode = WAL;
PRAGMA user_version = 1;
"""

#: Writes, each with the revision that it replaced; version 0 is a deletion.
WRITES = [
    (KeyValue("/a", b"1", 2, 2, 1), None),
    (KeyValue("/b", b"1", 3, 3, 1), None),
    (KeyValue("/a", b"2", 4, 2, 2), 2),
    (KeyValue("/b", b"", 5), 3),
    (KeyValue("/c", b"1", 6, 6, 1, 4_000_000_000), None),
]


def test_version_1(open_store: Open, path: str) -> None:
    """State, history, expiries, events and the store's identity stay; writes go on."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(VERSION_1)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("INSERT INTO meta VALUES (1, 'the-store', 6, 2, 2)")
        for kv, replaced in WRITES:
            value = kv.value if kv.version else None
            row = (kv.create_revision, kv.version, replaced, kv.lease, checksum(kv))
            connection.execute(
                "INSERT INTO log VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (kv.revision, kv.key, value, *row),
            )
        far = 1 << 50
        connection.execute("INSERT INTO state VALUES ('/a', 4, 2, 2, 0, NULL)")
        connection.execute("INSERT INTO state VALUES ('/c', 6, 6, 1, 4000000000, ?)", (far,))
        connection.commit()
    for _ in range(2):
        backend = open_store()
        status = backend.status()
        assert (status.store_id, status.revision, status.compacted_revision) == ("the-store", 6, 2)
        assert backend.list("").kvs == (WRITES[2][0], WRITES[4][0])
        assert backend.list("", revision=3).kvs == (WRITES[0][0], WRITES[1][0])
        remaining = backend.remaining_ttl("/c")
        assert remaining is not None
        assert remaining > 1e9
        with backend.watch("", recursive=True, after_revision=3) as watch:
            batches = [watch.poll(10) for _ in range(3)]
        events = [event for batch in batches if batch for event in batch.events]
        assert [event.previous for event in events] == [WRITES[0][0], WRITES[1][0], None]
        assert [event.type for event in events] == [
            WatchEventType.PUT,
            WatchEventType.DELETED,
            WatchEventType.PUT,
        ]
        backend.close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
    backend = open_store()
    result = backend.transaction(lambda seen: (seen.put("/d", b""), seen.delete("/a")))
    assert result.revision == 7
    backend.compact(7)
    assert [kv.key for kv in backend.list("").kvs] == ["/c", "/d"]


def test_a_key_is_attached_to_a_lease_or_has_a_ttl(open_store: Open) -> None:
    """A ttl that is the number of a lease is no lease."""
    backend = open_store()
    leases = backend.leases()
    leases.grant(1000, lease=500)
    backend.put("/timed", b"", expected_revision=0, ttl=500)
    backend.transaction(lambda seen: seen.put("/leased", b"", lease=500))
    assert leases.get(500, keys=True).keys == ("/leased",)
    leases.revoke(500)
    assert [kv.key for kv in backend.list("").kvs] == ["/timed"]


def test_a_wide_gap_is_passed_at_once(open_store: Open) -> None:
    """A revision that was raised by billions costs watches, counts and compaction nothing."""
    backend = open_store()
    first = backend.put("/a", b"1", expected_revision=0).revision
    slow = backend.watch("/", recursive=True, after_revision=1)
    backend.raise_revision(1 << 40)
    second = backend.put("/a", b"2", expected_revision=first).revision
    found = [batch.revision for batch in (slow.poll(10), slow.poll(10)) if batch]
    assert found == [first, second] == [2, (1 << 40) + 1]
    with backend.watch("/", recursive=True, after_revision=first) as late:
        batch = late.poll(10)
        assert batch is not None
        assert batch.revision == second
    assert backend.count("/", revision=first + 5).count == 1
    backend.compact(second, timeout=10)
    assert backend.status().compacted_revision == second
    slow.close()
