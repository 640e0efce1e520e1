"""Our own locks on a store's files, so that nobody removes the log that is in use.

SQLite marks a database as in use by POSIX locks. A process loses all of them when anything in it
closes the file, and a forked child does not inherit them. Another process that then closes the
store removes ``-wal``, although others still write to it. Open file description locks on the same
bytes belong to a descriptor instead: only the end of that descriptor releases them.

They are taken once the log exists, and released just before the process's last connection to the
file is closed. That connection then moves the log into the file if no other process has it open.
The descriptors must outlive every connection, since closing one drops SQLite's own locks.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import sys
import threading
import weakref
from typing import Final, Protocol

import attrs

from revstore.backend_tools import Log, ignoring, let_out
from revstore.errors import IncompatibleStore
from revstore_sqlite._errors import busy

__all__ = ["Closable", "Identity", "identity_of", "process"]

_log = Log("revstore_sqlite")

#: Device and inode: the same for all names of a file.
Identity = tuple[int, int]

#: What SQLite locks in the database file while a connection is open: SHARED_FIRST, SHARED_SIZE.
_SHARED = (0x40000002, 510)
#: What it locks in ``-shm``: the dead man's switch.
_SWITCH = (128, 1)
_OFD_SETLK: Final = getattr(fcntl, "F_OFD_SETLK", None) if sys.platform == "linux" else None
_BUSY = (errno.EAGAIN, errno.EACCES, errno.EINTR)


class Closable(Protocol):
    """A connection, as the locks see it."""

    def disconnect(self) -> None:
        """Close the connection; never raises an ``Exception``."""


def identity_of(path: str) -> Identity | None:
    """Return the identity of the file at ``path``, None if there is no file."""
    with ignoring(OSError):
        found = os.stat(path)
        return found.st_dev, found.st_ino
    return None


@attrs.define(eq=False)
class _Held:
    """The descriptors and locks that the process holds of one file. Guarded by
    ``process.guard``."""

    path: str
    connections: weakref.WeakSet[Closable] = attrs.field(factory=weakref.WeakSet)
    #: Never closed while there is a connection.
    descriptors: list[int] = attrs.field(factory=list)
    locked: bool = False
    #: The identities of ``-wal`` and ``-shm``, known since the locks are held.
    beside: tuple[Identity | None, Identity | None] | None = None

    def lock(self, identity: Identity) -> None:
        """Take the locks unless they are held. Without such locks on this system, only keep the
        identities.

        Raises:
            sqlite3.OperationalError: sqlite's busy error, if somebody is in the way for a moment.
        """
        if self.locked:
            return
        if _OFD_SETLK is not None and not self.descriptors:
            _keep_standard_streams()
            for path, _ in self._ranges():
                with ignoring(OSError):
                    self.descriptors.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        if len(self.descriptors) == 2:
            opened = os.fstat(self.descriptors[0])
            if (opened.st_dev, opened.st_ino) != identity:
                raise IncompatibleStore(f"{self.path}: the file was removed or replaced")
            self._set(fcntl.F_RDLCK)
        self.beside = identity_of(self.path + "-wal"), identity_of(self.path + "-shm")
        self.locked = True

    def unlock(self) -> None:
        self.locked = False
        self.beside = None
        with ignoring(OSError):
            if len(self.descriptors) == 2:
                self._set(fcntl.F_UNLCK)

    def drop(self) -> None:
        """Close the descriptors, once there is no connection."""
        while self.descriptors:
            with ignoring(OSError):
                os.close(self.descriptors.pop())

    def _ranges(self) -> tuple[tuple[str, tuple[int, int]], ...]:
        return (self.path, _SHARED), (self.path + "-shm", _SWITCH)

    def _set(self, kind: int) -> None:
        assert _OFD_SETLK is not None
        for descriptor, (path, (start, length)) in zip(
            self.descriptors, self._ranges(), strict=True
        ):
            lock = struct.pack("hhqqi0q", kind, os.SEEK_SET, start, length, 0)
            try:
                fcntl.fcntl(descriptor, _OFD_SETLK, lock)
            except OSError as error:
                let_out(error)
                if error.errno in _BUSY:
                    raise busy(f"{path} is locked for a moment") from error
                if kind == fcntl.F_RDLCK:
                    _log.warning("%s: open-file locks are unavailable here: %s", path, error)


def _keep_standard_streams() -> None:
    """Fill descriptors 0 to 2 if they are closed.

    Otherwise code that redirects a standard stream later would close ours. SQLite does the same for
    its own.
    """
    while True:
        descriptor = os.open(os.devnull, os.O_RDONLY)
        if descriptor > 2:
            os.close(descriptor)
            return


class _Process:
    """The files that this process has open, by identity."""

    def __init__(self) -> None:
        #: Held while a connection is opened or closed, while a file is created, and during a fork.
        self.guard = threading.Lock()
        self._held: dict[Identity, _Held] = {}  # guarded by guard; one key is read without it
        #: Files that the parent was using at the very moment of a fork: SQLite's state for them is
        #: inconsistent in this process.
        self.torn: frozenset[Identity] = frozenset()

    def add(self, identity: Identity, path: str, connection: Closable) -> None:
        """Count a connection. The caller holds ``guard``.

        Raises:
            IncompatibleStore: the file is open by another name, which has another log.
        """
        found = self._held.setdefault(identity, _Held(path))
        if found.path != path:
            raise IncompatibleStore(
                f"{path}: this process has the file open as {found.path}; the log of a store "
                "belongs to one name: use that, or a symbolic link to it"
            )
        found.connections.add(connection)

    def lock(self, identity: Identity) -> None:
        """Take the locks on a file whose log exists. The caller holds ``guard``."""
        self._held[identity].lock(identity)

    def beside(self, identity: Identity) -> tuple[Identity | None, Identity | None] | None:
        """Return the identities of ``-wal`` and ``-shm``; None if they are unknown."""
        found = self._held.get(identity)
        return found.beside if found else None

    def close(self, identity: Identity, connection: Closable) -> None:
        """Close a connection, and release the locks if it is the last one."""
        with self.guard:
            found = self._held.get(identity)
            if found is None or connection not in found.connections:
                connection.disconnect()
                return
            last = len(found.connections) == 1
            if last:
                found.unlock()
            connection.disconnect()
            found.connections.discard(connection)
            if last:
                found.drop()
                del self._held[identity]

    def leave_to_parent(self, *, quiet: bool) -> list[Closable]:
        """Release what the parent has open, in a child just after a fork.

        If it was ``quiet``, all connections are closed, so that SQLite knows of no file and takes
        its own locks again in this process. Otherwise they are returned, and must never be closed:
        that would write to what the parent is writing.
        """
        inherited = [each for found in self._held.values() for each in found.connections]
        if quiet:
            for connection in inherited:
                connection.disconnect()
        else:
            self.torn |= frozenset(self._held)
        for found in self._held.values():
            found.drop()  # not unlocked: the lock is the parent's too
        self._held = {}
        self.guard = threading.Lock()
        return [] if quiet else inherited


#: The one instance of this process.
process: Final = _Process()
