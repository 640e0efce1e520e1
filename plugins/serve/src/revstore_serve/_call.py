"""One call of gRPC: its messages, and the way back to the client."""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from typing import Any, Protocol

from revstore_serve._errors import TOO_MANY_REQUESTS, Code, Refused
from revstore_serve._frames import (
    BEGIN,
    DATA,
    DONE,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    NO_ERROR,
    NUMBERS,
    RESET,
    frame,
    packed,
    status_fields,
    unpacked,
)
from revstore_serve._inflate import LARGEST_MESSAGE, Inflater, too_large
from revstore_serve._proto import Method
from revstore_serve._transport import StreamHandler, UnaryHandler, parsed, serialized
from revstore_serve._users import Caller

__all__ = ["PIECE", "Call", "Served"]

# Bytes that a message takes which is not read yet, besides its own.
_MESSAGE = 128
# How many bytes are written at once.
PIECE = 256 << 10


class Served:
    """A method, and what answers it."""

    __slots__ = ("method", "parse", "stream", "streams", "unary")

    def __init__(
        self, method: Method, unary: UnaryHandler | None, stream: StreamHandler | None
    ) -> None:
        self.method = method
        self.parse = partial(parsed, method)
        self.unary = unary
        self.stream = stream
        #: Whether the client may send many messages, so that the first begins the call.
        self.streams = method.streams[0] and stream is not None


class Sender(Protocol):
    """A connection, as its calls see it."""

    window: int
    initial_window: int
    largest_frame: int
    blocked: bool
    inflating: asyncio.Lock

    def write(self, data: bytes) -> None: ...
    def flush(self) -> None: ...
    async def room(self, call: Call) -> None: ...
    def begin(self, call: Call) -> None: ...
    def hold(self, call: Call, size: int) -> bool: ...
    def wake(self) -> None: ...
    def give_back(self, call: Call) -> None: ...
    def forget(self, call: Call) -> None: ...


class Call:
    """One call: the messages of the client, and the way back."""

    __slots__ = (
        "_arrived",
        "_begun",
        "_buffer",
        "_connection",
        "_encoding",
        "_messages",
        "_reader",
        "_writing",
        "caller",
        "closed",
        "deadline",
        "ended",
        "held",
        "id",
        "method",
        "received",
        "task",
        "window",
    )

    def __init__(self, connection: Sender, number: int, method: Served, encoding: str) -> None:
        self._connection = connection
        self.id = number
        self.method = method
        self._encoding = encoding
        self._buffer = bytearray()
        # Not yet decompressed: all that wait may be many times larger then.
        self._messages: deque[tuple[int, bytes]] = deque()
        self._arrived: asyncio.Future[None] | None = None
        self._begun = False
        self._writing: asyncio.Lock | None = None
        #: How much the client lets the server send.
        self.window = connection.initial_window
        #: How much of what was received was not given back to the client's window.
        self.received = 0
        self.task: asyncio.Task[None] | None = None
        #: Who calls; None if nobody asks.
        self.caller: Caller | None = None
        self.deadline: asyncio.TimerHandle | None = None
        #: How many bytes of the connection's bound it takes.
        self.held = 0
        #: Whether the client has sent all.
        self.ended = False
        #: Whether nothing more can be sent.
        self.closed = False

    # What comes from the client.

    def feed(self, data: bytes, *, end: bool) -> None:
        """Take bytes of messages."""
        if not self._buffer and len(data) >= 5 and len(data) == 5 + unpacked(data, 1)[0]:
            self._take(data[0], data[5:])
        else:
            self._buffer += data
            while len(self._buffer) >= 5 and not self.closed:
                length = unpacked(self._buffer, 1)[0]
                if length > LARGEST_MESSAGE:
                    self._too_large(length)
                    return
                if len(self._buffer) < 5 + length:
                    break
                message = bytes(self._buffer[5 : 5 + length])
                flag = self._buffer[0]
                del self._buffer[: 5 + length]
                self._take(flag, message)
        if end:
            self.ended = True
            if self._buffer and not self.closed:
                self.fail(Refused(Code.INTERNAL, "a message was cut off"))
        if not self.closed:
            self._arrive()

    def _take(self, flag: int, message: bytes) -> None:
        if len(message) > LARGEST_MESSAGE:
            self._too_large(len(message))
            return
        self._messages.append((flag, message))
        # If that is too much, the next bytes are refused.
        self._connection.hold(self, _MESSAGE)

    def _too_large(self, length: int) -> None:
        self._buffer.clear()
        self.fail(too_large(length))

    def _arrive(self) -> None:
        if not self.method.streams:
            if self.ended and self.task is None:
                self._connection.begin(self)
            return
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)

    async def only(self) -> bytes:
        """Return the one message of a call that has one."""
        if len(self._messages) != 1:
            raise Refused(Code.INTERNAL, "a call of this method has one message")
        flag, message = self._messages.popleft()
        if flag:
            message = await self._decompressed(message)
            if not self._connection.hold(self, len(message)):
                raise Refused(*TOO_MANY_REQUESTS)
        return message

    async def read(self) -> Any:
        """Return the client's next message; None if it sends no more."""
        while not self._messages:
            if self.ended:
                return None
            self._arrived = asyncio.get_running_loop().create_future()
            await self._arrived
        flag, message = self._messages.popleft()
        self._connection.hold(self, -_MESSAGE - 5 - len(message))
        if not self._messages:
            self._connection.give_back(self)
        return self.method.parse(await self._decompressed(message) if flag else message)

    async def _decompressed(self, message: bytes) -> bytes:
        """Return a compressed message as it was. A large one takes many turns of the loop, and all
        of a server take theirs one after the other, so that other calls go on.

        Raises:
            Refused: it is too large, or broken, or the compression is not known.
        """
        inflater = Inflater(message, self._encoding)
        if not inflater.step():
            async with self._connection.inflating:
                while not inflater.step():
                    await asyncio.sleep(0)
        return inflater.result()

    @property
    def waiting(self) -> bool:
        """Whether messages wait to be read."""
        return bool(self._messages)

    # What goes to the client.

    async def write(self, response: Any) -> None:
        """Send a message, or the bytes of one. Wait while the client does not read."""
        if self._writing is None:
            self._writing = asyncio.Lock()
        async with self._writing:
            await self._send(serialized(response), b"")

    def answer(self, response: bytes) -> bool:
        """Send the only answer of a call, if the client can take all of it at once; else return
        False."""
        connection, length = self._connection, len(response) + 5
        if self.closed:
            return True
        if (
            length > self.window
            or length > connection.window
            or length > connection.largest_frame
            or connection.blocked
        ):
            return False
        self.window -= length
        connection.window -= length
        number = self.id
        connection.write(
            b"".join(
                (
                    frame(HEADERS, END_HEADERS, number, BEGIN),
                    frame(DATA, 0, number, b"\0" + packed(length - 5) + response),
                    frame(HEADERS, END_HEADERS | END_STREAM, number, DONE),
                )
            )
        )
        self.close()
        return True

    async def finish(self, response: bytes) -> None:
        """Send the only answer of a call, as the client takes it."""
        await self._send(response, DONE)

    def end(self) -> None:
        """End the call in order, after its messages."""
        if not self.closed:
            head = b"" if self._begun else BEGIN
            flags = END_HEADERS | END_STREAM
            self._connection.write(frame(HEADERS, flags, self.id, head + DONE))
            self.close()

    def fail(self, error: Refused) -> None:
        """End the call with an error."""
        if self.closed:
            return
        head = b"" if self._begun else BEGIN
        trailers = head + status_fields(NUMBERS[error.code.name], error.text)
        self._connection.write(frame(HEADERS, END_HEADERS | END_STREAM, self.id, trailers))
        if not self.ended:
            # The client need not send the rest.
            self._connection.write(frame(RESET, 0, self.id, packed(NO_ERROR)))
        self.close()

    def close(self) -> None:
        """Forget the call, and end what still works on it."""
        if self.closed:
            return
        self.closed = True
        self._connection.forget(self)
        if self.deadline is not None:
            self.deadline.cancel()
            self.deadline = None
        if self.task is not None and self.task is not asyncio.current_task():
            self.task.cancel()

    async def _send(self, message: bytes, trailers: bytes) -> None:
        connection = self._connection
        if self.closed:
            raise asyncio.CancelledError
        out: list[bytes | memoryview] = []
        if not self._begun:
            self._begun = True
            out.append(frame(HEADERS, END_HEADERS, self.id, BEGIN))
        # Messages may be large: they are not copied to put their heads before them.
        head, left = b"\0" + packed(len(message)), memoryview(message)
        size, waited = 0, False
        while head or left:
            length = len(head) + len(left)
            room = min(length, self.window, connection.window, connection.largest_frame)
            if room <= 0 or connection.blocked:
                if out:
                    connection.write(b"".join(out))
                    out.clear()
                    size = 0
                waited = True
                await connection.room(self)
                continue
            self.window -= room
            connection.window -= room
            # The frame's head alone, as its payload is not copied yet.
            out.append(bytes((room >> 16, room >> 8 & 255, room & 255, DATA, 0)) + packed(self.id))
            first, head = head[:room], head[room:]
            rest = room - len(first)
            out += (first, left[:rest])
            left = left[rest:]
            size += room
            if size >= PIECE:
                connection.write(b"".join(out))
                out.clear()
                size = 0
                connection.flush()
        if trailers:
            out.append(frame(HEADERS, END_HEADERS | END_STREAM, self.id, trailers))
        if out:
            connection.write(b"".join(out))
        if trailers:
            self.close()
        if waited:
            connection.wake()  # this call may have left room for others
