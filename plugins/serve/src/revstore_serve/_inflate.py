"""Compressed messages, decompressed piece by piece."""

from __future__ import annotations

import zlib

from revstore_serve._errors import Code, Refused

__all__ = ["LARGEST_MESSAGE", "PIECE", "Inflater", "too_large"]

#: Bytes of a request's message, decompressed.
LARGEST_MESSAGE = 2 << 20
# Bytes that go into a step and come out of it at most; it takes some 100 microseconds.
PIECE = 64 << 10
_FORMATS = {"gzip": 31, "deflate": 15}


class Inflater:
    """Decompresses a message in steps. It never holds much more than the largest message."""

    def __init__(self, message: bytes, encoding: str) -> None:
        """Prepare the first step.

        Raises:
            Refused: the compression is not known.
        """
        if encoding not in _FORMATS:
            raise Refused(Code.UNIMPLEMENTED, f"the encoding {encoding!r} is not supported")
        self._unpack = zlib.decompressobj(_FORMATS[encoding])
        self._left = memoryview(message)
        self._found = bytearray()

    def step(self) -> bool:
        """Decompress a piece; return whether it was the last.

        Raises:
            Refused: the message is too large, or broken.
        """
        taken = self._left[:PIECE]
        try:
            piece = self._unpack.decompress(taken, PIECE)
        except zlib.error as error:
            raise Refused(Code.INTERNAL, f"a message cannot be decompressed: {error}") from error
        left = self._unpack.unconsumed_tail or self._unpack.unused_data
        self._left = self._left[len(taken) - len(left) :]
        self._found += piece
        if len(self._found) > LARGEST_MESSAGE:
            raise too_large(len(self._found))
        if self._unpack.eof and not self._left:
            return True
        if self._unpack.eof or not (piece or taken):
            what = "a message cannot be decompressed: it is cut off or too long"
            raise Refused(Code.INTERNAL, what)
        return False

    def result(self) -> bytes:
        """Return the whole message."""
        return bytes(self._found)


def too_large(length: int) -> Refused:
    """Return the error of a message of so many bytes."""
    text = f"Received message larger than max ({length} vs. {LARGEST_MESSAGE})"
    return Refused(Code.RESOURCE_EXHAUSTED, text)
