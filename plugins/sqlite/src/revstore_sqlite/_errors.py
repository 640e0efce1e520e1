"""From the errors of sqlite to those of the contract."""

from __future__ import annotations

import sqlite3

from revstore.errors import (
    AccessDenied,
    BackendError,
    CorruptStore,
    IncompatibleStore,
    NoSpace,
    ReadOnly,
    Timeout,
    ValueTooLarge,
)

__all__ = ["DRIVER_ERRORS", "busy", "error_code", "is_busy", "translate"]

#: What the driver raises; the second one if sqlite's message quotes a damaged file.
DRIVER_ERRORS = (sqlite3.Error, UnicodeDecodeError)

_BY_CODE: dict[int, tuple[type[BackendError], str]] = {
    sqlite3.SQLITE_PERM: (AccessDenied, "access denied"),
    sqlite3.SQLITE_AUTH: (AccessDenied, "access denied"),
    sqlite3.SQLITE_CANTOPEN: (AccessDenied, "the file, or its -wal and -shm, cannot be opened"),
    sqlite3.SQLITE_BUSY: (Timeout, "another process held the store for too long"),
    sqlite3.SQLITE_LOCKED: (Timeout, "another process held the store for too long"),
    sqlite3.SQLITE_PROTOCOL: (Timeout, "another process held the store for too long"),
    sqlite3.SQLITE_INTERRUPT: (Timeout, "the deadline passed"),
    sqlite3.SQLITE_READONLY: (ReadOnly, "the store cannot be written"),
    sqlite3.SQLITE_FULL: (NoSpace, "the disk is full"),
    sqlite3.SQLITE_CORRUPT: (CorruptStore, "the store is damaged"),
    sqlite3.SQLITE_CONSTRAINT: (CorruptStore, "the store is damaged"),
    sqlite3.SQLITE_MISMATCH: (CorruptStore, "the store is damaged"),
    sqlite3.SQLITE_NOTADB: (IncompatibleStore, "not a revstore store"),
    sqlite3.SQLITE_TOOBIG: (ValueTooLarge, "the value is too large"),
}
_DAMAGED = (sqlite3.SQLITE_IOERR_SHORT_READ, sqlite3.SQLITE_IOERR_CORRUPTFS)
#: The first one comes from the driver, about a key.
_DAMAGED_WORDS = ("Could not decode to UTF-8", "no such table", "no such column")
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL)


def error_code(error: BaseException) -> int:
    """Return sqlite's extended result code of ``error``; 0 if it has none."""
    return int(getattr(error, "sqlite_errorcode", 0) or 0)


def busy(text: str) -> sqlite3.OperationalError:
    """Return an error like sqlite's own for "somebody is in the way, try again"."""
    error = sqlite3.OperationalError(text)
    error.sqlite_errorcode = sqlite3.SQLITE_BUSY
    return error


def is_busy(error: BaseException) -> bool:
    """Return whether another connection was in the way, so that it makes sense to try again."""
    return error_code(error) & 0xFF in _BUSY


def translate(error: BaseException, path: str) -> BackendError:
    """Return the error to raise for ``error``, which the caller chains as its cause."""
    code = error_code(error)
    if isinstance(error, UnicodeDecodeError):
        return CorruptStore(f"{path}: the store is damaged (it has text that is not UTF-8)")
    if code in _DAMAGED or any(words in str(error) for words in _DAMAGED_WORDS):
        return CorruptStore(f"{path}: the store is damaged ({error})")
    kind, text = _BY_CODE.get(code & 0xFF, (BackendError, "sqlite failed"))
    return kind(f"{path}: {text} ({error})")
