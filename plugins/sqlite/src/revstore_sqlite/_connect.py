"""Connections to a store's file, through SQLAlchemy's engine, and waiting for other processes."""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar, cast
from urllib.parse import quote

import attrs
from sqlalchemy import Engine, PoolProxiedConnection, create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from revstore.errors import Closed, IncompatibleStore, Timeout
from revstore_sqlite._errors import is_busy, translate

__all__ = ["Link", "StoreFile", "network_file_system", "patiently", "read_only_file_system"]

T = TypeVar("T")

#: Virtual machine steps between two looks at a reader's deadline: a few milliseconds.
_STEPS = 50_000
#: The -wal file is cut back to this after a checkpoint, else it keeps its greatest size.
_WAL_KEPT = 64 * 1024 * 1024
#: Seconds between two looks whether the file is still the one that was opened.
_FILE_CHECK = 0.05
#: Page cache of a connection. Values of keys that are often overwritten lie on a page each, and
#: sqlite's own 2 MB hold 500 of them.
_CACHE_KIB = 32 * 1024
#: Pages (of 4 KiB) in the -wal file after which a commit moves them into the file. sqlite's 1000
#: make compaction a third slower, and single writes no faster.
_WAL_PAGES = 4000
_NETWORK = (
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "9p",
    "afs",
    "ceph",
    "lustre",
    "glusterfs",
    "fuse.sshfs",
)


def patiently(step: Callable[[], T], path: str, deadline: float, stop: threading.Event) -> T:
    """``step()``, again and again while other connections stand in its way.

    Waits are random, so that processes that met once do not meet again; sqlite's own busy
    handler is neither fair nor used for the switch to WAL. ``Timeout`` after ``deadline`` (of the
    monotonic clock), ``Closed`` once ``stop`` is set, other errors translated.
    """
    pause = 0.0002
    while True:
        try:
            return step()
        except (sqlite3.Error, DBAPIError) as error:
            if not is_busy(error):
                if stop.is_set():
                    raise Closed("the backend is closed") from error
                raise translate(error, path) from error
            left = deadline - time.monotonic()
            if left <= 0:
                raise Timeout(
                    f"{path}: other processes held the store until the deadline; nothing was done"
                ) from error
        if stop.wait(min(left, random.uniform(pause / 4, pause))):  # noqa: S311 - no secret
            raise Closed("the backend is closed")
        pause = min(pause * 1.5, 0.005)


class Link:
    """One connection and, while a statement of a reader runs on it, the reader's deadline."""

    __slots__ = ("_proxied", "_stop", "deadline", "raw")

    def __init__(self, proxied: PoolProxiedConnection, stop: threading.Event) -> None:
        self._proxied = proxied
        self._stop = stop
        self.raw: Final = cast("sqlite3.Connection", proxied.dbapi_connection)
        self.deadline = float("inf")

    def watch_deadline(self) -> None:
        """From now on, cut statements off at ``deadline`` and when the store is closed."""
        self.raw.set_progress_handler(self._overdue, _STEPS)

    def _overdue(self) -> bool:
        return self._stop.is_set() or time.monotonic() > self.deadline

    def rollback(self) -> None:
        """End the transaction that is open, if any; never raises."""
        with contextlib.suppress(sqlite3.Error):
            if self.raw.in_transaction:
                self.raw.execute("ROLLBACK")

    def interrupt(self) -> None:
        """Cut off the statement that runs, in whichever thread; it may be closed meanwhile."""
        with contextlib.suppress(sqlite3.Error):
            self.raw.interrupt()

    def close(self) -> None:
        with contextlib.suppress(sqlite3.Error, DBAPIError):
            self.raw.set_progress_handler(None, 0)
            self._proxied.close()


@attrs.define
class StoreFile:
    """Where the store is and how to connect to it.

    ``immutable`` is for a store on a read-only file system: nobody can write it, so sqlite may
    read it without locks and without the -shm file that it could not make there.
    ``identity`` is device and inode of the file that was opened.
    """

    path: str
    synchronous: str
    immutable: bool = False
    identity: tuple[int, int] | None = None
    _checked: float = 0.0

    def engine(self) -> Engine:
        # NullPool: links are held for long, and pooled by the reader itself.
        return create_engine("sqlite+pysqlite://", creator=self._connect, poolclass=NullPool)

    def _connect(self) -> sqlite3.Connection:
        mode = "ro&immutable=1" if self.immutable else "rw"
        connection = sqlite3.connect(
            f"file:{quote(self.path)}?mode={mode}",
            uri=True,
            timeout=0,
            isolation_level=None,  # transactions begin and end where we say
            check_same_thread=False,
        )
        try:
            connection.execute("PRAGMA trusted_schema=OFF")
            connection.execute(f"PRAGMA synchronous={self.synchronous}")
            connection.execute(f"PRAGMA journal_size_limit={_WAL_KEPT}")
            connection.execute(f"PRAGMA wal_autocheckpoint={_WAL_PAGES}")
            connection.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
        except BaseException:
            connection.close()
            raise
        return connection

    def check(self, *, now: bool = False) -> None:
        """Raise ``IncompatibleStore`` if the file was removed, or another one put in its place:
        what is written to the old one would be lost. Looks at most every 50 ms but for ``now``."""
        clock = time.monotonic()
        if now or clock - self._checked > _FILE_CHECK:
            if self._replaced():
                raise IncompatibleStore(f"{self.path}: the file was removed or replaced")
            self._checked = clock

    def _replaced(self) -> bool:
        try:
            found = os.stat(self.path)
        except OSError:
            return True
        return (found.st_dev, found.st_ino) != self.identity


def read_only_file_system(path: str) -> bool:
    """Whether ``path`` lies on a file system that is mounted read-only."""
    try:
        return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    except OSError:
        return False


def network_file_system(path: str) -> str:
    """The kind of network file system that ``path`` lies on, "" if it is local or not known.

    WAL needs memory that all processes share, and locks there are often not to be trusted.
    """
    best, kind = "", ""
    with contextlib.suppress(OSError), open("/proc/self/mounts", encoding="utf-8") as mounts:
        for line in mounts:
            _, point, kind_here, *_ = line.split(" ")
            inside = path == point or path.startswith(point.rstrip("/") + "/")
            if inside and len(point) >= len(best):
                best, kind = point, kind_here
    return kind if kind in _NETWORK else ""
