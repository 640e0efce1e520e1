"""etcd's service of locks, v3lockpb."""

from __future__ import annotations

from typing import Any

from revstore_serve._errors import SESSION_EXPIRED, Refused
from revstore_serve._proto import message
from revstore_serve._queues import Queues, as_client
from revstore_serve._transport import UnaryHandler

__all__ = ["Locks"]

_LockResponse = message("LockResponse", "v3lockpb")
_UnlockResponse = message("UnlockResponse", "v3lockpb")


class Locks:
    """The service Lock. ``delete_range`` is the handler of KV, which checks the caller's rights."""

    def __init__(self, queues: Queues, delete_range: UnaryHandler) -> None:
        self._queues = queues
        self._delete_range = delete_range

    @as_client
    async def lock(self, request: Any) -> Any:
        """Answer once the caller's lease has the lock."""
        self._queues.check()
        lease = await self._queues.lease(request.lease)
        place = await self._queues.join(request.name, lease, b"")
        header = place.header
        if not place.first:
            header = await self._queues.wait(place)
        if header is None:
            raise Refused(*SESSION_EXPIRED)
        return _LockResponse(header=header, key=place.key)

    @as_client
    async def unlock(self, request: Any) -> Any:
        """Delete the key of a lock, if it is there."""
        deleted = await self._delete_range(message("DeleteRangeRequest")(key=request.key))
        return _UnlockResponse(header=deleted.header)
