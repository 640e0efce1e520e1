"""A watch: a position in the hub's log, or in its own stream over older history."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable
from typing import Any

from revstore.arguments import check_poll
from revstore.backend import BackendWatch
from revstore.backend_tools import key_matcher
from revstore.errors import Closed, Compacted, CorruptStore, StorageError
from revstore.threads import Wake, start_thread
from revstore.values import WatchBatch
from revstore_etcd3._client import Client
from revstore_etcd3._hub import Hub, Listener, revision_of
from revstore_etcd3._stream import Batch, Stream
from revstore_etcd3._wire import RpcError

__all__ = ["Etcd3Watch"]

# Seconds without events after which a watch shows how far it is.
_MARK_INTERVAL = 5.0
# How many responses a stream over history may be ahead of the polling thread.
_AHEAD = 16
# Seconds before a stream over history that broke is opened again.
_RETRY = 0.1
# Seconds between two checks whether the polling thread has made room.
_ROOM = 0.1


class _History:
    """A thread that reads all revisions after ``after`` up to ``target``.

    The results are in ``responses``: lists of batches, None at the end, or an error. The thread
    that has processed the first one removes it with ``next``.
    """

    def __init__(self, client: Client, watch: Listener, *, after: int, target: int) -> None:
        self.responses: deque[list[Batch] | StorageError | None] = deque()
        self._client = client
        self._position = after
        self._target = target
        self._watch = watch
        self._closed = False
        self._pause = Wake()
        self._stream: Stream | None = None
        self._last: list[Any] | None = None  # see Stream
        self._started = False
        self._running = threading.Lock()  # taken once

    def start(self) -> None:
        """Begin, unless it has begun."""
        if not self._started:
            start_thread(self._run, "revstore-etcd3-history")
            self._started = True

    def next(self) -> None:
        """Remove the first response."""
        self.responses.popleft()
        self._pause.set()

    def close(self) -> None:
        self._closed = True
        self._pause.set()
        stream = self._stream
        if stream is not None:
            stream.close()

    def _run(self) -> None:
        if not self._running.acquire(blocking=False):
            return  # a start that was interrupted was done again
        while not self._stops():
            try:
                self._read()
            except StorageError as error:
                self._put(error)
                return
            except RpcError as error:
                if self._stream is not None and not self._stream.paused:
                    self._client.stream_failed(self._stream.server, error)
            except Exception as error:  # noqa: BLE001 - a dead thread would be silent
                self._put(CorruptStore(f"cannot read the history: {error}"))
                return
            if self._position >= self._target:
                self._put(None)
                return
            self._pause.wait(_RETRY)

    def _stops(self) -> bool:
        return self._closed or self._client.stopping.is_set()

    def _read(self) -> None:
        stream = self._stream = Stream(self._client, self._position, self._last)
        try:
            for batches in stream.batches():
                new = [batch for batch in batches if batch[0] > self._position]
                if new:
                    self._position, self._last = new[-1][0], stream.last
                    self._put(new)
                if self._position >= self._target or self._stops():
                    return
        finally:
            stream.close()

    def _put(self, item: list[Batch] | StorageError | None) -> None:
        while len(self.responses) >= _AHEAD and not self._stops():
            self._pause.wait(_ROOM)
        self.responses.append(item)
        self._watch.wake()


class Etcd3Watch(BackendWatch, Listener):
    """A watch of one key or of a prefix. Except for ``close``, ``tell``, ``concerned`` and
    ``wake``, only the polling thread uses it.

    It has no lock, so that an exception from a signal handler cannot leave one locked. What
    ``poll`` has not returned stays where it is, and comes again.
    """

    def __init__(
        self,
        client: Client,
        hub: Hub,
        key: str,
        *,
        recursive: bool,
        after: int,
        progress: bool,
        error: StorageError | None,
    ) -> None:
        self._client = client
        self._hub = hub
        self._covers = key_matcher(key, recursive=recursive)
        self._progress = progress
        self._position = after
        self._looked = after  # every revision up to it has been looked at
        self._ready: deque[Batch] = deque()
        self._history: _History | None = None
        self._error = error  # what ``poll`` raises
        self.closed = False
        # How many marks were requested, and the highest revision that one is wanted for: replaced
        # as a whole by the hub's thread; how many have been reported.
        self._asked = (0, 0)
        self._telling = 0
        self._told = 0
        self._mark_at = time.monotonic() + _MARK_INTERVAL
        self._waiter = Wake()

    @property
    def position(self) -> int:
        return self._position

    def poll(self, timeout: float | None = None) -> WatchBatch | None:
        timeout = check_poll(timeout)
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            self._waiter.clear()
            self._check()
            batch = self._next()
            if batch is not None:
                self._mark_at = time.monotonic() + _MARK_INTERVAL
                return self._hand_out(batch)
            now = time.monotonic()
            if deadline is not None and now >= deadline:
                return None
            moments = [each for each in (deadline, self._mark_due()) if each is not None]
            left = max(0.0, min(moments) - now) if moments else None
            self._hub.wait(self, self._waiter, left)

    def _hand_out(self, batch: WatchBatch) -> WatchBatch:
        # One line: no exception from a signal handler comes between, and what was not returned
        # comes again.
        self._told = self._telling; self._position = batch.revision; return batch  # noqa: E702  # fmt: skip

    def request_progress(self) -> None:
        self._check()
        self._hub.request_progress(self)

    def close(self) -> None:
        self.closed = True
        self._hub.leave(self)
        history = self._history
        if history is not None:
            history.close()
        self.wake()

    # --- what the hub calls, the first two under its lock --------------------------------------

    def has_more(self) -> bool:
        if self.closed or self._hub.ended is not None or self._waiter.is_set():
            return True
        if self._history is not None:
            return bool(self._history.responses)
        return self._hub.log is not None and self._looked < self._hub.position

    def concerned(self, batches: Iterable[Batch]) -> bool:
        return self._asked[0] > self._told or any(
            self._covers(event.kv.key) for _, events in batches for event in events
        )

    def wake(self) -> None:
        self._waiter.set()

    def tell(self, revision: int) -> None:
        number, highest = self._asked
        self._asked = number + 1, max(highest, revision)
        self.wake()

    # -------------------------------------------------------------------------------------------

    def _check(self) -> None:
        if self.closed:
            raise Closed("the watch is closed")
        self._client.check_open()
        if self._hub.ended is not None:
            raise self._hub.ended
        if self._error is not None:
            raise self._error

    def _next(self) -> WatchBatch | None:
        self._telling = self._told
        while True:
            while self._ready:
                revision, events = self._ready[0]
                if revision > self._position:
                    found = tuple([event for event in events if self._covers(event.kv.key)])
                    if found:
                        return WatchBatch(revision, found)
                self._looked = max(self._looked, revision)
                self._ready.popleft()
            if not self._fetch():
                return self._mark()

    def _fetch(self) -> bool:
        """Get what comes next from the log, or from history; return whether there was any."""
        if self._history is not None:
            return self._from_history()
        position, log = self._hub.position, self._hub.log
        if log is None:
            return False
        if log.floor == 1:  # the revision of a new store, which is not an event
            self._looked = max(self._looked, 1)
        if self._looked < log.floor:
            target = position
            self._history = _History(self._client, self, after=self._looked, target=target)
            if self.closed:
                self._history.close()
            return self._from_history()
        self._ready = deque(log.read(log.after(self._looked, revision_of)))
        return bool(self._ready)

    def _from_history(self) -> bool:
        history = self._history
        if history is None:
            return False
        history.start()
        if not history.responses:
            return False
        item = history.responses[0]
        if isinstance(item, StorageError):
            self._error = self._known(item)
            raise self._error
        if item is None:
            self._history = None
            return True
        # Skip what was taken out twice; it was already looked at.
        self._ready = deque(item)
        history.next()
        return True

    def _known(self, error: StorageError) -> StorageError:
        if isinstance(error, Compacted) and not error.compacted:
            return Compacted(self._looked + 1)
        return error

    def _answered(self, reached: int) -> bool:
        """Return whether a mark at ``reached`` answers the request."""
        number, highest = self._asked
        wanted = number > self._told and highest <= reached
        if wanted:
            self._telling = number
        return wanted

    def _mark_due(self) -> float | None:
        return self._mark_at if self._progress else None

    def _mark(self) -> WatchBatch | None:
        """Return a progress mark, if one was requested or is due and all events up to it are
        delivered."""
        hub = self._hub
        if self._history is not None or hub.log is None:
            return None
        reached = max(self._looked, self._position)
        if hub.position < reached:  # the watch begins in the future
            return None
        if self._answered(reached):
            return WatchBatch(reached)
        due = self._progress and time.monotonic() >= self._mark_at
        if due:
            self._mark_at = time.monotonic() + _MARK_INTERVAL
            if reached > self._position:
                return WatchBatch(reached)
        return None
