"""The leases of the contract, which are etcd's own."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TypeVar

from revstore.arguments import check_grant, check_lease
from revstore.backend import Leases
from revstore.errors import (
    BackendError,
    CorruptStore,
    IncompatibleStore,
    LeaseExists,
    LeaseNotFound,
    NoSpace,
    OutcomeUnknown,
    StorageError,
)
from revstore.values import LeaseInfo
from revstore_etcd3._client import Client, Method, left_of
from revstore_etcd3._reader import Reader
from revstore_etcd3._wire import Server, rpc_pb2

__all__ = ["Etcd3Leases", "LeaseService"]

T = TypeVar("T")


class LeaseService:
    """Requests about leases, each with the deadline of the call that it is a part of.

    Needs no lock.
    """

    def __init__(self, client: Client, reader: Reader) -> None:
        self._client = client
        self._reader = reader

    def grant(self, ttl: int, lease: int, deadline: float) -> LeaseInfo:
        """Make a lease of at least ``ttl`` seconds; ``lease`` 0: the server chooses the id."""
        request = rpc_pb2.LeaseGrantRequest(TTL=ttl, ID=lease)
        try:
            with self._unfenced(deadline):
                response = self._write(lambda server: server.lease.LeaseGrant, request, deadline)
        except NoSpace as error:
            # As with writes, etcd may have granted it. One that the server has named ends unused.
            if lease and self.find(lease, deadline) is not None:
                raise OutcomeUnknown("", 0, str(error)) from error
            raise
        except BackendError as error:
            if "lease already exists" not in str(error):
                raise
            raise LeaseExists(lease) from error
        if not response.ID or (lease or response.ID) != response.ID or ttl > response.TTL:
            what = f"the server granted the lease {response.ID} for {response.TTL} seconds"
            raise OutcomeUnknown("", 0, what)
        return LeaseInfo(response.ID, response.TTL, float(response.TTL))

    def revoke(self, lease: int, deadline: float) -> int:
        """Revoke a lease; return the revision."""
        request = rpc_pb2.LeaseRevokeRequest(ID=lease)
        try:
            with self._unfenced(deadline):
                response = self._write(lambda server: server.lease.LeaseRevoke, request, deadline)
        except BackendError as error:
            if "lease not found" not in str(error):
                raise
            raise LeaseNotFound(lease) from error
        return int(response.header.revision)

    def keep_alive(self, lease: int, deadline: float) -> LeaseInfo:
        """Start the ttl again; this may be sent more than once."""
        request = rpc_pb2.LeaseKeepAliveRequest(ID=lease)
        with self._unfenced(deadline):
            response = self._client.read(
                lambda server: server.keep_alive, request, left_of(deadline)
            )
        self._client.identity.same(response.header)
        _check_id(response.ID, lease)
        if response.TTL <= 0:
            raise LeaseNotFound(lease)
        return LeaseInfo(lease, response.TTL, float(response.TTL))

    def find(self, lease: int, deadline: float, *, keys: bool = False) -> LeaseInfo | None:
        """Return a lease, None if it does not exist."""
        request = rpc_pb2.LeaseTimeToLiveRequest(ID=lease, keys=keys)
        response = self._look(lambda server: server.lease.LeaseTimeToLive, request, deadline)
        _check_id(response.ID, lease)
        if response.grantedTTL <= 0:
            return None
        left = float(max(0, min(response.TTL, response.grantedTTL)))
        return LeaseInfo(lease, response.grantedTTL, left, tuple(sorted(_decoded(response.keys))))

    def ids(self, deadline: float) -> tuple[int, ...]:
        """Return the ids of all leases, in order."""
        request = rpc_pb2.MemberListRequest()
        response = self._look(lambda server: server.list_leases, request, deadline)
        return tuple(sorted(_signed(each.ID) for each in response.members))

    @contextlib.contextmanager
    def _unfenced(self, deadline: float) -> Iterator[None]:
        """Enter a block in which a lease is changed.

        etcd does not change leases in transactions, so the fence is read before and after: a change
        that is acknowledged was made before the fence.

        Raises:
            ReadOnly: the store is fenced.
            OutcomeUnknown: it was fenced during the block, or this could not be found out.
        """
        self._reader.check_fence(deadline)
        yield
        try:
            self._reader.check_fence(deadline)
        except StorageError as error:
            raise OutcomeUnknown("", 0, str(error)) from error

    def _look(self, method: Method, request: Any, deadline: float) -> Any:
        """Ask about leases. A server answers from its own state, so that a linearizable read of the
        same server goes first, which waits until it has caught up."""

        def caught_up(server: Server) -> Callable[..., Any]:
            def ask(request: Any, *, timeout: float, metadata: Any) -> Any:
                until = time.monotonic() + timeout
                server.kv.Range(self._reader.nothing, timeout=timeout, metadata=metadata)
                return method(server)(request, timeout=left_of(until), metadata=metadata)

            return ask

        response = self._client.read(caught_up, request, left_of(deadline))
        self._client.identity.same(response.header)
        return response

    def _write(self, method: Method, request: Any, deadline: float) -> Any:
        identity = self._client.identity
        before = identity.revision
        response = self._client.write(method, request, left_of(deadline), key="", expected=0)
        try:
            identity.seen(response.header, before)
        except (IncompatibleStore, CorruptStore) as error:
            raise OutcomeUnknown("", 0, str(error)) from error
        return response


class _Run(Protocol):
    """Calls a function with the deadline of a call."""

    def __call__(self, timeout: float | None, work: Callable[[float], T], /) -> T: ...


class Etcd3Leases(Leases):
    """See ``Leases``."""

    def __init__(self, service: LeaseService, run: _Run) -> None:
        self._service = service
        self._run = run

    def grant(self, ttl: int, *, lease: int = 0, timeout: float | None = None) -> LeaseInfo:
        check_grant(ttl, lease)
        return self._run(timeout, lambda deadline: self._service.grant(ttl, lease, deadline))

    def keep_alive(self, lease: int, *, timeout: float | None = None) -> LeaseInfo:
        check_lease(lease)
        return self._run(timeout, lambda deadline: self._service.keep_alive(lease, deadline))

    def revoke(self, lease: int, *, timeout: float | None = None) -> int:
        check_lease(lease)
        return self._run(timeout, lambda deadline: self._service.revoke(lease, deadline))

    def get(self, lease: int, *, keys: bool = False, timeout: float | None = None) -> LeaseInfo:
        check_lease(lease)

        def find(deadline: float) -> LeaseInfo:
            found = self._service.find(lease, deadline, keys=keys)
            if found is None:
                raise LeaseNotFound(lease)
            return found

        return self._run(timeout, find)

    def list(self, *, timeout: float | None = None) -> tuple[int, ...]:
        return self._run(timeout, self._service.ids)


def _check_id(answered: int, lease: int) -> None:
    if answered != lease:
        raise CorruptStore(f"asked for the lease {lease}, the server answers about {answered}")


def _signed(number: int) -> int:
    """Return the id of a lease that came as a number without a sign."""
    return number - (1 << 64) if number >= 1 << 63 else number


def _decoded(keys: Iterable[bytes]) -> Iterable[str]:
    """Yield those of ``keys`` that are UTF-8."""
    for key in keys:
        with contextlib.suppress(UnicodeDecodeError):
            yield key.decode()
