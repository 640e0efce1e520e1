"""A client of HTTP/2 as small as can be, which says what a test wants.

``python -m tests.serve.rawclient ADDRESS COUNT`` opens so many connections with a watch each, says
"ready", and waits to be killed.
"""

from __future__ import annotations

import signal
import socket
import struct
import sys
from collections.abc import Iterator

from revstore_serve._proto import message

__all__ = ["PREFACE", "Raw", "RawWatch", "frame", "headers", "literal", "prefixed"]

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, UPDATE, MORE = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS = 1, 1, 4


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def literal(name: bytes, value: bytes) -> bytes:
    """A header field, neither indexed nor compressed."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


def headers(path: bytes, *more: tuple[bytes, bytes]) -> bytes:
    """The header fields of a call."""
    fields = (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path),
        (b":authority", b"localhost"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
        *more,
    )
    return b"".join(literal(*each) for each in fields)


def prefixed(text: bytes) -> bytes:
    """A message as gRPC sends it."""
    return b"\0" + struct.pack(">I", len(text)) + text


class Raw:
    """A connection on which frames are sent and read; it answers no pings. ``begin`` stands for
    the preface and the settings."""

    def __init__(self, address: str, *, settings: bytes = b"", begin: bytes | None = None) -> None:
        host, port = address.split(":")
        self.socket = socket.create_connection((host, int(port)), 20)
        whole = PREFACE + frame(SETTINGS, 0, 0, settings)
        self.socket.sendall(whole if begin is None else begin)
        self._file = self.socket.makefile("rb")

    def send(self, *frames: bytes) -> None:
        self.socket.sendall(b"".join(frames))

    def read(self) -> tuple[int, int, int, bytes] | None:
        """The next frame: kind, flags, stream, payload; None at the end."""
        try:
            head = self._file.read(9)
            if len(head) < 9:
                return None
            payload = self._file.read(int.from_bytes(head[:3]))
        except ConnectionResetError:
            return None
        return head[3], head[4], int.from_bytes(head[5:]), payload

    def frames(self) -> Iterator[tuple[int, int, int, bytes]]:
        """The frames up to the end of the connection."""
        return iter(self.read, None)

    def reset(self) -> None:
        """Close the connection by RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        self._file.close()
        self.socket.close()


class RawWatch(Raw):
    """A connection with one watch of a key, of which nothing is read but the first answer."""

    def __init__(self, address: str, key: bytes) -> None:
        super().__init__(address)
        create = message("WatchRequest")(create_request={"key": key}).SerializeToString()
        self.send(
            frame(HEADERS, END_HEADERS, 1, headers(b"/etcdserverpb.Watch/Watch")),
            frame(DATA, 0, 1, prefixed(create)),
        )
        for kind, flags, _, payload in self.frames():
            if kind == SETTINGS and not flags & ACK:
                self.send(frame(SETTINGS, ACK, 0))
            elif kind == DATA:
                assert message("WatchResponse").FromString(payload[5:]).created
                return
        raise AssertionError("the server has closed the connection")


if __name__ == "__main__":
    watches = [RawWatch(sys.argv[1], b"k%d" % number) for number in range(int(sys.argv[2]))]
    print("ready", flush=True)
    signal.pause()
