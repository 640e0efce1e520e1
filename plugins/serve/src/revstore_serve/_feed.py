"""All changes of the store, from one watch of the backend, for the watches of all clients."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from typing import Protocol

import attrs

from revstore.backend import Backend
from revstore.backend_tools import Log, SharedLog
from revstore.errors import BackendError, Closed, Compacted, Unreachable
from revstore.threads import Wake, start_thread
from revstore.values import Capability, WatchBatch
from revstore_serve._log import Entry, Index, revision_of

__all__ = ["Feed", "Follower", "Listener"]

_log = Log("revstore.serve")

# For how many seconds, and up to how many bytes, the log keeps events; older ones are read from the
# store.
_WINDOW = 75.0
_MOST_BYTES = 64 << 20
# Seconds between two looks for events while nobody waits for them.
_REST = 0.1


class Follower(Protocol):
    """A watch of a client."""

    def note(self, number: int) -> None:
        """Note that the log's event with that number concerns this watch."""


class Listener(Protocol):
    """A client's stream of watches."""

    def wake(self) -> None:
        """Look again, since the feed has moved on."""

    def fail(self, error: Exception) -> None:
        """End the stream, since events are missing or no more will come."""


class Feed:
    """The log of all changes, filled by a thread that polls. The loop takes over all new events in
    one step, and everything else here belongs to the loop."""

    def __init__(self, backend: Backend, loop: asyncio.AbstractEventLoop) -> None:
        revision = backend.status().revision
        self.log: SharedLog[Entry] = SharedLog(floor=revision)
        #: Every event up to this revision is, or was, in the log.
        self.position = revision
        #: Why there is no feed any more.
        self.ended: Exception | None = None
        #: The watches of all clients, by keys.
        self.index: Index[Follower] = Index()
        #: Listeners to wake, once, when the position moves.
        self.waiting: set[Listener] = set()
        #: Listeners to fail when the feed ends; ``join`` adds one.
        self.listeners: set[Listener] = set()
        self._loop = loop
        self._size = 0
        self._can_ask = Capability.PROGRESS in backend.capabilities
        # A number: events up to that revision are missing.
        self._came: deque[WatchBatch | int] = deque()
        self._scheduled = False
        self._closed = False
        self._joined = Wake()
        self._backend = backend
        self._watch = backend.watch("", recursive=True, after_revision=revision)
        self._thread = start_thread(self._follow, "revstore-serve-feed")

    def join(self, listener: Listener) -> None:
        """Add a listener. As long as there is any, events are taken at once."""
        self.listeners.add(listener)
        self._joined.set()

    def leave(self, listener: Listener) -> None:
        """Remove a listener, if it is there."""
        self.listeners.discard(listener)
        self.waiting.discard(listener)

    def ask(self) -> None:
        """Move the position to the store's revision soon."""
        if self._can_ask:
            # The thread handles errors of the watch.
            with contextlib.suppress(BackendError, Closed):
                self._watch.request_progress()

    async def reach(self, revision: int, seconds: float) -> None:
        """Return when the position has reached a revision, or after some seconds."""
        waiter = _Waiter(self._loop.create_future())
        self.join(waiter)
        try:
            async with asyncio.timeout(seconds):
                while self.position < revision and self.ended is None:
                    self.ask()
                    self.waiting.add(waiter)
                    await waiter.woken
                    waiter.woken = self._loop.create_future()
        except TimeoutError:
            pass
        finally:
            self.leave(waiter)

    def close(self) -> None:
        """End the thread, and all streams. Do not call it on the loop."""
        self._closed = True
        self._watch.close()
        self._joined.set()
        self._thread.join()

    def _follow(self) -> None:
        error: Exception = Closed("the endpoint is closed")
        try:
            while not self._closed:
                try:
                    self._poll()
                except Compacted:
                    # Another process compacted what was not polled yet.
                    revision = self._backend.status().revision
                    self._watch = self._backend.watch("", recursive=True, after_revision=revision)
                    self._put(revision)
        except Closed:
            pass
        except Exception as failure:  # noqa: BLE001 - every stream ends with it
            _log.warning("the watch of the store has ended: %s", failure)
            error = failure
        self._watch.close()
        self._loop.call_soon_threadsafe(self._end, error)

    def _poll(self) -> None:
        while True:
            batch = self._watch.poll(None if self.listeners else 0)
            if batch is None and not self.listeners:
                # Nobody waits: the events of many writes are taken together, which would otherwise
                # delay each of these writes.
                self._joined.wait(_REST)
                batch = self._watch.poll()
            if batch is not None:
                self._put(batch)

    def _put(self, batch: WatchBatch | int) -> None:
        self._came.append(batch)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon_threadsafe(self._take)

    def _take(self) -> None:
        self._scheduled = False
        number = self.log.end
        while self._came:
            batch = self._came.popleft()
            if isinstance(batch, int):
                self._lose(batch)
                continue
            if batch.events:
                entry = Entry(batch)
                self._size += entry.size
                self.log.items.append(entry)
                for key in entry.keys:
                    for follower in self.index.find(key):
                        follower.note(number)
                number += 1
            self.position = batch.revision
        self._trim()
        waiting, self.waiting = self.waiting, set()
        for listener in waiting:
            listener.wake()

    def _lose(self, revision: int) -> None:
        """End all streams. Clients open new ones, which report the missing events."""
        self._size, self.position = 0, revision
        self.log = self.log.without(len(self.log.items), revision)
        for listener in list(self.listeners):
            listener.fail(Unreachable("events of the store are missing"))

    def _trim(self) -> None:
        """Drop events that are too old or too many. Drop several at a time, since each time costs a
        copy."""
        items = self.log.items
        now = time.monotonic()
        if not items or (now - items[0].came < 1.25 * _WINDOW and self._size < 1.25 * _MOST_BYTES):
            return
        count, floor = 0, self.log.floor
        for entry in items:
            if now - entry.came < _WINDOW and self._size < _MOST_BYTES:
                break
            count, floor = count + 1, entry.revision
            self._size -= entry.size
        self.log = self.log.without(count, floor)

    def after(self, revision: int) -> int:
        """Return the number of the log's first event above a revision."""
        return self.log.after(revision, revision_of)

    def _end(self, error: Exception) -> None:
        self.ended = error
        for listener in list(self.listeners):
            listener.wake()  # it ends once it has written all events


@attrs.define(eq=False)
class _Waiter:
    """A caller that waits for a revision."""

    woken: asyncio.Future[None]

    def wake(self) -> None:
        if not self.woken.done():
            self.woken.set_result(None)

    def fail(self, _: Exception) -> None:
        self.wake()
