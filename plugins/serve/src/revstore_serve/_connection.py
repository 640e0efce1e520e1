"""A client's connection: its frames, and the calls that they carry."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from revstore.backend_tools import Log
from revstore_serve._call import PIECE, Call, Served
from revstore_serve._errors import PERMISSION_DENIED, STOPPED, TOO_MANY_REQUESTS, Code, Refused
from revstore_serve._frames import (
    ACK,
    BEGIN,
    CALM,
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
    STREAM_CLOSED,
    UPDATE,
    Broken,
    field,
    frame,
    head_of,
    is_grpc,
    packed,
    seconds_of,
    status_fields,
    unpacked,
    unpadded,
)
from revstore_serve._handshakes import PATIENCE
from revstore_serve._header_fields import LARGEST_HEADERS, HeaderFields
from revstore_serve._transport import refused_as, serialized
from revstore_serve._users import CALLER, Caller

__all__ = ["Connection", "Server"]

_log = Log("revstore.serve")

# What a client may send on one call, and on all, before it is read.
_WINDOW = 1 << 20
_WHOLE_WINDOW = 16 << 20
# Bytes of requests that a connection may hold, and what an open call counts for.
_MOST_HELD = 64 << 20
_CALL = 8 << 10
# Bytes of answers that a connection may hold while its client does not read; one alone may be
# larger.
_MOST_UNREAD = 256 << 20
# Bytes that wait for a client which does not read; then nothing more of it is read either.
_MOST_UNSENT = 1 << 20
# Bytes of the name of an encoding, which each call keeps.
_LONGEST_ENCODING = 32
# Bytes of a path that an answer repeats.
_LONGEST_PATH = 256
# Seconds of silence after which a client is asked whether it lives, and seconds to answer.
_SILENCE = 60.0
_ANSWER = 20.0
# How many calls a client may take back at once, and how many more each second. A change of the
# windows of so many calls counts for one more.
_MOST_RESETS = 10_000
_RESETS_A_SECOND = 100
_WINDOWS_A_RESET = 50


class Server(Protocol):
    """A server, as its connections see it."""

    loop: asyncio.AbstractEventLoop
    methods: dict[bytes, Served]
    identify: bool
    ending: asyncio.Future[None]
    inflating: asyncio.Lock

    def admit(self, connection: Connection) -> bool: ...
    def gone(self, connection: Connection) -> None: ...
    def look(self, transport: asyncio.Transport) -> tuple[bool, str | None]: ...
    def begun(self, task: asyncio.Task[None], *, streams: bool) -> None: ...


class Connection(asyncio.Protocol):
    """A client's connection."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._loop = server.loop
        self._transport: asyncio.Transport = None  # type: ignore[assignment]
        self._buffer = b""
        self._begun = False
        # Whether the client has sent its settings, which come first.
        self._settled = False
        # Whether frames wait in the buffer until the client reads.
        self._stopped = False
        self._headers = HeaderFields()
        self._calls: dict[int, Call] = {}
        self._last = 0
        self._received = 0
        # Bytes of requests that have not ended.
        self._held = 0
        self._out: list[bytes] = []
        self._unsent = 0
        # Bytes of answers that wait until the client reads.
        self._unread = 0
        self._waiters: dict[Call, asyncio.Future[None]] = {}
        self._waking = False
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
        #: Held by the one call of the server that decompresses a large message.
        self.inflating = server.inflating

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
        self._timer = self._loop.call_later(PATIENCE, self._check_begun)
        self.write(
            frame(
                SETTINGS,
                0,
                0,
                SETTING.pack(4, _WINDOW) + SETTING.pack(6, LARGEST_HEADERS),
            )
            + frame(UPDATE, 0, 0, packed(_WHOLE_WINDOW - 65535))
        )

    def connection_lost(self, _: Exception | None) -> None:
        self._server.gone(self)
        if self._timer is not None:
            self._timer.cancel()
        for call in list(self._calls.values()):
            call.close()

    def pause_writing(self) -> None:
        self.blocked = True

    def resume_writing(self) -> None:
        self.blocked = False
        self._transport.resume_reading()
        self.wake()
        if self._stopped and not self._transport.is_closing():
            self._stopped = False
            self._receive(b"")

    def data_received(self, data: bytes) -> None:
        self._heard = self._loop.time()
        self._asked = False
        if self._stopped:
            self._buffer += data
        else:
            self._receive(data)

    def _receive(self, data: bytes) -> None:
        try:
            self._read(self._buffer + data if self._buffer else data)
        except Broken as broken:
            self._break(broken.code)
        except Exception as error:  # noqa: BLE001 - the connection ends with it
            _log.error("a connection ends by a defect", exc_info=error)
            self._break(INTERNAL)
        if self._must_stop():
            self._transport.pause_reading()

    def _must_stop(self) -> bool:
        """Return whether the client makes the server write more than it reads."""
        if self._unsent > _MOST_UNSENT:
            self.flush()
        return self.blocked and self._transport.get_write_buffer_size() > _MOST_UNSENT

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
            if not self._settled:
                if kind != SETTINGS or flags & ACK:
                    raise Broken(PROTOCOL_ERROR)
                self._settled = True
            if self._headers.call and kind != MORE:
                raise Broken(PROTOCOL_ERROR)
            handle = self._HANDLERS.get(kind)
            if handle is not None:
                handle(self, flags, number & MOST, payload)
            if self._transport.is_closing():
                return
            if self._unsent > _MOST_UNSENT and self._must_stop():
                self._stopped = True
                break
        self._buffer = data[at:]

    # Frames of the client.

    def _on_data(self, flags: int, number: int, payload: bytes) -> None:
        length = len(payload)
        self._received += length
        if self._received > _WHOLE_WINDOW // 2:
            self.write(frame(UPDATE, 0, 0, packed(self._received)))
            self._received = 0
        if flags & PADDED:
            payload = unpadded(payload)
        call = self._calls.get(number)
        if call is None:
            if not number & 1 or number > self._last:
                raise Broken(PROTOCOL_ERROR)
            return  # it has ended meanwhile
        if call.ended:
            raise Broken(STREAM_CLOSED)
        call.received += length
        if call.received > _WINDOW:
            raise Broken(FLOW_ERROR)
        if not self.hold(call, len(payload)):
            call.fail(Refused(*TOO_MANY_REQUESTS))
            return
        call.feed(payload, end=bool(flags & END_STREAM))
        if not call.closed and not flags & END_STREAM and not call.waiting:
            self.give_back(call)

    def give_back(self, call: Call) -> None:
        """Let a client send more on a call whose messages are read."""
        if call.received > _WINDOW // 2 and not call.closed:
            self.write(frame(UPDATE, 0, call.id, packed(call.received)))
            call.received = 0

    def hold(self, call: Call, size: int) -> bool:
        """Note that a call holds so many bytes more, or fewer; return False if all hold too
        many."""
        call.held += size
        self._held += size
        return self._held <= _MOST_HELD

    def _on_headers(self, flags: int, number: int, payload: bytes) -> None:
        if flags & PADDED:
            payload = unpadded(payload)
        if flags & PRIORITIZED:
            if len(payload) < 5:
                raise Broken(SIZE_ERROR)
            payload = payload[5:]
        if not number & 1:
            raise Broken(PROTOCOL_ERROR)
        fields = self._headers.begin(flags, number, payload)
        if fields is not None:
            self._on_fields(flags, number, fields)

    def _on_more(self, flags: int, number: int, payload: bytes) -> None:
        fields = self._headers.go_on(flags, number, payload)
        if fields is not None:
            self._on_fields(self._headers.flags, number, fields)

    def _on_fields(self, flags: int, number: int, fields: dict[bytes, bytes]) -> None:
        if number <= self._last:
            call = self._calls.get(number)
            if call is not None:
                if call.ended:
                    raise Broken(STREAM_CLOSED)
                if not flags & END_STREAM:
                    raise Broken(PROTOCOL_ERROR)
                call.feed(b"", end=True)
            return
        self._last = number
        if self._going:
            return  # the client was told that this call will not be answered
        self._open(flags, number, fields)

    def _on_reset(self, _: int, number: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise Broken(SIZE_ERROR)
        if not number or number > self._last:
            raise Broken(PROTOCOL_ERROR)
        self._charge(1)
        call = self._calls.get(number)
        if call is not None:
            call.close()

    def _charge(self, count: int) -> None:
        """Note what costs the server more than the client.

        Raises:
            Broken: it was too much in a short time.
        """
        now = self._loop.time()
        passed = now - self._resets_at
        self._resets = max(0.0, self._resets - passed * _RESETS_A_SECOND) + count
        self._resets_at = now
        if self._resets > _MOST_RESETS:
            raise Broken(CALM)

    def _on_settings(self, flags: int, number: int, payload: bytes) -> None:
        if number:
            raise Broken(PROTOCOL_ERROR)
        if flags & ACK and not payload:
            return
        if flags & ACK or len(payload) % 6:
            raise Broken(SIZE_ERROR)
        for name, value in SETTING.iter_unpack(payload):
            if name == 2 and value > 1:
                raise Broken(PROTOCOL_ERROR)
            if name == 4:
                if value > MOST:
                    raise Broken(FLOW_ERROR)
                more = value - self.initial_window
                if not more:
                    continue
                self._charge(1 + len(self._calls) // _WINDOWS_A_RESET)
                self.initial_window = value
                for call in self._calls.values():
                    call.window += more
                    if call.window > MOST:
                        raise Broken(FLOW_ERROR)
                self.wake()
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
            self.wake()
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

    _HANDLERS: Mapping[int, Callable[[Connection, int, int, bytes], None]] = {
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
        posted = fields.get(b":method") == b"POST"
        if not posted or not is_grpc(fields.get(b"content-type", b"")):
            status = field(b":status", b"415" if posted else b"405")
            self.write(frame(HEADERS, END_HEADERS | END_STREAM, number, status))
            return
        served = self._server.methods.get(path)
        if served is None:
            shown = path[:_LONGEST_PATH].decode(errors="replace")
            text = status_fields(NUMBERS["UNIMPLEMENTED"], f"unknown method {shown}")
            self.write(frame(HEADERS, END_HEADERS | END_STREAM, number, BEGIN + text))
            return
        encoding = fields.get(b"grpc-encoding", b"identity")[:_LONGEST_ENCODING]
        token = None
        if self._server.identify:
            token = fields.get(b"token", fields.get(b"authorization"))
        call = Call(self, number, served, encoding.decode(errors="replace"))
        self._calls[number] = call
        if not self.hold(call, _CALL + len(token or b"")):
            call.fail(Refused(*TOO_MANY_REQUESTS))
            return
        if self._denied:
            call.fail(Refused(*PERMISSION_DENIED))
            return
        if self._server.identify:
            call.caller = Caller(_text(token), self._caller_name)
        timeout = fields.get(b"grpc-timeout")
        if timeout is not None:
            seconds = seconds_of(timeout)
            if seconds is None:
                shown = timeout.decode(errors="replace")
                call.fail(Refused(Code.INTERNAL, f"malformed grpc-timeout: {shown!r}"))
                return
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
                request = served.parse(await call.only())
            except ValueError as error:
                raise Refused(Code.INTERNAL, "the message cannot be read") from error
            response = serialized(await served.unary(request))
            if not call.answer(response):
                await self._finish_slowly(call, response)
        except Exception as error:  # noqa: BLE001 - every error has an answer
            call.fail(refused_as(served.method, error))

    async def _finish_slowly(self, call: Call, response: bytes) -> None:
        """Send an answer as the client reads it."""
        size = len(response)
        if self._unread and self._unread + size > _MOST_UNREAD:
            raise Refused(*TOO_MANY_REQUESTS)
        self._unread += size
        try:
            await call.finish(response)
        finally:
            self._unread -= size

    async def _run_stream(self, call: Call) -> None:
        served = call.method
        assert served.stream is not None
        ending = self._server.ending
        try:
            first = None if served.streams else served.parse(await call.only())
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

    def forget(self, call: Call) -> None:
        """Remove a call that has ended."""
        self._calls.pop(call.id, None)
        self.hold(call, -call.held)
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
        except asyncio.CancelledError:
            self.wake()  # another may use the room
            raise
        finally:
            del self._waiters[call]

    def wake(self) -> None:
        """Let calls go on that wait for room, in turn, as far as there is some."""
        if self._waiters and not self._waking:
            # Once for all frames that come together: it looks at every waiting call.
            self._waking = True
            self._loop.call_soon(self._wake_all)

    def _wake_all(self) -> None:
        self._waking = False
        left = 0 if self.blocked else self.window
        for call, waiter in self._waiters.items():
            if left <= 0:
                return
            if call.window > 0 and not self.blocked and not waiter.done():
                waiter.set_result(None)
                left -= call.window

    def _wake_one(self, call: Call) -> None:
        waiter = self._waiters.get(call)
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # The life of the connection.

    def _check_begun(self) -> None:
        if not self._settled:
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


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="replace")
