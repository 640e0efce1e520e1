"""The backend itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from revstore.arguments import (
    check_compact,
    check_delete,
    check_fence,
    check_get,
    check_key,
    check_list,
    check_put,
    check_timeout,
    check_transactions,
    check_watch,
)
from revstore.backend import Backend, BackendWatch, Leases, Transaction
from revstore.config import StorageConfig
from revstore.deadlines import check_seconds
from revstore.errors import (
    AccessDenied,
    BackendError,
    Compacted,
    CorruptStore,
    FutureRevision,
    IncompatibleStore,
    NoSpace,
    OutcomeUnknown,
    StorageError,
    Timeout,
)
from revstore.values import (
    BackendStatus,
    Capability,
    CountResult,
    DeleteResult,
    GetResult,
    ListResult,
    PutResult,
    TransactionResult,
)
from revstore_etcd3._answers import check_lease, count_of, delete_result, one_of, put_result
from revstore_etcd3._calls import MainThreadCalls
from revstore_etcd3._capabilities import CAPABILITIES
from revstore_etcd3._client import Client, left_of
from revstore_etcd3._hub import Hub
from revstore_etcd3._lease_service import Etcd3Leases, LeaseService
from revstore_etcd3._leases import LeaseManager
from revstore_etcd3._options import Etcd3Options
from revstore_etcd3._reader import Reader
from revstore_etcd3._requests import delete_request, fence_request, put_request, range_request
from revstore_etcd3._transactions import Transactions
from revstore_etcd3._watch import Etcd3Watch
from revstore_etcd3._wire import rpc_pb2

__all__ = ["Etcd3Backend"]

T = TypeVar("T")
# Seconds for requests that only make an error more precise.
_LOOK = 2.0


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
        self._lease_service = LeaseService(self._client, self._reader)
        self._lease_calls = Etcd3Leases(self._lease_service, self._run)
        self._calls = MainThreadCalls()
        self._transactions = Transactions(
            self._reader,
            self._lease_service,
            self._leases,
            self._calls,
            self._write,
            max_txn_ops=options.max_txn_ops,
        )
        self._compacted = 0  # the highest that is known
        self._server = ""

    @property
    def capabilities(self) -> frozenset[Capability]:
        return CAPABILITIES

    def status(self, *, timeout: float | None = None) -> BackendStatus:
        return self._run(timeout, self._status)

    def _status(self, deadline: float) -> BackendStatus:
        header = self._reader.header(left_of(deadline))
        if not self._server:
            self._server = f"etcd {self._member(deadline).version[:40]}"
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
        name = key.encode()

        def get(deadline: float) -> GetResult:
            request = rpc_pb2.RangeRequest(
                key=name, revision=revision, serializable=not linearizable
            )
            response = self._reader.range(request, left_of(deadline))
            upto = response.header.revision
            return GetResult(upto, one_of(response.kvs, name, upto))

        return self._run(timeout, get, revision=revision)

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

        def read(deadline: float) -> ListResult:
            return self._reader.read_pages(
                prefix,
                start,
                limit=limit,
                revision=revision,
                keys_only=keys_only,
                remaining=remaining,
                serializable=not linearizable,
                deadline=deadline,
            )

        return self._run(timeout, read, revision=revision)

    def count(self, prefix: str, *, revision: int = 0, timeout: float | None = None) -> CountResult:
        check_list(prefix, revision)

        def count(deadline: float) -> CountResult:
            request = range_request(prefix, revision=revision, count_only=True)
            response = self._reader.range(request, left_of(deadline))
            return CountResult(revision or response.header.revision, count_of(response))

        return self._run(timeout, count, revision=revision)

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

        def request(lease: int) -> Any:
            return put_request(
                key.encode(),
                value,
                expected_revision,
                lease=lease,
                # The server refuses to keep the lease of a key that does not exist.
                ignore_lease=ttl is None and expected_revision > 0,
            )

        def put(deadline: float) -> PutResult:
            if ttl:
                response = self._put_leased(request, ttl, key, expected_revision, deadline)
            else:
                response = self._write(request(0), left_of(deadline), key, expected_revision)
            return _outcome(put_result, response, key, expected_revision)

        return self._run(timeout, put)

    def delete(
        self, key: str, *, expected_revision: int, timeout: float | None = None
    ) -> DeleteResult:
        check_delete(key, expected_revision)

        def delete(deadline: float) -> DeleteResult:
            request = delete_request(key.encode(), expected_revision)
            response = self._write(request, left_of(deadline), key, expected_revision)
            return _outcome(delete_result, response, key, expected_revision)

        return self._run(timeout, delete)

    def transactions(
        self, bodies: Sequence[Callable[[Transaction], T]], *, timeout: float | None = None
    ) -> Sequence[TransactionResult[T] | Exception]:
        """As in the contract; each body has a commit of its own."""
        check_transactions(bodies)
        self._client.check_open()
        deadline = time.monotonic() + check_timeout(timeout, self._options.timeout)
        return [self._transactions.run(body, deadline) for body in bodies]

    def leases(self, *, grace: float = 10.0, timeout: float | None = None) -> Leases:
        """As in the contract. They have run on while no backend was open, so that none is lifted:
        etcd itself does that when it was away."""
        check_seconds("grace", grace)
        check_timeout(timeout, 0.0)
        self._client.check_open()
        return self._lease_calls

    def remaining_ttl(self, key: str, *, timeout: float | None = None) -> float | None:
        check_key(key)
        name = key.encode()

        def remaining(deadline: float) -> float | None:
            while True:
                response = self._reader.range(
                    rpc_pb2.RangeRequest(key=name, keys_only=True), left_of(deadline)
                )
                kv = one_of(response.kvs, name, response.header.revision)
                if kv is None or not kv.lease:
                    return None
                lease = self._lease_service.find(kv.lease, deadline)
                if lease is not None:
                    return lease.remaining
                # The lease has just ended, and with it the key, or this lease of it.
                if time.monotonic() > deadline:
                    raise Timeout(
                        f"the lease {kv.lease} of {key!r} is gone, but the key still exists"
                    )

        return self._run(timeout, remaining)

    def watch(
        self, key: str, *, recursive: bool, after_revision: int, progress: bool = True
    ) -> BackendWatch:
        check_watch(key, recursive=recursive, after_revision=after_revision)
        self._client.check_open()
        compacted = self._compacted
        self._calls.run(self._hub.start)  # to its end, whatever interrupts the main thread
        return Etcd3Watch(
            self._client,
            self._hub,
            key,
            recursive=recursive,
            after=after_revision,
            progress=progress,
            # The hub may still remember it: after a compaction, nothing depends on that.
            error=Compacted(compacted) if after_revision < compacted else None,
        )

    def compact(self, revision: int, *, timeout: float | None = None) -> None:
        check_compact(revision)

        def compact(deadline: float) -> None:
            self._client.read(
                lambda server: server.kv.Compact,
                rpc_pb2.CompactionRequest(revision=revision),
                left_of(deadline),
            )

        # What etcd refuses to compact again may be the compacted revision itself.
        self._run(timeout, compact, revision=revision, compacted=revision)
        self._compacted = max(self._compacted, revision)

    def fence(self, reason: str, *, timeout: float | None = None) -> None:
        """As in the contract, by a key that each write of revstore compares.

        Other programs do not compare it, so nothing stops their writes. etcd goes on to end leases.
        """
        check_fence(reason)
        self._set_fence(reason, timeout)

    def unfence(self, *, timeout: float | None = None) -> None:
        self._set_fence("", timeout)

    def _set_fence(self, reason: str, timeout: float | None) -> None:
        request = fence_request(reason)
        self._run(timeout, lambda deadline: self._write(request, left_of(deadline), "the fence", 0))

    def size(self, *, timeout: float | None = None) -> int | None:
        """Return the size of the member's database file, as in the contract."""
        return self._run(timeout, lambda deadline: int(self._member(deadline).dbSize))

    def _member(self, deadline: float) -> rpc_pb2.StatusResponse:
        """Return what a member reports about itself."""
        return self._client.read(
            lambda server: server.maintenance.Status, rpc_pb2.StatusRequest(), left_of(deadline)
        )

    def close(self) -> None:
        with self._client.guard.closing() as first:
            if first:
                self._calls.run(self._close)
                self._calls.close()

    def _close(self) -> None:
        self._client.stopping.set()
        self._hub.close(0.8)
        self._client.close()

    def _run(
        self,
        timeout: float | None,
        work: Callable[[float], T],
        *,
        revision: int = 0,
        compacted: int = 0,
    ) -> T:
        """Call ``work`` with the deadline.

        If etcd does not have ``revision``, the error becomes the contract's. Then the compacted
        revision is ``compacted`` or more; 0: more than ``revision``.
        """
        self._client.check_open()
        deadline = time.monotonic() + check_timeout(timeout, self._options.timeout)
        if not revision:
            return self._calls.run(lambda: work(deadline))

        def at_revision() -> T:
            try:
                return work(deadline)
            except BackendError as error:
                text = str(error)
                if "has been compacted" in text:
                    known = self._reader.compacted(revision, compacted or revision + 1, deadline)
                    self._compacted = max(self._compacted, known)
                    raise Compacted(self._compacted, self._current(deadline)) from error
                if "future revision" in text:
                    raise FutureRevision(revision, self._current(deadline)) from error
                raise

        return self._calls.run(at_revision)

    def _current(self, deadline: float) -> int:
        """Return the store's revision, at least as far as it is known."""
        try:
            return int(self._reader.header(min(_LOOK, left_of(deadline))).revision)
        except StorageError:
            return self._client.identity.revision

    def _put_leased(
        self, request: Callable[[int], Any], ttl: int, key: str, expected: int, deadline: float
    ) -> Any:
        """Put with a lease, which may be shared; if the lease is gone, put once more with a new
        one.

        etcd checks the lease before it writes.
        """
        lease = self._leases.get(ttl, left_of(deadline))
        try:
            return self._write(request(lease), left_of(deadline), key, expected)
        except OutcomeUnknown:
            raise
        except BackendError as error:
            if "lease not found" not in str(error):
                raise
        self._leases.forget(lease)
        lease = self._leases.get(ttl, left_of(deadline))
        return self._write(request(lease), left_of(deadline), key, expected)

    def _write(self, request: Any, timeout: float, key: str, expected: int) -> Any:
        identity = self._client.identity
        before = identity.revision
        deadline = time.monotonic() + timeout
        try:
            response = self._client.write(
                lambda server: server.kv.Txn, request, timeout, key=key, expected=expected
            )
        except AccessDenied:
            self._reader.check_fence(time.monotonic() + _LOOK)
            raise
        except NoSpace as error:
            if self._may_have_landed(request, before, left_of(deadline)):
                raise OutcomeUnknown(key, expected, str(error)) from error
            raise
        try:
            identity.seen(response.header, before)
        except IncompatibleStore as error:
            if response.succeeded:  # written, but into another store
                raise OutcomeUnknown(key, expected, str(error)) from error
            raise
        except CorruptStore as error:
            raise OutcomeUnknown(key, expected, str(error)) from error
        return response

    def _may_have_landed(self, request: Any, before: int, timeout: float) -> bool:
        """Find out whether a write that etcd refused for want of space was done; ``before`` is a
        revision of the store before it.

        etcd checks the space twice. If only the second check fails, when the write has been agreed
        upon, etcd does the write and returns the same error (``quotaApplierV3``).
        """
        change = request.success[0]
        key = change.request_put.key or change.request_delete_range.key
        expected = [each.mod_revision for each in request.compare if each.key == key]
        try:
            response = self._reader.range(rpc_pb2.RangeRequest(key=key, keys_only=True), timeout)
        except StorageError:
            return True
        found = [kv.mod_revision for kv in response.kvs] or [0]
        if found != expected:
            return True
        # A key that was created may have been deleted since.
        return found == [0] and int(response.header.revision) > before

    def _grant(self, ttl: int, timeout: float) -> int:
        # Asking twice grants two leases, one of which expires unused.
        request = rpc_pb2.LeaseGrantRequest(TTL=ttl)
        response = self._client.read(lambda server: server.lease.LeaseGrant, request, timeout)
        return check_lease(response.ID)


def _outcome(read: Callable[[Any, bytes, int], T], response: Any, key: str, expected: int) -> T:
    """Return what the answer to a write says.

    Raises:
        OutcomeUnknown: the answer makes no sense.
    """
    try:
        return read(response, key.encode(), expected)
    except (CorruptStore, UnicodeDecodeError) as error:
        raise OutcomeUnknown(key, expected, str(error)) from error
