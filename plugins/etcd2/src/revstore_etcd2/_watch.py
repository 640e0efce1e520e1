"""A watch: first what the server remembers, then what the hub pushes."""

from __future__ import annotations

import threading
import time
from collections import deque

from revstore.arguments import check_poll
from revstore.backend import BackendWatch
from revstore.backend_tools import OpenGuard, key_matcher
from revstore.errors import Closed, Compacted, StorageError, Timeout, Unreachable, Unsupported
from revstore.values import Capability, WatchBatch, WatchEvent
from revstore_etcd2._hub import Hub, Listener
from revstore_etcd2._names import key_of
from revstore_etcd2._wire import Action

__all__ = ["Etcd2Watch"]

#: A watch that nobody polls ends with ``Compacted`` when it holds so much.
_CAPACITY = 100_000
_CAPACITY_BYTES = 64 * 1024 * 1024
#: Seconds between two tries to read from the server's memory.
_RETRY = 0.05


class Etcd2Watch(BackendWatch, Listener):
    """A watch of one key or of a prefix.

    ``_looked``, ``_position`` and ``_failed`` are the polling thread's; the rest is guarded by
    ``_changed``.
    """

    def __init__(
        self,
        hub: Hub,
        key: str,
        *,
        recursive: bool,
        after_revision: int,
        progress: bool,
        guard: OpenGuard,
    ) -> None:
        self._hub = hub
        self._key = key
        self._recursive = recursive
        self._covers = key_matcher(key, recursive=recursive)
        self._progress = progress
        self._guard = guard
        self._after = after_revision
        self._looked = after_revision  # up to here the server's memory was read
        self._position = after_revision
        self._failed: StorageError | None = None
        self._changed = threading.Condition(threading.Lock())
        self._joined: int | None = None  # from here on the hub pushes
        self._pushed = 0  # how far it has come
        self._queue: deque[WatchEvent] = deque()
        self._size = 0
        self._error: StorageError | None = None
        self._closed = False
        hub.join(self)

    # What the hub calls

    def begin(self, index: int) -> None:
        with self._changed:
            if self._joined is None:
                self._joined = index
            self._pushed = index
            self._changed.notify_all()

    def push(self, action: Action) -> None:
        with self._changed:
            if self._error is not None or self._closed:
                return
            event = action.event
            wanted = event is not None and action.index > self._after and self._covers(event.kv.key)
            if action.lost_folder and action.index > self._after and self._lies_in(action):
                # What was in it is not known, only that it is gone.
                self._error = Compacted(action.index, action.index)
            elif wanted and event is not None:
                self._queue.append(event)
                self._size += len(event.kv.value)
                if len(self._queue) > _CAPACITY or self._size > _CAPACITY_BYTES:
                    self._error = Compacted(action.index, action.index)
            self._pushed = action.index
            if wanted or self._progress or self._error is not None:
                self._changed.notify_all()

    def end(self, error: StorageError) -> None:
        with self._changed:
            if self._error is None:
                self._error = error
            self._changed.notify_all()

    def _lies_in(self, action: Action) -> bool:
        """Whether keys of this watch may have been in the folder."""
        folder = key_of(action.lost_folder)
        if folder is None:
            return True
        above = f"{folder}/"
        return self._key.startswith(above) or (self._recursive and above.startswith(self._key))

    # What users call

    def poll(self, timeout: float | None = None) -> WatchBatch | None:
        timeout = check_poll(timeout)
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            self._check()
            batch = self._next(deadline)
            if batch is not None:
                self._position = batch.revision
                return batch
            if deadline is not None and time.monotonic() >= deadline:
                return None

    def _check(self) -> None:
        if self._closed:
            raise Closed("the watch is closed")
        self._guard.check()
        if self._failed is not None:
            raise self._failed

    def _next(self, deadline: float | None) -> WatchBatch | None:
        """The next batch; None if none has come by the deadline, or perhaps before it."""
        with self._changed:
            joined = self._joined
            if joined is None or self._looked >= joined:
                return self._next_pushed(deadline)
        try:
            return self._next_remembered(joined)
        except (Unreachable, Timeout):
            wait = _RETRY if deadline is None else min(_RETRY, deadline - time.monotonic())
            with self._changed:
                if not self._closed and wait > 0:
                    self._changed.wait(wait)
            return None
        except StorageError as error:
            self._check()
            self._failed = error
            self._hub.leave(self)
            raise

    def _next_pushed(self, deadline: float | None) -> WatchBatch | None:
        if not self._queue and self._error is None and not self._has_progress():
            wait = None if deadline is None else deadline - time.monotonic()
            if wait is None or wait > 0:
                self._changed.wait(wait)
        if self._closed or (self._joined is None and self._error is None):
            return None
        if self._looked < (self._joined or 0):
            return None  # what the server remembers comes first
        if self._queue:
            event = self._queue.popleft()
            self._size -= len(event.kv.value)
            return WatchBatch(event.kv.revision, (event,))
        if self._error is not None:
            self._failed = self._error
            raise self._error
        if self._has_progress():
            return WatchBatch(self._pushed)
        return None

    def _has_progress(self) -> bool:
        return self._progress and self._joined is not None and self._pushed > self._position

    def _next_remembered(self, joined: int) -> WatchBatch | None:
        action, index = self._hub.next_action(self._looked)
        if action is None:
            if index < joined:
                raise Unreachable("the server lags behind")
            self._looked = joined
        elif action.index > joined:
            self._looked = joined
        else:
            self._looked = action.index
            if action.lost_folder and self._lies_in(action):
                raise Compacted(action.index, action.index)
            if action.event is not None and self._covers(action.event.kv.key):
                return WatchBatch(action.index, (action.event,))
        return None

    @property
    def position(self) -> int:
        return self._position

    def request_progress(self) -> None:
        raise Unsupported(Capability.PROGRESS)

    def close(self) -> None:
        if self._guard.inherited:  # no lock can be taken
            return
        with self._changed:
            self._closed = True
            self._queue.clear()
            self._changed.notify_all()
        self._hub.leave(self)
