"""The service Lease, over the leases of the store."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from revstore.backend import Backend, Leases
from revstore.errors import LeaseNotFound
from revstore.values import Capability
from revstore_serve._cluster import Cluster
from revstore_serve._errors import LEASE_NOT_FOUND, LEASE_TTL, Refused
from revstore_serve._keys import to_bytes
from revstore_serve._kv import InThread
from revstore_serve._proto import message
from revstore_serve._transport import Stream

__all__ = ["LeaseCalls", "granted_ttl"]

_LEAST_TTL = 2
_MOST_TTL = 9_000_000_000


def granted_ttl(wanted: int) -> int:
    """Return the seconds that a lease gets: etcd grants at least as many as its election may take.

    Raises:
        Refused: the TTL is too long.
    """
    if wanted > _MOST_TTL:
        raise Refused(*LEASE_TTL)
    return max(wanted, _LEAST_TTL)


class LeaseCalls:
    """The service Lease. ``work`` runs a call in a thread, since a store on a disk writes for most
    of them."""

    def __init__(self, backend: Backend, cluster: Cluster, *, work: InThread) -> None:
        self._backend = backend
        self._cluster = cluster
        self._work = work
        # From the start on, so that leases of a process that has ended expire.
        self._leases: Leases | None = (
            backend.leases() if Capability.LEASES in backend.capabilities else None
        )

    @property
    def _of_store(self) -> Leases:
        # Without LEASES this raises the error that says so.
        return self._leases or self._backend.leases()

    def count(self) -> int | None:
        """Return how many leases there are; None if the store has no leases."""
        return None if self._leases is None else len(self._leases.list())

    def keys(self, lease: int) -> list[bytes]:
        """Return the keys of a lease; none if there is no such lease. Runs in a thread."""
        try:
            return [to_bytes(key) for key in self._of_store.get(lease, keys=True).keys]
        except LeaseNotFound:
            return []

    async def grant(self, request: Any) -> Any:
        ttl = granted_ttl(request.TTL)
        self._cluster.alarms.check_write(grows=True)

        def grant() -> Any:
            lease = self._of_store.grant(ttl, lease=request.ID)
            response = message("LeaseGrantResponse")(ID=lease.id, TTL=lease.ttl)
            return self._cluster.now(response)

        return await self._work(grant)

    async def revoke(self, request: Any) -> Any:
        self._cluster.alarms.check_write(grows=False)

        def revoke() -> Any:
            if not request.ID:
                raise Refused(*LEASE_NOT_FOUND)
            revision = self._of_store.revoke(request.ID)
            return self._cluster.fill(message("LeaseRevokeResponse")(), revision)

        return await self._work(revoke)

    async def keep_alive(self, _: Any, stream: Stream) -> None:
        while (request := await stream.read()) is not None:
            await stream.write(await self._work(partial(self._renew, request.ID)))

    def _renew(self, lease: int) -> Any:
        # The header comes first: a lease that expires just afterwards must not seem alive at the
        # revision of its end.
        response = self._cluster.now(message("LeaseKeepAliveResponse")(ID=lease))
        try:
            response.TTL = self._of_store.keep_alive(lease).ttl if lease else 0
        except LeaseNotFound:
            response.TTL = 0
        return response

    async def time_to_live(self, request: Any) -> Any:
        def look() -> Any:
            response = message("LeaseTimeToLiveResponse")(ID=request.ID, TTL=-1)
            try:
                if request.ID:
                    lease = self._of_store.get(request.ID, keys=request.keys)
                    response.TTL = math.floor(lease.remaining)
                    response.grantedTTL = lease.ttl
                    response.keys.extend(to_bytes(key) for key in lease.keys)
            except LeaseNotFound:
                pass
            return self._cluster.now(response)

        return await self._work(look)

    async def leases(self, _: Any) -> Any:
        def collect() -> Any:
            response = message("LeaseLeasesResponse")()
            for lease in self._of_store.list():
                response.leases.add(ID=lease)
            return self._cluster.now(response)

        return await self._work(collect)
