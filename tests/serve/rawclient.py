"""A client of HTTP/2 as small as can be, which opens watches and then misbehaves.

``python -m tests.serve.rawclient ADDRESS COUNT`` opens so many connections with a watch each, says
"ready", and waits to be killed.
"""

from __future__ import annotations

import signal
import socket
import struct
import sys

from revstore_serve._proto import message

__all__ = ["RawWatch"]

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS = 0, 1, 4
_ACK, _END_HEADERS = 1, 4


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _literal(name: bytes, value: bytes) -> bytes:
    """A header field, neither indexed nor compressed."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


class RawWatch:
    """A connection with one watch of a key, of which nothing is read but the first answer. It
    answers no pings."""

    def __init__(self, address: str, key: bytes) -> None:
        host, port = address.split(":")
        self.socket = socket.create_connection((host, int(port)), 20)
        create = message("WatchRequest")(create_request={"key": key}).SerializeToString()
        headers = b"".join(
            _literal(*each)
            for each in (
                (b":method", b"POST"),
                (b":scheme", b"http"),
                (b":path", b"/etcdserverpb.Watch/Watch"),
                (b":authority", address.encode()),
                (b"te", b"trailers"),
                (b"content-type", b"application/grpc"),
            )
        )
        self.socket.sendall(
            _PREFACE
            + _frame(_SETTINGS, 0, 0, b"")
            + _frame(_HEADERS, _END_HEADERS, 1, headers)
            + _frame(_DATA, 0, 1, b"\0" + struct.pack(">I", len(create)) + create)
        )
        self._file = self.socket.makefile("rb")
        while True:
            kind, flags, payload = self._read()
            if kind == _SETTINGS and not flags & _ACK:
                self.socket.sendall(_frame(_SETTINGS, _ACK, 0, b""))
            elif kind == _DATA:
                assert message("WatchResponse").FromString(payload[5:]).created
                return

    def _read(self) -> tuple[int, int, bytes]:
        head = self._file.read(9)
        assert len(head) == 9, "the server has closed the connection"
        payload = self._file.read(int.from_bytes(head[:3]))
        return head[3], head[4], payload

    def reset(self) -> None:
        """Close the connection by RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        self._file.close()
        self.socket.close()


if __name__ == "__main__":
    watches = [RawWatch(sys.argv[1], b"k%d" % number) for number in range(int(sys.argv[2]))]
    print("ready", flush=True)
    signal.pause()
