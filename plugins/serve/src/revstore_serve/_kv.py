"""The service KV: ranges, puts, deletions, transactions and compactions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Protocol

from revstore.backend import Backend
from revstore.errors import BackendError, Compacted, NoSpace
from revstore_serve._cluster import Cluster
from revstore_serve._errors import COMPACTED, TOO_LARGE, Code, Refused
from revstore_serve._feed import Feed
from revstore_serve._proto import message
from revstore_serve._ranges import check_range, fill_range, has_bounds, range_bytes
from revstore_serve._transport import Stream
from revstore_serve._txn import (
    Answer,
    NeedsHistory,
    check_delete,
    check_put,
    check_txn,
    delete_body,
    put_body,
    txn_body,
)
from revstore_serve._views import AtRevision
from revstore_serve._wire import Keyed, varint
from revstore_serve._writes import Writes

__all__ = ["InThread", "KeyValues"]

_LARGEST_REQUEST = 3 << 19
# The tag of the field "range_response".
_RANGE_RESPONSE = b"\x0a"
# The keys in the first part of a range that is answered in parts.
_FIRST_PART = 10
# Seconds that a compaction waits for the endpoint's own watch.
_PATIENCE = 5.0


class InThread(Protocol):
    """Runs functions that may wait in a thread, so that the loop does not wait."""

    def __call__(self, function: Callable[[], Any], /) -> Awaitable[Any]: ...


class KeyValues:
    """The service KV. ``read`` runs functions that read the store, ``work`` those that may take
    long on any store."""

    def __init__(
        self,
        backend: Backend,
        cluster: Cluster,
        writes: Writes,
        feed: Feed,
        *,
        read: InThread,
        work: InThread,
    ) -> None:
        self._backend = backend
        self._cluster = cluster
        self._writes = writes
        self._feed = feed
        self._read = read
        self._work = work

    async def range(self, request: Any) -> bytes:
        check_range(request)
        found: bytes = await self._read(lambda: self._range(request))
        return found

    def _range(self, request: Any) -> bytes:
        view, response, kvs, _ = self._found(request)
        current = view.current or self._backend.status().revision
        head = self._cluster.fill(response, current).SerializeToString()
        return b"".join((head, *kvs))

    def _found(
        self, request: Any, *, counting: bool = True
    ) -> tuple[AtRevision, Any, list[bytes], list[Keyed]]:
        """Return the state that is read, and what ``range_bytes`` finds there."""
        wanted = max(request.revision, 0)
        while True:
            view = AtRevision(self._backend, wanted, not request.serializable, counting=counting)
            try:
                return view, *range_bytes(view, request)
            except Compacted:
                # The latest state is read in several steps, all at the revision of the first.
                if wanted or not view.revision:
                    raise

    async def range_stream(self, request: Any, stream: Stream) -> None:
        """Answer a range in parts, all read at one revision. Together they are the answer of
        ``range``."""
        check_range(request)
        if request.sort_order or request.sort_target or has_bounds(request):
            raise Refused(
                Code.UNIMPLEMENTED,
                "revstore: RangeStream has no order and no bounds of revisions; use Range",
            )
        if request.count_only:
            await stream.write(_in_stream([await self.range(request)]))
            return
        part = type(request)()
        part.CopyFrom(request)
        left = max(request.limit, 0)
        most, count = _FIRST_PART, 0
        while True:
            part.limit = min(most, left) if left else most
            read = partial(self._found, part, counting=not count)
            view, response, kvs, found = await self._read(read)
            count = count or response.count
            part.revision = view.revision
            left -= len(found) if left else 0
            if not response.more or (request.limit > 0 and not left):
                break
            part.key = found[-1][0] + b"\0"
            size = sum(map(len, kvs))
            if size < _LARGEST_REQUEST // 2:
                most *= 2
            elif size > _LARGEST_REQUEST * 2:
                most = max(most // 3, 1)
            await stream.write(_in_stream(kvs))
        response.count = count
        # The only header is in the last part. Clients take from it the revision of what they have
        # read, unless they have asked for one; then it is the store's.
        if request.revision > 0:
            await self._read(lambda: self._cluster.now(response))
        else:
            self._cluster.fill(response, part.revision)
        await stream.write(_in_stream([response.SerializeToString(), *kvs]))

    async def put(self, request: Any) -> Any:
        check_put(request)
        _check_size(request)
        self._cluster.alarms.check_write(grows=True)
        return await self._write(put_body(request))

    async def delete_range(self, request: Any) -> Any:
        check_delete(request)
        _check_size(request)
        self._cluster.alarms.check_write(grows=False)
        return await self._write(delete_body(request))

    async def txn(self, request: Any) -> Any:
        check_txn(request)
        operations = [*request.success, *request.failure]
        if not all(each.HasField("request_range") for each in operations):
            # As in etcd, what only reads may be larger.
            _check_size(request)
            # As in etcd, puts of nested transactions do not count.
            grows = any(each.HasField("request_put") for each in operations)
            self._cluster.alarms.check_write(grows=grows)
        history: dict[bytes, Any] = {}
        while True:
            try:
                return await self._write(txn_body(request, history))
            except NeedsHistory as needed:
                history |= await self._read(partial(self._past, needed.requests))

    def _past(self, requests: list[Any]) -> dict[bytes, Any]:
        return {
            each.SerializeToString(): fill_range(
                AtRevision(self._backend, each.revision), each, message("RangeResponse")()
            )
            for each in requests
        }

    async def compact(self, request: Any) -> Any:
        self._cluster.alarms.check_write(grows=False)
        if request.revision <= 0:
            raise Refused(*COMPACTED)
        # The endpoint's own watch must have seen what is compacted.
        status = await self._read(self._backend.status)
        await self._feed.reach(min(request.revision, status.revision), _PATIENCE)
        await self._work(lambda: self._backend.compact(request.revision))
        response = message("CompactionResponse")()
        return await self._read(lambda: self._cluster.now(response))

    async def _write(self, body: Callable[[Any], Answer]) -> Any:
        try:
            result = await self._writes.run(body)
        except BackendError as error:
            if isinstance(error, NoSpace):
                self._cluster.alarms.no_space = True
            raise
        if result.wrote:
            self._cluster.alarms.no_space = False
        return self._cluster.fill(result.value.committed(result.revision))


def _in_stream(fields: list[bytes]) -> bytes:
    """Return a RangeStreamResponse of an encoded RangeResponse, given in pieces."""
    return b"".join((_RANGE_RESPONSE, varint(sum(map(len, fields))), *fields))


def _check_size(request: Any) -> None:
    if request.ByteSize() > _LARGEST_REQUEST:
        raise Refused(*TOO_LARGE)
