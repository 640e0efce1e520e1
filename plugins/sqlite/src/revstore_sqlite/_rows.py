"""From rows to values. A file may hold anything, so every row is checked.

Each write has a checksum of its key, its value and its numbers. If it does not fit what was read,
the value of the row cannot be trusted. This is reported for its key alone, as ``KeyValue.damaged``,
and does not affect other keys. Numbers are already integers when SQL returns them; see ``_sql``.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from itertools import starmap
from operator import eq, itemgetter
from types import NoneType
from typing import Any, Final
from zlib import crc32

import attrs

from revstore.backend_tools import let_out
from revstore.errors import CorruptStore
from revstore.values import KeyValue, WatchEvent, WatchEventType

__all__ = [
    "FOLD",
    "GREATEST_REVISION",
    "Header",
    "checksum",
    "event",
    "first_id",
    "header_of",
    "key_value",
    "key_values",
    "last_id",
]

#: Revisions stay below this.
GREATEST_REVISION: Final = (1 << 43) - 1
#: A prime: a flipped bit in a number never changes their sum by a multiple of it.
FOLD: Final = 4_294_967_291
#: Rows turned into values at once: few enough not to trigger the cycle collector.
_CHUNK = 512


def first_id(revision: int) -> int:
    """Return the id of the first write of a revision."""
    return revision << 20


def last_id(revision: int) -> int:
    """Return the greatest id that a write of a revision can have."""
    return (revision << 20) + (1 << 20) - 1


@attrs.frozen(slots=True)
class Header:
    """The store's counters in one snapshot."""

    revision: int
    compacted: int
    swept: int
    store_id: str
    fence: str = ""


def header_of(row: Sequence[Any] | None, path: str) -> Header:
    """Return the counters.

    Raises:
        CorruptStore: they are not possible.
    """
    if row is not None:
        revision, compacted, swept, store_id, fence = row
        numbers = type(revision) is type(compacted) is type(swept) is int
        if (
            numbers
            and 0 <= swept <= compacted <= revision <= GREATEST_REVISION
            and revision > 0
            and type(store_id) is str
            and type(fence) in (str, NoneType)
        ):
            return Header(revision, compacted, swept, store_id, fence or "")
    raise CorruptStore(f"{path}: the store is damaged (its counters are {row})")


def checksum(kv: KeyValue) -> int:
    """Return the checksum stored beside a write: a CRC of key and value, and the fold of the
    numbers."""
    numbers = kv.revision + 3 * kv.create_revision + 5 * kv.version + 7 * kv.lease
    return (_crc(kv.key, kv.value) + numbers % FOLD) & 0xFFFFFFFF


def _crc(key: str, value: bytes) -> int:
    return crc32(value, crc32(key.encode()))


def key_value(key: str, value: Any, *numbers: Any) -> KeyValue:
    """Return one key.

    The last of ``numbers`` is what the CRC of key and value must be, by the checksum and the other
    numbers.
    """
    revision, created, version, lease, expected = numbers
    if type(value) is bytes and _crc(key, value) == expected:
        return KeyValue(key, value, revision, created, version, lease)
    value = value if type(value) is bytes else b""
    return KeyValue(key, value, revision, created, version, lease, damaged=True)


_KEY, _VALUE, _EXPECTED = map(itemgetter, (0, 1, 6))
_FIELDS = itemgetter(*range(6))


def key_values(cursor: sqlite3.Cursor, *, checked: bool = True) -> tuple[KeyValue, ...]:
    """Return all rows of a list; those that are not ``checked`` have no value and no checksum."""
    with closing(cursor):
        if not checked:
            return tuple(starmap(KeyValue, cursor))
        found: list[KeyValue] = []
        while rows := cursor.fetchmany(_CHUNK):
            good = _intact(rows)
            found += starmap(KeyValue, map(_FIELDS, rows)) if good else starmap(key_value, rows)
        return tuple(found)


def _intact(rows: list[tuple[Any, ...]]) -> bool:
    """Return whether all checksums fit.

    It is a loop that never leaves C. A value of another type than bytes fails it.
    """
    keys = map(crc32, map(str.encode, map(_KEY, rows)))
    try:
        return all(map(eq, map(crc32, map(_VALUE, rows), keys), map(_EXPECTED, rows)))
    except (TypeError, ValueError) as error:
        let_out(error)
        return False


def event(row: Sequence[Any]) -> WatchEvent:
    """Return the event of a row of ``_sql.EVENTS``: a write, the revision that it replaced, and the
    key before."""
    key, value, revision, _, version, _, _, replaced, *old = row
    previous = None
    if replaced is not None:
        # A row that is gone has no numbers except the one that led to it.
        previous = key_value(key, old[0], int(old[1]) or int(replaced) >> 20, *old[2:])
    if value is None and not version:
        return WatchEvent(WatchEventType.DELETED, KeyValue(key, b"", revision), previous)
    return WatchEvent(WatchEventType.PUT, key_value(*row[:7]), previous)
