"""The statements, built by SQLAlchemy Core and compiled once.

They run on the driver's own connection below SQLAlchemy's: executing through Core costs several
times what sqlite itself takes for one row.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Table,
    bindparam,
    func,
    literal_column,
    select,
    text,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.sql.expression import ClauseElement

from revstore_sqlite._rows import FOLD
from revstore_sqlite._schema import lease, log, meta, state

__all__ = [
    "COUNT",
    "COUNT_AT",
    "COUNT_BACK",
    "DELETE_LEASE",
    "DELETE_LOG",
    "DUE",
    "DUE_LEASES",
    "EVENTS",
    "EXPIRY",
    "FIND",
    "FIND_VALUE",
    "GET",
    "GET_AT",
    "HEADER",
    "INSERT_LEASE",
    "INSERT_STATE",
    "KEY_EVENTS",
    "LEASE",
    "LEASES",
    "LEASE_KEYS",
    "LIFT_LEASES",
    "LIST",
    "LIST_AT",
    "LIST_KEYS",
    "NEXT_ENTRY",
    "NEXT_EXPIRY",
    "NEXT_LEASE_EXPIRY",
    "SET_COMPACTED",
    "SET_FENCE",
    "SET_LEASE",
    "SET_REVISION",
    "SET_SWEPT",
    "SIZE",
    "SUPERSEDED",
    "UPDATE_STATE",
    "delete_states",
    "insert_log",
    "set_states",
]

_Parameter = BindParameter[Any]


def _compile(statement: ClauseElement, *order: str) -> str:
    """Return the SQL text of ``statement``, with the parameters in this ``order``."""
    compiled: Any = statement.compile(dialect=sqlite.dialect(paramstyle="qmark"))
    assert tuple(compiled.positiontup or ()) == order, (compiled.positiontup, order)
    return str(compiled)


_key: _Parameter = bindparam("key")
_lo: _Parameter = bindparam("lo")
_hi: _Parameter = bindparam("hi")
_rev: _Parameter = bindparam("rev")
_after: _Parameter = bindparam("after")
_upto: _Parameter = bindparam("upto")
_LIMIT: Final = " LIMIT ?"  # Core's own limit() always adds an OFFSET parameter
_current = state.outerjoin(log, log.c.id == state.c.entry)


def _integer(column: str) -> str:
    """Return the column as an integer, whatever is stored there."""
    return f"ifnull(CAST({column} AS INTEGER), 0)"


def _numbers(table: str) -> list[str]:
    columns = ("create_revision", "version", "lease")
    return [_revision(table), *(_integer(f"{table}.{column}") for column in columns)]


def _revision(table: str) -> str:
    """Return the revision of a row of ``state``, or of ``log`` under any name."""
    column = "entry" if table == "state" else "id"
    return f"({_integer(f'{table}.{column}')} >> 20)"


def _crc(table: str, written: str) -> str:
    """Return what the CRC of key and value must be for the numbers of a row of ``table``, by the
    checksum in its log entry ``written``; see ``_rows.checksum``."""
    revision, created, version, lease = _numbers(table)
    # The id of a lease is any integer of 64 bits, of which 7 would be too many; sqlite's remainder
    # has the sign of the dividend.
    numbers = f"({revision} + 3 * {created} + 5 * {version} + 7 * ({lease} % {FOLD}))"
    return f"({written}.checksum - ({numbers} % {FOLD} + {FOLD}) % {FOLD}) & 4294967295"


def _columns(*texts: str) -> list[ColumnElement[Any]]:
    return [literal_column(text) for text in texts]


#: The fields of a current KeyValue and the CRC of key and value; for ``_rows.key_value``.
_now = _columns("state.key", "log.value", *_numbers("state"), _crc("state", "log"))
#: The same for a write in the log.
_LOGGED: Final = ("log.key", "log.value", *_numbers("log"), _crc("log", "log"))

#: revision, compacted, swept, store_id, fence
HEADER: Final = _compile(
    select(meta.c.revision, meta.c.compacted, meta.c.swept, meta.c.store_id, meta.c.fence)
)

#: (key) -> the store's revision, then a current key, its name NULL if it does not exist
GET: Final = _compile(
    select(meta.c.revision.label("now"), *_now).select_from(
        meta.outerjoin(state, state.c.key == _key).outerjoin(log, log.c.id == state.c.entry)
    ),
    "key",
)

_in_range = (state.c.key >= _lo, state.c.key < _hi)
#: (lo, hi, limit) -> current keys in order; limit -1 is none
LIST: Final = (
    _compile(
        select(*_now).select_from(_current).where(*_in_range).order_by(state.c.key),
        "lo",
        "hi",
    )
    + _LIMIT
)
#: the same with empty values, and without their checksums
LIST_KEYS: Final = (
    _compile(
        select(*_columns("state.key", "x''", *_numbers("state")))
        .select_from(state)
        .where(*_in_range)
        .order_by(state.c.key),
        "lo",
        "hi",
    )
    + _LIMIT
)
#: (lo, hi)
COUNT: Final = _compile(select(func.count()).select_from(state).where(*_in_range), "lo", "hi")

# Statements take revisions as ids: the id of the last write that a revision can have.
#: (key, id) -> the last write at or below id; its version is 0 if it is a deletion
GET_AT: Final = (
    _compile(
        select(*_columns(*_LOGGED))
        .select_from(log)
        .where(log.c.key == _key, log.c.id <= _rev)
        .order_by(log.c.id.desc()),
        "key",
        "rev",
    )
    + " LIMIT 1"
)

# Walks from key to key along the index log_key, so that a key costs the same however many revisions
# of it there are. CROSS JOIN keeps sqlite from swapping the loops, and the walk is in key order
# without a sort. Core has no expression for CROSS JOIN, hence the text.
_WALK = """
WITH RECURSIVE walk(key) AS (
  SELECT min(key) FROM log WHERE key >= ? AND key < ?
  UNION ALL
  SELECT (SELECT min(key) FROM log WHERE key > walk.key AND key < ?)
  FROM walk WHERE walk.key IS NOT NULL
)
SELECT {columns} FROM walk CROSS JOIN log
WHERE walk.key IS NOT NULL AND log.version IS NOT 0 AND log.id =
  (SELECT max(id) FROM log WHERE key = walk.key AND id <= ?)
"""
#: (lo, hi, hi, id, limit) -> the writes in key order that were current at rev
LIST_AT: Final = _WALK.format(columns=", ".join(_LOGGED)) + _LIMIT
#: (lo, hi, hi, id)
COUNT_AT: Final = _WALK.format(columns="count(*)")
#: (id, lo, hi) -> how many keys have been deleted since id, minus those that have been created:
#: each deletion, and each write that replaced nothing. With typeof, which reads no value, not even
#: large ones.
COUNT_BACK: Final = """
SELECT coalesce(sum((typeof(value) = 'null') - (typeof(previous) = 'null')), 0)
FROM log WHERE id > ? AND +key >= ? AND +key < ?
"""

_previous = log.alias("previous")
_change = select(
    *_columns(
        *_LOGGED,
        "CAST(log.previous AS INTEGER)",
        "previous.value",
        *_numbers("previous"),
        _crc("previous", "previous"),
    )
).select_from(log.outerjoin(_previous, _previous.c.id == log.c.previous))
_between = (log.c.id > _after, log.c.id <= _upto)
#: (after, upto, lo, hi), two ids -> a write and what it replaced, in revision order. The + keeps
#: sqlite from reading by key, which would need a sort of all that is left of the log.
EVENTS: Final = _compile(
    _change.where(
        *_between, literal_column("+log.key") >= _lo, literal_column("+log.key") < _hi
    ).order_by(log.c.id),
    "after",
    "upto",
    "lo",
    "hi",
)
#: (after, upto, key): the same of one key, through the index
KEY_EVENTS: Final = _compile(
    _change.where(*_between, log.c.key == _key).order_by(log.c.id), "after", "upto", "key"
)

#: (after) -> the id of the first write above it, NULL if there is none
NEXT_ENTRY: Final = _compile(select(func.min(log.c.id)).where(log.c.id > _after), "after")

#: (key) -> revision, create_revision, version, lease, expires_at, entry
FIND: Final = _compile(
    select(
        *_columns(*_numbers("state"), "CAST(state.expires_at AS INTEGER)", _integer("state.entry"))
    )
    .select_from(state)
    .where(state.c.key == _key),
    "key",
)
#: (key) -> a current key, expires_at, entry
FIND_VALUE: Final = _compile(
    select(*_now, *_columns("CAST(state.expires_at AS INTEGER)", _integer("state.entry")))
    .select_from(_current)
    .where(state.c.key == _key),
    "key",
)


def _rows(begin: str, place: str, end: str = "") -> Callable[[int], str]:
    """Return a function of a number of rows that returns a statement with a place for each."""
    return functools.cache(lambda count: f"{begin}{', '.join([place] * count)}{end}")


def _place(table: Table) -> str:
    return f"({', '.join('?' * len(table.c))})"


#: rows of (id, key, value, create_revision, version, previous, lease, checksum)
insert_log = _rows("INSERT INTO log VALUES ", _place(log))
#: rows of (key, entry, create_revision, version, lease, expires_at), of keys that exist or not
set_states = _rows(
    "INSERT INTO state VALUES ",
    _place(state),
    " ON CONFLICT (key) DO UPDATE SET entry = excluded.entry, version = excluded.version,"
    " lease = excluded.lease, expires_at = excluded.expires_at",
)
#: rows of (key)
delete_states = _rows("DELETE FROM state WHERE key IN (", "?", ")")
#: (key, entry, create_revision, version, lease, expires_at); no row is changed if the key
#: exists
INSERT_STATE: Final = _compile(sqlite.insert(state).on_conflict_do_nothing(), *state.c.keys())
#: (entry, version, lease, expires_at, key)
UPDATE_STATE: Final = _compile(
    state.update()
    .where(state.c.key == _key)
    .values(
        entry=_rev,
        version=bindparam("new_version"),
        lease=bindparam("new_lease"),
        expires_at=bindparam("new_expires_at"),
    ),
    "rev",
    "new_version",
    "new_lease",
    "new_expires_at",
    "key",
)
DELETE_LOG: Final = _compile(log.delete().where(log.c.id == _rev), "rev")
SET_REVISION: Final = _compile(meta.update().values(revision=_rev), "rev")
SET_COMPACTED: Final = _compile(meta.update().values(compacted=_rev), "rev")
SET_SWEPT: Final = _compile(meta.update().values(swept=_rev), "rev")
SET_FENCE: Final = _compile(meta.update().values(fence=_rev), "rev")

#: () -> id, in order
LEASES: Final = _compile(select(lease.c.id).order_by(lease.c.id))
#: (id) -> ttl, expires_at
LEASE: Final = _compile(select(lease.c.ttl, lease.c.expires_at).where(lease.c.id == _key), "key")
#: (id, ttl, expires_at); no row is changed if the id is taken
INSERT_LEASE: Final = _compile(sqlite.insert(lease).on_conflict_do_nothing(), *lease.c.keys())
#: (expires_at, id)
SET_LEASE: Final = _compile(
    lease.update().where(lease.c.id == _key).values(expires_at=_rev), "rev", "key"
)
#: (now, grace), in milliseconds
LIFT_LEASES: Final = (
    "UPDATE lease SET expires_at = max(expires_at, ? + min(CAST(ttl AS INTEGER) * 1000, ?))"
)
DELETE_LEASE: Final = _compile(lease.delete().where(lease.c.id == _key), "key")
#: (lease) -> the keys that are attached to it, in order
LEASE_KEYS: Final = (
    "SELECT key FROM state WHERE lease = ? AND lease <> 0 AND expires_at IS NULL"
    " AND typeof(key) = 'text' ORDER BY key"
)
#: (upto, limit) -> id, the earliest expiry first
DUE_LEASES: Final = "SELECT id FROM lease WHERE expires_at <= ? ORDER BY expires_at LIMIT ?"
NEXT_LEASE_EXPIRY: Final = "SELECT CAST(min(expires_at) AS INTEGER) FROM lease"
#: (key) -> when the key expires, by its ttl or by its lease
EXPIRY: Final = (
    "SELECT CAST(coalesce(state.expires_at, lease.expires_at) AS INTEGER) FROM state"
    " LEFT JOIN lease ON lease.id = state.lease AND state.lease <> 0"
    " WHERE state.key = ?"
)

#: (upto, limit) -> key, the earliest expiry first
DUE: Final = (
    _compile(
        select(state.c.key)
        .where(state.c.expires_at <= _upto, literal_column("typeof(state.key) = 'text'"))
        .order_by(state.c.expires_at),
        "upto",
    )
    + _LIMIT
)
NEXT_EXPIRY: Final = _compile(
    select(literal_column("CAST(min(state.expires_at) AS INTEGER)"))
    .select_from(state)
    .where(state.c.expires_at.is_not(None))
)
#: () -> bytes of the file, once all of the write-ahead log is in it
SIZE: Final = _compile(
    select(literal_column("page_count") * literal_column("page_size")).select_from(
        text("pragma_page_count, pragma_page_size")
    )
)
#: (after, upto) -> id, what it replaced, whether it is a deletion
SUPERSEDED: Final = _compile(
    select(log.c.id, log.c.previous, log.c.value.is_(None)).where(*_between),
    "after",
    "upto",
)
