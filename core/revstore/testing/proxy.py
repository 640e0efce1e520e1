"""A TCP proxy that breaks connections as networks do."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from typing import Self

__all__ = ["FaultyProxy", "forward", "reset"]

_CHUNK = 65536


class FaultyProxy:
    """Forwards connections to ``target`` ("127.0.0.1:2379"), at ``address``, until told otherwise:

    - ``cut``: connections are reset, and new ones refused, until ``restore``;
    - ``halt``: connections stay open and nothing goes through, as when a cable is pulled, until
      ``restore``; what was sent meanwhile then arrives;
    - ``delay``: so many seconds are added to each piece of data;
    - ``throttle``: so many bytes a second go through each way, 0: all.
    """

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = host, int(port)
        self._lock = threading.Lock()  # guards _pairs and _closed
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._closed = False
        self._open = threading.Event()  # cleared while halted
        self._open.set()
        self._refusing = False
        self.delay = 0.0
        self.throttle = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        #: Where to connect to instead of the target.
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    def cut(self) -> None:
        """Reset all connections, and every new one."""
        self._refusing = True
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for end in pair:
                reset(end)

    def halt(self) -> None:
        """Let nothing through, and say nothing."""
        self._open.clear()

    def restore(self) -> None:
        """Forward again, at once and completely."""
        self._refusing = False
        self.delay, self.throttle = 0.0, 0
        self._open.set()

    def close(self) -> None:
        """Reset all connections and stop."""
        with self._lock:
            self._closed = True
        self._open.set()
        self.cut()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self._open.wait()
            if self._refusing:
                reset(near)
                continue
            try:
                far = socket.create_connection(self._target, 5)
            except OSError:
                reset(near)
                continue
            far.settimeout(None)
            with self._lock:
                if self._closed:
                    reset(near)
                    reset(far)
                    return
                self._pairs.append((near, far))
            for source, sink in ((near, far), (far, near)):
                threading.Thread(
                    target=self._forward, args=(source, sink), name="proxy", daemon=True
                ).start()

    def _forward(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError), selectors.DefaultSelector() as selector:
            selector.register(source, selectors.EVENT_READ)
            while True:
                while not selector.select(1):  # closing a socket wakes no thread
                    if source.fileno() < 0:
                        return
                self._open.wait()
                data = source.recv(min(_CHUNK, self.throttle or _CHUNK))
                if not data:
                    break
                time.sleep(self.delay + (len(data) / self.throttle if self.throttle else 0.0))
                self._open.wait()
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


def forward(source: socket.socket, sink: socket.socket) -> None:
    """Pass on what comes, until either side ends; then shut both down, and leave closing them to
    who called."""
    with contextlib.suppress(OSError):
        while data := source.recv(_CHUNK):
            sink.sendall(data)
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def reset(end: socket.socket) -> None:
    """Close it so that the other side notices at once."""
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        end.shutdown(socket.SHUT_RDWR)
    end.close()
