"""The hub: one stream of every change of the store, which feeds all watches of a backend.

The store's index moves with every change of any key. So the stream proves progress also for keys
that are quiet, and its end is never more than a reconnection behind the window of 1,000 changes
that the server remembers. A stream that the server gives starts now, not in the past: what lies
between two streams is read from the server's memory, change by change.
"""

from __future__ import annotations

import abc
import contextlib
import logging
import threading
from collections.abc import Callable, Iterator

import urllib3
from urllib3.exceptions import HTTPError, ReadTimeoutError

from revstore.errors import Closed, IncompatibleStore, StorageError, Timeout, Unreachable
from revstore.threads import start_thread
from revstore_etcd2._client import Client
from revstore_etcd2._errors import refusal
from revstore_etcd2._wire import Action, decode_answer, event_of

__all__ = ["Hub", "Listener"]

_log = logging.getLogger("revstore_etcd2")
_STREAM = "/v2/keys/?wait=true&recursive=true&stream=true"
_NEXT = "/v2/keys/?wait=true&recursive=true&waitIndex="
#: Seconds of silence, after the answer's head has come, that mean that nothing is remembered: what
#: is remembered is sent together with the head. Two such answers have to agree.
_SILENCE = 0.5
_FIRST_RETRY = 0.05
_LAST_RETRY = 1.0


class Listener(abc.ABC):
    """A watch, as the hub sees it. Called with the hub's lock held; must not call back."""

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
        self._wanted = threading.Event()
        self._lock = threading.Lock()  # guards the three below
        self._listeners: set[Listener] = set()
        self._cursor: int | None = None  # set by the thread alone
        self._thread: threading.Thread | None = None

    def join(self, listener: Listener) -> None:
        with self._lock:
            if self._client.closed.is_set():
                raise Closed("the backend is closed")
            if self._thread is None:
                self._thread = start_thread(self._run, "revstore-etcd2-watch")
            self._listeners.add(listener)
            if self._cursor is not None:
                listener.begin(self._cursor)
        self._wanted.set()

    def leave(self, listener: Listener) -> None:
        with self._lock:
            self._listeners.discard(listener)

    def close(self, timeout: float) -> None:
        """Wake every watch, which then finds the backend closed, and end the thread. The client
        must be closed already."""
        self._wanted.set()
        with self._lock:
            for listener in self._listeners:
                listener.end(Closed("the backend is closed"))
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    def next_action(self, after: int) -> tuple[Action | None, int]:
        """The first change after ``after`` that the server remembers, and the index that it had
        come to; None if it remembers none. ``Compacted`` if some have been forgotten."""
        seen = 0
        for _ in range(2):
            with self._answer(f"{_NEXT}{after + 1}", _SILENCE) as (response, index):
                seen, body = index, _body(response)
            if body == b"":
                raise Unreachable("the server ended a watch")
            if body is not None:
                return event_of(decode_answer(body)), seen
        return None, seen

    @contextlib.contextmanager
    def _answer(self, url: str, idle: float) -> Iterator[tuple[urllib3.BaseHTTPResponse, int]]:
        """An answer that is still to be read, and the index in its head."""
        response = self._client.open_stream(url, idle)
        try:
            if response.status != 200:
                raise refusal(decode_answer(response.data))
            self._check_cluster(response.headers.get("X-Etcd-Cluster-Id") or "")
            yield response, int(response.headers.get("X-Etcd-Index") or 0)
        except (HTTPError, OSError) as error:
            if isinstance(error, StorageError):
                raise
            raise self._client.failed(error) from error
        finally:
            response.close()

    # The thread

    def _run(self) -> None:
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
                if isinstance(error.__cause__, ReadTimeoutError) and self._alive():
                    continue  # merely silent
                _log.info("the stream of changes is made anew: %s", error)
                self._client.closed.wait(retry)
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
        with self._answer(_STREAM, self._client.options.idle_timeout) as (response, index):
            if self._cursor is None:
                self._begin(index)
            elif index < self._cursor:
                self._check_not_back(self._cursor)
            else:
                self._close_gap(index)
            for line in _lines(response):
                self._take(event_of(decode_answer(line)))
                if not self._listeners:
                    return

    def _begin(self, index: int) -> None:
        with self._lock:
            self._cursor = index
            for listener in self._listeners:
                listener.begin(index)

    def _check_not_back(self, cursor: int) -> None:
        """A server may lag behind another; the whole store may not."""
        if self._read_index() < cursor:
            raise IncompatibleStore(
                f"the store's index went back below {cursor}: it was replaced by another"
            )

    def _close_gap(self, upto: int) -> None:
        while self._cursor is not None and self._cursor < upto:
            action, index = self.next_action(self._cursor)
            if action is not None and action.index <= upto:
                self._take(action)
            elif action is not None or index >= upto:
                self._take(Action(upto))
            else:
                raise Unreachable("the server asked for the gap lags behind")

    def _take(self, action: Action) -> None:
        with self._lock:
            if self._cursor is None or action.index <= self._cursor:
                return  # of a server that lags: it came before
            self._cursor = action.index
            for listener in self._listeners:
                listener.push(action)

    def _fail(self, error: StorageError) -> None:
        with self._lock:
            self._cursor = None
            for listener in self._listeners:
                listener.end(error)
            self._listeners.clear()


def _body(response: urllib3.BaseHTTPResponse) -> bytes | None:
    """The whole body; None if it does not come."""
    try:
        return response.data
    except ReadTimeoutError:
        return None


def _lines(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    """The whole lines of a body, as they come."""
    rest = b""
    for chunk in response.stream(65536):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from filter(None, lines)
