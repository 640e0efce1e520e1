"""Header fields of HTTP/2, as they come in blocks of one frame or more."""

from __future__ import annotations

import logging

import hpack

from revstore_serve._frames import CALM, COMPRESSION_ERROR, END_HEADERS, PROTOCOL_ERROR, Broken

__all__ = ["LARGEST_HEADERS", "HeaderFields"]

# It would log all header fields, and tokens are among them.
logging.getLogger("hpack").setLevel(logging.INFO)

#: Bytes of a call's header fields.
LARGEST_HEADERS = 16 << 10
# How many frames they may come in, after the first.
_MOST_CONTINUATIONS = 16
# How many blocks are remembered for each connection, and how large they may be.
_MOST_KNOWN, _LARGEST_KNOWN = 100, 1024


class HeaderFields:
    """The header fields that a connection sends. A block that is incomplete is kept, with what its
    first frame said."""

    def __init__(self) -> None:
        self._decoder = hpack.Decoder(max_header_list_size=LARGEST_HEADERS)
        # Blocks that leave the decoder's table as it is, by their bytes.
        self._known: dict[bytes, dict[bytes, bytes]] = {}
        self._block = bytearray()
        self._count = 0
        #: The call and the flags of the block that is incomplete.
        self.call = self.flags = 0

    def begin(self, flags: int, number: int, block: bytes) -> dict[bytes, bytes] | None:
        """Take the first frame of a block; return its fields, None if more is to follow.

        Raises:
            Broken: the fields cannot be read.
        """
        if flags & END_HEADERS:
            return self._fields(block)
        self.call, self.flags = number, flags
        self._block[:] = block
        self._count = 0
        return None

    def go_on(self, flags: int, number: int, more: bytes) -> dict[bytes, bytes] | None:
        """Take another frame, as ``begin`` does."""
        if not self.call or self.call != number:
            raise Broken(PROTOCOL_ERROR)
        self._block += more
        self._count += 1
        if len(self._block) > 2 * LARGEST_HEADERS or self._count > _MOST_CONTINUATIONS:
            raise Broken(CALM)
        if not flags & END_HEADERS:
            return None
        self.call = 0
        return self._fields(bytes(self._block))

    def _fields(self, block: bytes) -> dict[bytes, bytes]:
        known = self._known.get(block)
        if known is not None:
            return known
        table = self._decoder.header_table
        entries = table.dynamic_entries
        size, count, newest = table.maxsize, len(entries), entries[0] if entries else None
        try:
            # Of a name that comes twice, the first counts.
            found = dict(reversed(list(self._decoder.decode(block, raw=True))))
        except hpack.HPACKError as error:
            raise Broken(COMPRESSION_ERROR) from error
        # An entry that is added is a new object, even if one like it was there.
        same = (entries[0] if entries else None) is newest
        if not same or (size, count) != (table.maxsize, len(entries)):
            self._known.clear()
        elif len(self._known) < _MOST_KNOWN and len(block) <= _LARGEST_KNOWN:
            self._known[block] = found
        return found
