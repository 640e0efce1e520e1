"""Opening a file: making it, recognising it, bringing its layout up to date."""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
import threading
import time

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from revstore.errors import (
    AccessDenied,
    ConfigError,
    IncompatibleStore,
    NoSpace,
    ReadOnly,
    Unreachable,
)
from revstore_sqlite._connect import (
    StoreFile,
    network_file_system,
    patiently,
    read_only_file_system,
)
from revstore_sqlite._errors import error_code
from revstore_sqlite._options import SQLiteOptions
from revstore_sqlite._schema import APPLICATION_ID, SCHEMA_VERSION, STEPS

__all__ = ["open_store"]

_log = logging.getLogger("revstore_sqlite")

# Closing any descriptor of a file drops all locks that the process holds on it, those of sqlite
# too; so no thread may connect before the one that makes the file has closed its descriptor.
_opening = threading.Lock()
os.register_at_fork(
    before=_opening.acquire, after_in_parent=_opening.release, after_in_child=_opening.release
)


def open_store(
    options: SQLiteOptions, timeout: float, stop: threading.Event
) -> tuple[StoreFile, Engine]:
    """The store's file, ready for use, and its engine.

    ``ConfigError`` if the folder is missing or the path is a folder; ``AccessDenied``,
    ``ReadOnly``, ``NoSpace``; ``IncompatibleStore`` for a file that is no revstore store (it is
    left untouched) or of a newer schema; ``CorruptStore``; ``Timeout``.
    """
    path = os.path.abspath(options.path)
    deadline = time.monotonic() + timeout
    with _opening:
        _make_file(path)
    store = StoreFile(path=path, synchronous=options.synchronous)
    store.immutable = read_only_file_system(path) and not _has_log(path)
    engine = store.engine()
    try:
        patiently(lambda: _prepare(engine, store), path, deadline, stop)
    except BaseException:
        engine.dispose()
        raise
    found = os.stat(path)
    store.identity = (found.st_dev, found.st_ino)
    kind = network_file_system(path)
    if kind:
        _log.warning("%s lies on a network file system (%s): use it from one machine", path, kind)
    return store, engine


def _has_log(path: str) -> bool:
    return os.path.exists(path + "-wal") and os.path.getsize(path + "-wal") > 0


def _make_file(path: str) -> None:
    """Create the file with mode 0600 if it is not there: sqlite would take the umask's mode, and
    gives -wal and -shm the mode of the file."""
    if os.path.isdir(path):
        raise ConfigError("options.path", path, "the path of a file, not of a folder")
    if os.path.exists(path) and not os.path.isfile(path):
        raise ConfigError("options.path", path, "a file, not a device, pipe or socket")
    folder = os.path.dirname(path)
    try:
        if not os.path.exists(path):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        if os.path.islink(path) and not os.path.exists(path):
            expected = f"a file: it is a link to {os.readlink(path)!r}, which leads nowhere"
            raise ConfigError("options.path", path, expected) from None
        return
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ConfigError(
            "options.path", path, f"a path in a folder that exists: {folder!r} does not"
        ) from error
    except PermissionError as error:
        raise AccessDenied(f"{path}: the file cannot be made: {error.strerror}") from error
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            raise ConfigError("options.path", path, f"another path: {error.strerror}") from error
        kinds = {errno.EROFS: ReadOnly, errno.ENOSPC: NoSpace, errno.EDQUOT: NoSpace}
        kind = kinds.get(error.errno or 0, Unreachable)
        raise kind(f"{path}: the file cannot be made: {error.strerror}") from error


def _prepare(engine: Engine, store: StoreFile) -> None:
    try:
        with engine.connect() as connection:
            current = _look(connection, store.path) == SCHEMA_VERSION
            if store.immutable and not current:
                raise ReadOnly(f"{store.path}: the store must be brought to a newer schema first")
            if current and (store.immutable or _is_wal(connection)):
                return
            mode = connection.exec_driver_sql("PRAGMA journal_mode=WAL").scalar()
            if mode != "wal":
                raise Unreachable(f"{store.path}: this place does not allow write-ahead logs")
            _migrate(connection, store.path)
    except (DBAPIError, sqlite3.Error) as error:
        if error_code(error) & 0xFF in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
            _explain_access(store.path, error)
        raise


def _is_wal(connection: Connection) -> bool:
    return bool(connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal")


def _look(connection: Connection, path: str) -> int:
    """``_version`` of one state of the file, while other processes may be making it."""
    size = os.path.getsize(path)  # before the state is fixed, so that it is never newer than that
    connection.exec_driver_sql("BEGIN")
    try:
        return _version(connection, path, size)
    finally:
        connection.exec_driver_sql("ROLLBACK")


def _version(connection: Connection, path: str, size: int) -> int:
    """The layout's version, 0 for an empty file; ``IncompatibleStore`` if it is not ours. Within a
    transaction: the numbers it compares must be of one moment."""
    application = connection.exec_driver_sql("PRAGMA application_id").scalar()
    version = int(connection.exec_driver_sql("PRAGMA user_version").scalar() or 0)
    if application != APPLICATION_ID:
        # sqlite takes a file that is shorter than a header for an empty database.
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        tables = connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar()
        if application or version or tables or (size and not pages):
            raise IncompatibleStore(f"{path}: not a revstore store, but something else")
        return 0
    if version > SCHEMA_VERSION:
        raise IncompatibleStore(
            f"{path}: the store has schema version {version}, this revstore-sqlite knows up to "
            f"{SCHEMA_VERSION}: upgrade it"
        )
    return version


def _migrate(connection: Connection, path: str) -> None:
    """Take the steps that the file has not seen, all in one transaction."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")
    try:
        # Looked at again: another process may have done it while this one waited for the lock.
        for step in STEPS[_version(connection, path, os.path.getsize(path)) :]:
            step(connection)
        connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.exec_driver_sql("COMMIT")
    except BaseException:
        connection.rollback()
        raise


def _explain_access(path: str, error: Exception) -> None:
    """Raise what the file's permissions say, if they are the reason."""
    if not os.access(path, os.R_OK):
        raise AccessDenied(f"{path}: the file cannot be read: permission denied") from error
    if read_only_file_system(path) or not os.access(path, os.W_OK):
        raise ReadOnly(
            f"{path}: the store cannot be written, and needs to be before it can be used"
        ) from error
    folder = os.path.dirname(path)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise AccessDenied(
            f"{path}: no files may be made in its folder, but -wal and -shm must be"
        ) from error
