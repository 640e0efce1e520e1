"""The hub: the latest events of a store, in memory, shared by all watches of a backend.

The hub holds consecutive revisions, the events of each as a tuple, which is empty for a revision
that was never taken. The last one is its head, and the hub appends what comes next. From the
numbers alone it knows when it has missed something, and then reads that from the log. The writer
publishes its own writes right after their commit. One thread finds the writes of other processes:
it polls sqlite's ``data_version``. Whichever comes first, events are appended in revision order and
once.
"""

from __future__ import annotations

import abc
import threading
import time
from collections.abc import Sequence

from revstore.backend_tools import Log, SharedLog, let_out
from revstore.errors import (
    AccessDenied,
    Closed,
    Compacted,
    CorruptStore,
    IncompatibleStore,
    StorageError,
)
from revstore.threads import start_thread
from revstore.values import WatchEvent
from revstore_sqlite._connect import Link, StoreFile, patiently
from revstore_sqlite._fork import Turn
from revstore_sqlite._reader import Reader

__all__ = ["READ_TIMEOUT", "Hub", "Listener"]

_log = Log("revstore_sqlite")
#: The tail is cut in half when it has this many events, or this many bytes of values.
_CAPACITY = 8192
_CAPACITY_BYTES = 32 * 1024 * 1024
_PAGE = 1000
#: Seconds after which a read of the log is given up, to be tried again.
READ_TIMEOUT = 5.0
_FATAL = (CorruptStore, IncompatibleStore, AccessDenied)


class Listener(abc.ABC):
    """A watch, as the hub sees it. Its methods are called with the hub's lock held."""

    @abc.abstractmethod
    def concerns(self, events: Sequence[tuple[WatchEvent, ...]], head: int) -> bool:
        """Return whether the listener waits for something and these events may be it."""

    @abc.abstractmethod
    def wake(self) -> None:
        """End the wait, if there is one."""


def _size(events: tuple[WatchEvent, ...]) -> int:
    return sum(
        len(event.kv.value) + (len(event.previous.value) if event.previous else 0)
        for event in events
    )


class Hub:
    """Keeps the tail of the log, wakes listeners, and polls for other processes while there are
    listeners."""

    def __init__(
        self, reader: Reader, store: StoreFile, poll_interval: float, stop: threading.Event
    ) -> None:
        self._reader = reader
        self._store = store
        self._poll_interval = poll_interval
        self._stop = stop
        self._kick = threading.Event()
        self._catching = threading.Lock()  # held while the log is read; never taken under _lock
        #: Guards _listeners, _size, _store_id, _thread, _torn, tail and error; listeners use it for
        #: their own state.
        self.lock = threading.Lock()
        self._listeners: set[Listener] = set()
        self._size = 0
        self._store_id = ""
        self._thread: threading.Thread | None = None
        self._torn = False  # a thread was interrupted before it had woken all
        # Only the thread uses the connection, and takes turns with forks.
        self._turn = Turn()
        #: None until something is known; read without the lock. Item number n holds all events of
        #: revision n + 1, so its ``end`` is the last revision that it has.
        self.tail: SharedLog[tuple[WatchEvent, ...]] | None = None
        #: The error that ended the hub, and with it every watch.
        self.error: StorageError | None = None

    def watched(self) -> bool:
        """Return whether anybody needs events; it takes no lock, and ``publish`` copes with a
        change."""
        return bool(self._listeners)

    def join(self, listener: Listener) -> None:
        with self.lock:
            if self._stop.is_set():
                raise Closed("the backend is closed")
            if self._thread is None:
                self._thread = start_thread(self._poll, "revstore-sqlite-watch")
            self._listeners.add(listener)
        self._kick.set()

    def leave(self, listener: Listener) -> None:
        with self.lock:
            self._listeners.discard(listener)
            if not self._listeners:
                self.tail = None
                self._size = 0

    def publish(self, first: int, last: int, events: list[tuple[WatchEvent, ...]] | None) -> None:
        """Add the events ``first`` to ``last`` of a commit, or have the thread read them.

        It raises no error of its own, and never waits for a reader of the log.
        """
        if not self._listeners:
            return
        if events is None or not self._take(first, last, events):
            self._kick.set()

    def _take(self, first: int, last: int, events: list[tuple[WatchEvent, ...]]) -> bool:
        """Append what is new; return False if something before ``first`` is missing."""
        try:
            with self.lock:
                tail = self.tail
                if tail is None or first > tail.end + 1:
                    return False
                if last > tail.end:
                    self._append(tail, events[tail.end + 1 - first :])
                return True
        except BaseException:
            self._wake_all_later()
            raise

    def _append(
        self, tail: SharedLog[tuple[WatchEvent, ...]], events: list[tuple[WatchEvent, ...]]
    ) -> None:
        self._size += sum(map(_size, events))
        tail.items.extend(events)
        if len(tail.items) > _CAPACITY or self._size > _CAPACITY_BYTES:
            cut = len(tail.items) // 2
            self.tail = tail.without(cut, tail.floor + cut)
            self._size = sum(map(_size, self.tail.items))
        head = tail.end
        for listener in self._listeners:
            if listener.concerns(events, head):
                listener.wake()

    def _wake_all_later(self) -> None:
        """Have the thread wake all watches: the caller was interrupted and may not have woken them
        all."""
        self._torn = True
        self._kick.set()

    def catch_up(self) -> int:
        """Read the store's revision and what the tail lacks up to it; return the revision.

        This covers any write that was acknowledged before the call, even by other processes.
        """
        with self._catching:
            while True:
                tail = self.tail
                known = tail.end if tail else 0  # committed before the header is read
                header = self._reader.header(READ_TIMEOUT)
                if self._store_id not in ("", header.store_id) or header.revision < known:
                    raise IncompatibleStore(
                        f"{self._store.path}: the store was replaced by another"
                    )
                self._store_id = header.store_id
                if tail is None or header.revision - known > _CAPACITY:
                    self._restart(header.revision)
                elif not self._read_on(tail, header.revision):
                    return header.revision

    def _read_on(self, tail: SharedLog[tuple[WatchEvent, ...]], revision: int) -> bool:
        """Read a page of what the tail lacks up to ``revision``; return False if it lacks
        nothing."""
        after = tail.end
        if after >= revision:
            return False
        try:
            page = self._reader.events(
                after, after + _PAGE, "", recursive=True, timeout=READ_TIMEOUT
            )
        except Compacted as error:
            let_out(error)
            self._restart(error.current)
        else:
            if page.upto - after > _CAPACITY:
                self._restart(page.upto)
            else:
                self._take(after + 1, page.upto, _filled(page.events, after, page.upto))
        return True

    def _restart(self, revision: int) -> None:
        """Restart the tail: watches that lag behind it find their events in the log."""
        try:
            with self.lock:
                if self.tail is None or self.tail.end < revision:
                    self._size = 0
                    self.tail = SharedLog(floor=revision, base=revision)
                self._wake_all()
        except BaseException:
            self._wake_all_later()
            raise

    def _wake_all(self) -> None:
        for listener in self._listeners:
            listener.wake()

    def _poll(self) -> None:
        link: Link | None = None
        seen = -1
        while not self._stop.is_set():
            kicked = self._kick.wait(self._poll_interval if self._listeners else None)
            if kicked:
                self._kick.clear()
            if self._torn:
                self._torn = False
                with self.lock:
                    self._wake_all()
            try:
                link, version = self._data_version(link)
                if kicked or version != seen:
                    self.catch_up()
                    seen = version
                self._store.check()
            except Closed:
                break
            except _FATAL as error:
                self._fail(error)
                break
            except StorageError as error:
                _log.warning("cannot check for writes of other processes; will retry: %s", error)
        with self._turn.lock:
            if link is not None:
                link.close()

    def _data_version(self, link: Link | None) -> tuple[Link, int]:
        """Return a connection, and a number that changes when any other connection has
        committed."""

        def ask() -> tuple[Link, int]:
            with self._turn.lock:
                asked = link or self._store.connect(self._stop)
                asked.cutoff.deadline = deadline
                row = asked.raw.execute("PRAGMA data_version").fetchone()
                return asked, int(row[0])

        deadline = time.monotonic() + READ_TIMEOUT
        return patiently(ask, self._store.path, deadline, self._stop)

    def _fail(self, error: StorageError) -> None:
        with self.lock:
            self.error = error
            self._wake_all()

    def close(self, timeout: float) -> None:
        """Wake every watch, which then finds the backend closed, and end the thread."""
        self._kick.set()
        with self.lock:
            self._wake_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)


def _filled(
    events: list[tuple[WatchEvent, ...]], after: int, upto: int
) -> list[tuple[WatchEvent, ...]]:
    """Return an item for each revision above ``after`` up to ``upto``."""
    found = {each[0].kv.revision: each for each in events}
    return [found.get(revision, ()) for revision in range(after + 1, upto + 1)]
