"""A server that answers as a script says: late, in pieces, for ever, or with nonsense.

A real server does not show how a client treats a peer that is malicious or merely broken.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Self, TypeAlias

import attrs

from revstore.testing.proxy import reset

__all__ = ["Plain", "Script", "ScriptedPeer", "Step", "answer", "dripping", "endless", "late"]

_PIECE = 65536


@attrs.frozen
class Plain:
    """Bytes to be sent as they are, past TLS: to who speaks TLS, a record that is broken."""

    data: bytes


#: Bytes to send, seconds to wait (``math.inf``: until the peer is closed), or None: hang up.
Step: TypeAlias = "bytes | float | Plain | None"
#: Gets a request, head and body, and returns what to do.
Script: TypeAlias = "Callable[[bytes], Iterable[Step]]"


class ScriptedPeer:
    """Listens at ``address`` and plays ``script`` for each HTTP request. ``context`` is for TLS.

    ``requests`` are those that came, whole; ``sent`` is how many bytes have gone out.
    """

    def __init__(self, script: Script, *, context: ssl.SSLContext | None = None) -> None:
        self.script = script
        self.requests: list[bytes] = []
        self.sent = 0
        self._context = context
        self._over = threading.Event()
        self._lock = threading.Lock()  # guards _ends
        self._ends: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, name="scripted", daemon=True).start()

    def cut(self) -> None:
        """Reset all connections there are."""
        with self._lock:
            ends, self._ends = self._ends, set()
        for end in ends:
            reset(end)

    def close(self) -> None:
        """Reset all connections and stop."""
        self._over.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while not self._over.is_set():
            try:
                end, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(end,), name="scripted", daemon=True).start()

    def _serve(self, end: socket.socket) -> None:
        with self._lock:
            self._ends.add(end)
        try:
            if self._context is not None:
                plain, end = end, self._context.wrap_socket(end, server_side=True)
                with self._lock:
                    self._ends.discard(plain)
                    self._ends.add(end)
            with end:
                while self._play(end):
                    pass
        except (OSError, ValueError):
            pass  # the client has gone, or the peer is closed
        finally:
            with self._lock:
                self._ends.discard(end)

    def _play(self, end: socket.socket) -> bool:
        """Answer one request; whether there may be another."""
        request = _request(end)
        if not request:
            return False
        self.requests.append(request)
        for step in self.script(request):
            if step is None:
                return False
            if isinstance(step, bytes):
                end.sendall(step)
                self.sent += len(step)
            elif isinstance(step, Plain):
                socket.socket.sendall(end, step.data)
            elif self._over.wait(min(step, threading.TIMEOUT_MAX)):
                return False
        return True


def _request(end: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        if not (piece := end.recv(_PIECE)):
            return b""
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    length = 0
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            length = int(line.partition(b":")[2])
    while len(body) < length:
        if not (piece := end.recv(_PIECE)):
            return b""
        body += piece
    return head + b"\r\n\r\n" + body


def answer(body: bytes, *headers: str, status: str = "200 OK", length: bool = True) -> bytes:
    """Return an HTTP answer; without ``length`` nothing says where its body ends."""
    lines = [f"HTTP/1.1 {status}", *headers]
    if length:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def dripping(data: bytes, pause: float) -> Iterator[Step]:
    """Yield a byte at a time."""
    for number in range(len(data)):
        yield data[number : number + 1]
        yield pause


def endless(head: bytes, piece: bytes) -> Iterator[Step]:
    """Yield ``head``, then ``piece`` over and over."""
    yield head
    while True:
        yield piece


def late(address: str, pause: float) -> Script:
    """Return a script that answers as the server at ``address`` does, with this many seconds
    between the head and the body."""
    host, _, port = address.rpartition(":")

    def script(request: bytes) -> Iterator[Step]:
        with socket.create_connection((host, int(port))) as far:
            far.sendall(request.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
            head = b""
            while b"\r\n\r\n" not in head and (piece := far.recv(_PIECE)):
                head += piece
            head, end, rest = head.partition(b"\r\n\r\n")
            yield head + end
            yield pause
            while rest or (rest := far.recv(_PIECE)):
                yield rest
                rest = b""
        yield None

    return script
