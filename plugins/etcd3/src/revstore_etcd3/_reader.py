"""Reads: lists in pages that fit into a message, and what etcd tells of itself."""

from __future__ import annotations

import time
from typing import Any

from revstore.errors import BackendError, Compacted, Timeout, ValueTooLarge
from revstore.values import KeyValue, ListResult
from revstore_etcd3._client import Client
from revstore_etcd3._requests import key_value, range_request, watch_request
from revstore_etcd3._wire import RpcError, rpc_pb2

__all__ = ["Reader"]


class Reader:
    """Needs no lock."""

    def __init__(self, client: Client, page: int, prefix: str) -> None:
        self._client = client
        # A key that a role limited to the prefix may read.
        self._own_key = f"{prefix.rstrip('/')}/".encode()
        self._page = page
        #: Keys met that are not UTF-8.
        self.foreign: set[bytes] = set()

    def range(self, request: Any, timeout: float) -> Any:
        """One Range."""
        identity = self._client.identity
        before = identity.revision
        response = self._client.read(lambda server: server.kv.Range, request, timeout)
        if not request.serializable:
            identity.seen(response.header, before)
        return response

    def header(self, timeout: float) -> Any:
        """The store's identity and revision now, linearizably."""
        request = rpc_pb2.RangeRequest(key=self._own_key, count_only=True)
        return self.range(request, timeout).header

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
        timeout: float,
    ) -> ListResult:
        """All pages at the revision of the first."""
        deadline = time.monotonic() + timeout
        found: list[KeyValue] = []
        page = self._page
        at = revision
        while True:
            wanted = min(page, limit - len(found)) if limit else page
            request = range_request(
                prefix,
                start,
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
            for kv in response.kvs:
                self._add(found, kv)
            if not response.more or (limit and len(found) >= limit):
                rest = response.count - len(response.kvs)
                return ListResult(
                    at, tuple(found), response.more, max(0, rest) if remaining else None
                )
            start = response.kvs[-1].key.decode("utf-8", "surrogateescape") + "\0"

    def compacted(self, revision: int, timeout: float) -> int:
        """The compacted revision, if ``revision`` lies below it; else ``revision``."""
        try:
            call, _ = self._client.stream(iter([watch_request(max(revision, 1))]), timeout)
            try:
                for response in call:
                    if response.canceled and response.compact_revision:
                        found: int = response.compact_revision
                        return found
                    if response.events:
                        break
            finally:
                call.cancel()
        except RpcError as error:
            raise Compacted(revision + 1) from error
        return revision

    def _add(self, found: list[KeyValue], kv: Any) -> None:
        try:
            found.append(key_value(kv))
        except UnicodeDecodeError:
            self.foreign.add(kv.key)


def _too_large(error: BackendError) -> bool:
    return isinstance(error, ValueTooLarge) or "larger than max" in str(error)
