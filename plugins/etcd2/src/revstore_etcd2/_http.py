"""HTTP over sockets whose every wait ends at one deadline.

The timeout of a socket limits a single read: a server that sends a byte now and then could delay a
call without end. So a socket knows when its request must finish, and each of its waits gets the
time that is left until then.
"""

from __future__ import annotations

import contextlib
import http.client
import math
import os
import select
import socket
import ssl
import time
from typing import Any

from revstore.backend_tools import ignoring, let_out
from revstore_etcd2._errors import BadAnswer

__all__ = ["Connection", "HandshakeFailed", "TimedTlsSocket", "read_body"]

_PIECE = 1 << 16
#: Seconds in which a server that does not accept a certificate says so.
_VERDICT = 0.25
#: Seconds that the system's poll can wait for.
_LONGEST = 1e6


class _Timed:
    """A mixin for sockets. ``deadline``: when the request must finish, by the monotonic clock.
    ``idle``: seconds that a single read may wait. ``silence``: seconds without data after which the
    writing half is shut down, which makes a server end an answer for which it has no data; then
    ``half_closed`` becomes true."""

    deadline = math.inf
    idle = math.inf
    silence = 0.0
    half_closed = False

    def recv_into(self, *arguments: Any) -> int:
        read = super().recv_into  # type: ignore[misc]
        if self.silence and not self.half_closed:
            self._limit(self.silence)
            try:
                return int(read(*arguments))
            except TimeoutError:
                self.half_closed = True
                # Not SSLSocket.shutdown: it removes TLS while another thread reads.
                socket.socket.shutdown(self, socket.SHUT_WR)  # type: ignore[arg-type]
        self._limit()
        return int(read(*arguments))

    def send(self, data: Any, flags: int = 0) -> int:
        self._limit()
        return int(super().send(data, flags))  # type: ignore[misc]

    def sendall(self, data: Any, flags: int = 0) -> None:
        self._limit()  # one for all of it in the plain socket; that of TLS calls ``send``
        super().sendall(data, flags)  # type: ignore[misc]

    def __del__(self) -> None:
        # If a signal handler interrupted the call, nobody is left to close it; do not warn about
        # that.
        if self.fileno() >= 0:  # type: ignore[attr-defined]
            os.close(self.detach())  # type: ignore[attr-defined]

    def _limit(self, at_most: float = math.inf) -> None:
        left = min(self.deadline - time.monotonic(), self.idle, at_most, _LONGEST)
        if left <= 0:
            raise TimeoutError("the deadline passed")
        self.settimeout(left)  # type: ignore[attr-defined]


class _TimedSocket(_Timed, socket.socket):
    """A plain connection."""


class TimedTlsSocket(_Timed, ssl.SSLSocket):
    """The class that a context needs as its ``sslsocket_class``."""


class HandshakeFailed(OSError):
    """There is a connection, but it ended, or was silent too long, before TLS was agreed upon."""


class Response(http.client.HTTPResponse):
    """An answer that can be dropped even if a signal handler interrupted its ``__init__``."""

    fp = None  # type: ignore[assignment]


class Connection(http.client.HTTPConnection):
    """One connection to a server; it connects when it is created, and never again."""

    auto_open = 0
    response_class = Response

    def __init__(
        self, host: str, port: int, context: ssl.SSLContext | None, *, deadline: float
    ) -> None:
        """Connect. Only the resolution of names has its own time limit.

        Raises:
            HandshakeFailed: the connection ended in the handshake of TLS.
            OSError: there is no connection by ``deadline``; this includes ``ssl.SSLError``.
        """
        super().__init__(host, port)
        self.timed: _TimedSocket | TimedTlsSocket = _connect(host, port, deadline)
        if context is not None:
            try:
                self.timed.settimeout(max(0.001, deadline - time.monotonic()))
                secure = context.wrap_socket(self.timed, server_hostname=host)
                assert isinstance(secure, TimedTlsSocket)
                self.timed = secure
                self._await_verdict(deadline)
            except BaseException as error:
                self.timed.close()
                # A server without TLS answers in plain text, and then resets the connection: which
                # of the two is seen is chance.
                if isinstance(error, OSError) and not isinstance(error, ssl.SSLError):
                    raise HandshakeFailed(*error.args) from error
                raise
        self.sock = self.timed

    def _await_verdict(self, deadline: float) -> None:
        """Wait until the server accepts our certificate, or that there is none.

        With TLS 1.3 the server answers after the handshake; if a request is already on its way, it
        may not answer at all. If it accepts, it sends a ticket for the next connection.

        Raises:
            SSLError: the server refuses.
        """
        if self.timed.version() != "TLSv1.3":  # type: ignore[union-attr]
            return
        waiting = select.poll()
        waiting.register(self.timed, select.POLLIN)
        left = min(_VERDICT, deadline - time.monotonic())
        if waiting.poll(max(0.0, left) * 1000):
            self.timed.settimeout(0)
            with contextlib.suppress(ssl.SSLWantReadError):
                ssl.SSLSocket.recv(self.timed, 1)  # type: ignore[arg-type]
                raise ConnectionError("the server closed the connection or sent unrequested data")

    @property
    def is_stale(self) -> bool:
        """True if anything has come since the last answer: the end, or unrequested data."""
        if self.sock is None:
            return True
        try:
            self.sock.settimeout(0)
            socket.socket.recv(self.sock, 1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError as error:
            let_out(error)
        return True

    def cut(self) -> None:
        """Wake a thread that waits for this connection; its call then fails. Never call this in a
        child after a fork, where it would end the parent's connection."""
        # Not SSLSocket.shutdown: it removes TLS while another thread reads.
        with ignoring(OSError):
            socket.socket.shutdown(self.timed, socket.SHUT_RDWR)

    def drop(self) -> None:
        """Close it, along with an answer that is being read."""
        self.close()
        with ignoring(OSError):
            self.timed.close()


def _connect(host: str, port: int, deadline: float) -> _TimedSocket:
    """Return a connection to the first of the host's addresses that accepts it."""
    failure: OSError = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM
    ):
        sock = _TimedSocket(family, kind, protocol)
        try:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("the deadline passed")
            sock.settimeout(left)
            sock.connect(address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock
        except OSError as error:
            sock.close()
            let_out(error)
            failure = error
        except BaseException:
            sock.close()
            raise
    raise failure


def read_body(response: http.client.HTTPResponse, limit: int) -> bytes:
    """Return the whole body.

    Raises:
        BadAnswer: it has more than ``limit`` bytes.
        OSError: the connection breaks off.
        HTTPException: the connection breaks off.
    """
    if response.length is not None:
        if response.length > limit:
            raise BadAnswer(f"the answer has {response.length} bytes, over the limit of {limit}")
        return response.read()
    pieces = []
    left = limit + 1
    while left > 0 and (piece := response.read(min(left, _PIECE))):
        pieces.append(piece)
        left -= len(piece)
    if left <= 0:
        raise BadAnswer(f"the answer is over the limit of {limit} bytes")
    return b"".join(pieces)
