"""Keys of etcd, which are any bytes, as keys of a ``Backend``, which are text.

A key that is valid UTF-8 without NUL maps to itself, so that programs that use the backend directly
and clients of etcd see the same keys. Any other key, and one that begins with U+10FFFD, is stored
as U+10FFFD followed by one character for each byte. Both kinds keep the order of their bytes.
"""

from __future__ import annotations

import attrs

__all__ = ["EVERYTHING", "KeyRange", "Span", "least_text", "spans", "to_bytes", "to_text"]

_MARK = "\U0010fffd"
_AFTER_MARK = "\U0010fffe"
_OFFSET = 0x100
_SURROGATES = range(0xD800, 0xE000)
_CODE_POINTS = 0x110000 - len(_SURROGATES)


def to_text(key: bytes) -> str:
    """Return the backend's key for a key of etcd."""
    try:
        text = key.decode()
    except UnicodeDecodeError:
        return _escaped(key)
    return _escaped(key) if "\0" in text or text.startswith(_MARK) else text


def to_bytes(key: str) -> bytes:
    """Return etcd's key for a key of the backend."""
    if key.startswith(_MARK):
        codes = [ord(char) - _OFFSET for char in key[1:]]
        if all(0 <= code < 0x100 for code in codes):
            return bytes(codes)
    return key.encode()


def _escaped(key: bytes) -> str:
    return _MARK + "".join(chr(_OFFSET + byte) for byte in key)


@attrs.frozen(slots=True)
class KeyRange:
    """The keys from ``first`` up to, but not including, ``end``; None means no end.

    A request's key and range_end encode it: without a range_end it is the key alone, and a single
    NUL means no end.
    """

    first: bytes
    end: bytes | None

    @classmethod
    def of(cls, key: bytes, range_end: bytes) -> KeyRange:
        """Return the range of a request."""
        if range_end == b"\0":
            return cls(key, None)
        return cls(key, range_end or key + b"\0")

    @property
    def single(self) -> bool:
        """True if the range can hold one key only."""
        return self.end == self.first + b"\0"

    @property
    def empty(self) -> bool:
        """True if the range can hold no key."""
        return self.end is not None and self.end <= self.first

    @property
    def stem(self) -> bytes | None:
        """The prefix after whose last key the range ends; None if it ends elsewhere."""
        if self.end is None:
            return b""
        if not self.end or self.end[-1] == 0:
            return None
        stem = self.end[:-1] + bytes([self.end[-1] - 1])
        return stem if self.first.startswith(stem) else None

    @property
    def prefix(self) -> bytes | None:
        """The prefix whose keys are exactly the range's; None if there is no such prefix."""
        stem = self.stem
        if stem is None or (self.end is None and self.first <= b"\0"):
            return stem
        # The end of a prefix that ends with 0xff bytes is computed without them.
        return None if self.first[len(stem) :].strip(b"\xff") else self.first

    def __contains__(self, key: bytes) -> bool:
        return self.first <= key and (self.end is None or key < self.end)


EVERYTHING = KeyRange(b"\0", None)


@attrs.frozen(slots=True)
class Span:
    """Keys of the backend that one list finds: those with ``prefix``, from ``start`` up to, but not
    including, ``end``. None means all up to the last key with the prefix."""

    prefix: str
    start: str
    end: str | None = None


def spans(keys: KeyRange) -> tuple[list[Span], Span]:
    """Return where the backend has the keys of a range that are text, in order, and where it has
    the others. A span of the backend may be empty."""
    return _text_spans(keys), _escaped_span(keys)


def _text_spans(keys: KeyRange) -> list[Span]:
    if keys.empty:
        return []
    start = least_text(keys.first)
    if start is None:
        return []
    stem = _text_or_none(keys.stem or b"\0")
    if stem is not None and not stem.startswith(_MARK):
        return [Span(stem, start)] if start.startswith(stem) else []
    end = None if keys.end is None else least_text(keys.end)
    found = []
    for low, high in (("", _MARK), (_AFTER_MARK, None)):
        first = max(start, low)
        last = high if end is None else end if high is None else min(end, high)
        if last is None or first < last:
            found.append(Span(_common(first, last), first, last))
    return found


def _escaped_span(keys: KeyRange) -> Span:
    start = _escaped(keys.first)
    prefix = keys.prefix
    if prefix is not None:
        return Span(_escaped(prefix), start)
    if keys.end is None:
        return Span(_MARK, start)
    end = _escaped(keys.end)
    return Span(_common(start, end), start, end)


def _common(first: str, last: str | None) -> str:
    """Return the prefix that all keys between two share. A NUL, which no key has, is not in it."""
    if last is None:
        return ""
    length = 0
    for one, other in zip(first, last, strict=False):
        if one != other or one == "\0":
            break
        length += 1
    return first[:length]


def _text_or_none(key: bytes) -> str | None:
    try:
        text = key.decode()
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


def least_text(bound: bytes) -> str | None:
    """Return a text that is above every valid key below ``bound`` and not above any other; None if
    there is no valid key from ``bound`` on. It may end with a NUL."""
    head, nul, _ = bound.partition(b"\0")
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        return _next_text(head[: error.start].decode(), head[error.start :])
    return text + "\0" if nul and text else text


def _next_text(valid: str, rest: bytes) -> str | None:
    """Return the least text above ``valid`` followed by ``rest``, which begins no character."""
    low, high = 0, _CODE_POINTS
    while low < high:
        middle = (low + high) // 2
        if _character(middle).encode() < rest:
            low = middle + 1
        else:
            high = middle
    if low < _CODE_POINTS:
        return valid + _character(low)
    stem = valid.rstrip("\U0010ffff")
    if not stem:
        return None
    code = ord(stem[-1])
    number = code - len(_SURROGATES) if code >= _SURROGATES.stop else code
    return stem[:-1] + _character(number + 1)


def _character(number: int) -> str:
    """Return the character with that number among all characters except surrogates."""
    return chr(number if number < _SURROGATES.start else number + len(_SURROGATES))
