"""What users may do: every call is checked before it is answered, by etcd's rules."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from revstore_serve._cluster import Cluster
from revstore_serve._errors import AUTH_FAILED, PERMISSION_DENIED, TOO_MANY_REQUESTS, Refused
from revstore_serve._keys import KeyRange
from revstore_serve._kv import InThread
from revstore_serve._leases import LeaseCalls
from revstore_serve._proto import message
from revstore_serve._ranges import check_range
from revstore_serve._transport import Stream, StreamHandler, UnaryHandler
from revstore_serve._txn import check_delete, check_put, check_txn
from revstore_serve._users import CALLER, User, Users, matches

__all__ = ["Guard"]

# Calls that need no user, as in etcd.
_OPEN = frozenset({"Auth/Authenticate", "Maintenance/Status", "Cluster/MemberList"})
# Calls for users with all rights, as in etcd.
_OF_ROOT = frozenset(
    {"Auth/AuthStatus", "Maintenance/Defragment", "Maintenance/Hash", "Maintenance/HashKV"}
)

# A password takes some 50 ms and 16 MiB to check. So many are checked at once, and so many may
# wait.
_CHECKS = 2
_MOST_WAITING = 100

_NO_ID = -1

#: Whether writing is meant, and which keys.
_Need = tuple[bool, KeyRange]


class Guard:
    """Checks calls, and answers ``Authenticate``. ``work`` runs functions in a thread, ``read``
    those that read the store."""

    def __init__(
        self, users: Users, cluster: Cluster, leases: LeaseCalls, *, read: InThread, work: InThread
    ) -> None:
        self._users = users
        self._cluster = cluster
        self._leases = leases
        self._read = read
        self._work = work
        self._waiting = 0
        self._turn = asyncio.Semaphore(_CHECKS)

    async def authenticate(self, request: Any) -> Any:
        """Answer a name and a password with a token."""
        if self._waiting >= _MOST_WAITING:
            raise Refused(*TOO_MANY_REQUESTS)
        self._waiting += 1
        try:
            user = self._users.find(request.name)
            await self._turn.acquire()
            check = asyncio.ensure_future(self._work(lambda: matches(request.password, user)))
            # Its thread goes on even if the client does not wait for the end.
            check.add_done_callback(lambda _: self._turn.release())
            right = await asyncio.shield(check)
        finally:
            self._waiting -= 1
        if user is None or not right:
            raise Refused(*AUTH_FAILED)
        response = message("AuthenticateResponse")(token=self._users.token(user))
        return await self._read(lambda: self._cluster.now(response))

    def unary(self, name: str, handler: UnaryHandler) -> UnaryHandler:
        """Return a handler that checks."""
        if name in _OPEN or name.startswith("grpc."):
            return handler

        async def guarded(request: Any) -> Any:
            if name in _VALID:
                _VALID[name](request)
            user = self._users.known(CALLER.get())
            # Alarms stop the writes of all users.
            of_root = name in _OF_ROOT or (name == "Maintenance/Alarm" and request.action)
            if of_root and not user.root:
                raise Refused(*PERMISSION_DENIED)
            _check(user, _NEEDS.get(name, _nothing)(request))
            await self._check_leases(name, request, user)
            return await handler(request)

        return guarded

    def stream(self, name: str, handler: StreamHandler) -> StreamHandler:
        """Return a handler that checks."""
        if name.startswith("grpc."):
            return handler

        async def guarded(request: Any, stream: Stream) -> None:
            if name == "Watch/Watch":
                stream = _Watched(stream, self._denial)
            else:
                if name in _VALID:
                    _VALID[name](request)
                _check(self._users.known(CALLER.get()), _NEEDS.get(name, _nothing)(request))
            await handler(request, stream)

        return guarded

    async def _check_leases(self, name: str, request: Any, user: User) -> None:
        """Check the rights to the keys of leases: who revokes one deletes them, and who puts one
        more key under it must be able to revoke it."""
        if user.root or name not in _LEASES:
            return
        write = name != "Lease/LeaseTimeToLive"
        for lease in {*_LEASES[name](request)} - {0}:
            keys = await self._work(partial(self._leases.keys, lease))
            _check(user, [(write, KeyRange.of(key, b"")) for key in keys])

    async def _denial(self, request: Any) -> Any:
        """Return the answer to a request to watch that the caller may not make; None if he may."""
        try:
            user = self._users.known(CALLER.get())
            _check(user, [(False, KeyRange.of(request.key or b"\0", request.range_end))])
        except Refused as refused:
            code = refused.code.name.title().replace("_", "")
            response = message("WatchResponse")(
                watch_id=_NO_ID,
                created=True,
                canceled=True,
                cancel_reason=f"rpc error: code = {code} desc = {refused.text}",
            )
            return await self._read(lambda: self._cluster.now(response))
        return None


class _Watched:
    """A client's stream of watches without the requests that he may not make. Each is answered as
    etcd does, and the other watches go on."""

    def __init__(self, stream: Stream, denial: Callable[[Any], Any]) -> None:
        self._stream = stream
        self._denial = denial
        self.write = stream.write

    async def read(self) -> Any:
        while (request := await self._stream.read()) is not None:
            if request.WhichOneof("request_union") != "create_request":
                return request
            denial = await self._denial(request.create_request)
            if denial is None:
                return request
            await self.write(denial)
        return None


def _check(user: User, needs: Iterable[_Need]) -> None:
    """Raise ``Refused`` if a user lacks a right."""
    for write, keys in needs:
        if not (user.may_write(keys) if write else user.may_read(keys)):
            raise Refused(*PERMISSION_DENIED)


def _nothing(_: Any) -> Iterator[_Need]:
    return iter(())


def _range(request: Any) -> Iterator[_Need]:
    yield False, KeyRange.of(request.key, request.range_end)


def _put(request: Any) -> Iterator[_Need]:
    keys = KeyRange.of(request.key, b"")
    yield True, keys
    if request.prev_kv:
        yield False, keys


def _delete(request: Any) -> Iterator[_Need]:
    keys = KeyRange.of(request.key, request.range_end)
    if request.prev_kv:
        yield False, keys
    yield True, keys


def _txn(request: Any) -> Iterator[_Need]:
    """Yield what both branches need: the error must not tell which one would be taken."""
    for compare in request.compare:
        yield from _range(compare)
    for operation in (*request.success, *request.failure):
        kind = operation.WhichOneof("request")
        yield from _OPERATIONS[kind](getattr(operation, kind))


def _attached(request: Any) -> Iterator[int]:
    """Yield the leases under which a transaction may put keys, in either branch."""
    for operation in (*request.success, *request.failure):
        if operation.HasField("request_put"):
            yield operation.request_put.lease
        elif operation.HasField("request_txn"):
            yield from _attached(operation.request_txn)


_OPERATIONS: dict[str | None, Callable[[Any], Iterator[_Need]]] = {
    "request_range": _range,
    "request_put": _put,
    "request_delete_range": _delete,
    "request_txn": _txn,
}
_NEEDS: dict[str, Callable[[Any], Iterator[_Need]]] = {
    "KV/Range": _range,
    "KV/RangeStream": _range,
    "KV/Put": _put,
    "KV/DeleteRange": _delete,
    "KV/Txn": _txn,
}
# Leases to whose keys a call needs rights.
_LEASES: dict[str, Callable[[Any], Iterable[int]]] = {
    "KV/Put": lambda request: [request.lease],
    "KV/Txn": _attached,
    "Lease/LeaseRevoke": lambda request: [request.ID],
    "Lease/LeaseTimeToLive": lambda request: [request.ID] if request.keys else [],
}
# As in etcd, these errors come before those of rights.
_VALID: dict[str, Callable[[Any], None]] = {
    "KV/Range": check_range,
    "KV/RangeStream": check_range,
    "KV/Put": check_put,
    "KV/DeleteRange": check_delete,
    "KV/Txn": check_txn,
}
