"""Queues of keys below a name, of which locks and elections are made.

Each caller has a key under a lease, and the key that was created first holds the lock, or leads. As
in etcd, the calls are clients of the other services: a caller watches the key before its own, so
that the end of one wakes one. etcdctl and the client libraries use the same keys.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
from contextlib import aclosing
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import attrs

from revstore.backend import Backend
from revstore.backend_tools import Log
from revstore.errors import Unreachable, Unsupported
from revstore.values import Capability
from revstore_serve._errors import Code, Refused, refusal
from revstore_serve._proto import message
from revstore_serve._transport import StreamHandler, UnaryHandler

__all__ = ["Place", "Queues", "as_client", "if_created", "prefix_of"]

_log = Log("revstore.serve")

_RangeResponse = message("RangeResponse")
_WatchResponse = message("WatchResponse")

# The TTL of the lease of a caller who has none, in seconds.
_TTL = 60
# Seconds that the end waits for keys to be removed.
_PATIENCE = 1.0
_ASCEND, _DESCEND = 1, 2
_BY_CREATE = 2
_COMPARE_CREATE = 1
_DELETE = 1

# All other errors come from etcd's services of locks and elections as "unknown", with their text.
_OWN_CODES = frozenset({Code.UNIMPLEMENTED, Code.UNAVAILABLE, Code.DATA_LOSS})

P = ParamSpec("P")
T = TypeVar("T")


def as_client(handler: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    """Return a handler whose errors have the codes that a client's errors have in etcd."""

    @wraps(handler)
    async def handle(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await handler(*args, **kwargs)
        except Exception as error:
            found = refusal(error)
            if found is None or found.code in _OWN_CODES:
                raise
            raise Refused(Code.UNKNOWN, found.text) from error

    return handle


def prefix_of(name: bytes) -> dict[str, bytes]:
    """Return the range of a name's keys, as fields of a request."""
    return {"key": name + b"/", "range_end": name + b"0"}


def if_created(key: bytes, revision: int, then: Mapping[str, Any]) -> Any:
    """Return a transaction that does one thing if a key was created at a revision."""
    compare = {"key": key, "target": _COMPARE_CREATE, "create_revision": revision}
    return message("TxnRequest")(compare=[compare], success=[then])


@attrs.frozen
class Place:
    """A caller's place in a queue. ``header`` is that of the transaction that has told it."""

    name: bytes
    key: bytes
    #: The revision at which the key was created.
    revision: int
    #: The value that the key had before; None if it is new.
    found: bytes | None
    #: Whether no key is before it.
    first: bool
    header: Any


class Queues:
    """The queues of a store. ``unary`` and ``watch`` are the handlers of the other services, which
    check the caller's rights; ``undo`` runs transactions that remove what a caller leaves behind.
    """

    def __init__(
        self,
        backend: Backend,
        unary: Mapping[str, UnaryHandler],
        watch: StreamHandler,
        undo: UnaryHandler,
    ) -> None:
        self._backend = backend
        self._grant = unary["Lease/LeaseGrant"]
        self._range = unary["KV/Range"]
        self.txn = unary["KV/Txn"]
        self._watch = watch
        self._undo = undo
        self._waiting: set[asyncio.Task[Any]] = set()
        self._undoing: set[asyncio.Task[Any]] = set()

    async def close(self) -> None:
        """Wait until calls that wait have ended, as they do when the watches end, and their keys
        are removed."""
        for tasks in (self._waiting, self._undoing):
            if tasks:
                await asyncio.wait(list(tasks), timeout=_PATIENCE)

    def check(self) -> None:
        """Check that the store can have queues.

        Raises:
            Unsupported: it lacks transactions or leases.
        """
        for each in (Capability.TRANSACTIONS, Capability.LEASES):
            if each not in self._backend.capabilities:
                raise Unsupported(each)

    async def lease(self, lease: int) -> int:
        """Return the lease of a caller: as in etcd, a new one of 60 s if he has none. Nobody keeps
        it alive but him."""
        if lease:
            return lease
        granted = await self._grant(message("LeaseGrantRequest")(TTL=_TTL))
        return int(granted.ID)

    async def range(self, **fields: Any) -> Any:
        """Return the answer to a range."""
        return _RangeResponse.FromString(await self._range(message("RangeRequest")(**fields)))

    async def first(self, name: bytes) -> Any:
        """Return the answer to a range of the first key of a name."""
        return await self.range(
            **prefix_of(name), sort_target=_BY_CREATE, sort_order=_ASCEND, limit=1
        )

    async def join(self, name: bytes, lease: int, value: bytes) -> Place:
        """Put a key of a lease at the end of a queue, unless it is in the queue already.

        The key of a call that is cancelled meanwhile is removed afterwards.
        """
        key = name + b"/%x" % lease
        first = {
            "request_range": {
                **prefix_of(name),
                "sort_target": _BY_CREATE,
                "sort_order": _ASCEND,
                "limit": 1,
                "keys_only": True,
            }
        }
        put = {"request_put": {"key": key, "value": value, "lease": lease}}
        request = if_created(key, 0, put)
        request.success.add(**first)
        request.failure.add(request_range={"key": key})
        request.failure.add(**first)
        joining = asyncio.ensure_future(self.txn(request))
        try:
            response = await asyncio.shield(joining)
        except asyncio.CancelledError:
            self._later(self._unjoin(joining, name, key))
            raise
        return _place(response, name, key)

    async def _unjoin(self, joining: asyncio.Future[Any], name: bytes, key: bytes) -> None:
        place = _place(await joining, name, key)
        if place.found is None:
            await self._remove(place)

    async def wait(self, place: Place) -> Any:
        """Wait until no key is before a place, and return a header of then; None if the place's own
        key is gone. If the wait ends in any other way, the key is removed.

        Raises:
            Refused: the endpoint stops, or the caller may not watch.
        """
        call = asyncio.current_task()
        assert call is not None
        self._waiting.add(call)
        call.add_done_callback(self._waiting.discard)
        try:
            while (before := await self._before(place)).kvs:
                after = before.header.revision + 1
                await self._until_deleted(before.kvs[0].key, after)
            own = await self.range(key=place.key)
        except BaseException:
            self._later(self._remove(place))
            raise
        there = bool(own.kvs) and own.kvs[0].create_revision == place.revision
        return own.header if there else None

    async def _before(self, place: Place) -> Any:
        return await self.range(
            **prefix_of(place.name),
            sort_target=_BY_CREATE,
            sort_order=_DESCEND,
            limit=1,
            keys_only=True,
            max_create_revision=place.revision - 1,
        )

    async def _until_deleted(self, key: bytes, start: int) -> None:
        async with aclosing(self.events(start, key=key)) as events:
            async for _, event in events:
                if event.type == _DELETE:
                    return

    async def events(self, start: int, **keys: bytes) -> AsyncGenerator[tuple[Any, Any]]:
        """Yield headers and events from a revision on. The end means that events are missing, since
        they were compacted, so that the caller has to read again.

        Raises:
            Refused: the endpoint stops, or the caller may not watch.
        """
        create = {**keys, "start_revision": start}
        source = _Source(message("WatchRequest")(create_request=create))
        task = asyncio.create_task(source.run(self._watch))
        try:
            while True:
                response = await source.next()
                for event in response.events:
                    yield response.header, event
                if response.compact_revision:
                    return
                if response.canceled:
                    raise Refused(Code.UNKNOWN, response.cancel_reason)
        except Unreachable:
            return  # another process compacted them; if it is the store, the next read fails too
        finally:
            task.cancel()

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        """Begin work that goes on even if the call has ended. What fails there is logged."""

        async def run() -> None:
            try:
                await work
            except Exception as error:  # noqa: BLE001 - nobody is there to be told
                _log.warning("a key of a lock or an election stays until its lease ends: %s", error)

        task = asyncio.create_task(run())
        self._undoing.add(task)
        task.add_done_callback(self._undoing.discard)

    async def _remove(self, place: Place) -> None:
        delete = {"request_delete_range": {"key": place.key}}
        await self._undo(if_created(place.key, place.revision, delete))


def _place(response: Any, name: bytes, key: bytes) -> Place:
    own, first = (each.response_range.kvs[:1] for each in response.responses)
    found = None if response.succeeded else own[0].value
    revision = response.header.revision if response.succeeded else own[0].create_revision
    return Place(name, key, revision, found, first[0].key == key, response.header)


class _Source:
    """A stream of one watch that is no client's. The watch goes on as its answers are taken."""

    def __init__(self, request: Any) -> None:
        self._requests = [request]
        self._answers: asyncio.Queue[Any] = asyncio.Queue(1)

    async def run(self, watch: StreamHandler) -> None:
        """Serve the watch; its error comes after its answers."""
        try:
            await watch(None, self)
        except Exception as error:  # noqa: BLE001 - it is raised where the answers are taken
            await self._answers.put(error)

    async def next(self) -> Any:
        """Return the watch's next answer, or raise its error."""
        answer = await self._answers.get()
        if isinstance(answer, Exception):
            raise answer
        return _WatchResponse.FromString(answer) if isinstance(answer, bytes) else answer

    async def read(self) -> Any:
        if not self._requests:
            # No more requests come, but the stream has no end.
            await asyncio.get_running_loop().create_future()
        return self._requests.pop()

    async def write(self, response: Any) -> None:
        await self._answers.put(response)
