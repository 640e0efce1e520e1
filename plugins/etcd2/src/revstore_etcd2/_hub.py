"""The hub: one stream of every change of the store, which feeds all watches of a backend.

The store's index rises with every change of any key. So the stream proves progress even for keys
that do not change, and it is never further behind than one reconnection, within the window of 1,000
changes that the server remembers. A new stream starts now, not in the past: the changes between two
streams are read from the server's history, one by one.
"""

from __future__ import annotations

import abc
import threading
from collections.abc import Callable

from revstore.errors import Closed, StorageError
from revstore.threads import start_thread
from revstore_etcd2._client import Client
from revstore_etcd2._history import Memory
from revstore_etcd2._reconnect import Reconnecting
from revstore_etcd2._wire import Action

__all__ = ["Hub", "Listener"]


class Listener(abc.ABC):
    """A watch, as the hub sees it. The hub's thread, or the thread that joins, calls it; it must
    not block."""

    @abc.abstractmethod
    def begin(self, index: int) -> None:
        """Note that every change after ``index`` is going to be pushed."""

    @abc.abstractmethod
    def push(self, action: Action) -> None:
        """Receive the next change; one without an event or a folder says how far the store is."""

    @abc.abstractmethod
    def end(self, error: StorageError) -> None:
        """Note that no more changes will come."""


class Hub(Reconnecting):
    """Follows the store while there are listeners."""

    def __init__(
        self,
        client: Client,
        check_cluster: Callable[[str], None],
        read_index: Callable[[], int],
    ) -> None:
        super().__init__(client, check_cluster, read_index)
        #: Held while a listener joins, and while the thread sees that there is none.
        self._lock = threading.Lock()
        #: Added to under the lock; discarding and copying are single steps of the interpreter.
        self._listeners: set[Listener] = set()
        self._thread: threading.Thread | None = None

    def memory(self) -> Memory:
        """Return what another thread needs to read the server's history."""
        return Memory(self._client, self._check_cluster)

    def join(self, listener: Listener) -> None:
        """Call ``begin`` of ``listener``, then push every change from there on."""
        with self._lock:
            if self._client.closed.is_set():
                raise Closed("the backend is closed")
            if self._thread is None:
                self._thread = start_thread(self._run, "revstore-etcd2-watch")
            self._listeners.add(listener)
            # Read after the listener is there: what comes after it is pushed.
            cursor = self._cursor
        if cursor is not None:
            listener.begin(cursor)
        self._wanted.set()

    def leave(self, listener: Listener) -> None:
        self._listeners.discard(listener)

    def close(self, timeout: float) -> None:
        """Wake every watch, which then finds the backend closed, and end the thread. The client
        must already be closed."""
        self._wanted.set()
        for listener in list(self._listeners):
            listener.end(Closed("the backend is closed"))
        self._memory.stop()
        # Without the lock, which may be held by the code that a signal handler interrupted to
        # close. A thread that begins just now ends by itself.
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    # The thread

    def _run(self) -> None:
        with self._lock:
            if self._thread is not threading.current_thread():
                return  # its starter was interrupted, and another thread has begun or will
        self._keep_following()

    @property
    def _is_needed(self) -> bool:
        return bool(self._listeners)

    def _rest(self) -> None:
        self._wanted.clear()
        with self._lock:
            # Also if closed: what close has just set may have been cleared.
            if self._listeners or self._client.closed.is_set():
                return
            self._cursor = None
        self._wanted.wait()

    def _begin(self, index: int) -> None:
        # Before the listeners are copied: one that joins in between finds it.
        self._cursor = index
        for listener in list(self._listeners):
            listener.begin(index)

    def _take(self, action: Action) -> None:
        if self._cursor is None or action.index <= self._cursor:
            return  # from a server that lags: it came before
        # Before the listeners are copied: one that joins in between reads it from history.
        self._cursor = action.index
        for listener in list(self._listeners):
            listener.push(action)

    def _fail(self, error: StorageError) -> None:
        self._cursor = None
        for listener in list(self._listeners):
            listener.end(error)
            self._listeners.discard(listener)
