"""Keys and their values, encoded by hand.

Answers with many keys are large, and protobuf's objects copy each value several times.
"""

from __future__ import annotations

from collections.abc import Iterable

from revstore.values import KeyValue
from revstore_serve._errors import Code, Refused

__all__ = ["Keyed", "key_values", "value_of", "varint"]

#: A key as clients know it, with what is stored.
Keyed = tuple[bytes, KeyValue]

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


def value_of(kv: KeyValue) -> bytes:
    """Return a stored value.

    Raises:
        Refused: the value is not what was written: the store found it damaged.
    """
    if kv.damaged:
        raise Refused(Code.DATA_LOSS, f"revstore: the value of {kv.key!r} is damaged")
    return kv.value


def key_values(tag: bytes, found: Iterable[Keyed], *, keys_only: bool = False) -> list[bytes]:
    """Return messages as the repeated field ``tag``, in pieces to be joined.

    Raises:
        Refused: a value is to be shown that is damaged.
    """
    pieces: list[bytes] = []
    # What comes before the key and before the value, by the lengths on which that depends.
    known: dict[tuple[int, int, int], tuple[bytes, bytes]] = {}
    for key, kv in found:
        value = b"" if keys_only else value_of(kv) if kv.damaged else kv.value
        if kv.version == 1 and 0 != kv.create_revision == kv.revision and not kv.lease:
            # Most keys are like this.
            at = varint(kv.revision)
            numbers = b"\x10%b\x18%b\x20\x01" % (at, at)
        else:
            numbers = _numbers(kv)
        lengths = (len(key), len(numbers), len(value))
        around = known.get(lengths)
        if around is None:
            around = known[lengths] = _around(tag, *lengths)
        pieces += (around[0], key, numbers, around[1], value)
    return pieces


def _around(tag: bytes, key: int, numbers: int, value: int) -> tuple[bytes, bytes]:
    """Return what a message has before its key, and before its value, by their lengths and that of
    its numbers."""
    before_key = b"\x0a" + varint(key) if key else b""
    before_value = b"\x2a" + varint(value) if value else b""
    length = len(before_key) + key + numbers + len(before_value) + value
    return tag + varint(length) + before_key, before_value
