"""One stream over all keys serves every watch of a backend, and shows exactly how far it is.

Progress marks of etcd before 3.4.31 and 3.5.13 may run ahead of events (CACHE-14), and nothing else
shows that a stream of some keys is complete. In a stream of all keys each revision is an event.
"""

from __future__ import annotations

import abc
import contextlib
import queue
import threading
from collections.abc import Callable, Iterable
from operator import itemgetter
from typing import Any

from revstore.backend_tools import Log
from revstore.errors import Closed, StorageError
from revstore.threads import Wake, start_thread
from revstore_etcd3._client import Client
from revstore_etcd3._reconnect import Reconnecting
from revstore_etcd3._stream import Batch

__all__ = ["Hub", "Listener", "revision_of"]

_log = Log("revstore_etcd3")

_KEPT = 20_000
# Seconds for one attempt to read the store's revision, and before the next.
_ANSWER_TIME = 5.0
_RETRY = 0.2


#: The revision of a batch.
revision_of: Callable[[Batch], int] = itemgetter(0)


class Listener(abc.ABC):
    """A watch, as the hub sees it."""

    #: Whether nobody polls it any more.
    closed = False

    @abc.abstractmethod
    def has_more(self) -> bool:
        """Return whether a poll would find something, as far as this is known without reading. The
        thread that polls calls it."""

    @abc.abstractmethod
    def concerned(self, batches: Iterable[Batch]) -> bool:
        """Return whether to wake for ``batches``."""

    @abc.abstractmethod
    def wake(self) -> None:
        """End the wait, if there is one."""

    @abc.abstractmethod
    def tell(self, revision: int) -> None:
        """Deliver a mark at ``revision`` or above."""


class Hub(Reconnecting):
    """The stream's thread, and the log of its events. Both begin with the first watch."""

    def __init__(self, client: Client, read_header: Callable[[float], Any]) -> None:
        super().__init__(client, read_header)
        # Added to, discarded from and copied in single steps of the interpreter.
        self._waiting: set[Listener] = set()
        #: The watches that ask for the store's revision; None ends the thread that answers.
        self._asking: queue.SimpleQueue[Listener | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []  # guarded by _lock

    def start(self) -> None:
        """Begin, unless it has."""
        with self._lock:
            if self._threads or self.ended is not None:
                return
            self._threads = [
                start_thread(self._answer, "revstore-etcd3-progress"),
                start_thread(self._keep_following, "revstore-etcd3"),
            ]

    def wait(self, watch: Listener, wake: Wake, timeout: float | None) -> None:
        """Return when there may be something for ``watch``, it is closed, or the time has
        passed."""
        # First register, then check: what comes in between wakes it.
        self._waiting.add(watch)
        if not watch.has_more():
            wake.wait(timeout)
        self._waiting.discard(watch)

    def leave(self, watch: Listener) -> None:
        """Forget a watch that is closed; an exception may have ended its ``wait``."""
        self._waiting.discard(watch)

    def request_progress(self, watch: Listener) -> None:
        """Deliver to the watch the store's revision, read from now on."""
        self._asking.put(watch)

    def end(self, error: StorageError) -> None:
        """End all watches."""
        with self._lock:
            self.ended = self.ended or error
            stream = self._stream
        self._asking.put(None)
        if stream is not None:
            stream.close()
        self._wake_all()

    def close(self, timeout: float) -> None:
        self.end(Closed("the backend is closed"))
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(timeout)

    def _wake_all(self) -> None:
        for watch in list(self._waiting):
            watch.wake()

    def _publish(self, batches: list[Batch]) -> None:
        batches = [batch for batch in batches if batch[0] > self.position]
        log = self.log
        if not batches or log is None:
            return
        with self._lock:
            log.items.extend(batches)
            self.position = batches[-1][0]
            self._client.identity.reached(self.position)
            excess = len(log.items) - _KEPT
            if excess > _KEPT:
                self.log = log.without(excess, revision_of(log.items[excess - 1]))
        for watch in list(self._waiting):
            if watch.concerned(batches):
                watch.wake()

    def _answer(self) -> None:
        """Read the store's revision once for all watches that wait for it."""
        while (first := self._asking.get()) is not None and self.ended is None:
            asking = {first}
            with contextlib.suppress(queue.Empty):
                while (another := self._asking.get_nowait()) is not None:
                    asking.add(another)
            # A requested mark is owed even while the server is away.
            while self.ended is None:
                try:
                    revision = self._read_header(_ANSWER_TIME).revision
                except Exception as error:  # noqa: BLE001 - a dead thread would never answer again
                    _log.warning("the store's revision could not be read: %s", error)
                    self._client.stopping.wait(_RETRY)
                else:
                    for watch in asking:
                        watch.tell(revision)
                    break
