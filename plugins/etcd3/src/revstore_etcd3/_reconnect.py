"""The recovery of a watch after a broken connection: it opens the stream again where it broke off.

Users notice only a delay. The new stream goes on at the revision that the last one had reached, at
the next server if there are several. Each attempt waits twice as long as the one before. If the
missed revisions are compacted meanwhile, watches read by themselves what is left of history. They
end only if another store answers, if its answers cannot be right, or if access is denied.
"""

from __future__ import annotations

import abc
import threading
from collections.abc import Callable
from typing import Any, TypeGuard

from revstore.backend_tools import Log, SharedLog
from revstore.errors import (
    AccessDenied,
    BackendError,
    Compacted,
    CorruptStore,
    IncompatibleStore,
    StorageError,
)
from revstore_etcd3._client import Client
from revstore_etcd3._errors import translate
from revstore_etcd3._stream import Batch, Stream
from revstore_etcd3._wire import RpcError, code_of, details_of

__all__ = ["Reconnecting"]

_log = Log("revstore_etcd3")

# Seconds before the next attempt, doubled each time.
_FIRST_RETRY = 0.05
_LAST_RETRY = 2.0


class Reconnecting(abc.ABC):
    """The log of the events of the stream over all keys, however often the stream breaks."""

    def __init__(self, client: Client, read_header: Callable[[float], Any]) -> None:
        self._client = client
        self._read_header = read_header
        self._lock = threading.Lock()  # guards _stream, and that log and position fit
        #: Replaced as a whole; None until the stream has begun.
        self.log: SharedLog[Batch] | None = None
        #: Everything up to it is in the log.
        self.position = 0
        #: The error with which every watch ends.
        self.ended: StorageError | None = None
        self._stream: Stream | None = None
        self._last: list[Any] = []  # see Stream; only the stream's thread uses it

    @abc.abstractmethod
    def end(self, error: StorageError) -> None:
        """End all watches."""

    @abc.abstractmethod
    def _publish(self, batches: list[Batch]) -> None:
        """Add to the log, and wake the watches concerned."""

    @abc.abstractmethod
    def _wake_all(self) -> None:
        """Wake the watches that wait."""

    def _keep_following(self) -> None:
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
        """Start the log at the store's revision."""
        header = self._read_header(5.0)
        self._last = []
        with self._lock:
            self.position = header.revision
            self.log = SharedLog(floor=header.revision)
        self._wake_all()

    def _follow(self) -> bool:
        """Add the stream's events until it breaks; return whether there were any."""
        self._read_header(5.0)  # shows whether it is still the same store
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


def _is_final(error: Exception) -> TypeGuard[StorageError]:
    """Return whether the error ends all watches.

    A certificate that does not fit does not: it may be renewed, or belong to only one of several
    servers.
    """
    cause = error.__cause__
    tls = isinstance(cause, RpcError) and code_of(cause) == "UNAVAILABLE"
    return isinstance(error, (IncompatibleStore, CorruptStore)) or (
        isinstance(error, AccessDenied) and not tls
    )


def _described(error: Exception) -> str:
    if isinstance(error, RpcError):
        return str(translate(code_of(error), details_of(error), "the current server"))
    return str(error) if isinstance(error, BackendError) else f"{type(error).__name__}: {error}"
