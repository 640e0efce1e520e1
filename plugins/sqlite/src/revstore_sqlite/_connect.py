"""Connections to a store's file, their deadlines, and how they wait for other processes."""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Generator
from typing import Final, TypeVar
from urllib.parse import quote

import attrs

from revstore.errors import Closed, IncompatibleStore, Timeout, Unreachable
from revstore_sqlite._errors import DRIVER_ERRORS, is_busy, translate
from revstore_sqlite._locks import Identity, identity_of, process

__all__ = ["Cutoff", "Link", "StoreFile", "open_file", "patiently"]

T = TypeVar("T")

#: Virtual machine steps between two checks of a call's deadline: a few milliseconds.
_STEPS = 50_000
#: The -wal file is truncated to this size after a checkpoint; otherwise it keeps its greatest size.
_WAL_KEPT = 64 * 1024 * 1024
#: Seconds between two checks that the files are still those that were opened.
_FILE_CHECK = 0.05
#: Page cache of a connection. Values of keys that are often overwritten are on a page each, and
#: sqlite's own 2 MB hold only 500 of them.
_CACHE_KIB = 32 * 1024
#: Pages (of 4 KiB) in the -wal file after which a commit moves them into the file. With sqlite's
#: 1000, compaction is a third slower, and single writes are no faster.
_WAL_PAGES = 4000


def patiently(step: Callable[[], T], path: str, deadline: float, stop: threading.Event) -> T:
    """Return the result of ``step()``; repeat it while other connections are in its way.

    Waits are random, so that processes that collided once do not collide again. sqlite's own busy
    handler is not fair, and is not used for the switch to WAL. Other errors are translated.

    Raises:
        Timeout: ``deadline`` (of the monotonic clock) has passed.
        Closed: ``stop`` is set.
    """
    pause = 0.0002
    while True:
        try:
            return step()
        except DRIVER_ERRORS as error:
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


class Cutoff:
    """The end of a connection's statements: at ``deadline``, and once ``stop`` is set.

    ``failure`` is the exception that a signal's handler raised during the check. SQLite's callback
    cannot raise it, so the caller of the statement does.
    """

    __slots__ = ("deadline", "failure", "stop")

    def __init__(self, stop: threading.Event) -> None:
        self.stop = stop
        self.deadline = float("inf")
        self.failure: BaseException | None = None

    def looks(self) -> Generator[bool, None, None]:
        """Yield, for each check, whether to cut off.

        It is a generator, since that is resumed inside the ``try``: an exception may occur at the
        first instruction of a function, before any ``try``.
        """
        over = False
        while True:
            try:
                while True:
                    yield over
                    over = self.stop.is_set() or time.monotonic() > self.deadline
            except GeneratorExit:
                raise
            except BaseException as error:  # noqa: BLE001 - raised again by the caller
                self.failure = error
                over = True


class Link:
    """One connection, and when its statements are cut off.

    After an unexpected exception a connection is never reused, but closed; see ``Reader`` and
    ``Writer``. If even that is interrupted, it is closed with its last reference.
    """

    __slots__ = ("__weakref__", "_identity", "_looks", "cutoff", "raw", "used")

    def __init__(self, raw: sqlite3.Connection, identity: Identity, stop: threading.Event) -> None:
        self.raw: Final = raw
        #: Held by a reader while it is inside SQLite. References do not show that: an exception
        #: keeps the objects of its frames as long as anybody keeps the exception.
        self.used: Final = threading.Lock()
        self.cutoff: Final = Cutoff(stop)  # does not refer to the link: no reference cycle
        self._identity = identity
        self._looks: Final = self.cutoff.looks()
        next(self._looks)  # up to its first yield
        if self.cutoff.failure is not None:
            raise self.cutoff.failure
        raw.set_progress_handler(self._looks.__next__, _STEPS)

    def rollback(self) -> None:
        """End the transaction that is open, if any."""
        if self.raw.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self.raw.execute("ROLLBACK")

    def interrupt(self) -> None:
        """Cut off the statement that runs, in any thread; the connection may be closed
        meanwhile."""
        with contextlib.suppress(sqlite3.Error):
            self.raw.interrupt()

    def disconnect(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self.raw.close()
        self._looks.close()  # here, and not in a finalizer, which would swallow an exception

    def close(self) -> None:
        process.close(self._identity, self)


@attrs.define(eq=False)
class StoreFile:
    """The place of a store, and the way to connect to it.

    ``path`` is the given name, and ``real`` the file to which it led; ``-wal`` and ``-shm`` are
    beside ``real``. ``immutable`` is for a store on a read-only file system: nobody can write it,
    so sqlite may read it without locks and without the -shm file, which it could not create
    there.
    """

    path: str
    real: str
    identity: Identity
    synchronous: str
    immutable: bool = False
    #: Before this time, of the monotonic clock, ``check`` need not be called again.
    check_at: float = 0.0

    def connect(self, stop: threading.Event) -> Link:
        """Open a new connection, which is counted in ``process``.

        Raises:
            IncompatibleStore: the file is gone, or another one is in its place.
            Unreachable: this process was forked while the file was in use.
            sqlite3.Error: sqlite fails.
        """
        if self.identity in process.torn:
            raise Unreachable(
                f"{self.path}: this process was forked in the middle of a call to the store, and "
                "cannot open it; fork outside of calls, or use spawn"
            )
        with process.guard:
            self.check()
            try:
                link = Link(self._connect(), self.identity, stop)
            except DRIVER_ERRORS:
                self.check()  # it may have been removed this very moment
                raise
            try:
                process.add(self.identity, self.real, link)
            except BaseException:
                link.disconnect()
                raise
        return link

    def lock(self) -> None:
        """Take our own locks, once the log exists and while a connection is open."""
        if not self.immutable:
            with process.guard:
                process.lock(self.identity)

    def _connect(self) -> sqlite3.Connection:
        mode = "ro&immutable=1" if self.immutable else "rw"
        connection = sqlite3.connect(
            f"file:{quote(self.real)}?mode={mode}",
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

    def check(self) -> None:
        """Check that the files are still those that were opened.

        Raises:
            IncompatibleStore: one was removed or replaced; writes to the old one would be lost.
        """
        now, due = time.monotonic(), self.check_at
        lost = self.lost()
        if lost:
            self.check_at = -1.0
            raise IncompatibleStore(f"{lost}: the file was removed or replaced")
        if self.check_at == due:  # else another thread has checked meanwhile, and may know better
            self.check_at = now + _FILE_CHECK

    def lost(self) -> str:
        """Return the path of the file that was removed or replaced; "" if none was."""
        if identity_of(self.path) != self.identity:
            return self.path
        beside = process.beside(self.identity)
        if beside is not None:
            for end, identity in zip(("-wal", "-shm"), beside, strict=True):
                if identity_of(self.real + end) != identity:
                    return self.real + end
        return ""


def open_file(path: str, synchronous: str) -> StoreFile:
    """Return the file at ``path``, which must exist."""
    real = os.path.realpath(path)
    found = os.stat(real)
    return StoreFile(path, real, (found.st_dev, found.st_ino), synchronous)
