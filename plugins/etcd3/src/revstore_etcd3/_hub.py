"""One stream over all keys serves every watch of a backend, and tells exactly how far it is.

Progress marks of etcd before 3.4.31 and 3.5.13 may run ahead of events (CACHE-14), and nothing else
tells that a stream of some keys is complete. Over all keys each revision is an event.
"""

from __future__ import annotations

import abc
import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Iterable
from operator import itemgetter
from typing import Any, TypeGuard

from revstore.backend_tools import EventLog
from revstore.errors import (
    AccessDenied,
    BackendError,
    Closed,
    Compacted,
    CorruptStore,
    IncompatibleStore,
    StorageError,
)
from revstore.threads import Wake, start_thread
from revstore_etcd3._client import Client
from revstore_etcd3._errors import translate
from revstore_etcd3._stream import Batch, Stream
from revstore_etcd3._wire import RpcError, code_of, details_of

__all__ = ["Hub", "Listener", "revision_of"]

_log = logging.getLogger("revstore_etcd3")

_KEPT = 20_000
# Seconds before another try, doubled each time.
_FIRST_RETRY = 0.05
_LAST_RETRY = 2.0
# Seconds for one try to read the store's revision.
_ANSWER_TIME = 5.0


#: The revision of a batch.
revision_of: Callable[[Batch], int] = itemgetter(0)


class Listener(abc.ABC):
    """A watch, as the hub sees it."""

    #: Whether nobody polls it any more.
    closed = False

    @abc.abstractmethod
    def has_more(self) -> bool:
        """Whether a poll would find something, as far as can be told without a look. Called by
        who polls."""

    @abc.abstractmethod
    def concerned(self, batches: Iterable[Batch]) -> bool:
        """Whether to wake for ``batches``."""

    @abc.abstractmethod
    def wake(self) -> None:
        """End the wait, if there is one."""

    @abc.abstractmethod
    def tell(self, revision: int) -> None:
        """Deliver a mark at ``revision`` or above."""


class Hub:
    """The stream's thread, and the log of what it brought. Both begin with the first watch."""

    def __init__(self, client: Client, read_header: Callable[[float], Any]) -> None:
        self._client = client
        self._read_header = read_header
        self._lock = threading.Lock()  # guards _threads, _stream, and that a log fits position
        #: Replaced as a whole; None until the stream has begun.
        self.log: EventLog[Batch] | None = None
        #: Everything up to it is in the log.
        self.position = 0
        #: Why no watch goes on.
        self.ended: StorageError | None = None
        # Added to, discarded from and copied in single steps of the interpreter.
        self._waiting: set[Listener] = set()
        #: Who asks for the store's revision; None ends the thread that answers.
        self._asking: queue.SimpleQueue[Listener | None] = queue.SimpleQueue()
        self._stream: Stream | None = None
        self._threads: list[threading.Thread] = []
        self._last: list[Any] = []  # see Stream; of the stream's thread alone

    def start(self) -> None:
        """Begin, unless it has."""
        with self._lock:
            if self._threads or self.ended is not None:
                return
            self._threads = [
                start_thread(self._answer, "revstore-etcd3-progress"),
                start_thread(self._run, "revstore-etcd3"),
            ]

    def wait(self, watch: Listener, wake: Wake, timeout: float | None) -> None:
        """Return when there may be something for ``watch``, it is closed, or the time is over."""
        # First known, then looked: what comes in between wakes it.
        self._waiting.add(watch)
        if not watch.has_more():
            wake.wait(timeout)
        self._waiting.discard(watch)

    def leave(self, watch: Listener) -> None:
        """Forget a watch that is closed; an exception may have come out of its ``wait``."""
        self._waiting.discard(watch)

    def request_progress(self, watch: Listener) -> None:
        """Tell the watch the store's revision, read from now on."""
        self._asking.put(watch)

    def end(self, error: StorageError) -> None:
        """End all watches."""
        with self._lock:
            self.ended = self.ended or error
            stream = self._stream
        self._asking.put(None)
        if stream is not None:
            stream.close()
        for watch in list(self._waiting):
            watch.wake()

    def close(self, timeout: float) -> None:
        self.end(Closed("the backend is closed"))
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(timeout)

    def _run(self) -> None:
        retry = _FIRST_RETRY
        while self.ended is None:
            try:
                if self.log is None:
                    self._begin()
                if self._follow():
                    retry = _FIRST_RETRY
            except Compacted:
                self.log = None  # watches read what is left of history by themselves
            except Exception as error:  # noqa: BLE001 - a dead hub would be worse
                if _is_final(error):
                    self.end(error)
                    return
                if self.ended is None and not self._client.stopping.is_set():
                    _log.warning("the watch stream broke: %s", _described(error))
            self._client.stopping.wait(retry)
            retry = min(retry * 2, _LAST_RETRY)

    def _begin(self) -> None:
        """From the store's revision on."""
        header = self._read_header(5.0)
        self._last = []
        with self._lock:
            self.position = header.revision
            self.log = EventLog(floor=header.revision)
        for watch in list(self._waiting):
            watch.wake()

    def _follow(self) -> bool:
        """Take what the stream brings until it breaks; whether it brought anything."""
        self._read_header(5.0)  # tells whether it is the store that it was
        stream = Stream(self._client, self.position, self._last)
        with self._lock:
            self._stream = stream
        brought = False
        try:
            if self.ended is None:
                for batches in stream.batches():
                    self._publish(batches)
                    brought = True
        except RpcError as error:
            if stream.paused:
                return True
            self._client.stream_failed(stream.server, error)
            raise
        finally:
            stream.close()
            self._last = stream.last or []
        return brought

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
        """Read the store's revision for whoever asks, once for all who wait for it."""
        while (first := self._asking.get()) is not None and self.ended is None:
            asking = {first}
            with contextlib.suppress(queue.Empty):
                while (another := self._asking.get_nowait()) is not None:
                    asking.add(another)
            # A mark that was asked for is owed also when the server is away.
            while self.ended is None:
                try:
                    revision = self._read_header(_ANSWER_TIME).revision
                except Exception as error:  # noqa: BLE001 - a dead thread would never answer again
                    _log.warning("the store's revision could not be read: %s", error)
                    self._client.stopping.wait(_FIRST_RETRY * 4)
                else:
                    for watch in asking:
                        watch.tell(revision)
                    break


_FINAL = (IncompatibleStore, CorruptStore, AccessDenied)


def _is_final(error: Exception) -> TypeGuard[StorageError]:
    """Not a certificate that does not fit: that is renewed without us, at a server of several."""
    cause = error.__cause__
    tls = isinstance(cause, RpcError) and code_of(cause) == "UNAVAILABLE"
    return isinstance(error, (IncompatibleStore, CorruptStore)) or (
        isinstance(error, AccessDenied) and not tls
    )


def _described(error: Exception) -> str:
    if isinstance(error, RpcError):
        return str(translate(code_of(error), details_of(error), "the current server"))
    return str(error) if isinstance(error, BackendError) else f"{type(error).__name__}: {error}"
