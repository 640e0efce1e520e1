"""The opening of a file: it is created or recognised, and given its layout."""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
import time
import uuid

from revstore.backend_tools import Log, let_out
from revstore.errors import (
    AccessDenied,
    ConfigError,
    IncompatibleStore,
    NoSpace,
    ReadOnly,
    Unreachable,
)
from revstore_sqlite._connect import Link, StoreFile, open_file, patiently
from revstore_sqlite._errors import DRIVER_ERRORS, error_code
from revstore_sqlite._fork import Turn
from revstore_sqlite._locks import process
from revstore_sqlite._options import SQLiteOptions
from revstore_sqlite._place import match_modes, network_file_system, read_only_file_system
from revstore_sqlite._schema import APPLICATION_ID, CREATE, SCHEMA_VERSION, UPGRADES, check_schema

__all__ = ["open_store"]

_log = Log("revstore_sqlite")
_opening = Turn()
_NOT_MADE = {
    errno.EACCES: AccessDenied,
    errno.EPERM: AccessDenied,
    errno.EROFS: ReadOnly,
    errno.ENOSPC: NoSpace,
    errno.EDQUOT: NoSpace,
}


def open_store(
    options: SQLiteOptions, timeout: float, stop: threading.Event
) -> tuple[StoreFile, Link]:
    """Return the store's file, whose path is absolute, ready for use, and a connection to it.

    Raises:
        ConfigError: the folder is missing, or the path is a folder; or there is no file, and it
            must not be created.
        AccessDenied: permissions deny access to the file.
        ReadOnly: the file cannot be written here, and needs to be.
        NoSpace: the disk is full.
        IncompatibleStore: the file is not a revstore store (it is left untouched), has a newer
            schema, has more than one name, or contains something that is not ours.
        CorruptStore: the store is damaged.
        Timeout: other processes held it for too long.
    """
    path = options.path
    deadline = time.monotonic() + timeout
    with process.guard:  # no connection may be opened before the file's descriptor is closed again
        _make_file(path, create=options.create)
    store = _find_file(path, options)
    if read_only_file_system(store.real):
        store.immutable = not _has_log(store.real)
    else:
        match_modes(store.real)

    def prepare() -> Link:
        with _opening.lock:
            return _prepare(store, deadline, stop)

    link = patiently(prepare, path, deadline, stop)
    kind = network_file_system(store.real)
    if kind:
        _log.warning("%s lies on a network file system (%s): use it from one machine", path, kind)
    return store, link


def _find_file(path: str, options: SQLiteOptions) -> StoreFile:
    try:
        store = open_file(path, options.synchronous)
        names = os.stat(store.real).st_nlink
    except OSError as error:
        raise _not_opened(path, error) from error
    if names > 1:
        raise IncompatibleStore(
            f"{path}: the file has {names} names (hard links), but the log beside it belongs to "
            "one of them: remove the others"
        )
    return store


def _has_log(path: str) -> bool:
    return os.path.exists(path + "-wal") and os.path.getsize(path + "-wal") > 0


def _make_file(path: str, *, create: bool) -> None:
    """Create the file with mode 0600 if it does not exist.

    sqlite would use the umask's mode, and gives -wal and -shm the mode of the file.
    """
    try:
        os.path.realpath(path).encode()
    except UnicodeEncodeError as error:
        expected = "a path in UTF-8, with its folders and what links lead to"
        raise ConfigError("options.path", path, expected) from error
    if os.path.isdir(path):
        raise ConfigError("options.path", path, "the path of a file, not of a folder")
    if os.path.exists(path) and not os.path.isfile(path):
        raise ConfigError("options.path", path, "a file, not a device, pipe or socket")
    folder = os.path.dirname(path)
    try:
        if not os.path.exists(path):
            if not create and os.path.isdir(folder) and not os.path.islink(path):
                raise ConfigError("options.path", path, "a file that exists")
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError as error:
        let_out(error)
        if os.path.islink(path) and not os.path.exists(path):
            expected = f"a file: it is a link to {os.readlink(path)!r}, whose target does not exist"
            raise ConfigError("options.path", path, expected) from None
        return
    except (FileNotFoundError, NotADirectoryError) as error:
        let_out(error)
        raise ConfigError(
            "options.path", path, f"a path in a folder that exists: {folder!r} does not"
        ) from error
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            raise ConfigError("options.path", path, f"another path: {error.strerror}") from error
        raise _not_opened(path, error) from error


def _not_opened(path: str, error: OSError) -> Exception:
    let_out(error)
    kind = _NOT_MADE.get(error.errno or 0, Unreachable)
    return kind(f"{path}: the file cannot be created or found: {error.strerror}")


def _prepare(store: StoreFile, deadline: float, stop: threading.Event) -> Link:
    """Return a connection to the file as a store, with our locks held if it has a log."""
    first = store.connect(stop)
    try:
        first.cutoff.deadline = deadline
        _make_store(first.raw, store)
        store.lock()
        # Only a connection opened under the locks is certain to use the log that is there.
        link = store.connect(stop)
        try:
            link.cutoff.deadline = deadline
            _look(link.raw, store.path)
        except BaseException:
            link.close()
            raise
        return link
    except DRIVER_ERRORS as error:
        if first.cutoff.failure is not None:
            raise first.cutoff.failure from error
        if error_code(error) & 0xFF in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
            _explain_access(store.real, error)
        raise
    finally:
        first.close()


def _make_store(raw: sqlite3.Connection, store: StoreFile) -> None:
    current = _look(raw, store.path) == SCHEMA_VERSION
    if store.immutable and not current:
        state = "not a store yet, or one of an older schema"
        raise ReadOnly(f"{store.path}: the file is {state}, and cannot be written here")
    if current and (store.immutable or _journal(raw, "journal_mode") == "wal"):
        return
    if _journal(raw, "journal_mode=WAL") != "wal":
        raise Unreachable(f"{store.path}: this file system does not support write-ahead logs")
    raw.execute("BEGIN IMMEDIATE")
    # Checked again: another process may have done it while this one waited for the lock.
    version = _version(raw, store.path, os.path.getsize(store.real))
    if version == 0:
        for statement in CREATE.values():
            raw.execute(statement)
        raw.execute("INSERT INTO meta VALUES (1, ?, 1, 0, 0, NULL)", (uuid.uuid4().hex,))
        raw.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        raw.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    elif version != SCHEMA_VERSION:
        _log.info("%s: moving the store from schema version %d to 2", store.path, version)
        for statement in UPGRADES[version]:
            raw.execute(statement)
        raw.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    raw.execute("COMMIT")


def _journal(raw: sqlite3.Connection, pragma: str) -> object:
    return raw.execute(f"PRAGMA {pragma}").fetchone()[0]


def _look(raw: sqlite3.Connection, path: str) -> int:
    """Return ``_version`` of one state of the file, while other processes may be creating it."""
    size = os.path.getsize(path)  # before the state is read, so that it is never newer than that
    raw.execute("BEGIN")
    version = _version(raw, path, size)
    raw.execute("ROLLBACK")
    return version


def _version(raw: sqlite3.Connection, path: str, size: int) -> int:
    """Return the layout's version, 0 for an empty file.

    Call it within a transaction: the numbers that it compares must be of one moment.

    Raises:
        IncompatibleStore: the file is not ours.
    """
    (application,) = raw.execute("PRAGMA application_id").fetchone()
    (version,) = raw.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID:
        # sqlite treats a file that is shorter than a header as an empty database.
        (pages,) = raw.execute("PRAGMA page_count").fetchone()
        (tables,) = raw.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if application or version or tables or (size and not pages):
            raise IncompatibleStore(f"{path}: not a revstore store")
        return 0
    if version in UPGRADES:
        return int(version)
    if version != SCHEMA_VERSION:
        raise IncompatibleStore(
            f"{path}: the store has schema version {version}, this revstore-sqlite knows only "
            f"{SCHEMA_VERSION}: upgrade it"
        )
    schema = "SELECT type, name, tbl_name, sql FROM sqlite_master"
    check_schema(path, raw.execute(schema).fetchall())
    return int(version)


def _explain_access(path: str, error: Exception) -> None:
    """Raise an error about the file's permissions if they are the reason."""
    if not os.access(path, os.R_OK):
        raise AccessDenied(f"{path}: the file cannot be read: permission denied") from error
    if read_only_file_system(path) or not os.access(path, os.W_OK):
        raise ReadOnly(
            f"{path}: the store is read-only, but must be written before it can be used"
        ) from error
    folder = os.path.dirname(path)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise AccessDenied(
            f"{path}: its folder is not writable, but the -wal and -shm files must be created there"
        ) from error
