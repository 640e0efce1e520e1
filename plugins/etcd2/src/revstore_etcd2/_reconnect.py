"""The recovery of a watch after a broken connection: it opens a new stream and closes the gap.

Users notice only a delay. The changes between two streams are read from the server's history, one
by one. Each attempt waits twice as long as the one before, and goes to the next server if there are
several. Watches end only if the store was replaced or went back, or if its answers cannot be right.
"""

from __future__ import annotations

import abc
from collections.abc import Callable

from revstore.backend_tools import Log
from revstore.errors import (
    Closed,
    CorruptStore,
    IncompatibleStore,
    StorageError,
    Timeout,
    Unreachable,
)
from revstore.threads import Wake
from revstore_etcd2._client import Client
from revstore_etcd2._errors import BadAnswer
from revstore_etcd2._history import BROKEN, Memory, change_of
from revstore_etcd2._wire import Action

__all__ = ["Reconnecting"]

_log = Log("revstore_etcd2")
_STREAM = "/v2/keys/?wait=true&recursive=true&stream=true"
# Seconds before the next attempt, doubled each time.
_FIRST_RETRY = 0.05
_LAST_RETRY = 1.0


class Reconnecting(abc.ABC):
    """Every change of the store, one by one, however often the stream breaks.

    ``check_cluster`` raises if the servers belong to another store than before; ``read_index``
    returns the store's index, linearizably.
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
        self._memory = Memory(client, check_cluster)
        self._wanted = Wake()
        #: The index of the last change that was taken; only the thread that follows sets it.
        self._cursor: int | None = None

    @property
    @abc.abstractmethod
    def _is_needed(self) -> bool:
        """Return True if a watch needs the changes."""

    @abc.abstractmethod
    def _rest(self) -> None:
        """Wait until there is a watch, or the client is closed."""

    @abc.abstractmethod
    def _begin(self, index: int) -> None:
        """Go on from ``index``, whatever came before it."""

    @abc.abstractmethod
    def _take(self, action: Action) -> None:
        """Give the next change to the watches."""

    @abc.abstractmethod
    def _fail(self, error: StorageError) -> None:
        """End all watches."""

    def _keep_following(self) -> None:
        retry = _FIRST_RETRY
        while not self._client.closed.is_set():
            if not self._is_needed:
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
                _log.info("the stream of changes is reconnecting: %s", error)
                self._wanted.wait(retry)
                retry = min(retry * 2, _LAST_RETRY)
            except StorageError as error:
                self._fail(error)
            except Exception as error:  # noqa: BLE001 - a hub that is dead would be silent
                _log.exception("the stream of changes failed")
                self._fail(IncompatibleStore(f"the stream of changes failed: {error}"))

    def _alive(self) -> bool:
        """Return whether silence means that nothing happens.

        One of several servers may be cut off from the others, and then does not learn of changes:
        asking it makes the client move on to another.
        """
        if self._client.servers > 1:
            try:
                self._read_index()
            except Closed:
                return True
            except (Unreachable, Timeout):
                return False
        return True

    def _follow(self) -> None:
        """Open a stream, close the gap before it, and take what comes until it ends."""
        stream = self._client.open_stream(_STREAM, self._client.options.idle_timeout)
        try:
            self._check_cluster(stream.cluster)
            self._begin_at(stream.index)
            for line in stream.lines():
                self._take(change_of(line))
                if not self._is_needed:
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
        """Go on from where the stream begins; nothing before it is left out."""
        if not index:
            raise CorruptStore("the server did not report the store's index")
        if self._cursor is None:
            self._begin(index)
        elif index < self._cursor:
            self._check_not_back(self._cursor)
        else:
            self._close_gap(index)

    def _check_not_back(self, cursor: int) -> None:
        """Check that the whole store has not gone back; a single server may lag behind another."""
        if self._read_index() < cursor:
            raise IncompatibleStore(
                f"the store's index fell below {cursor}: the store was replaced"
            )

    def _close_gap(self, upto: int) -> None:
        while self._cursor is not None and self._cursor < upto:
            action, index = self._memory.next(self._cursor)
            if action is not None and action.index <= upto:
                self._take(action)
            elif action is not None or index >= upto:
                self._take(Action(upto))
            else:
                raise Unreachable("the server that was asked for the missing changes lags behind")
