"""A watch of a ``MemoryBackend``, and the state that the backend shares with its watches."""

from __future__ import annotations

import threading
import time

from revstore.arguments import check_poll
from revstore.backend import BackendWatch
from revstore.backend_tools import OpenGuard, SharedLog, key_matcher
from revstore.errors import Closed, Compacted, ReadOnly
from revstore.memory._state import State, revision_of
from revstore.threads import Wake
from revstore.values import WatchBatch, WatchEvent

__all__ = ["MemoryWatch", "Shared"]

# How many events a poll looks at in one slice of the log.
_SLICE = 512


class Shared:
    """The state that the backend, its watches and its sweeper share."""

    def __init__(self, progress_interval: float) -> None:
        self.state = State()  # guarded by lock, except state.log: see SharedLog
        self.lock = threading.Lock()
        self.guard = OpenGuard(self, in_child=Shared.renew)
        self.waiting: set[MemoryWatch] = set()  # guarded by lock: watches blocked in poll
        self.sweeper_wake = Wake()
        self.progress_interval = progress_interval

    def check(self) -> None:
        """Finish what an interrupted call began. Call it under the lock.

        Raises:
            Closed: the backend is closed, or was opened before a fork.
        """
        self.guard.check()
        if self.state.noted is not None:
            self.finish()

    def finish(self) -> None:
        """Apply the change that was noted, and wake the watches that wait for it. Call it under the
        lock."""
        try:
            self._finish()
        except BaseException:
            self._finish()  # it was interrupted: watches that wait must not wait for the next call
            raise

    def _finish(self) -> None:
        noted = self.state.noted
        if noted is None:
            return
        self.state.carry_out(noted)
        if noted.deadlines:
            self.sweeper_wake.set()
        if self.waiting:
            for watch in [each for each in self.waiting if each.concerned(noted.events)]:
                watch.wake()
        self.state.noted = None

    def check_writable(self) -> None:
        """Do what ``check`` does, and refuse writes to a fenced store. Call it under the lock.

        Raises:
            ReadOnly: the store is fenced.
            Closed: as in ``check``.
        """
        self.check()
        if self.state.fenced:
            raise ReadOnly(self.state.fenced)

    def end_lease(self, lease: int) -> int:
        """Delete a lease and its keys in one revision; return the number of keys. Call it under the
        lock."""
        keys = sorted(self.state.leases.find(lease).keys)
        if keys:
            self.state.delete(keys, lease=lease)
            self.finish()
        else:
            self.state.leases.drop(lease)
        return len(keys)

    def renew(self) -> None:
        """Replace the lock, which another thread may have held at the fork, and drop the data."""
        self.lock = threading.Lock()
        self.waiting = set()
        self.state = State()


class MemoryWatch(BackendWatch):
    """A cursor into the shared log, with a filter. Costs the writers nothing until it waits."""

    def __init__(
        self, shared: Shared, key: str, recursive: bool, after_revision: int, progress: bool
    ) -> None:
        state = shared.state
        self._shared = shared
        self._covers = key_matcher(key, recursive=recursive)
        self._progress = progress
        self._position = after_revision
        # The batch that poll returns next, and the position before it. It is returned and taken in
        # one step, so that a poll that is interrupted loses none.
        self._ready: list[WatchBatch] = []
        self._before = after_revision
        # Sequence number of the next event to look at. Only the polling thread uses it; under lock
        # while it waits.
        self._cursor = state.log.after(after_revision, revision_of)
        self._error: Compacted | None = None
        if after_revision < state.compacted:
            self._error = Compacted(state.compacted, state.revision)
        self._asked = 0  # guarded by lock: the revision for which a mark was requested, 0: none was
        self._closed = False
        self._mark_at = time.monotonic() + shared.progress_interval
        self._wake = Wake()

    @property
    def position(self) -> int:
        return self._before if self._ready else self._position

    def poll(self, timeout: float | None = None) -> WatchBatch | None:
        timeout = check_poll(timeout)
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            if self in self._shared.waiting:  # the last poll was interrupted
                self._stop_waiting()
            self._check()
            if not self._ready:
                self._look()
            if self._ready:
                batch = self._ready[0]
                self._pass(batch)
                # One line, and no call in it: after each a signal's handler may raise.
                self._ready = []; return batch  # noqa: E702  # fmt: skip
            if not self._wait(deadline):
                return None

    def request_progress(self) -> None:
        with self._shared.lock:
            self._check()
            self._asked = self._shared.state.revision
            if self in self._shared.waiting:
                self.wake()

    def close(self) -> None:
        with self._shared.lock:
            self._closed = True
            if self in self._shared.waiting:
                self.wake()

    # The next three are called under the lock, while the watch waits.

    def concerned(self, events: list[WatchEvent]) -> bool:
        """Return whether to wake for ``events``: they match, or a mark is outstanding."""
        return bool(self._asked) or any(self._covers(event.kv.key) for event in events)

    def wake(self) -> None:
        """Wake the poll, once."""
        self._wake.set()
        self._shared.waiting.discard(self)

    def skip_to_end(self) -> None:
        """Skip events that did not concern it."""
        self._cursor = self._shared.state.log.end

    def _check(self) -> None:
        self._shared.guard.check()
        if self._closed:
            raise Closed("the watch is closed")
        if self._error is not None:
            raise self._error

    def _look(self) -> None:
        """Note the next batch, if there is one."""
        batch = (self._asked and self._mark()) or self._scan() or self._mark()
        if not batch:
            return
        self._before = self._position
        self._ready.append(batch)

    def _pass(self, batch: WatchBatch) -> None:
        """Note that everything up to ``batch`` has been delivered."""
        self._position = batch.revision
        self._mark_at = time.monotonic() + self._shared.progress_interval
        if not batch.events:
            with self._shared.lock:
                if self._asked <= batch.revision:
                    self._asked = 0

    def _scan(self) -> WatchBatch | None:
        """Return the next revision that has events for this watch, and move the cursor there. Needs
        no lock."""
        log = self._shared.state.log
        if self._cursor < log.base:
            log = self._overtaken()
        while part := log.read(self._cursor, _SLICE):
            for event in part:
                if event.kv.revision > self._position and self._covers(event.kv.key):
                    return self._collect(log, event.kv.revision)
                self._cursor += 1
        return None

    def _overtaken(self) -> SharedLog[WatchEvent]:
        """Go to the start of the log.

        Raises:
            Compacted: compaction has removed events that this watch has not delivered.
        """
        with self._shared.lock:
            state = self._shared.state
            if self._position < state.compacted:
                self._error = Compacted(state.compacted, state.revision)
                raise self._error
            self._cursor = state.log.base
            return state.log

    def _collect(self, log: SharedLog[WatchEvent], revision: int) -> WatchBatch:
        """Return all events of ``revision`` from the cursor on."""
        found = []
        for index in range(self._cursor - log.base, len(log.items)):
            event = log.items[index]
            if event.kv.revision != revision:
                break
            if self._covers(event.kv.key):
                found.append(event)
        return WatchBatch(revision, tuple(found))

    def _mark(self) -> WatchBatch | None:
        """Return a progress mark, if one was requested or is due and all events up to it are
        delivered."""
        with self._shared.lock:
            state = self._shared.state
            if state.revision < self._position:  # the watch begins in the future
                return None
            reached = state.revision if self._cursor == state.log.end else self._position
            due = reached > self._position and time.monotonic() >= self._mark_at
            asked = 0 < self._asked <= reached
            return WatchBatch(reached) if asked or (self._progress and due) else None

    def _wait(self, deadline: float | None) -> bool:
        """Wait until there may be something to deliver; return False once ``deadline`` has
        passed."""
        shared = self._shared
        with shared.lock:
            state = shared.state
            if shared.guard.ended or self._closed or self._cursor != state.log.end:
                return True
            if self._asked and state.revision >= self._position:
                return True
            now = time.monotonic()
            if deadline is not None and now >= deadline:
                return False
            until = deadline
            if self._progress:
                if now >= self._mark_at:
                    self._mark_at = now + shared.progress_interval
                until = self._mark_at if until is None else min(until, self._mark_at)
            self._wake.clear()
            shared.waiting.add(self)
        try:
            self._wake.wait(None if until is None else until - now)
        finally:
            self._stop_waiting()
        return True

    def _stop_waiting(self) -> None:
        with self._shared.lock:
            self._shared.waiting.discard(self)
