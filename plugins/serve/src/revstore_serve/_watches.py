"""The service Watch: the watches of a client's stream.

A stream is one task that waits for the log and writes, and one that reads requests. A watch is a
position. While a client does not read, its stream waits in ``write``, and costs others nothing; if
the log has passed it by then, each of its watches reads what it missed from the store.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from revstore.backend import Backend, BackendWatch
from revstore.errors import Compacted
from revstore.values import Capability, WatchBatch, WatchEvent, WatchEventType
from revstore_serve._cluster import Cluster
from revstore_serve._errors import COMPACTED, STOPPED, Refused
from revstore_serve._feed import Feed
from revstore_serve._keys import EVERYTHING, KeyRange, to_text
from revstore_serve._kv import InThread
from revstore_serve._log import Entry, Index
from revstore_serve._proto import message
from revstore_serve._ranges import find
from revstore_serve._transport import Stream
from revstore_serve._views import AtRevision

__all__ = ["Watches"]

_WatchResponse = message("WatchResponse")

_NOPUT, _NODELETE = range(2)
_NO_ID = -1
_DUPLICATE_ID = "mvcc: duplicate watch ID provided on the WatchStream"
_EMPTY_RANGE = "mvcc: watcher range is empty"

# How many revisions are looked through at once, and how many bytes of events a response has. A
# response holds whole revisions, unless the watch accepts fragments.
_MOST_REVISIONS = 1000
_MOST_BYTES = 3 << 19
# Seconds for which a watch that catches up waits for the store.
_POLL = 0.05

#: An event: its entry, and its number in that entry.
_Found = tuple[Entry, int]


class _Watch:
    """One watch. It has seen everything up to ``position``."""

    __slots__ = (
        "closed",
        "fragment",
        "id",
        "keys",
        "notify",
        "position",
        "prev_kv",
        "quiet",
        "stream",
        "unwanted",
    )

    def __init__(self, stream: _WatchStream, id_: int, keys: KeyRange, request: Any) -> None:
        self.stream = stream
        self.id = id_
        self.keys = keys
        self.position = 0
        self.prev_kv: bool = request.prev_kv
        self.fragment: bool = request.fragment
        self.notify: bool = request.progress_notify
        kinds = {_NOPUT: WatchEventType.PUT, _NODELETE: WatchEventType.DELETED}
        self.unwanted = frozenset(kinds[each] for each in request.filters if each in kinds)
        self.quiet = False
        self.closed = False

    def note(self, number: int) -> None:
        self.stream.note(number)

    def wants(self, entry: Entry, number: int) -> bool:
        return entry.revision > self.position and entry.events[number].type not in self.unwanted


class Watches:
    """The watches of all clients. ``interval``: seconds between two progress notifications of a
    watch without events. ``read`` and ``work`` are those of ``KeyValues``."""

    def __init__(
        self,
        backend: Backend,
        cluster: Cluster,
        feed: Feed,
        *,
        interval: float,
        read: InThread,
        work: InThread,
    ) -> None:
        self.backend = backend
        self.cluster = cluster
        self.feed = feed
        self.interval = interval
        self.read = read
        self.work = work
        self.streams: set[_WatchStream] = set()

    async def serve(self, _: Any, stream: Stream) -> None:
        """Serve a client's stream until it ends."""
        served = _WatchStream(self, stream)
        self.streams.add(served)
        try:
            await served.run()
        finally:
            self.streams.discard(served)

    def counts(self) -> tuple[int, int, int]:
        """Return the numbers of streams, of watches, and of watches that catch up."""
        found = [each.counts() for each in self.streams]
        return len(found), sum(each[0] for each in found), sum(each[1] for each in found)


class _WatchStream:
    def __init__(self, service: Watches, stream: Stream) -> None:
        self._service = service
        self._feed = service.feed
        self._stream = stream
        self._watches: dict[int, _Watch] = {}
        self._next_id = 0
        # The watches that follow the log, by keys; the others are catching up.
        self._following: Index[_Watch] = Index()
        self._catching_up: dict[_Watch, asyncio.Task[None]] = {}
        # Responses to be written before events.
        self._outbox: deque[Any] = deque()
        # The log's first event to look at; None if all that concern the stream were looked at.
        self._pending: int | None = None
        # The revisions for which progress was requested.
        self._asked: deque[int] = deque()
        self._ticker: asyncio.TimerHandle | None = None
        self._tick_due = False
        self._failure: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None

    async def run(self) -> None:
        self._feed.join(self)
        reader = asyncio.create_task(self._read())
        try:
            await self._pump()
        finally:
            self._feed.leave(self)
            reader.cancel()
            for watch in list(self._watches.values()):
                self._close(watch)

    def counts(self) -> tuple[int, int]:
        """Return the numbers of watches, and of those that catch up."""
        return len(self._watches), len(self._catching_up)

    # Calls that wake the stream.

    def note(self, number: int) -> None:
        """Note that the log's event with that number concerns a watch of the stream."""
        if self._pending is None or number < self._pending:
            self._pending = number
        self.wake()

    def wake(self) -> None:
        """Look for new work."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def fail(self, error: Exception) -> None:
        """End the stream with an error."""
        self._failure = error
        self.wake()

    # The task that writes.

    async def _pump(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                if self._failure is not None:
                    raise self._failure
                if self._outbox:
                    await self._stream.write(self._outbox.popleft())
                elif self._pending is not None:
                    await self._deliver(self._pending)
                elif self._feed.ended is not None:
                    raise Refused(*STOPPED)
                elif self._tick_due:
                    self._tick_due = False
                    self._notify()
                elif not self._answer_progress():
                    if self._ticker is None and any(map(_notifies, self._watches.values())):
                        self._ticker = loop.call_later(self._service.interval, self._tick)
                    self._waiter = loop.create_future()
                    await self._waiter
        finally:
            if self._ticker is not None:
                self._ticker.cancel()

    def _tick(self) -> None:
        self._ticker = None
        self._tick_due = True
        self.wake()

    def _notify(self) -> None:
        """Send a progress notification to each watch that wants one and had no event for an
        interval."""
        for watch in self._watches.values():
            if not watch.notify or watch in self._catching_up:
                continue
            if watch.quiet and watch.position <= self._feed.position:
                self._outbox.append(self._response(watch.id, self._feed.position))
            watch.quiet = True

    def _answer_progress(self) -> bool:
        """Answer requests for progress, if the answer is known; return whether it was."""
        if not self._asked or self._catching_up:
            return False
        if self._feed.position < self._asked[0]:
            self._feed.waiting.add(self)
            return False
        self._asked.popleft()
        # As in etcd, no answer comes while a watch begins in the future: it has not seen that.
        if all(each.position <= self._feed.position for each in self._watches.values()):
            self._outbox.append(self._response(_NO_ID, self._feed.position))
        return True

    async def _deliver(self, start: int) -> None:
        """Write the log's events from a number on, for all watches."""
        log = self._feed.log
        if start < log.base:
            self._pending = None
            for watch in list(self._following):
                self._following.discard(watch.keys, watch)
                self._feed.index.discard(watch.keys, watch)
                self._catch_up(watch)
            return
        entries = log.read(start, _MOST_REVISIONS)
        end = start + len(entries)
        self._pending = None if end == log.end else end
        found: dict[_Watch, list[_Found]] = {}
        for entry in entries:
            for number, key in enumerate(entry.keys):
                for watch in self._following.find(key):
                    if watch.wants(entry, number):
                        found.setdefault(watch, []).append((entry, number))
        for watch, events in found.items():
            await self._send(watch, events, entries[-1].revision)

    async def _send(self, watch: _Watch, events: list[_Found], revision: int) -> None:
        """Write events of a watch, which has then seen everything up to ``revision``. A damaged
        value ends the watch, after the events before it; others of the stream go on."""
        try:
            await self._write(watch, events, revision)
        except Refused as damaged:
            ends = next(entry.revision for entry, number in events if _fails(watch, entry, number))
            before = [each for each in events if watch.position < each[0].revision < ends]
            if before:
                await self._write(watch, before, before[-1][0].revision)
            if not watch.closed:
                self._catching_up.pop(watch, None)
                self._close(watch)
                self._outbox.append(
                    self._response(watch.id, ends - 1, canceled=True, cancel_reason=damaged.text)
                )
                self.wake()

    async def _write(self, watch: _Watch, events: list[_Found], revision: int) -> None:
        for part, more in _parts(events, watch):
            if watch.closed:
                return
            head = self._response(watch.id, max(revision, part[-1][0].revision), fragment=more)
            fields = [entry.encoded(number, prev_kv=watch.prev_kv) for entry, number in part]
            await self._stream.write(b"".join((head.SerializeToString(), *fields)))
            if not more:
                watch.position = max(watch.position, part[-1][0].revision)
        watch.quiet = False

    def _response(self, watch_id: int, revision: int, **fields: Any) -> Any:
        response = _WatchResponse(watch_id=watch_id, **fields)
        return self._service.cluster.fill(response, revision)

    # The task that reads.

    async def _read(self) -> None:
        try:
            while (request := await self._stream.read()) is not None:
                kind = request.WhichOneof("request_union")
                if kind == "create_request":
                    await self._create(request.create_request)
                elif kind == "cancel_request":
                    await self._cancel(request.cancel_request.watch_id)
                elif kind == "progress_request":
                    status = await self._service.read(self._service.backend.status)
                    self._asked.append(status.revision)
                    self._feed.ask()
                self.wake()
        except Exception as error:  # noqa: BLE001 - the call ends with it
            self.fail(error)

    async def _create(self, request: Any) -> None:
        keys = KeyRange.of(request.key or b"\0", request.range_end)
        status = await self._service.read(self._service.backend.status)
        reason = ""
        if keys.empty:
            reason = _EMPTY_RANGE
        elif request.watch_id in self._watches and request.watch_id:
            reason = _DUPLICATE_ID
        elif request.start_revision < 0:
            reason = COMPACTED[1]
        if reason:
            self._outbox.append(
                self._response(
                    _NO_ID, status.revision, created=True, canceled=True, cancel_reason=reason
                )
            )
            return
        watch = _Watch(self, request.watch_id or self._new_id(), keys, request)
        self._watches[watch.id] = watch
        self._outbox.append(self._response(watch.id, status.revision, created=True))
        watch.position = (request.start_revision or status.revision + 1) - 1
        if status.compacted_revision and watch.position < status.compacted_revision:
            if watch.position == status.compacted_revision - 1:
                await self._begin_at_compacted(watch, status.compacted_revision)
            else:
                self._compacted(watch, status.compacted_revision)
        if not watch.closed:
            self._follow(watch)

    def _new_id(self) -> int:
        while self._next_id in self._watches:
            self._next_id += 1
        self._next_id += 1
        return self._next_id - 1

    def _follow(self, watch: _Watch) -> None:
        """Let a watch follow the log from its position on, if the log still has that position."""
        if watch.position < self._feed.log.floor:
            self._catch_up(watch)
            return
        self._following.add(watch.keys, watch)
        self._feed.index.add(watch.keys, watch)
        number = self._feed.after(watch.position)
        if number < self._feed.log.end:
            self.note(number)

    async def _begin_at_compacted(self, watch: _Watch, compacted: int) -> None:
        """Begin a watch at the compacted revision, whose puts can still be read. If there are none,
        its events are not known."""
        events = await self._service.work(lambda: self._events_of(compacted))
        if events is None:
            self._compacted(watch, compacted)
            return
        found = [
            (events, number)
            for number, key in enumerate(events.keys)
            if key in watch.keys and watch.wants(events, number)
        ]
        if found:
            # The stream has not announced the watch yet.
            while self._outbox:
                await self._stream.write(self._outbox.popleft())
            await self._send(watch, found, compacted)
        watch.position = compacted

    def _events_of(self, revision: int) -> Entry | None:
        view = AtRevision(self._service.backend, revision)
        put = [kv for _, kv in find(view, EVERYTHING)[0] if kv.revision == revision]
        if not put:
            return None
        events = tuple(WatchEvent(WatchEventType.PUT, kv) for kv in put)
        return Entry(WatchBatch(revision, events))

    async def _cancel(self, watch_id: int) -> None:
        watch = self._watches.get(watch_id)
        if watch is not None:
            self._close(watch)
            status = await self._service.read(self._service.backend.status)
            self._outbox.append(self._response(watch_id, status.revision, canceled=True))

    def _compacted(self, watch: _Watch, compacted: int) -> None:
        """Cancel a watch whose events are gone."""
        self._close(watch)
        self._outbox.append(
            self._response(
                watch.id,
                0,  # as in etcd, its header has no revision
                canceled=True,
                compact_revision=compacted,
                cancel_reason=COMPACTED[1],
            )
        )

    def _close(self, watch: _Watch) -> None:
        watch.closed = True
        del self._watches[watch.id]
        self._following.discard(watch.keys, watch)
        self._feed.index.discard(watch.keys, watch)
        task = self._catching_up.pop(watch, None)
        if task is not None:
            task.cancel()

    # The tasks of watches that catch up.

    def _catch_up(self, watch: _Watch) -> None:
        self._catching_up[watch] = asyncio.create_task(self._read_past(watch))

    async def _read_past(self, watch: _Watch) -> None:
        """Write a watch's events from the store, until the watch reaches the beginning of
        the log."""
        work, backend = self._service.work, self._service.backend
        # Without progress marks, only a watch of all keys moves on.
        can_ask = Capability.PROGRESS in backend.capabilities
        key = to_text(watch.keys.first) if watch.keys.single and can_ask else ""
        past = await work(
            lambda: backend.watch(key, recursive=not key, after_revision=watch.position)
        )
        try:
            while past.position < self._feed.log.floor:
                entries = await work(lambda: _read_some(past, can_ask=can_ask))
                found = [
                    (entry, number)
                    for entry in entries
                    for number, each in enumerate(entry.keys)
                    if each in watch.keys and watch.wants(entry, number)
                ]
                if found:
                    await self._send(watch, found, past.position)
                if watch.closed:
                    return
            watch.position = max(watch.position, past.position)
            self._catching_up.pop(watch, None)
            self._follow(watch)
            self.wake()
        except Compacted as error:
            self._catching_up.pop(watch, None)
            self._compacted(watch, error.compacted)
            self.wake()
        except Exception as error:  # noqa: BLE001 - the stream ends with it
            self.fail(error)
        finally:
            past.close()


def _fails(watch: _Watch, entry: Entry, number: int) -> bool:
    try:
        entry.encoded(number, prev_kv=watch.prev_kv)
    except Refused:
        return True
    return False


def _notifies(watch: _Watch) -> bool:
    return watch.notify


def _read_some(past: BackendWatch, *, can_ask: bool) -> list[Entry]:
    """Return a watch's next events, which may be none yet. Runs in a thread."""
    entries: list[Entry] = []
    size = 0
    batch = past.poll(_POLL)
    if batch is None and can_ask:
        # Unless progress is requested, only its own events move the watch on.
        past.request_progress()
    while batch is not None:
        if batch.events:
            entries.append(Entry(batch))
            size += entries[-1].size
        if len(entries) >= _MOST_REVISIONS or size >= _MOST_BYTES:
            break
        batch = past.poll(0)
    return entries


def _parts(events: Sequence[_Found], watch: _Watch) -> Iterator[tuple[list[_Found], bool]]:
    """Yield the events of each response, and whether the next response has more of the same
    revision. A revision is in one response, unless it is large and the watch accepts fragments."""
    part: list[_Found] = []
    size = 0
    for entry, index in events:
        length = len(entry.encoded(index, prev_kv=watch.prev_kv))
        if part and size + length > _MOST_BYTES:
            ended = part[-1][0] is not entry
            if ended or watch.fragment:
                yield part, not ended
                part, size = [], 0
        part.append((entry, index))
        size += length
    if part:
        yield part, False
