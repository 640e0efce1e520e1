"""An endpoint: a server over an open backend, from its start to its stop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, Self, TypeVar

from revstore.backend import Backend
from revstore.compactor import Compactor
from revstore.deadlines import check_count, check_seconds
from revstore.errors import ConfigError, StorageError
from revstore.threads import slices
from revstore.values import Capability
from revstore_serve._cluster import Cluster, unserved
from revstore_serve._elections import Elections
from revstore_serve._errors import NOT_ENABLED, Refused
from revstore_serve._feed import Feed
from revstore_serve._gateway import Gateway
from revstore_serve._guard import Guard
from revstore_serve._health import Health
from revstore_serve._kv import KeyValues
from revstore_serve._leases import LeaseCalls
from revstore_serve._locks import Locks
from revstore_serve._loop import shared_loop
from revstore_serve._metrics import Counts, Metrics
from revstore_serve._pages import Pages, http_server
from revstore_serve._proto import REFLECTIONS, Method, message
from revstore_serve._queues import Queues
from revstore_serve._reflection import Reflection
from revstore_serve._tls import Tls
from revstore_serve._transport import StreamHandler, UnaryHandler
from revstore_serve._users import Users
from revstore_serve._watches import Watches
from revstore_serve._writes import Writes

__all__ = ["TRANSPORTS", "Endpoint"]

#: What carries gRPC: the endpoint's own HTTP/2, or gRPC's library.
TRANSPORTS = ("native", "grpcio")

T = TypeVar("T")

# Reads of these take microseconds, so that a thread would only cost time.
_MEMORY = "memory"
_LOCAL = frozenset({_MEMORY, "sqlite"})
_THREADS = 4
_FILES_OF_STORE = 150
# Seconds for which a stop waits for the store to tell what watches have not seen yet.
_MOST_TO_SHOW = 1.0
_UNLIMITED = 2**31 - 1


class Endpoint:
    """A running server. It does not close the backend, which must stay open meanwhile."""

    def __init__(
        self,
        backend: Backend,
        *,
        listen: str,
        http: str | None = None,
        name: str,
        version: str,
        advertise: str = "",
        progress_interval: float = 5.0,
        compact_interval: float = 0.0,
        max_connections: int | None = None,
        tls: Tls | None = None,
        users: Users | None = None,
        transport: str = TRANSPORTS[0],
    ) -> None:
        """Start serving; return once clients can connect.

        Raises:
            OSError: nobody can listen at ``listen`` or ``http``.
            ConfigError: ``http`` is no address, or its library is not installed; or the history of
                the store cannot be compacted, but there is an interval for that.
            InvalidArgument: a number is out of its range.
        """
        check_seconds("progress_interval", progress_interval, above=True)
        check_seconds("compact_interval", compact_interval)
        if max_connections is not None:
            check_count("max_connections", max_connections, 1)
        if compact_interval and Capability.COMPACTION not in backend.capabilities:
            raise ConfigError(
                "compact_interval", compact_interval, "0: the store has no compaction"
            )
        self._backend = backend
        self._cluster = Cluster(backend, name=name, version=version, url=advertise)
        server = backend.status().server.partition(" ")[0]
        self._local = server in _LOCAL
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="revstore-serve-work")
        self._loop = shared_loop()
        self._health = Health()
        self._interval = progress_interval
        self._tls = tls
        self._users = users
        self._transport_class = _transport_class(transport)
        self._most_connections = max_connections or _most_connections(1 if http is None else 2)
        self._writes = Writes(backend, self._loop, at_once=server == _MEMORY)
        self._feed: Feed | None = None
        self._queues: Queues | None = None
        self._compactor: Compactor | None = None
        self._open = True
        self._process = os.getpid()
        #: Where clients connect: "host:port", or "unix:path".
        self.address = listen
        #: Where the second listener is, "host:port"; None if there is none.
        self.http_address: str | None = None
        self._counts = Counts()
        try:
            self._feed = Feed(backend, self._loop)
            self._run(self._start(listen, http, self._feed))
            self._compactor = Compactor(backend, interval=compact_interval)
        except BaseException:
            self.stop(0)
            raise

    def _run(self, step: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(step, self._loop)
        for seconds in slices(None):
            # Any error but that of a slice that is over is the step's own.
            if wait([future], seconds).done:
                break
        return future.result()

    async def _start(self, listen: str, http: str | None, feed: Feed) -> None:
        kv = KeyValues(
            self._backend, self._cluster, self._writes, feed, read=self._read, work=self._work
        )
        cluster = self._cluster
        leases = await self._work(lambda: LeaseCalls(self._backend, cluster, work=self._work))
        watches = Watches(
            self._backend,
            cluster,
            feed,
            interval=self._interval,
            read=self._read,
            work=self._work,
        )
        unary: dict[str, UnaryHandler] = {
            "KV/Range": kv.range,
            "KV/Put": kv.put,
            "KV/DeleteRange": kv.delete_range,
            "KV/Txn": kv.txn,
            "KV/Compact": kv.compact,
            "Lease/LeaseGrant": leases.grant,
            "Lease/LeaseRevoke": leases.revoke,
            "Lease/LeaseTimeToLive": leases.time_to_live,
            "Lease/LeaseLeases": leases.leases,
            "Cluster/MemberList": self._reading(cluster.member_list),
            "Maintenance/Alarm": self._reading(cluster.alarm),
            "Maintenance/Status": self._reading(cluster.status),
            "Maintenance/Defragment": self._reading(cluster.defragment),
            "Maintenance/Hash": self._working(cluster.hash),
            "Maintenance/HashKV": self._working(cluster.hash_kv),
            "Auth/Authenticate": _not_enabled,
            "Auth/AuthStatus": self._reading(_auth_status(cluster, self._users)),
            "grpc.health.v1.Health/Check": self._health.check,
        }
        streams: dict[str, StreamHandler] = {
            "KV/RangeStream": kv.range_stream,
            "Watch/Watch": watches.serve,
            "Lease/LeaseKeepAlive": leases.keep_alive,
            "grpc.health.v1.Health/Watch": self._health.watch,
            **{
                f"{package}.ServerReflection/ServerReflectionInfo": Reflection(package).serve
                for package in REFLECTIONS
            },
        }
        if self._users is not None:
            guard = Guard(self._users, cluster, leases, read=self._read, work=self._work)
            unary["Auth/Authenticate"] = guard.authenticate
            unary = {name: guard.unary(name, each) for name, each in unary.items()}
            streams = {name: guard.stream(name, each) for name, each in streams.items()}
        self._serve_queues(unary, streams, kv)
        unary = {name: self._counts.unary(name, each) for name, each in unary.items()}
        counted = {name: self._counts.stream(name, each) for name, each in streams.items()}
        self._transport = self._transport_class(
            unary,
            counted,
            _refused,
            self._tls,
            most_connections=self._most_connections,
            identify=self._users is not None,
        )
        port = await self._listen(listen)
        if port:
            self.address = f"{listen.rpartition(':')[0]}:{port}"
        scheme = "http" if self._tls is None else "https"
        cluster.url = cluster.url or f"{scheme}://{self.address}"
        if http is not None:
            pages = Pages(
                cluster=cluster,
                health=self._health,
                range=kv.range,
                metrics=Metrics(self._backend, cluster, self._counts, watches, leases),
                gateway=Gateway(unary, counted, self._work),
                work=self._work,
            )
            await self._start_http(http, pages)

    def _serve_queues(
        self, unary: dict[str, UnaryHandler], streams: dict[str, StreamHandler], kv: KeyValues
    ) -> None:
        """Add the services of locks and elections. Their calls are clients of the others, with the
        rights of their callers."""
        self._queues = Queues(self._backend, unary, streams["Watch/Watch"], kv.txn)
        locks, elections = Locks(self._queues, unary["KV/DeleteRange"]), Elections(self._queues)
        unary |= {
            "Lock/Lock": locks.lock,
            "Lock/Unlock": locks.unlock,
            "Election/Campaign": elections.campaign,
            "Election/Proclaim": elections.proclaim,
            "Election/Leader": elections.leader,
            "Election/Resign": elections.resign,
        }
        streams["Election/Observe"] = elections.observe

    async def _start_http(self, address: str, pages: Pages) -> None:
        server, host = http_server(address, pages, self._tls, self._most_connections)
        self._http = server
        self.http_address = f"{host}:{await server.start(address)}"

    async def _listen(self, address: str) -> int:
        if not address.startswith("unix:"):
            port: int = await self._transport.start(address)
            return port
        mask = os.umask(0o177)  # the socket is for this user only
        try:
            await self._transport.start(address)
        finally:
            os.umask(mask)
        return 0

    async def _read(self, function: Callable[[], T]) -> T:
        return function() if self._local else await self._work(function)

    async def _work(self, function: Callable[[], T]) -> T:
        return await self._loop.run_in_executor(self._pool, function)

    def _reading(self, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return lambda request: self._read(lambda: function(request))

    def _working(self, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return lambda request: self._work(lambda: function(request))

    def stop(self, grace: float = 5.0) -> None:
        """Stop serving; calls under way have ``grace`` seconds to finish. Idempotent.

        In a child after a fork it does nothing, since the server is not there.
        """
        if not self._open or os.getpid() != self._process:
            return
        self._open = False
        if self._compactor is not None:
            self._compactor.close()
        try:
            self._run(self._announce_end(min(grace, _MOST_TO_SHOW)))
            if self._feed is not None:
                self._feed.close()
            self._run(self._stop(grace))
        finally:
            self._writes.close()
            # Calls that still wait for the store end when that is closed.
            self._pool.shutdown(wait=False, cancel_futures=True)

    async def _announce_end(self, seconds: float) -> None:
        """Announce the end, and wait until watches can show what was written before it."""
        self._health.stop()
        feed = self._feed
        if feed is None or not feed.listeners or not seconds:
            return
        # A store that does not answer must not keep the endpoint from its end.
        with contextlib.suppress(StorageError, TimeoutError):
            async with asyncio.timeout(seconds):
                status = await self._work(lambda: self._backend.status(timeout=seconds))
                await feed.reach(status.revision, seconds)

    async def _stop(self, grace: float) -> None:
        if self._queues is not None:
            await self._queues.close()
        listeners = [getattr(self, name, None) for name in ("_transport", "_http")]
        ends = (each.stop(grace) for each in listeners if each is not None)
        # One that fails must not cut the other short.
        results = await asyncio.gather(*ends, return_exceptions=True)
        if self._queues is not None:
            await self._queues.close()  # what was cut short leaves keys as well
        for result in results:
            if isinstance(result, BaseException):
                raise result

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _most_connections(listeners: int) -> int:
    """Return how many connections each listener may have: together they leave some of the files
    that a process may open for the store, as etcd does."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if files == resource.RLIM_INFINITY:
        return _UNLIMITED
    return max(files - _FILES_OF_STORE, files // 2) // listeners


def _transport_class(name: str) -> Any:
    if name == "native":
        from revstore_serve._http2 import Transport

        return Transport
    if name == "grpcio":
        from revstore_serve._grpc import Transport as GrpcTransport

        return GrpcTransport
    raise ConfigError("transport", name, f"one of {', '.join(TRANSPORTS)}")


def _refused(method: Method) -> Any:
    return unserved(method.service.rpartition(".")[2], method.name)


async def _not_enabled(_: Any) -> Any:
    raise Refused(*NOT_ENABLED)


def _auth_status(cluster: Cluster, users: Users | None) -> Callable[[Any], Any]:
    def answer(_: Any) -> Any:
        revision = 1 if users is None else users.revision
        response = message("AuthStatusResponse")(enabled=users is not None, authRevision=revision)
        return cluster.now(response)

    return answer
