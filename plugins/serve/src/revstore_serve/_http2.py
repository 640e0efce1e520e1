"""gRPC over HTTP/2 on the running loop, without gRPC's library.

The library hands each step of a call from a thread of its own to the loop, which costs ten times as
much as the call. Here a call is a few frames that are read and written where they arrive.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Mapping

from revstore_serve._call import Served
from revstore_serve._connection import Connection
from revstore_serve._errors import Refused
from revstore_serve._handshakes import Handshakes
from revstore_serve._proto import Method
from revstore_serve._tls import Tls
from revstore_serve._transport import (
    AT_ONCE,
    StreamHandler,
    UnaryHandler,
    cannot_listen,
    check_unused,
    handlers,
    let_wait,
    path_of,
)

__all__ = ["Transport"]

# Seconds for which closing connections may send what is left.
_LINGER = 1.0


class Transport:
    """A server of gRPC on the running loop."""

    def __init__(
        self,
        unary: Mapping[str, UnaryHandler],
        streams: Mapping[str, StreamHandler],
        refused: Callable[[Method], Refused],
        tls: Tls | None = None,
        *,
        most_connections: int,
        identify: bool = False,
    ) -> None:
        """Serve the methods that have handlers, by names as "KV/Range"; ``refused`` says what
        the methods answer that are not served. Without ``tls``, connections are plaintext. With
        ``identify``, handlers learn from ``CALLER`` who calls."""
        self.loop = asyncio.get_running_loop()
        self.identify = identify
        #: Done when streams have to end.
        self.ending: asyncio.Future[None] = self.loop.create_future()
        #: Held by the one call that decompresses a large message.
        self.inflating = asyncio.Lock()
        self.connections: set[Connection] = set()
        self.methods: dict[bytes, Served] = {}
        self._most_connections = most_connections
        self._tls = tls
        self._handshakes: Handshakes | None = None
        self._server: asyncio.Server | None = None
        # The socket's path in the file system, with its device and inode.
        self._path: tuple[str, int, int] | None = None
        self._fewer = asyncio.Event()
        self._unary: set[asyncio.Task[None]] = set()
        self._streams: set[asyncio.Task[None]] = set()
        for method, answer, follow in handlers(unary, streams, refused):
            served = Served(method, answer, follow)
            self.methods[f"/{method.service}/{method.name}".encode()] = served

    async def start(self, address: str) -> int:
        """Listen on an address, and return the port, which is 0 for a socket of the file system.

        Raises:
            OSError: nobody can listen there.
        """
        make: Callable[[], asyncio.Protocol] = lambda: Connection(self)  # noqa: E731
        if self._tls is not None:
            make = self._handshakes = Handshakes(self._tls, make, self._has_room, alpn="h2")
        try:
            if address.startswith("unix:"):
                path = path_of(address)
                check_unused(path)
                self._server = await self.loop.create_unix_server(make, path, backlog=AT_ONCE)
                let_wait(self._server)
                self._path = _identity(path)
                return 0
            host, _, port = address.rpartition(":")
            if not (port.isascii() and port.isdecimal()):
                raise OSError("it is neither host:port nor unix:path")
            self._server = await self.loop.create_server(
                make, host.strip("[]") or None, int(port), backlog=AT_ONCE
            )
            let_wait(self._server)
        except (OSError, OverflowError) as error:
            raise cannot_listen(address, error) from error
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self, grace: float) -> None:
        """End streams, accept no more calls, and end other calls that run longer than ``grace``
        seconds."""
        if not self.ending.done():
            self.ending.set_result(None)
        if self._server is not None:
            self._server.close()
        if self._handshakes is not None:
            self._handshakes.stop()
        if self._path is not None:
            with contextlib.suppress(OSError):
                # Another server may have the path by now.
                if _identity(self._path[0]) == self._path:
                    os.unlink(self._path[0])
        for each in list(self.connections):
            each.go()
        running = self._streams | self._unary
        if running:
            await asyncio.wait(running, timeout=max(grace, 1.0) if self._streams else grace)
        for each in list(self.connections):
            each.abort_if_busy()
        # Connections that are closing have sent all, unless the client is slow.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LINGER):
                while self.connections:
                    self._fewer.clear()
                    await self._fewer.wait()
        for each in list(self.connections):
            each.abort()

    def admit(self, connection: Connection) -> bool:
        """Return whether a connection may stay. One whose handshake ends after ``stop`` may not."""
        if self.ending.done() or not self._has_room():
            return False
        self.connections.add(connection)
        return True

    def _has_room(self) -> bool:
        handshakes = 0 if self._handshakes is None else self._handshakes.count
        return len(self.connections) + handshakes < self._most_connections

    def gone(self, connection: Connection) -> None:
        """Forget a connection."""
        self.connections.discard(connection)
        self._fewer.set()

    def look(self, transport: asyncio.Transport) -> tuple[bool, str | None]:
        """Return whether a client is refused because of its certificate, and the name in that."""
        if self._tls is None or self._tls.first.client_ca is None:
            return False, None
        found = transport.get_extra_info("peercert") or {}
        subject = [
            value
            for part in found.get("subject", ())
            for name, value in part
            if name == "commonName"
        ]
        others = [value for _, value in found.get("subjectAltName", ())]
        denied = self._tls.selective and not self._tls.admits(subject, others)
        return denied, next(iter(subject), None)

    def begun(self, task: asyncio.Task[None], *, streams: bool) -> None:
        """Keep a call's task until it ends."""
        tasks = self._streams if streams else self._unary
        tasks.add(task)
        task.add_done_callback(tasks.discard)


def _identity(path: str) -> tuple[str, int, int]:
    found = os.stat(path)
    return path, found.st_dev, found.st_ino
