"""Keys and their values, encoded by hand.

Answers with many keys are large, and protobuf's objects copy each value several times.
"""

from __future__ import annotations

from collections.abc import Iterable

from revstore.values import KeyValue

__all__ = ["key_values", "varint"]

_BYTES = [bytes([number]) for number in range(0x80)]
_UNSIGNED = (1 << 64) - 1


def varint(number: int) -> bytes:
    """Return a number as protobuf encodes an int64."""
    # Without a loop for all usual lengths and revisions.
    if 0 <= number < 0x80:
        return _BYTES[number]
    if 0 < number < 0x4000:
        return bytes((number & 0x7F | 0x80, number >> 7))
    if 0 < number < 0x20_0000:
        return bytes((number & 0x7F | 0x80, number >> 7 & 0x7F | 0x80, number >> 14))
    number &= _UNSIGNED
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _numbers(kv: KeyValue) -> bytes:
    fields = (
        (b"\x10", kv.create_revision),
        (b"\x18", kv.revision),
        (b"\x20", kv.version),
        (b"\x30", kv.lease),
    )
    return b"".join([tag + varint(number) for tag, number in fields if number])


def key_values(tag: bytes, found: Iterable[tuple[bytes, KeyValue, bytes]]) -> list[bytes]:
    """Return messages as the repeated field ``tag``, in pieces to be joined; each is of a key, the
    numbers to show, and a value."""
    pieces: list[bytes] = []
    add = pieces.append
    for key, kv, value in found:
        if kv.version == 1 and kv.create_revision == kv.revision and not kv.lease and key and value:
            # Most keys are like this.
            at = varint(kv.revision)
            head = b"\x0a%b%b\x10%b\x18%b\x20\x01\x2a%b" % (
                varint(len(key)), key, at, at, varint(len(value)),
            )  # fmt: skip
        else:
            head = _numbers(kv)
            if key:
                head = b"\x0a%b%b%b" % (varint(len(key)), key, head)
            if value:
                head += b"\x2a" + varint(len(value))
        add(tag + varint(len(head) + len(value)) + head)
        add(value)
    return pieces
