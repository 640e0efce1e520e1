"""Frames and header fields of HTTP/2, as bytes."""

from __future__ import annotations

import struct
from urllib.parse import quote

__all__ = [
    "ACK",
    "BEGIN",
    "Broken",
    "CALM",
    "COMPRESSION_ERROR",
    "DATA",
    "DONE",
    "END_HEADERS",
    "END_STREAM",
    "FLOW_ERROR",
    "FRAME",
    "GOAWAY",
    "HEADERS",
    "INTERNAL",
    "MORE",
    "MOST",
    "NO_ERROR",
    "NUMBERS",
    "PADDED",
    "PING",
    "PREFACE",
    "PRIORITIZED",
    "PRIORITY",
    "PROTOCOL_ERROR",
    "PUSH",
    "RESET",
    "SETTING",
    "SETTINGS",
    "SIZE_ERROR",
    "STREAM_CLOSED",
    "UPDATE",
    "field",
    "frame",
    "head_of",
    "is_grpc",
    "packed",
    "seconds_of",
    "status_fields",
    "unpacked",
    "unpadded",
]

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RESET, SETTINGS, PUSH, PING, GOAWAY, UPDATE, MORE = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITIZED = 1, 1, 4, 8, 32
NO_ERROR, PROTOCOL_ERROR, INTERNAL, FLOW_ERROR = 0, 1, 2, 3
STREAM_CLOSED, SIZE_ERROR, COMPRESSION_ERROR, CALM = 5, 6, 9, 11
FRAME = 16384
MOST = 0x7FFF_FFFF

head_of = struct.Struct(">HBBBI").unpack_from
packed = struct.Struct(">I").pack
unpacked = struct.Struct(">I").unpack_from
SETTING = struct.Struct(">HI")

NUMBERS = {
    "OK": 0, "CANCELLED": 1, "UNKNOWN": 2, "INVALID_ARGUMENT": 3, "DEADLINE_EXCEEDED": 4,
    "NOT_FOUND": 5, "ALREADY_EXISTS": 6, "PERMISSION_DENIED": 7, "RESOURCE_EXHAUSTED": 8,
    "FAILED_PRECONDITION": 9, "ABORTED": 10, "OUT_OF_RANGE": 11, "UNIMPLEMENTED": 12,
    "INTERNAL": 13, "UNAVAILABLE": 14, "DATA_LOSS": 15, "UNAUTHENTICATED": 16,
}  # fmt: skip
_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    length = len(payload)
    return bytes((length >> 16, length >> 8 & 255, length & 255, kind, flags)) + (
        packed(stream) + payload
    )


def field(name: bytes, value: bytes) -> bytes:
    """Return a header field that is neither compressed nor remembered."""
    length = len(value)
    if length < 127:
        return b"\0" + bytes((len(name),)) + name + bytes((length,)) + value
    more, rest = bytearray(), length - 127
    while rest > 127:
        more.append(rest & 127 | 128)
        rest >>= 7
    more.append(rest)
    return b"\0" + bytes((len(name),)) + name + b"\x7f" + bytes(more) + value


BEGIN = b"\x88" + field(b"content-type", b"application/grpc")
DONE = field(b"grpc-status", b"0")


def unpadded(payload: bytes) -> bytes:
    """Return what a frame holds without its padding."""
    if not payload or payload[0] >= len(payload):
        raise Broken(PROTOCOL_ERROR)
    return payload[1 : len(payload) - payload[0]]


def is_grpc(content_type: bytes) -> bool:
    """Return whether this is gRPC, of any encoding of messages; gRPC-Web is not."""
    return content_type[:16] == b"application/grpc" and content_type[16:17] in (b"", b"+", b";")


def seconds_of(timeout: bytes) -> float | None:
    """Return the seconds that "grpc-timeout" says, None if it says nothing that is valid."""
    unit = _UNITS.get(timeout[-1:])
    if unit is None or not timeout[:-1].isdigit() or len(timeout) > 9:
        return None
    return int(timeout[:-1]) * unit


# Characters of a text, of which each may take 12 bytes: header fields must fit a frame.
_LONGEST_TEXT = 1000


def status_fields(code: int, text: str) -> bytes:
    """Return the fields that say how a call ended."""
    shown = text[:_LONGEST_TEXT].encode(errors="replace")
    escaped = quote(shown, safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~").encode()
    return field(b"grpc-status", b"%d" % code) + field(b"grpc-message", escaped)


class Broken(Exception):
    """A client that does not keep to HTTP/2; the connection ends with this error code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code
