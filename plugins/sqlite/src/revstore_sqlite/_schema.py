"""The layout of a store's file.

``log`` has one row for every write that is left; its rowid is the revision times 2^20, plus the
number of the write among those that share the revision. ``state`` has one row for every key that
exists; its ``entry`` is the rowid of its last write in ``log``. So values are stored once, reading
the current state does not depend on the length of the log, and every write finds the value before
it through ``previous``. A key that has a ``lease`` and no ``expires_at`` is attached to that row of
``lease``; with ``expires_at``, ``lease`` is the ttl. ``meta`` has one row: the store's identity,
its counters, and the reason of a fence.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from sqlalchemy import (
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    and_,
)

from revstore.errors import CorruptStore, IncompatibleStore

__all__ = [
    "APPLICATION_ID",
    "CREATE",
    "SCHEMA_VERSION",
    "UPGRADES",
    "check_schema",
    "lease",
    "log",
    "meta",
    "metadata",
    "state",
]

#: "RVST" in the file's header: distinguishes a revstore store from any other sqlite file.
APPLICATION_ID: Final = 0x52565354
SCHEMA_VERSION: Final = 2

metadata = MetaData()

meta = Table(
    "meta",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("store_id", Text, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("compacted", Integer, nullable=False),
    # Rows that compaction made superfluous have been deleted from the log up to here.
    Column("swept", Integer, nullable=False),
    Column("fence", Text),  # NULL: none
)

state = Table(
    "state",
    metadata,
    Column("key", Text, primary_key=True),
    Column("entry", Integer, ForeignKey("log.id"), nullable=False),
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
    Column("id", Integer, primary_key=True),
    Column("key", Text, nullable=False),
    Column("value", LargeBinary),  # NULL: the key was deleted
    Column("create_revision", Integer, nullable=False),
    Column("version", Integer, nullable=False),
    Column("previous", Integer),  # its id; NULL: the key did not exist
    Column("lease", Integer, nullable=False),
    Column("checksum", Integer, nullable=False),  # see _checksum
)
# An index entry carries the rowid, so this one is ordered by (key, revision).
Index("log_key", log.c.key)

lease = Table(
    "lease",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("ttl", Integer, nullable=False),
    Column("expires_at", Integer, nullable=False),
)
Index("lease_expires_at", lease.c.expires_at)
Index(
    "state_lease",
    state.c.lease,
    sqlite_where=and_(state.c.lease != 0, state.c.expires_at.is_(None)),
)

#: The statements that turn an empty file into a store; a file's own schema must read the same. A
#: schema of version n that was released is never changed: version n + 1 adds statements that
#: upgrade it.
CREATE: Final[dict[str, str]] = {
    "meta": "CREATE TABLE meta (id INTEGER PRIMARY KEY CHECK (id = 1), store_id TEXT NOT NULL,"
    " revision INTEGER NOT NULL, compacted INTEGER NOT NULL, swept INTEGER NOT NULL, fence TEXT)",
    "state": "CREATE TABLE state (key TEXT NOT NULL PRIMARY KEY, entry INTEGER NOT NULL,"
    " create_revision INTEGER NOT NULL, version INTEGER NOT NULL, lease INTEGER NOT NULL,"
    " expires_at INTEGER) WITHOUT ROWID",
    "state_expires_at": "CREATE INDEX state_expires_at ON state (expires_at)"
    " WHERE expires_at IS NOT NULL",
    "log": "CREATE TABLE log (id INTEGER PRIMARY KEY, key TEXT NOT NULL, value BLOB,"
    " create_revision INTEGER NOT NULL, version INTEGER NOT NULL, previous INTEGER,"
    " lease INTEGER NOT NULL, checksum INTEGER NOT NULL)",
    "log_key": "CREATE INDEX log_key ON log (key)",
    "lease": "CREATE TABLE lease (id INTEGER PRIMARY KEY, ttl INTEGER NOT NULL,"
    " expires_at INTEGER NOT NULL)",
    "lease_expires_at": "CREATE INDEX lease_expires_at ON lease (expires_at)",
    "state_lease": "CREATE INDEX state_lease ON state (lease)"
    " WHERE lease <> 0 AND expires_at IS NULL",
}

#: The statements that upgrade a file of an earlier version, by that version.
UPGRADES: Final[dict[int, tuple[str, ...]]] = {
    1: (
        "DROP INDEX state_expires_at",
        "DROP INDEX log_key",
        *(f"ALTER TABLE {table} RENAME TO {table}_1" for table in ("meta", "state", "log")),
        *CREATE.values(),
        "INSERT INTO meta SELECT id, store_id, revision, compacted, swept, NULL FROM meta_1",
        (
            "INSERT INTO state SELECT key, revision << 20, create_revision, version, lease,"
            " expires_at FROM state_1"
        ),
        (
            "INSERT INTO log SELECT revision << 20, key, value, create_revision, version,"
            " prev_revision << 20, lease, checksum FROM log_1"
        ),
        *(f"DROP TABLE {table}_1" for table in ("meta", "state", "log")),
    )
}


def check_schema(path: str, found: Iterable[tuple[object, object, object, object]]) -> None:
    """Check the rows (type, name, tbl_name, sql) of sqlite_master.

    Tables of others beside ours do no harm. Objects that run or apply when ours are used do: SQLite
    runs a trigger within our statements, and reads a view as if it were the table.

    Raises:
        CorruptStore: one of ours is missing.
        IncompatibleStore: one of ours was changed, or there is a trigger, a view, or an index of
            others on a table of ours.
    """
    missing = set(CREATE)
    for kind, name, table, sql in found:
        if name in CREATE:
            if sql != CREATE[str(name)]:
                raise IncompatibleStore(
                    f"{path}: {kind} {name!r} differs from what revstore created"
                )
            missing.discard(str(name))
        elif kind in ("trigger", "view") or (table in CREATE and sql is not None):
            raise IncompatibleStore(
                f"{path}: the store has a {kind} {name!r} that revstore did not create: drop it"
            )
    if missing:
        raise CorruptStore(f"{path}: the store is damaged (no {', '.join(sorted(missing))})")
