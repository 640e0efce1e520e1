"""etcd's service of elections, v3electionpb."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

from revstore_serve._errors import MISSING_LEADER, NO_LEADER, NOT_LEADER, Refused
from revstore_serve._proto import message
from revstore_serve._queues import Queues, as_client, if_created, prefix_of
from revstore_serve._transport import Stream

__all__ = ["Elections"]

_CampaignResponse = message("CampaignResponse", "v3electionpb")
_ProclaimResponse = message("ProclaimResponse", "v3electionpb")
_LeaderResponse = message("LeaderResponse", "v3electionpb")
_ResignResponse = message("ResignResponse", "v3electionpb")

_PUT = 0


class Elections:
    """The service Election."""

    def __init__(self, queues: Queues) -> None:
        self._queues = queues

    @as_client
    async def campaign(self, request: Any) -> Any:
        """Answer once the caller's lease leads."""
        self._queues.check()
        lease = await self._queues.lease(request.lease)
        place = await self._queues.join(request.name, lease, request.value)
        if place.found not in (None, request.value):
            await self._proclaim(place.key, place.revision, request.value, lease)
        # As in etcd, the header is from when the caller joined. But who has lost his key while he
        # waited does not lead, whatever etcd says.
        if not place.first and await self._queues.wait(place) is None:
            raise Refused(*NOT_LEADER)
        leader = {"name": request.name, "key": place.key, "rev": place.revision, "lease": lease}
        return _CampaignResponse(header=place.header, leader=leader)

    @as_client
    async def proclaim(self, request: Any) -> Any:
        """Write a leader's new value."""
        self._queues.check()
        leader = _leader(request)
        lease = await self._queues.lease(leader.lease)
        header = await self._proclaim(leader.key, leader.rev, request.value, lease)
        return _ProclaimResponse(header=header)

    async def _proclaim(self, key: bytes, revision: int, value: bytes, lease: int) -> Any:
        put = {"request_put": {"key": key, "value": value, "lease": lease}}
        done = await self._queues.txn(if_created(key, revision, put))
        if not done.succeeded:
            raise Refused(*NOT_LEADER)
        return done.header

    @as_client
    async def resign(self, request: Any) -> Any:
        """Delete a leader's key, if it is still the same one."""
        leader = _leader(request)
        delete = {"request_delete_range": {"key": leader.key}}
        done = await self._queues.txn(if_created(leader.key, leader.rev, delete))
        return _ResignResponse(header=done.header)

    @as_client
    async def leader(self, request: Any) -> Any:
        """Answer with the leader's key and value."""
        found = await self._queues.first(request.name)
        if not found.kvs:
            raise Refused(*NO_LEADER)
        return _LeaderResponse(header=found.header, kv=found.kvs[0])

    @as_client
    async def observe(self, request: Any, stream: Stream) -> None:
        """Send the value of each leader, and each that he proclaims.

        Leaders that come and go in quick succession may be left out, but never the latest.
        """
        while True:
            found = await self._queues.first(request.name)
            header, kv = found.header, found.kvs[0] if found.kvs else None
            if kv is None:
                header, kv = await self._next_put(request.name, found.header.revision + 1)
            if kv is not None:
                await stream.write(_LeaderResponse(header=header, kv=kv))
                await self._follow(kv.key, header.revision + 1, stream)

    async def _next_put(self, name: bytes, start: int) -> tuple[Any, Any]:
        """Return a header of the first put below a name, and what was put."""
        async with aclosing(self._queues.events(start, **prefix_of(name))) as events:
            async for header, event in events:
                if event.type == _PUT:
                    # The answer may have events of later revisions as well.
                    header.revision = event.kv.mod_revision
                    return header, event.kv
        return None, None

    async def _follow(self, key: bytes, start: int, stream: Stream) -> None:
        """Send a leader's values until his key is deleted."""
        async with aclosing(self._queues.events(start, key=key)) as events:
            async for header, event in events:
                if event.type != _PUT:
                    return
                await stream.write(_LeaderResponse(header=header, kv=event.kv))


def _leader(request: Any) -> Any:
    if not request.HasField("leader"):
        raise Refused(*MISSING_LEADER)
    return request.leader
