"""A watch: a position in the hub's log, or in a stream of its own over older history."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Iterable
from typing import Any

from revstore.arguments import check_poll
from revstore.backend import BackendWatch
from revstore.backend_tools import key_matcher
from revstore.errors import Closed, Compacted, StorageError
from revstore.threads import start_thread
from revstore.values import WatchBatch
from revstore_etcd3._client import Client
from revstore_etcd3._hub import Hub, Listener, revision_of
from revstore_etcd3._stream import Batch, Stream
from revstore_etcd3._wire import RpcError

__all__ = ["Etcd3Watch"]

# Seconds without events after which a watch shows how far it is.
_MARK_INTERVAL = 5.0
# Responses that a stream over history may be ahead of who polls.
_AHEAD = 16
# Seconds before a stream over history that broke is opened again.
_RETRY = 0.1


class _History:
    """A thread that reads all revisions after ``after`` up to ``target``. What it has is in
    ``responses``: lists of batches, None at the end, or what went wrong."""

    def __init__(self, client: Client, watch: Listener, *, after: int, target: int) -> None:
        self.responses: queue.Queue[list[Batch] | StorageError | None] = queue.Queue(_AHEAD)
        self._client = client
        self._position = after
        self._target = target
        self._watch = watch
        self._closed = threading.Event()
        self._stream: Stream | None = None
        self._last: list[Any] | None = None  # see Stream
        start_thread(self._run, "revstore-etcd3-history")

    def close(self) -> None:
        self._closed.set()
        stream = self._stream
        if stream is not None:
            stream.close()

    def _run(self) -> None:
        while not self._stops():
            try:
                self._read()
            except StorageError as error:
                self._put(error)
                return
            except RpcError as error:
                if self._stream is not None:
                    self._client.stream_failed(self._stream.server, error)
            if self._position >= self._target:
                self._put(None)
                return
            self._closed.wait(_RETRY)

    def _stops(self) -> bool:
        return self._closed.is_set() or self._client.stopping.is_set()

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
        while not self._stops():
            with contextlib.suppress(queue.Full):
                self.responses.put(item, timeout=0.1)
                self._watch.wake()
                return


class Etcd3Watch(BackendWatch, Listener):
    """But for ``close``, ``tell`` and what the hub calls under its lock, only who polls touches
    it."""

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
        self._ready: list[Batch] = []
        self._history: _History | None = None
        self._error = error  # what ``poll`` raises
        self.closed = False
        self._asking = threading.Lock()
        self._asked = 0  # guarded by _asking: the revision that a mark is wanted for, 0: none is
        self._mark_at = time.monotonic() + _MARK_INTERVAL
        self._waiter = threading.Event()
        hub.start()

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
                self._position = batch.revision
                self._mark_at = time.monotonic() + _MARK_INTERVAL
                return batch
            now = time.monotonic()
            if deadline is not None and now >= deadline:
                return None
            moments = [each for each in (deadline, self._mark_due()) if each is not None]
            left = max(0.0, min(moments) - now) if moments else None
            self._hub.wait(self, self._waiter, left)

    def request_progress(self) -> None:
        self._check()
        self._hub.request_progress(self)

    def close(self) -> None:
        self.closed = True
        history = self._history
        if history is not None:
            history.close()
        self.wake()

    # --- what the hub calls, the first two under its lock --------------------------------------

    def has_more(self) -> bool:
        if self.closed or self._hub.ended is not None or self._waiter.is_set():
            return True
        if self._history is not None:
            return not self._history.responses.empty()
        return self._hub.log is not None and self._looked < self._hub.position

    def concerned(self, batches: Iterable[Batch]) -> bool:
        return bool(self._asked) or any(
            self._covers(event.kv.key) for _, events in batches for event in events
        )

    def wake(self) -> None:
        self._waiter.set()

    def tell(self, revision: int) -> None:
        with self._asking:
            self._asked = max(self._asked, revision)
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
        while True:
            while self._ready:
                revision, events = self._ready.pop(0)
                self._looked = max(self._looked, revision)
                found = tuple([event for event in events if self._covers(event.kv.key)])
                if found and revision > self._position:
                    return WatchBatch(revision, found)
            if not self._fetch():
                return self._mark()

    def _fetch(self) -> bool:
        """Get what comes next from the log, or from history; whether there was any."""
        if self._history is not None:
            return self._from_history()
        position, log = self._hub.position, self._hub.log
        if log is None:
            return False
        if log.floor == 1:  # a new store's revision, which is no event
            self._looked = max(self._looked, 1)
        if self._looked < log.floor:
            target = position
            self._history = _History(self._client, self, after=self._looked, target=target)
            if self.closed:
                self._history.close()
            return False
        self._ready = log.read(log.after(self._looked, revision_of))
        return bool(self._ready)

    def _from_history(self) -> bool:
        assert self._history is not None
        try:
            item = self._history.responses.get_nowait()
        except queue.Empty:
            return False
        if isinstance(item, StorageError):
            self._error = self._known(item)
            raise self._error
        if item is None:
            self._history = None
            return True
        self._ready = item
        return True

    def _known(self, error: StorageError) -> StorageError:
        if isinstance(error, Compacted) and not error.compacted:
            return Compacted(self._looked + 1)
        return error

    def _answered(self, reached: int) -> bool:
        """Whether a mark at ``reached`` is what was asked for."""
        with self._asking:
            wanted = 0 < self._asked <= reached
            if wanted:
                self._asked = 0
        return wanted

    def _mark_due(self) -> float | None:
        return self._mark_at if self._progress else None

    def _mark(self) -> WatchBatch | None:
        """A progress mark, if one was asked for or is due, and all events up to it are out."""
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
