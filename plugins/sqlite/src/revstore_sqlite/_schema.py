"""The layout of a store's file, and how a file of an older layout is brought up to it.

``log`` has one row for every write that is left, its revision being the rowid; ``state`` has one
row for every key that exists and points to its last write in ``log``. So values are stored once,
the current state never depends on how long the log is, and every write finds the value before it
through ``prev_revision``. ``meta`` has one row: the store's identity and its counters.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable

from sqlalchemy import (
    Column,
    Connection,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
)

__all__ = ["APPLICATION_ID", "SCHEMA_VERSION", "STEPS", "log", "meta", "metadata", "state"]

#: "RVST" in the file's header: what tells a revstore store from any other sqlite file.
APPLICATION_ID = 0x52565354

metadata = MetaData()

meta = Table(
    "meta",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("store_id", Text, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("compacted", Integer, nullable=False),
    # The log is cleared of what compaction made superfluous up to here.
    Column("swept", Integer, nullable=False),
)

state = Table(
    "state",
    metadata,
    Column("key", Text, primary_key=True),
    Column("revision", Integer, ForeignKey("log.revision"), nullable=False),
    Column("create_revision", Integer, nullable=False),
    Column("version", Integer, nullable=False),
    Column("lease", Integer, nullable=False),
    # Milliseconds since 1970 by the wall clock: the only clock that all processes share.
    Column("expires_at", Integer),
    sqlite_with_rowid=False,
)
Index("state_expires_at", state.c.expires_at, sqlite_where=state.c.expires_at.is_not(None))

log = Table(
    "log",
    metadata,
    Column("revision", Integer, primary_key=True),
    Column("key", Text, nullable=False),
    Column("value", LargeBinary),  # NULL: the key was deleted
    Column("create_revision", Integer, nullable=False),
    Column("version", Integer, nullable=False),
    Column("prev_revision", Integer),  # NULL: the key did not exist
    Column("lease", Integer, nullable=False),
)
# An index entry carries the rowid, so this one is ordered by (key, revision).
Index("log_key", log.c.key)


def _create(connection: Connection) -> None:
    connection.exec_driver_sql(
        "CREATE TABLE meta (id INTEGER PRIMARY KEY CHECK (id = 1), store_id TEXT NOT NULL,"
        " revision INTEGER NOT NULL, compacted INTEGER NOT NULL)"
    )
    connection.exec_driver_sql(
        "CREATE TABLE state (key TEXT NOT NULL PRIMARY KEY, revision INTEGER NOT NULL,"
        " create_revision INTEGER NOT NULL, version INTEGER NOT NULL) WITHOUT ROWID"
    )
    connection.exec_driver_sql(
        "CREATE TABLE log (revision INTEGER PRIMARY KEY, key TEXT NOT NULL, value BLOB,"
        " create_revision INTEGER NOT NULL, version INTEGER NOT NULL, prev_revision INTEGER)"
    )
    connection.exec_driver_sql("CREATE INDEX log_key ON log (key)")
    connection.exec_driver_sql("INSERT INTO meta VALUES (1, ?, 1, 0)", (uuid.uuid4().hex,))
    connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")


def _add_expiry_and_sweep(connection: Connection) -> None:
    for statement in (
        "ALTER TABLE state ADD COLUMN lease INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE state ADD COLUMN expires_at INTEGER",
        "ALTER TABLE log ADD COLUMN lease INTEGER NOT NULL DEFAULT 0",
        "CREATE INDEX state_expires_at ON state (expires_at) WHERE expires_at IS NOT NULL",
        "ALTER TABLE meta ADD COLUMN swept INTEGER NOT NULL DEFAULT 0",
        "UPDATE meta SET swept = compacted",
    ):
        connection.exec_driver_sql(statement)


#: Step n makes schema version n + 1 out of version n; a new file takes all of them, so that old
#: and new files have one layout. A step, once released, is never changed.
STEPS: tuple[Callable[[Connection], None], ...] = (_create, _add_expiry_and_sweep)
SCHEMA_VERSION = len(STEPS)
