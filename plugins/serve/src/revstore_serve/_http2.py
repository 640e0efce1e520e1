"""gRPC over HTTP/2 on the running loop, without gRPC's library.

The library hands each step of a call from a thread of its own to the loop, which costs ten times as
much as the call. Here a call is a few frames that are read and written where they arrive.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
import os
import ssl
from collections.abc import Callable, Mapping
from typing import Any

import hpack

from revstore.backend_tools import Log
from revstore_serve._call import PIECE, Call, Served
from revstore_serve._errors import PERMISSION_DENIED, STOPPED, Code, Refused
from revstore_serve._frames import (
    ACK,
    BEGIN,
    CALM,
    COMPRESSION_ERROR,
    DATA,
    END_HEADERS,
    END_STREAM,
    FLOW_ERROR,
    FRAME,
    GOAWAY,
    HEADERS,
    INTERNAL,
    MORE,
    MOST,
    NO_ERROR,
    NUMBERS,
    PADDED,
    PING,
    PREFACE,
    PRIORITIZED,
    PROTOCOL_ERROR,
    PUSH,
    RESET,
    SETTING,
    SETTINGS,
    SIZE_ERROR,
    UNITS,
    UPDATE,
    Broken,
    field,
    frame,
    head_of,
    packed,
    status_fields,
    unpacked,
)
from revstore_serve._proto import Method
from revstore_serve._tls import Tls
from revstore_serve._transport import (
    StreamHandler,
    UnaryHandler,
    handlers,
    refused_as,
    serialized,
)
from revstore_serve._users import CALLER, Caller

__all__ = ["Transport"]

_log = Log("revstore.serve")
# It would log all header fields, and tokens are among them.
logging.getLogger("hpack").setLevel(logging.INFO)

# Bytes of a call's header fields, and how many frames they may come in.
_LARGEST_HEADERS = 16 << 10
_MOST_CONTINUATIONS = 16
# What a client may send on one call, and on all, before it is read.
_WINDOW = 1 << 20
_WHOLE_WINDOW = 16 << 20
# Bytes that wait for a client which does not read; then nothing more of it is read either.
_MOST_UNSENT = 1 << 20
# Seconds for which closing connections may send what is left.
_LINGER = 1.0
# Seconds for TLS and the first bytes of a connection.
_PATIENCE = 10.0
# Seconds of silence after which a client is asked whether it lives, and seconds to answer.
_SILENCE = 60.0
_ANSWER = 20.0
# How many blocks of header fields are remembered for each connection.
_MOST_KNOWN = 100
# How many calls a client may take back at once, and how many more each second.
_MOST_RESETS = 10_000
_RESETS_A_SECOND = 100


class _Connection(asyncio.Protocol):
    """A client's connection."""

    def __init__(self, server: Transport) -> None:
        self._server = server
        self._loop = server.loop
        self._transport: asyncio.Transport = None  # type: ignore[assignment]
        self._buffer = b""
        self._begun = False
        self._decoder = hpack.Decoder(max_header_list_size=_LARGEST_HEADERS)
        # Blocks of header fields that leave the decoder's table as it is, by their bytes.
        self._known: dict[bytes, dict[bytes, bytes]] = {}
        # The call whose header fields are incomplete: its number, flags, and what came.
        self._headers: tuple[int, int, bytearray, int] | None = None
        self._calls: dict[int, Call] = {}
        self._last = 0
        self._received = 0
        self._out: list[bytes] = []
        self._unsent = 0
        self._waiters: dict[Call, asyncio.Future[None]] = {}
        self._resets, self._resets_at = 0.0, 0.0
        self._heard = 0.0
        self._asked = False
        self._timer: asyncio.TimerHandle | None = None
        self._going = False
        self._caller_name: str | None = None
        self._denied = False
        #: How much the client lets the server send, on the connection and on a new call.
        self.window = 65535
        self.initial_window = 65535
        self.largest_frame = FRAME
        #: Whether the client does not read.
        self.blocked = False

    # Calls of the loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if not self._server.admit(self):
            transport.abort()
            return
        transport.set_write_buffer_limits(high=PIECE)
        self._denied, self._caller_name = self._server.look(transport)
        self._heard = self._loop.time()
        self._timer = self._loop.call_later(_PATIENCE, self._check_begun)
        self.write(
            frame(
                SETTINGS,
                0,
                0,
                SETTING.pack(4, _WINDOW) + SETTING.pack(6, _LARGEST_HEADERS),
            )
            + frame(UPDATE, 0, 0, packed(_WHOLE_WINDOW - 65535))
        )

    def connection_lost(self, _: Exception | None) -> None:
        self._server.gone(self)
        if self._timer is not None:
            self._timer.cancel()
        for call in list(self._calls.values()):
            self._drop(call)
        self._wake()

    def pause_writing(self) -> None:
        self.blocked = True

    def resume_writing(self) -> None:
        self.blocked = False
        self._transport.resume_reading()
        self._wake()

    def data_received(self, data: bytes) -> None:
        self._heard = self._loop.time()
        self._asked = False
        try:
            self._read(self._buffer + data if self._buffer else data)
        except Broken as broken:
            self._break(broken.code)
        except Exception as error:  # noqa: BLE001 - the connection ends with it
            _log.error("a connection ends by a defect", exc_info=error)
            self._break(INTERNAL)
        if self._unsent > _MOST_UNSENT:
            self.flush()
        if self.blocked and self._transport.get_write_buffer_size() > _MOST_UNSENT:
            # A client that does not read shall not make the server write more.
            self._transport.pause_reading()

    def _read(self, data: bytes) -> None:
        at, end = 0, len(data)
        if not self._begun:
            if data[:24] != PREFACE[:end]:
                raise Broken(PROTOCOL_ERROR)
            if end < 24:
                self._buffer = data
                return
            at, self._begun = 24, True
        while end - at >= 9:
            high, low, kind, flags, number = head_of(data, at)
            length = high << 8 | low
            if length > FRAME:
                raise Broken(SIZE_ERROR)
            if end - at < 9 + length:
                break
            payload = data[at + 9 : at + 9 + length]
            at += 9 + length
            if self._headers is not None and kind != MORE:
                raise Broken(PROTOCOL_ERROR)
            handle = self._HANDLERS.get(kind)
            if handle is not None:
                handle(self, flags, number & MOST, payload)
            if self._transport.is_closing():
                return
        self._buffer = data[at:]

    # Frames of the client.

    def _on_data(self, flags: int, number: int, payload: bytes) -> None:
        length = len(payload)
        self._received += length
        if self._received > _WHOLE_WINDOW // 2:
            self.write(frame(UPDATE, 0, 0, packed(self._received)))
            self._received = 0
        if flags & PADDED:
            payload = _unpadded(payload)
        call = self._calls.get(number)
        if call is None:
            if not number & 1 or number > self._last:
                raise Broken(PROTOCOL_ERROR)
            return  # it has ended meanwhile
        call.received += length
        if call.received > _WINDOW:
            raise Broken(FLOW_ERROR)
        call.feed(payload, end=bool(flags & END_STREAM))
        if not call.closed and not flags & END_STREAM and not call.waiting:
            self.give_back(call)

    def give_back(self, call: Call) -> None:
        """Let a client send more on a call whose messages are read."""
        if call.received > _WINDOW // 2 and not call.closed:
            self.write(frame(UPDATE, 0, call.id, packed(call.received)))
            call.received = 0

    def _on_headers(self, flags: int, number: int, payload: bytes) -> None:
        if flags & PADDED:
            payload = _unpadded(payload)
        if flags & PRIORITIZED:
            if len(payload) < 5:
                raise Broken(SIZE_ERROR)
            payload = payload[5:]
        if not number & 1:
            raise Broken(PROTOCOL_ERROR)
        if flags & END_HEADERS:
            self._on_fields(flags, number, payload)
        else:
            self._headers = number, flags, bytearray(payload), 0

    def _on_more(self, flags: int, number: int, payload: bytes) -> None:
        if self._headers is None or self._headers[0] != number:
            raise Broken(PROTOCOL_ERROR)
        _, first, block, count = self._headers
        block += payload
        if len(block) > 2 * _LARGEST_HEADERS or count >= _MOST_CONTINUATIONS:
            raise Broken(CALM)
        self._headers = number, first, block, count + 1
        if flags & END_HEADERS:
            self._headers = None
            self._on_fields(first, number, bytes(block))

    def _on_fields(self, flags: int, number: int, block: bytes) -> None:
        fields = self._known.get(block)
        if fields is None:
            fields = self._decoded(block)
        if number <= self._last:
            call = self._calls.get(number)
            if call is not None:
                if not flags & END_STREAM:
                    raise Broken(PROTOCOL_ERROR)
                call.feed(b"", end=True)
            return
        self._last = number
        if self._going:
            return  # the client was told that this call will not be answered
        self._open(flags, number, fields)

    def _decoded(self, block: bytes) -> dict[bytes, bytes]:
        before = self._table()
        try:
            # Of a name that comes twice, the first counts.
            found = dict(reversed(list(self._decoder.decode(block, raw=True))))
        except hpack.HPACKError as error:
            raise Broken(COMPRESSION_ERROR) from error
        if self._table() != before:
            self._known.clear()
        elif len(self._known) < _MOST_KNOWN:
            self._known[block] = found
        return found

    def _table(self) -> tuple[int, ...]:
        """Return what differs once the decoder's table has changed."""
        table = self._decoder.header_table
        entries = table.dynamic_entries
        return table.maxsize, len(entries), id(entries[0]) if entries else 0

    def _on_reset(self, _: int, number: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise Broken(SIZE_ERROR)
        if not number or number > self._last:
            raise Broken(PROTOCOL_ERROR)
        now = self._loop.time()
        self._resets = max(0.0, self._resets - (now - self._resets_at) * _RESETS_A_SECOND) + 1
        self._resets_at = now
        if self._resets > _MOST_RESETS:
            raise Broken(CALM)
        call = self._calls.get(number)
        if call is not None:
            self._drop(call)

    def _on_settings(self, flags: int, number: int, payload: bytes) -> None:
        if number:
            raise Broken(PROTOCOL_ERROR)
        if flags & ACK:
            return
        if len(payload) % 6:
            raise Broken(SIZE_ERROR)
        for name, value in SETTING.iter_unpack(payload):
            if name == 4:
                if value > MOST:
                    raise Broken(FLOW_ERROR)
                more = value - self.initial_window
                self.initial_window = value
                for call in self._calls.values():
                    call.window += more
                self._wake()
            elif name == 5:
                if not FRAME <= value < 1 << 24:
                    raise Broken(PROTOCOL_ERROR)
                self.largest_frame = min(value, PIECE)
        self.write(frame(SETTINGS, ACK, 0))

    def _on_ping(self, flags: int, number: int, payload: bytes) -> None:
        if number:
            raise Broken(PROTOCOL_ERROR)
        if len(payload) != 8:
            raise Broken(SIZE_ERROR)
        if not flags & ACK:
            self.write(frame(PING, ACK, 0, payload))

    def _on_update(self, _: int, number: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise Broken(SIZE_ERROR)
        more = unpacked(payload)[0] & MOST
        if not more:
            raise Broken(PROTOCOL_ERROR)
        if not number:
            self.window += more
            if self.window > MOST:
                raise Broken(FLOW_ERROR)
            self._wake()
            return
        call = self._calls.get(number)
        if call is None:
            if number > self._last:
                raise Broken(PROTOCOL_ERROR)
            return
        call.window += more
        if call.window > MOST:
            raise Broken(FLOW_ERROR)
        self._wake_one(call)

    def _on_push(self, *_: Any) -> None:
        raise Broken(PROTOCOL_ERROR)

    _HANDLERS: Mapping[int, Callable[[_Connection, int, int, bytes], None]] = {
        DATA: _on_data,
        HEADERS: _on_headers,
        RESET: _on_reset,
        SETTINGS: _on_settings,
        PUSH: _on_push,
        PING: _on_ping,
        UPDATE: _on_update,
        MORE: _on_more,
    }

    # Calls.

    def _open(self, flags: int, number: int, fields: dict[bytes, bytes]) -> None:
        path = fields.get(b":path", b"")
        if fields.get(b":method") != b"POST" or not fields.get(b"content-type", b"").startswith(
            b"application/grpc"
        ):
            posted = fields.get(b":method") == b"POST"
            status = field(b":status", b"415" if posted else b"405")
            self.write(frame(HEADERS, END_HEADERS | END_STREAM, number, status))
            return
        served = self._server.methods.get(path)
        if served is None:
            text = status_fields(
                NUMBERS["UNIMPLEMENTED"], f"unknown method {path.decode(errors='replace')}"
            )
            self.write(frame(HEADERS, END_HEADERS | END_STREAM, number, BEGIN + text))
            return
        call = Call(
            self, number, served, fields.get(b"grpc-encoding", b"identity").decode(errors="replace")
        )
        self._calls[number] = call
        if self._denied:
            call.fail(Refused(*PERMISSION_DENIED))
            return
        if self._server.identify:
            token = fields.get(b"token", fields.get(b"authorization"))
            call.caller = Caller(_text(token), self._caller_name)
        timeout = fields.get(b"grpc-timeout")
        if timeout is not None:
            seconds = _seconds(timeout)
            call.deadline = self._loop.call_later(seconds, self._expire, call)
        if served.streams:
            self.begin(call)
        if flags & END_STREAM:
            call.feed(b"", end=True)

    def begin(self, call: Call) -> None:
        """Let the handler of a call begin."""
        if call.caller is not None:
            # The task takes it over; other calls of the connection have their own.
            CALLER.set(call.caller)
        run = self._run_unary if call.method.unary is not None else self._run_stream
        call.task = self._loop.create_task(run(call))
        self._server.begun(call.task, streams=call.method.unary is None)

    async def _run_unary(self, call: Call) -> None:
        served = call.method
        assert served.unary is not None
        try:
            try:
                request = served.parse(call.only())
            except ValueError as error:
                raise Refused(Code.INTERNAL, "the message cannot be read") from error
            response = serialized(await served.unary(request))
            if not call.answer(response):
                await call.finish(response)
        except Exception as error:  # noqa: BLE001 - every error has an answer
            call.fail(refused_as(served.method, error))

    async def _run_stream(self, call: Call) -> None:
        served = call.method
        assert served.stream is not None
        ending = self._server.ending
        try:
            first = None if served.streams else served.parse(call.only())
            task = asyncio.ensure_future(served.stream(first, call))
            try:
                await asyncio.wait({task, ending}, return_when=asyncio.FIRST_COMPLETED)
                if not task.done():
                    raise Refused(*STOPPED)
                task.result()
                call.end()
            finally:
                task.cancel()
                await asyncio.wait({task})
        except Exception as error:  # noqa: BLE001 - every error has an answer
            call.fail(refused_as(served.method, error))

    def _expire(self, call: Call) -> None:
        """End a call whose time is over."""
        if not call.closed:
            call.fail(Refused(Code.DEADLINE_EXCEEDED, "context deadline exceeded"))
            if call.task is not None:
                call.task.cancel()

    def _drop(self, call: Call) -> None:
        """End a call whose client has gone."""
        call.close()
        if call.task is not None:
            call.task.cancel()

    def forget(self, call: Call) -> None:
        """Remove a call that has ended."""
        self._calls.pop(call.id, None)
        if self._going and not self._calls:
            self._finish()

    # Writing.

    def write(self, data: bytes) -> None:
        """Send bytes at the end of this turn of the loop, with all others of it."""
        if not self._out:
            self._loop.call_soon(self.flush)
        self._out.append(data)
        self._unsent += len(data)

    def flush(self) -> None:
        """Send what waits."""
        if self._out:
            data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
            self._out.clear()
            self._unsent = 0
            if not self._transport.is_closing():
                self._transport.write(data)

    async def room(self, call: Call) -> None:
        """Wait until the client may have made room.

        Raises:
            asyncio.CancelledError: the client is gone.
        """
        if call.closed or self._transport.is_closing():
            raise asyncio.CancelledError
        waiter = self._waiters[call] = self._loop.create_future()
        try:
            await waiter
        finally:
            del self._waiters[call]

    def _wake(self) -> None:
        for waiter in self._waiters.values():
            if not waiter.done():
                waiter.set_result(None)

    def _wake_one(self, call: Call) -> None:
        waiter = self._waiters.get(call)
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # The life of the connection.

    def _check_begun(self) -> None:
        if not self._begun:
            self._transport.abort()
            return
        self._check()

    def _check(self) -> None:
        """Ask a client that was silent whether it lives."""
        silent = self._loop.time() - self._heard
        if self._asked:
            self._transport.abort()
            return
        wait = _SILENCE - silent
        if wait <= 0:
            self._asked = True
            self.write(frame(PING, 0, 0, b"revstore"))
            wait = _ANSWER
        self._timer = self._loop.call_later(wait, self._check)

    def _break(self, code: int) -> None:
        """End a connection whose client does not keep to the rules."""
        if self._begun:
            self.write(frame(GOAWAY, 0, 0, packed(self._last) + packed(code)))
        self.flush()
        self._transport.close()

    def go(self) -> None:
        """Take no more calls, and close once all have ended."""
        if not self._going:
            self._going = True
            self.write(frame(GOAWAY, 0, 0, packed(self._last) + packed(NO_ERROR)))
            if not self._calls:
                self._finish()

    def _finish(self) -> None:
        self.flush()
        self._transport.close()

    def abort_if_busy(self) -> None:
        """End at once, if calls are under way."""
        if self._calls:
            self.abort()

    def abort(self) -> None:
        """End at once."""
        self.flush()
        self._transport.abort()


def _unpadded(payload: bytes) -> bytes:
    if not payload or payload[0] >= len(payload):
        raise Broken(PROTOCOL_ERROR)
    return payload[1 : len(payload) - payload[0]]


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="replace")


def _seconds(timeout: bytes) -> float:
    unit = UNITS.get(timeout[-1:])
    if unit is None or not timeout[:-1].isdigit() or len(timeout) > 9:
        raise Broken(PROTOCOL_ERROR)
    return int(timeout[:-1]) * unit


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
        self.connections: set[_Connection] = set()
        self.methods: dict[bytes, Served] = {}
        self._most_connections = most_connections
        self._tls = copy.copy(tls)
        self._context: ssl.SSLContext | None = None
        self._server: asyncio.Server | None = None
        self._path: str | None = None
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
        options: dict[str, Any] = {}
        if self._tls is not None:
            listening = self._new_context()
            self._context = self._new_context()
            listening.sni_callback = self._choose
            options = {"ssl": listening, "ssl_handshake_timeout": _PATIENCE}
        make = lambda: _Connection(self)  # noqa: E731
        try:
            if address.startswith("unix:"):
                path = address.removeprefix("unix:")
                path = "/" + path.lstrip("/") if path.startswith("//") else path
                self._server = await self.loop.create_unix_server(make, path, **options)
                self._path = path
                return 0
            host, _, port = address.rpartition(":")
            if not port.isdecimal():
                raise OSError("it is neither host:port nor unix:path")
            self._server = await self.loop.create_server(
                make, host.strip("[]") or None, int(port), backlog=1024, **options
            )
        except (OSError, OverflowError) as error:
            raise OSError(f"cannot listen on {address}: {error}") from error
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self, grace: float) -> None:
        """End streams, accept no more calls, and end other calls that run longer than ``grace``
        seconds."""
        if not self.ending.done():
            self.ending.set_result(None)
        if self._server is not None:
            self._server.close()
        if self._path is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._path)
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

    def _new_context(self) -> ssl.SSLContext:
        assert self._tls is not None
        context = self._tls.context()
        context.set_alpn_protocols(["h2"])
        return context

    def _choose(self, connection: Any, _: Any, __: ssl.SSLContext) -> None:
        """Let a new connection use the files as they are now."""
        if self._tls is not None and self._tls.changed() is not None:
            # If the files change again at this moment, the next connection sees that.
            with contextlib.suppress(OSError):
                self._context = self._new_context()
        connection.context = self._context

    def admit(self, connection: _Connection) -> bool:
        """Return whether a connection may stay."""
        if len(self.connections) >= self._most_connections:
            return False
        self.connections.add(connection)
        return True

    def gone(self, connection: _Connection) -> None:
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
