"""The only module that knows HTTP: HTTP/1.1 on the running loop. Pages get requests and return
replies, or write chunks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from urllib.parse import unquote

import attrs
import h11

from revstore.backend_tools import Log
from revstore.errors import ConfigError
from revstore_serve._handshakes import Handshakes
from revstore_serve._tls import Tls
from revstore_serve._transport import AT_ONCE, cannot_listen, let_wait

__all__ = ["Chunks", "HttpServer", "Page", "Reply", "Request", "split"]

_log = Log("revstore.serve")

_LARGEST_BODY = 2 << 20
_LARGEST_HEAD = 16 << 10
# Seconds: a connection waits for a request, a begun request must arrive, a client must take a
# piece of a reply.
_IDLE = 75.0
_PATIENCE = 10.0
_READING = 30.0
# Seconds for which the rest of a request is read and dropped once it was refused.
_LINGER = 5.0
_PIECE = 64 << 10

_JSON = "application/json"


@attrs.frozen
class Request:
    """What a client asks for. ``path`` has no query. ``authorization`` is the header's value."""

    method: str
    path: str
    body: bytes
    authorization: str | None = None


@attrs.frozen
class Reply:
    """A whole answer."""

    status: int
    body: bytes
    kind: str = _JSON


class Chunks:
    """An answer that is written bit by bit."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self._writing = asyncio.Lock()
        #: Whether something was written, so that the status is out.
        self.begun = False

    async def write(self, data: bytes) -> None:
        """Send a chunk. Wait while the client does not read.

        Raises:
            ConnectionError: the client is gone, or has not read for too long.
        """
        async with self._writing:
            if not self.begun:
                self.begun = True
                await self._connection.send(_head(200, _JSON, ("Transfer-Encoding", "chunked")))
            await self._connection.send(h11.Data(data))


#: It returns a whole answer, or None if it has written chunks.
Page = Callable[[Request, Chunks], Awaitable[Reply | None]]


class HttpServer:
    """A listener. ``page`` answers all requests. Connections beyond ``most_connections`` are
    closed at once."""

    def __init__(self, page: Page, tls: Tls | None, most_connections: int) -> None:
        self.page = page
        self._most_connections = most_connections
        self._tls = tls
        self._handshakes: Handshakes | None = None
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], _Connection] = {}
        self.ending = False

    async def start(self, address: str) -> int:
        """Listen at "host:port", and return the port.

        Raises:
            OSError: nobody can listen there.
        """
        host, port = split(address)
        make: Callable[[], asyncio.Protocol] = self._new_protocol
        if self._tls is not None:
            make = self._handshakes = Handshakes(self._tls, make, self._has_room)
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(make, host, port, backlog=AT_ONCE)
            let_wait(self._server)
        except OSError as error:
            raise cannot_listen(address, error) from error
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self, grace: float) -> None:
        """Accept no more connections, and end requests that run longer than ``grace`` seconds."""
        self.ending = True
        if self._server is not None:
            self._server.close()
        if self._handshakes is not None:
            self._handshakes.stop()
        for each in self._connections.values():
            each.end()
        if self._connections:
            _, late = await asyncio.wait(list(self._connections), timeout=grace)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)

    def _new_protocol(self) -> asyncio.Protocol:
        return asyncio.StreamReaderProtocol(asyncio.StreamReader(limit=_PIECE), self._serve)

    def _has_room(self) -> bool:
        handshakes = 0 if self._handshakes is None else self._handshakes.count
        return len(self._connections) + handshakes < self._most_connections

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._has_room():
            writer.close()
            return
        connection = _Connection(self, reader, writer)
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = connection
        try:
            await connection.run(self._admits(writer))
            await connection.close()
        except (OSError, asyncio.CancelledError):
            # The client is gone, for which the system has many words, or does not read, or the
            # endpoint has waited long enough.
            pass
        finally:
            del self._connections[task]
            writer.transport.abort()

    def _admits(self, writer: asyncio.StreamWriter) -> bool:
        if self._tls is None or not self._tls.selective:
            return True
        found = writer.get_extra_info("peercert") or {}
        subject = [
            value
            for part in found.get("subject", ())
            for name, value in part
            if name == "commonName"
        ]
        return self._tls.admits(subject, [value for _, value in found.get("subjectAltName", ())])


class _Broken(Exception):
    """A request that ends the connection, with this status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class _Connection:
    def __init__(
        self, server: HttpServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._server = server
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_LARGEST_HEAD)
        self._idle = True

    def end(self) -> None:
        """Close the connection if it waits for a request."""
        if self._idle:
            self._writer.transport.abort()

    async def close(self) -> None:
        """Send what is left, and close the connection.

        Raises:
            OSError: the client is gone, or does not read.
        """
        self._writer.close()
        async with asyncio.timeout(_READING):
            await self._writer.wait_closed()

    async def run(self, admitted: bool) -> None:
        """Answer requests one after the other."""
        while not self._server.ending:
            self._idle = True
            try:
                found = await self._receive()
            except _Broken as broken:
                await self._reply(_plain(broken.status))
                await self._linger()
                return
            if found is None:
                return
            request, foreign = found
            chunks = Chunks(self)
            if foreign or not admitted:
                reply: Reply | None = _plain(403)
            else:
                reply = await self._answer(request, chunks)
            if reply is not None and not chunks.begun:
                await self._reply(reply, with_body=request.method != "HEAD")
            if chunks.begun:
                await self.send(h11.EndOfMessage())
            if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
                return
            self._http.start_next_cycle()

    async def _receive(self) -> tuple[Request, bool] | None:
        """Return the next request, and whether a web page of another server sends it; None at
        the end of the connection.

        Raises:
            _Broken: it is no request, is too large, or takes too long.
        """
        head: h11.Request | None = None
        body = bytearray()
        try:
            async with asyncio.timeout(_IDLE) as deadline:
                while True:
                    event = self._http.next_event()
                    if event is h11.NEED_DATA:
                        if self._http.they_are_waiting_for_100_continue:
                            await self.send(h11.InformationalResponse(status_code=100, headers=[]))
                        data = await self._reader.read(_PIECE)
                        if self._idle and data:
                            self._idle = False
                            now = asyncio.get_running_loop().time()
                            deadline.reschedule(now + _PATIENCE)
                        self._http.receive_data(data)
                    elif isinstance(event, h11.Request):
                        head = event
                        _refuse_large(event)
                    elif isinstance(event, h11.Data):
                        body += event.data
                        if len(body) > _LARGEST_BODY:
                            raise _Broken(413)
                    elif isinstance(event, h11.EndOfMessage):
                        break
                    else:
                        return None
        except TimeoutError as error:
            if self._idle:
                return None
            raise _Broken(408) from error
        except h11.RemoteProtocolError as error:
            raise _Broken(error.error_status_hint) from error
        self._idle = False
        assert head is not None
        path = _path(head.target.decode("latin-1"))
        authorization = next(
            (value.decode("latin-1") for name, value in head.headers if name == b"authorization"),
            None,
        )
        # A browser says on whose behalf it posts. No other client does.
        foreign = any(name == b"origin" for name, _ in head.headers)
        method = head.method.decode("latin-1")
        return Request(method, path, bytes(body), authorization), foreign

    async def _answer(self, request: Request, chunks: Chunks) -> Reply | None:
        """Let the page answer, unless the client goes meanwhile."""
        task = asyncio.ensure_future(self._server.page(request, chunks))
        gone = asyncio.ensure_future(self._until_gone())
        try:
            await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise ConnectionResetError("the client has gone")
            return task.result()
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception as error:  # noqa: BLE001 - every error has an answer
            _log.error("%s %s failed", request.method, request.path, exc_info=error)
            return _plain(500)
        finally:
            for each in (task, gone):
                each.cancel()
            await asyncio.wait({task, gone})

    async def _until_gone(self) -> None:
        # What a client sends before it has the answer waits in the library.
        while data := await self._reader.read(_PIECE):
            if len(self._http.trailing_data[0]) > _PIECE:
                raise ConnectionResetError("the client sends more than it reads")
            self._http.receive_data(data)

    async def _reply(self, reply: Reply, *, with_body: bool = True) -> None:
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        more = [("Connection", "close")] if self._server.ending else []
        await self.send(
            _head(reply.status, reply.kind, ("Content-Length", str(len(reply.body))), *more)
        )
        view = memoryview(reply.body) if with_body else memoryview(b"")
        for start in range(0, len(view), _PIECE):
            await self.send(h11.Data(bytes(view[start : start + _PIECE])))
        await self.send(h11.EndOfMessage())

    async def _linger(self) -> None:
        """Drop what the client still sends: a connection that is closed with data unread is reset,
        and the client may then never see the reply."""
        self._idle = True
        if self._writer.can_write_eof():
            self._writer.write_eof()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LINGER):
                while await self._reader.read(_PIECE):
                    pass

    async def send(self, event: h11.Event) -> None:
        """Write a part of an answer, and wait while the client does not read.

        Raises:
            ConnectionError: the client is gone, or has not read for too long.
        """
        data = self._http.send(event)
        if data:
            self._writer.write(data)
        try:
            async with asyncio.timeout(_READING):
                await self._writer.drain()
        except TimeoutError as error:
            self._writer.transport.abort()
            raise ConnectionAbortedError("the client does not read") from error


def split(address: str) -> tuple[str, int]:
    """Return host and port of "host:port".

    Raises:
        ConfigError: it is something else.
    """
    host, _, port = address.rpartition(":")
    if not (host and port.isascii() and port.isdecimal() and int(port) <= 0xFFFF):
        raise ConfigError("http", address, "host:port")
    return host.strip("[]"), int(port)


def _path(target: str) -> str:
    """Return the path of a request's target, which through a proxy is a whole URL."""
    scheme, separator, rest = target.partition("://")
    if separator and scheme.lower() in ("http", "https"):
        target = "/" + rest.partition("/")[2]
    return unquote(target.partition("?")[0])


def _refuse_large(head: h11.Request) -> None:
    """Raise ``_Broken`` if a request's head announces a body that is too large."""
    if any(
        name == b"content-length" and int(value) > _LARGEST_BODY for name, value in head.headers
    ):
        raise _Broken(413)


def _head(status: int, kind: str, *more: tuple[str, str]) -> h11.Response:
    return h11.Response(
        status_code=status,
        headers=[("Content-Type", kind), ("X-Content-Type-Options", "nosniff"), *more],
        reason=HTTPStatus(status).phrase,
    )


def _plain(status: int) -> Reply:
    return Reply(status, f"{HTTPStatus(status).phrase}\n".encode(), "text/plain; charset=utf-8")
