"""The hub: one stream of every change of the store, which feeds all watches of a backend.

The store's index moves with every change of any key. So the stream proves progress also for keys
that are quiet, and its end is never more than a reconnection behind the window of 1,000 changes
that the server remembers. A stream that the server gives starts now, not in the past: what lies
between two streams is read from the server's memory, change by change.
"""

from __future__ import annotations

import abc
import logging
import threading
from collections.abc import Callable

from revstore.errors import (
    Closed,
    CorruptStore,
    IncompatibleStore,
    StorageError,
    Timeout,
    Unreachable,
)
from revstore.threads import Wake, start_thread
from revstore_etcd2._client import Client
from revstore_etcd2._errors import BadAnswer
from revstore_etcd2._history import BROKEN, Memory, change_of
from revstore_etcd2._wire import Action

__all__ = ["Hub", "Listener"]

_log = logging.getLogger("revstore_etcd2")
_STREAM = "/v2/keys/?wait=true&recursive=true&stream=true"
_FIRST_RETRY = 0.05
_LAST_RETRY = 1.0


class Listener(abc.ABC):
    """A watch, as the hub sees it. Called by the hub's thread, or by who joins; must not block."""

    @abc.abstractmethod
    def begin(self, index: int) -> None:
        """Everything after ``index`` is going to be pushed."""

    @abc.abstractmethod
    def push(self, action: Action) -> None:
        """The next change; one without an event or a folder says how far the store has come."""

    @abc.abstractmethod
    def end(self, error: StorageError) -> None:
        """Nothing more will come."""


class Hub:
    """Follows the store while there are listeners.

    ``check_cluster`` raises if the servers are of another store than before; ``read_index`` gives
    the store's index, linearizably.
    """

    def __init__(
        self,
        client: Client,
        check_cluster: Callable[[str], None],
        read_index: Callable[[], int],
    ) -> None:
        self._client = client
        self._check_cluster = check_cluster
        self._read_index = read_index
        self._memory = self.memory()
        self._wanted = Wake()
        #: Held while a listener joins, and while the thread sees that there is none.
        self._lock = threading.Lock()
        #: Added to under the lock; discarding and copying are single steps of the interpreter.
        self._listeners: set[Listener] = set()
        self._cursor: int | None = None  # set by the thread alone
        self._thread: threading.Thread | None = None

    def memory(self) -> Memory:
        """What another thread reads the server's memory with."""
        return Memory(self._client, self._check_cluster)

    def join(self, listener: Listener) -> None:
        """Push every change from now on to ``listener``, once it was told where that begins."""
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
        must be closed already."""
        self._wanted.set()
        for listener in list(self._listeners):
            listener.end(Closed("the backend is closed"))
        self._memory.stop()
        # Without the lock, which whoever a signal handler that closes has interrupted may hold. A
        # thread that begins just now ends by itself.
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    # The thread

    def _run(self) -> None:
        with self._lock:
            if self._thread is not threading.current_thread():
                return  # who started it was interrupted, and another has begun or will
        retry = _FIRST_RETRY
        while not self._client.closed.is_set():
            if not self._listeners:
                self._rest()
                continue
            try:
                self._follow()
                retry = _FIRST_RETRY
            except Closed:
                return
            except (Unreachable, Timeout) as error:
                if isinstance(error.__cause__, TimeoutError) and self._alive():
                    continue  # merely silent
                _log.info("the stream of changes is made anew: %s", error)
                self._wanted.wait(retry)
                retry = min(retry * 2, _LAST_RETRY)
            except StorageError as error:
                self._fail(error)
            except Exception as error:  # noqa: BLE001 - a hub that is dead would be silent
                _log.exception("the stream of changes failed")
                self._fail(IncompatibleStore(f"the stream of changes failed: {error}"))

    def _alive(self) -> bool:
        """Whether silence means that nothing happens. One of several servers may be cut off from
        the others, and then knows no more: asking it has the client move on to another."""
        if self._client.servers > 1:
            try:
                self._read_index()
            except Closed:
                return True
            except (Unreachable, Timeout):
                return False
        return True

    def _rest(self) -> None:
        self._wanted.clear()
        with self._lock:
            # Also closed: what close has set just before may have been cleared.
            if self._listeners or self._client.closed.is_set():
                return
            self._cursor = None
        self._wanted.wait()

    def _follow(self) -> None:
        """Open a stream, close the gap before it, and take what comes until it ends."""
        stream = self._client.open_stream(_STREAM, self._client.options.idle_timeout)
        try:
            self._check_cluster(stream.cluster)
            self._begin_at(stream.index)
            for line in stream.lines():
                self._take(change_of(line))
                if not self._listeners:
                    return
        except BadAnswer as error:
            raise CorruptStore(str(error)) from error
        except BROKEN as error:
            if isinstance(error, StorageError):
                raise
            raise self._client.failed(error) from error
        finally:
            stream.close()

    def _begin_at(self, index: int) -> None:
        """Go on from where the stream begins, with nothing left out before it."""
        if not index:
            raise CorruptStore("the server does not tell the store's index")
        if self._cursor is None:
            self._begin(index)
        elif index < self._cursor:
            self._check_not_back(self._cursor)
        else:
            self._close_gap(index)

    def _begin(self, index: int) -> None:
        # Before the listeners are copied: one that joins in between finds it.
        self._cursor = index
        for listener in list(self._listeners):
            listener.begin(index)

    def _check_not_back(self, cursor: int) -> None:
        """A server may lag behind another; the whole store may not."""
        if self._read_index() < cursor:
            raise IncompatibleStore(
                f"the store's index went back below {cursor}: it was replaced by another"
            )

    def _close_gap(self, upto: int) -> None:
        while self._cursor is not None and self._cursor < upto:
            action, index = self._memory.next(self._cursor)
            if action is not None and action.index <= upto:
                self._take(action)
            elif action is not None or index >= upto:
                self._take(Action(upto))
            else:
                raise Unreachable("the server asked for the gap lags behind")

    def _take(self, action: Action) -> None:
        if self._cursor is None or action.index <= self._cursor:
            return  # of a server that lags: it came before
        # Before the listeners are copied: one that joins in between reads it from history.
        self._cursor = action.index
        for listener in list(self._listeners):
            listener.push(action)

    def _fail(self, error: StorageError) -> None:
        self._cursor = None
        for listener in list(self._listeners):
            listener.end(error)
            self._listeners.discard(listener)
