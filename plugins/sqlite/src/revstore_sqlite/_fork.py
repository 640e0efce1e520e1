"""A fork while stores are open: what must hold before it, and what the child does after it.

The child inherits SQLite's tables of files, locks and connections, but none of the locks. So no
thread may be in SQLite at the moment of the fork: users of connections pause before it, and long
reads are cut off and repeated. Then the child can close what it inherited, and SQLite starts again
there. If a user did not pause in time, the child changes nothing, and refuses to open these files.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
import weakref
from typing import Protocol

from revstore.backend_tools import Log
from revstore_sqlite._connect import Link
from revstore_sqlite._locks import process

__all__ = ["Pausable", "Turn", "enlist"]

_log = Log("revstore_sqlite")
#: Seconds to wait for the users of connections: a sync of a slow or busy disk takes some.
_PATIENCE = 10.0


class Pausable(Protocol):
    """A user of connections."""

    def pause(self, deadline: float) -> bool:
        """Let no use of a connection begin any more, and wait for those under way; return whether
        none is left at ``deadline``."""

    def paused(self) -> bool:
        """Return whether no connection is in use."""

    def resume(self) -> None:
        """Go on after ``pause``, whatever its result was."""

    def begin_anew(self) -> None:
        """Go on in the child, where the other threads and what they held do not exist."""


class Turn:
    """A lock that is held while a connection is used; a fork waits for it and keeps it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        #: A fork waits: a thread that takes one turn after another must let it go first, since
        #: locks are not fair.
        self.wanted = False
        self._kept = False  # by the forking thread, which alone uses this
        enlist(self)

    def pause(self, deadline: float) -> bool:
        self.wanted = True
        if not self._kept:
            self._kept = self.lock.acquire(timeout=max(0.0, deadline - time.monotonic()))
        return self._kept

    def paused(self) -> bool:
        return self._kept

    def resume(self) -> None:
        self.wanted = False
        if self._kept:
            self._kept = False
            self.lock.release()

    def begin_anew(self) -> None:
        self.wanted = self._kept = False
        self.lock = threading.Lock()


class _Fork:
    """The actions around a fork. Only the forking thread uses attributes other than ``users``."""

    def __init__(self) -> None:
        self.users: weakref.WeakSet[Pausable] = weakref.WeakSet()
        self._paused: list[Pausable] = []
        self._guarded = False
        self._quiet = False

    def before(self) -> None:
        self._quiet = self._guarded = False
        deadline = time.monotonic() + _PATIENCE
        self._paused = list(self.users)
        while all(user.pause(deadline) for user in self._paused):
            # Taken last, since a thread that has to pause may be about to close a connection.
            left = max(0.0, deadline - time.monotonic())
            self._guarded = process.guard.acquire(timeout=left)
            if not self._guarded:
                break
            if all(user.paused() for user in self._paused):
                self._quiet = True
                return
            self._guarded = False
            process.guard.release()
        _log.warning("the process forked while a store was in use: the child cannot open it")

    def in_parent(self) -> None:
        if self._guarded:
            self._guarded = False
            process.guard.release()
        while self._paused:
            self._paused[-1].resume()
            self._paused.pop()

    def in_child(self) -> None:
        for link in process.leave_to_parent(quiet=self._quiet):
            assert isinstance(link, Link)
            # Never closed, not even at the end of the interpreter.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(link.raw))
        self._guarded = False  # the guard is a new one
        for user in self._paused:
            user.begin_anew()
        self._paused = []


_fork = _Fork()


def enlist(user: Pausable) -> None:
    """Have ``user`` pause for forks as long as it exists."""
    _fork.users.add(user)


os.register_at_fork(
    before=_fork.before, after_in_parent=_fork.in_parent, after_in_child=_fork.in_child
)
