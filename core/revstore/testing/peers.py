"""The network between the members of an etcd cluster, which a test can cut.

Members advertise addresses that do not exist (192.0.2.0/24 is reserved for documentation). They
reach each other through one SOCKS proxy each, which they get from the environment. So both
ends of each connection are known. This needs no privileges.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Self

from revstore.testing.proxy import forward, reset

__all__ = ["PeerNetwork"]

_PORT = 2380


class PeerNetwork:
    """Connects members by number; ``attach`` says where one listens."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _targets, _proxies, _apart, _pairs, _closed
        self._targets: list[tuple[str, int]] = []
        self._proxies: list[socket.socket] = []
        self._apart: set[int] = set()
        self._pairs: list[tuple[int, int, socket.socket, socket.socket]] = []
        self._closed = False

    def attach(self, listening: str) -> tuple[int, str, str]:
        """Add a member that listens for its peers at ``listening`` ("127.0.0.1:2380"). Returns
        its number, the URL that it is to advertise, and that of its proxy."""
        host, _, port = listening.rpartition(":")
        proxy = socket.create_server(("127.0.0.1", 0))
        with self._lock:
            self._targets.append((host, int(port)))
            self._proxies.append(proxy)
            number = len(self._targets)
        threading.Thread(
            target=self._accept, args=(number, proxy), name="peers", daemon=True
        ).start()
        address = f"127.0.0.1:{proxy.getsockname()[1]}"
        return number, f"http://192.0.2.{number}:{_PORT}", f"socks5://{address}"

    def cut_off(self, number: int) -> None:
        """Reset all connections between the member, counted from 1, and the others, and refuse
        new ones, both ways."""
        with self._lock:
            self._apart.add(number)
            torn = [pair for pair in self._pairs if number in pair[:2]]
            self._pairs = [pair for pair in self._pairs if number not in pair[:2]]
        for _, _, near, far in torn:
            reset(near)
            reset(far)

    def rejoin(self, number: int) -> None:
        """Undo ``cut_off``."""
        with self._lock:
            self._apart.discard(number)

    def close(self) -> None:
        """Reset all connections and stop."""
        with self._lock:
            self._closed = True
            proxies, pairs, self._pairs = self._proxies, self._pairs, []
        for proxy in proxies:
            with contextlib.suppress(OSError):
                proxy.shutdown(socket.SHUT_RDWR)
            proxy.close()
        for _, _, near, far in pairs:
            reset(near)
            reset(far)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self, source: int, proxy: socket.socket) -> None:
        while True:
            try:
                near, _ = proxy.accept()
            except OSError:
                return
            threading.Thread(
                target=self._connect, args=(source, near), name="peers", daemon=True
            ).start()

    def _connect(self, source: int, near: socket.socket) -> None:
        try:
            near.settimeout(5)
            sink = _asked(near)
            far = socket.create_connection(self._targets[sink - 1], 5)
        except (OSError, ValueError, IndexError):
            reset(near)
            return
        with self._lock:
            goes = not self._closed and not {source, sink} & self._apart
            if goes:
                self._pairs.append((source, sink, near, far))
        if not goes:
            reset(near)
            reset(far)
            return
        with contextlib.suppress(OSError):
            near.sendall(b"\5\0\0\1\0\0\0\0\0\0")
        near.settimeout(None)
        far.settimeout(None)
        back = threading.Thread(target=forward, args=(far, near), name="peers", daemon=True)
        back.start()
        forward(near, far)
        back.join()
        near.close()
        far.close()
        with self._lock:
            self._pairs = [pair for pair in self._pairs if pair[2] is not near]


def _asked(near: socket.socket) -> int:
    """Return which member is wanted, by the SOCKS protocol without a password (RFC 1928)."""
    _, methods = _exactly(near, 2)
    _exactly(near, methods)
    near.sendall(b"\5\0")
    request = _exactly(near, 10)
    if request[:4] != b"\5\1\0\1" or request[4:7] != bytes((192, 0, 2)):
        raise ValueError("no member has that address")
    return request[7]


def _exactly(near: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        piece = near.recv(size - len(found))
        if not piece:
            raise ValueError("the connection ended")
        found += piece
    return found
