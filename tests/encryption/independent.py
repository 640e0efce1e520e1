"""AES in the modes GCM and CBC, and secretbox, written from their specifications (FIPS 197, SP
800-38A and D, and Bernstein's papers on Salsa20 and Poly1305): what the plugin writes must be
readable without its libraries."""

from __future__ import annotations

import hashlib
import hmac
import struct


class Wrong(Exception):
    """The value is not authentic."""


def _times_x(byte: int) -> int:
    return (byte << 1) ^ (0x11B if byte & 0x80 else 0)


def _product(a: int, b: int) -> int:
    result = 0
    while b:
        result ^= a if b & 1 else 0
        a, b = _times_x(a), b >> 1
    return result


def _substitute(byte: int) -> int:
    inverse = next((each for each in range(256) if _product(byte, each) == 1), 0)
    result = 0x63
    for turn in range(5):
        result ^= (inverse << turn | inverse >> (8 - turn)) & 0xFF
    return result


SBOX = [_substitute(byte) for byte in range(256)]
INVERSE = [SBOX.index(byte) for byte in range(256)]


def _schedule(key: bytes) -> list[list[int]]:
    size, words = len(key) // 4, [list(key[at : at + 4]) for at in range(0, len(key), 4)]
    round_constant = 1
    while len(words) < 4 * (size + 7):
        word = list(words[-1])
        if len(words) % size == 0:
            word = [SBOX[each] for each in word[1:] + word[:1]]
            word[0] ^= round_constant
            round_constant = _times_x(round_constant)
        elif size == 8 and len(words) % size == 4:
            word = [SBOX[each] for each in word]
        words.append([a ^ b for a, b in zip(word, words[-size], strict=True)])
    return [
        [byte for word in words[at : at + 4] for byte in word] for at in range(0, len(words), 4)
    ]


def _mix(state: list[int], row: tuple[int, ...]) -> list[int]:
    result = []
    for column in range(0, 16, 4):
        for turn in range(4):
            value = 0
            for place in range(4):
                value ^= _product(state[column + place], row[(place - turn) % 4])
            result.append(value)
    return result


def encrypt_block(keys: list[list[int]], block: bytes) -> bytes:
    state = [a ^ b for a, b in zip(block, keys[0], strict=True)]
    for number, key in enumerate(keys[1:], 1):
        state = [SBOX[state[(at + 4 * (at % 4)) % 16]] for at in range(16)]
        if number < len(keys) - 1:
            state = _mix(state, (2, 3, 1, 1))
        state = [a ^ b for a, b in zip(state, key, strict=True)]
    return bytes(state)


def decrypt_block(keys: list[list[int]], block: bytes) -> bytes:
    state = [a ^ b for a, b in zip(block, keys[-1], strict=True)]
    for number, key in reversed(list(enumerate(keys[:-1]))):
        state = [INVERSE[state[(at - 4 * (at % 4)) % 16]] for at in range(16)]
        state = [a ^ b for a, b in zip(state, key, strict=True)]
        if number:
            state = _mix(state, (14, 11, 13, 9))
    return bytes(state)


def _xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=False))


def open_aescbc(key: bytes, data: bytes, context: bytes) -> bytes:
    keys, before, result = _schedule(key), data[:16], b""
    for at in range(16, len(data), 16):
        block = data[at : at + 16]
        result += _xor(decrypt_block(keys, block), before)
        before = block
    padding = result[-1]
    if not 0 < padding <= 16 or result[-padding:] != bytes([padding]) * padding:
        raise Wrong
    return result[:-padding]


def _ghash(key: int, data: bytes) -> int:
    state = 0
    for at in range(0, len(data), 16):
        state ^= int.from_bytes(data[at : at + 16].ljust(16, b"\0"), "big")
        product, shifted = 0, key
        for bit in range(127, -1, -1):
            product ^= shifted if state >> bit & 1 else 0
            shifted = (shifted >> 1) ^ (0xE1 << 120 if shifted & 1 else 0)
        state = product
    return state


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 16)


def open_aesgcm(key: bytes, data: bytes, context: bytes) -> bytes:
    keys, nonce, body, tag = _schedule(key), data[:12], data[12:-16], data[-16:]
    lengths = struct.pack(">QQ", 8 * len(context), 8 * len(body))
    hashed = _ghash(
        int.from_bytes(encrypt_block(keys, bytes(16)), "big"),
        _padded(context) + _padded(body) + lengths,
    )
    first = encrypt_block(keys, nonce + struct.pack(">I", 1))
    if _xor(hashed.to_bytes(16, "big"), first) != tag:
        raise Wrong
    result = b""
    for number, at in enumerate(range(0, len(body), 16), 2):
        result += _xor(body[at : at + 16], encrypt_block(keys, nonce + struct.pack(">I", number)))
    return result


def _turned(value: int, bits: int) -> int:
    return (value << bits | value >> (32 - bits)) & 0xFFFFFFFF


def _salsa_rounds(key: bytes, nonce: bytes) -> tuple[list[int], list[int]]:
    k, n, c = (
        struct.unpack("<8I", key),
        struct.unpack("<4I", nonce),
        struct.unpack("<4I", b"expand 32-byte k"),
    )
    start = [c[0], *k[:4], c[1], *n, c[2], *k[4:], c[3]]
    x = list(start)
    columns = [(0, 4, 8, 12), (5, 9, 13, 1), (10, 14, 2, 6), (15, 3, 7, 11)]
    rows = [(0, 1, 2, 3), (5, 6, 7, 4), (10, 11, 8, 9), (15, 12, 13, 14)]
    for _ in range(10):
        for a, b, c_, d in columns + rows:
            x[b] ^= _turned(x[a] + x[d] & 0xFFFFFFFF, 7)
            x[c_] ^= _turned(x[b] + x[a] & 0xFFFFFFFF, 9)
            x[d] ^= _turned(x[c_] + x[b] & 0xFFFFFFFF, 13)
            x[a] ^= _turned(x[d] + x[c_] & 0xFFFFFFFF, 18)
    return start, x


def _xsalsa(key: bytes, nonce: bytes, size: int) -> bytes:
    _, x = _salsa_rounds(key, nonce[:16])
    subkey = struct.pack("<8I", *(x[at] for at in (0, 5, 10, 15, 6, 7, 8, 9)))
    result = b""
    for number in range(-(-size // 64)):
        start, x = _salsa_rounds(subkey, nonce[16:] + struct.pack("<Q", number))
        words = [a + b & 0xFFFFFFFF for a, b in zip(start, x, strict=True)]
        result += struct.pack("<16I", *words)
    return result


def open_secretbox(key: bytes, data: bytes, context: bytes) -> bytes:
    nonce, tag, body = data[:24], data[24:40], data[40:]
    stream = _xsalsa(key, nonce, 32 + len(body))
    r = int.from_bytes(stream[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    total = 0
    for at in range(0, len(body), 16):
        block = int.from_bytes(body[at : at + 16] + b"\1", "little")
        total = (total + block) * r % ((1 << 130) - 5)
    total = (total + int.from_bytes(stream[16:32], "little")) % (1 << 128)
    if total.to_bytes(16, "little") != tag:
        raise Wrong
    return _xor(body, stream[32:])


def open_seed(seed: bytes, data: bytes, context: bytes) -> bytes:
    """Of KMS v2: a key of its own for each value, by HKDF-Expand from the seed."""
    key = hmac.digest(seed, data[:32] + b"\1", hashlib.sha256)
    return open_aesgcm(key, data[32:], context)


OPEN = {"aesgcm": open_aesgcm, "aescbc": open_aescbc, "secretbox": open_secretbox}
