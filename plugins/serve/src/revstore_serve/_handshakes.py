"""Connections whose handshake of TLS is not over yet."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import ssl
from collections.abc import Callable

from revstore_serve._tls import Tls

__all__ = ["PATIENCE", "Handshakes"]

#: Seconds for TLS, and for the first bytes of a connection.
PATIENCE = 10.0


class Handshakes:
    """Gives a listener's connections to their protocols once TLS is set up.

    The loop's own listener would not say how many handshakes are under way, each of which takes a
    file of the process.
    """

    def __init__(
        self,
        tls: Tls,
        make: Callable[[], asyncio.Protocol],
        has_room: Callable[[], bool],
        *,
        alpn: str | None = None,
    ) -> None:
        """``make`` makes a connection's protocol. A connection is closed at once unless
        ``has_room``, which takes ``count`` into account."""
        # Each listener looks for changes of the files itself.
        self._tls = copy.copy(tls)
        self._make = make
        self._has_room = has_room
        self._alpn = alpn
        self._context = self._new_context()
        self._tasks: set[asyncio.Task[None]] = set()

    def __call__(self) -> asyncio.Protocol:
        """Return the protocol of a connection that the listener has accepted."""
        return _Arriving(self)

    @property
    def count(self) -> int:
        """How many are under way."""
        return len(self._tasks)

    def stop(self) -> None:
        """End those under way."""
        for each in self._tasks:
            each.cancel()

    def begin(self, arriving: _Arriving, transport: asyncio.Transport) -> None:
        """Begin a connection's handshake, or close the connection."""
        if not self._has_room():
            transport.abort()
            return
        # What the client sends is for TLS.
        transport.pause_reading()
        task = asyncio.get_running_loop().create_task(self._shake(arriving, transport))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _shake(self, arriving: _Arriving, transport: asyncio.Transport) -> None:
        loop = asyncio.get_running_loop()
        try:
            secured = await loop.start_tls(
                transport,
                arriving,
                self._current_context(),
                server_side=True,
                ssl_handshake_timeout=PATIENCE,
            )
        except (OSError, asyncio.CancelledError):
            transport.abort()
            return
        if secured is None:
            return  # the client has gone
        task = asyncio.current_task()
        assert task is not None
        # From here on it counts as a connection.
        self._tasks.discard(task)
        arriving.hand_over(secured, self._make())

    def _current_context(self) -> ssl.SSLContext:
        """Return the context of the files as they are now."""
        if self._tls.changed() is not None:
            # If the files change again at this moment, the next connection sees that.
            with contextlib.suppress(OSError):
                self._context = self._new_context()
        return self._context

    def _new_context(self) -> ssl.SSLContext:
        context = self._tls.context()
        if self._alpn is not None:
            context.set_alpn_protocols([self._alpn])
        return context


class _Arriving(asyncio.Protocol):
    """A connection's protocol during the handshake, and until the task that waits for that runs:
    the client may send more meanwhile, or go."""

    def __init__(self, handshakes: Handshakes) -> None:
        self._handshakes = handshakes
        self._data: list[bytes] = []
        self._ended = False
        self._lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._handshakes.begin(self, transport)

    def data_received(self, data: bytes) -> None:
        self._data.append(data)

    def eof_received(self) -> None:
        self._ended = True

    def connection_lost(self, _: Exception | None) -> None:
        self._lost = True

    def hand_over(self, transport: asyncio.Transport, protocol: asyncio.Protocol) -> None:
        """Let ``protocol`` go on with the connection."""
        if self._lost:
            return
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        if self._data and not transport.is_closing():
            protocol.data_received(b"".join(self._data))
        if self._ended and not transport.is_closing():
            protocol.eof_received()
