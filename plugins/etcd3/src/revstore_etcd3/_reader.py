"""Reads: lists in pages that fit into a message, and status reports of etcd."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from revstore.errors import (
    AccessDenied,
    BackendError,
    CorruptStore,
    StorageError,
    Timeout,
    ValueTooLarge,
)
from revstore.values import KeyValue, ListResult
from revstore_etcd3._answers import check_fence_range, count_of, kv_of
from revstore_etcd3._client import Client, left_of
from revstore_etcd3._requests import fence_range, range_request, watch_request
from revstore_etcd3._wire import RpcError, rpc_pb2

__all__ = ["Reader", "unfenceable"]

# Seconds for requests that only make an error more precise.
_LOOK = 2.0


def unfenceable(user: str) -> str:
    """Return what a role lacks that may not read the fence."""
    return (
        f"the roles of user {user!r} do not cover the key of the fence, which each write compares: "
        "`etcdctl role grant-permission ROLE read $'\\xffrevstore/fence'`"
    )


class Reader:
    """The reads of a client. Needs no lock."""

    def __init__(self, client: Client, page: int, prefix: str) -> None:
        self._client = client
        #: A read of next to nothing, at a key that a role limited to the prefix may read.
        self.nothing = rpc_pb2.RangeRequest(key=f"{prefix.rstrip('/')}/".encode(), count_only=True)
        self._page = page
        #: Keys found that are not UTF-8.
        self.foreign: set[bytes] = set()

    def range(self, request: Any, timeout: float) -> Any:
        """Send one Range."""
        identity = self._client.identity
        before = identity.revision
        response = self._client.read(lambda server: server.kv.Range, request, timeout)
        if request.serializable:
            identity.same(response.header)
        else:
            identity.seen(response.header, before)
        return response

    def header(self, timeout: float) -> Any:
        """Return the store's identity and revision; the answer is linearizable."""
        return self.range(self.nothing, timeout).header

    def check_fence(self, deadline: float) -> None:
        """Check that the store is not fenced.

        Raises:
            ReadOnly: it is.
        """
        try:
            response = self.range(fence_range(), left_of(deadline))
        except AccessDenied as error:
            if "permission denied" in str(error).lower():
                raise AccessDenied(unfenceable(self._client.user)) from error
            raise
        check_fence_range(response)

    def read_pages(
        self,
        prefix: str,
        start: str,
        *,
        limit: int,
        revision: int,
        keys_only: bool,
        remaining: bool,
        serializable: bool,
        deadline: float,
    ) -> ListResult:
        """Read all pages at the revision of the first."""
        found: list[KeyValue] = []
        low = start.encode()
        page = self._page
        at = revision
        while True:
            wanted = min(page, limit - len(found)) if limit else page
            request = range_request(
                prefix,
                low,
                limit=wanted,
                revision=at,
                keys_only=keys_only,
                serializable=serializable,
            )
            left = deadline - time.monotonic()
            if left <= 0:
                raise Timeout(f"the list of {prefix!r} could not be read in time")
            try:
                response = self.range(request, left)
            except (ValueTooLarge, BackendError) as error:
                if page == 1 or not _too_large(error):
                    raise
                page = max(1, min(page, wanted) // 2)
                continue
            at = at or response.header.revision
            self._add(found, response, request)
            if not response.more or (limit and len(found) >= limit):
                rest = count_of(response) - len(response.kvs)
                return ListResult(
                    at, tuple(found), response.more, max(0, rest) if remaining else None
                )
            low = response.kvs[-1].key + b"\0"

    def compacted(self, revision: int, known: int, deadline: float) -> int:
        """Return the compacted revision, which etcd reports only to watches.

        It is ``known`` or more. If watches are not allowed, or there is no answer by ``deadline``,
        return ``known``.
        """
        try:
            left = min(_LOOK, left_of(deadline))
            stream, _ = self._client.stream(iter([watch_request(max(revision, 1))]), left)
            try:
                return max(known, _reported(stream.call))
            finally:
                stream.call.cancel()
        except (RpcError, StorageError):
            return known

    def _add(self, found: list[KeyValue], response: Any, request: Any) -> None:
        """Append the keys of a page.

        Raises:
            CorruptStore: they are not those asked for.
        """
        low, end, upto = request.key, request.range_end, response.header.revision
        kvs = response.kvs
        if len(kvs) > request.limit or (response.more and not kvs):
            raise CorruptStore(f"asked for {request.limit} keys, the server sent {len(kvs)}")
        for kv in kvs:
            key = kv.key
            if key < low or (key >= end and end != b"\0"):
                raise CorruptStore(
                    f"asked for keys from {low!r} to {end!r}, the server sent {key!r}"
                )
            low = key + b"\0"
            try:
                found.append(kv_of(kv, upto))
            except UnicodeDecodeError:
                self.foreign.add(key)


def _too_large(error: BackendError) -> bool:
    return isinstance(error, ValueTooLarge) or "larger than max" in str(error)


def _reported(responses: Iterable[Any]) -> int:
    for response in responses:
        if response.canceled or response.events:
            return int(response.compact_revision)
    return 0
