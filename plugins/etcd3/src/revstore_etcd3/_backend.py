"""The backend itself."""

from __future__ import annotations

import time
from typing import Any

from revstore.arguments import (
    check_compact,
    check_delete,
    check_get,
    check_list,
    check_put,
    check_timeout,
    check_watch,
)
from revstore.backend import Backend, BackendWatch
from revstore.config import StorageConfig
from revstore.errors import (
    BackendError,
    Compacted,
    FutureRevision,
    IncompatibleStore,
    OutcomeUnknown,
    StorageError,
)
from revstore.values import (
    BackendStatus,
    Capability,
    CountResult,
    DeleteResult,
    GetResult,
    KeyValue,
    ListResult,
    PutResult,
)
from revstore_etcd3._client import Client
from revstore_etcd3._hub import Hub
from revstore_etcd3._leases import LeaseManager
from revstore_etcd3._options import Etcd3Options
from revstore_etcd3._reader import Reader
from revstore_etcd3._requests import delete_request, key_value, put_request, range_request
from revstore_etcd3._watch import Etcd3Watch
from revstore_etcd3._wire import rpc_pb2

__all__ = ["Etcd3Backend"]


class Etcd3Backend(Backend):
    """A store in an etcd cluster; see the package's README for what it guarantees."""

    def __init__(self, config: StorageConfig, options: Etcd3Options) -> None:
        self._options = options
        self._client = Client(config, options)
        self._reader = Reader(self._client, options.page, config.prefix)
        self._hub = Hub(self._client, self._reader.header)
        self._client.identity.when_replaced = self._hub.end
        self._leases = LeaseManager(
            self._grant,
            reuse=config.lease_reuse_duration,
            max_objects=config.lease_max_object_count,
        )
        self._compacted = 0  # the highest that is known
        self._server = ""

    @property
    def capabilities(self) -> frozenset[Capability]:
        return frozenset(Capability)

    def status(self, *, timeout: float | None = None) -> BackendStatus:
        left = self._wait(timeout)
        header = self._reader.header(left)
        if not self._server:
            self._server = f"etcd {self._member(left).version}"
        return BackendStatus(
            store_id=f"{header.cluster_id:016x}",
            revision=header.revision,
            compacted_revision=self._compacted,
            server=self._server,
            foreign_keys=len(self._reader.foreign),
        )

    def get(
        self,
        key: str,
        *,
        revision: int = 0,
        linearizable: bool = True,
        timeout: float | None = None,
    ) -> GetResult:
        check_get(key, revision)
        request = rpc_pb2.RangeRequest(
            key=key.encode(), revision=revision, serializable=not linearizable
        )
        with self._at(revision):
            response = self._reader.range(request, self._wait(timeout))
        found = key_value(response.kvs[0]) if response.kvs else None
        return GetResult(response.header.revision, found)

    def list(
        self,
        prefix: str,
        *,
        start: str = "",
        limit: int = 0,
        revision: int = 0,
        keys_only: bool = False,
        remaining: bool = False,
        linearizable: bool = True,
        timeout: float | None = None,
    ) -> ListResult:
        check_list(prefix, revision, start=start, limit=limit)
        with self._at(revision):
            return self._reader.read_pages(
                prefix,
                start,
                limit=limit,
                revision=revision,
                keys_only=keys_only,
                remaining=remaining,
                serializable=not linearizable,
                timeout=self._wait(timeout),
            )

    def count(self, prefix: str, *, revision: int = 0, timeout: float | None = None) -> CountResult:
        check_list(prefix, revision)
        request = range_request(prefix, revision=revision, count_only=True)
        with self._at(revision):
            response = self._reader.range(request, self._wait(timeout))
        return CountResult(revision or response.header.revision, response.count)

    def put(
        self,
        key: str,
        value: bytes,
        *,
        expected_revision: int,
        ttl: int | None = 0,
        timeout: float | None = None,
    ) -> PutResult:
        check_put(key, value, expected_revision, ttl)
        deadline = time.monotonic() + self._wait(timeout)
        lease = self._leases.get(ttl, deadline - time.monotonic()) if ttl else 0
        request = put_request(
            key.encode(),
            value,
            expected_revision,
            lease=lease,
            # The server refuses to keep the lease of a key that is not there.
            ignore_lease=ttl is None and expected_revision > 0,
        )
        left = deadline - time.monotonic()
        response = self._write(request, left, key, expected_revision)
        if response.succeeded:
            return PutResult(True, response.header.revision)
        return PutResult(False, response.header.revision, _current(response))

    def delete(
        self, key: str, *, expected_revision: int, timeout: float | None = None
    ) -> DeleteResult:
        check_delete(key, expected_revision)
        request = delete_request(key.encode(), expected_revision)
        response = self._write(request, self._wait(timeout), key, expected_revision)
        if response.succeeded:
            (removed,) = response.responses[0].response_delete_range.prev_kvs
            return DeleteResult(True, response.header.revision, key_value(removed))
        return DeleteResult(False, response.header.revision, _current(response))

    def watch(
        self, key: str, *, recursive: bool, after_revision: int, progress: bool = True
    ) -> BackendWatch:
        check_watch(key, recursive=recursive, after_revision=after_revision)
        self._wait(None)
        compacted = self._compacted
        return Etcd3Watch(
            self._client,
            self._hub,
            key,
            recursive=recursive,
            after=after_revision,
            progress=progress,
            # Which the hub may remember still: after a compaction, nothing depends on that.
            error=Compacted(compacted) if after_revision < compacted else None,
        )

    def compact(self, revision: int, *, timeout: float | None = None) -> None:
        check_compact(revision)
        left = self._wait(timeout)
        with self._at(revision):
            self._client.read(
                lambda server: server.kv.Compact,
                rpc_pb2.CompactionRequest(revision=revision),
                left,
            )
        self._compacted = max(self._compacted, revision)

    def size(self, *, timeout: float | None = None) -> int | None:
        """As in the contract: that of the member's database file."""
        return int(self._member(self._wait(timeout)).dbSize)

    def _member(self, left: float) -> rpc_pb2.StatusResponse:
        """What a member tells of itself."""
        return self._client.read(
            lambda server: server.maintenance.Status, rpc_pb2.StatusRequest(), left
        )

    def close(self) -> None:
        with self._client.guard.closing() as first:
            if first:
                self._client.stopping.set()
                self._hub.close(0.8)
                self._client.close()

    def _wait(self, timeout: float | None) -> float:
        self._client.check_open()
        return check_timeout(timeout, self._options.timeout)

    def _write(self, request: Any, timeout: float, key: str, expected: int) -> Any:
        identity = self._client.identity
        before = identity.revision
        response = self._client.write(
            lambda server: server.kv.Txn, request, timeout, key=key, expected=expected
        )
        try:
            identity.seen(response.header, before)
        except IncompatibleStore as error:
            if response.succeeded:  # written, but into another store
                raise OutcomeUnknown(key, expected, str(error)) from error
            raise
        return response

    def _grant(self, ttl: int, timeout: float) -> int:
        # Asking twice grants two, of which one runs out unused.
        request = rpc_pb2.LeaseGrantRequest(TTL=ttl)
        lease: int = self._client.read(lambda server: server.lease.LeaseGrant, request, timeout).ID
        return lease

    def _at(self, revision: int) -> _AtRevision:
        return _AtRevision(self, revision)

    def oldest(self, revision: int) -> int:
        """The compacted revision, which etcd tells to watches only."""
        found = self._reader.compacted(revision, 2.0)
        self._compacted = max(self._compacted, found)
        return self._compacted

    def current(self) -> int:
        """The store's revision."""
        current: int = self._reader.header(2.0).revision
        return current


class _AtRevision:
    """Turns what etcd says of a revision that it does not have into the contract's errors."""

    def __init__(self, backend: Etcd3Backend, revision: int) -> None:
        self._backend = backend
        self._revision = revision

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, BackendError):
            return
        text = str(error)
        if "has been compacted" in text:
            current = 0
            try:
                oldest = self._backend.oldest(self._revision)
                current = self._backend.current()
            except StorageError:
                oldest = self._revision + 1
            raise Compacted(oldest, current) from error
        if "future revision" in text:
            raise FutureRevision(self._revision, self._backend.current()) from error


def _current(response: Any) -> KeyValue | None:
    kvs = response.responses[0].response_range.kvs
    return key_value(kvs[0]) if kvs else None
