"""A watch: first the changes that the server remembers, then those that the hub pushes."""

from __future__ import annotations

import threading
import time
from collections import deque

from revstore.arguments import check_poll
from revstore.backend import BackendWatch
from revstore.backend_tools import OpenGuard, key_matcher, let_out
from revstore.errors import BackendError, Closed, Compacted, StorageError, Unsupported
from revstore.threads import Wake
from revstore.values import Capability, WatchBatch, WatchEvent
from revstore_etcd2._history import History
from revstore_etcd2._hub import Hub, Listener
from revstore_etcd2._names import key_of
from revstore_etcd2._wire import Action

__all__ = ["Etcd2Watch"]

#: A watch that nobody polls ends with ``Compacted`` when it holds this much.
_CAPACITY = 100_000
_CAPACITY_BYTES = 64 * 1024 * 1024


class Etcd2Watch(BackendWatch, Listener):
    """A watch of one key or of a prefix.

    It has no lock, so that an exception from a signal handler cannot leave one locked. Each field
    has one writer: the thread that polls, the hub's, or that of history. The last two append to a
    queue first and then publish how far it goes; the thread that polls reads how far it goes first.
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
        self._position = after_revision
        self._failed: StorageError | None = None  # what poll has raised
        self._wake = Wake()
        self._begun = threading.Lock()  # taken once, by the first ``begin``
        self._history: History | None = None
        self._past: deque[WatchEvent] = deque()
        self._caught_up = False  # all that the server remembers is in ``_past``
        self._queue: deque[WatchEvent] = deque()
        self._pushed = 0  # how far ``_queue`` goes
        self._bytes_in = 0
        self._bytes_out = 0
        self._error: StorageError | None = None
        self._closed = False
        try:
            hub.join(self)
        except BaseException:
            self.close()
            raise

    # What the hub calls

    def begin(self, index: int) -> None:
        if not self._begun.acquire(blocking=False):
            return
        self._pushed = max(self._pushed, index)
        if index <= self._after:
            self._caught_up = True
        else:
            try:
                self._history = History(self._hub.memory(), self, after=self._after, upto=index)
            except BackendError as error:  # no room for a thread
                let_out(error)
                self._error = error
        self._wake.set()
        if self._closed:
            self.close()

    def push(self, action: Action) -> None:
        if self._error is not None or self._closed:
            return
        event = action.event
        wanted = event is not None and action.index > self._after and self._covers(event.kv.key)
        if action.lost_folder and action.index > self._after and self._lies_in(action):
            # Which keys were in it is unknown, only that they are gone.
            self._error = Compacted(action.index, action.index)
        elif wanted and event is not None:
            self._queue.append(event)
            self._bytes_in += len(event.kv.value)
            held = self._bytes_in - self._bytes_out
            if len(self._queue) > _CAPACITY or held > _CAPACITY_BYTES:
                self._error = Compacted(action.index, action.index)
        self._pushed = action.index
        if wanted or self._progress or self._error is not None:
            self._wake.set()

    # What the thread of history calls; the first also the hub

    def end(self, error: StorageError) -> None:
        if self._error is None:
            self._error = error
        self._wake.set()

    def remember(self, action: Action) -> None:
        if action.lost_folder and self._lies_in(action):
            raise Compacted(action.index, action.index)
        if action.event is not None and self._covers(action.event.kv.key):
            self._past.append(action.event)
            self._wake.set()

    def caught_up(self) -> None:
        self._caught_up = True
        self._wake.set()

    def _lies_in(self, action: Action) -> bool:
        """Return whether keys of this watch may have been in the folder."""
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
            batch = self._next()
            if batch is not None:
                return self._hand_out(batch)
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return None
            self._wake.wait(left)

    def _hand_out(self, batch: WatchBatch) -> WatchBatch:
        # One line: no exception from a signal handler comes between the two, and what was not
        # returned comes again.
        self._position = batch.revision; return batch  # noqa: E702  # fmt: skip

    def _check(self) -> None:
        if self._closed:
            raise Closed("the watch is closed")
        self._guard.check()
        if self._failed is not None:
            raise self._failed

    def _next(self) -> WatchBatch | None:
        """Return the next batch, which stays in its queue until ``poll`` has returned it."""
        # These three are read in the reverse order of the writers.
        error, pushed, caught_up = self._error, self._pushed, self._caught_up
        event = self._first(self._past)
        if event is None and caught_up:
            event = self._first(self._queue)
        if event is not None:
            return WatchBatch(event.kv.revision, (event,))
        if error is not None:
            self._hub.leave(self)
            self._failed = error
            raise error
        if self._progress and caught_up and pushed > self._position:
            return WatchBatch(pushed)
        return None

    def _first(self, queue: deque[WatchEvent]) -> WatchEvent | None:
        while queue:
            event = queue[0]
            if event.kv.revision > self._position:
                return event
            self._bytes_out += len(event.kv.value) if queue is self._queue else 0
            queue.popleft()
        return None

    @property
    def position(self) -> int:
        return self._position

    def request_progress(self) -> None:
        raise Unsupported(Capability.PROGRESS)

    def close(self) -> None:
        self._closed = True
        self._hub.leave(self)
        history = self._history
        if history is not None and not self._guard.inherited:
            history.stop()
        self._queue.clear()
        self._wake.set()
