"""JSON bytes, and exactly the plain values that they encode."""

from __future__ import annotations

import math
import threading
from typing import Any

import msgspec

from revstore.codec._frozen import FrozenDict
from revstore.nesting import MAX_DEPTH, check_nesting

__all__ = ["Misfit", "check_plain", "decode_json", "encode_json", "kind_of", "seen", "too_deep"]

_encoder = msgspec.json.Encoder(order="sorted")
_decoder = msgspec.json.Decoder(dict[str, Any])

_KINDS = {
    dict: "object", list: "list", str: "str", bool: "bool", int: "int", float: "float",
    type(None): "null",
}  # fmt: skip


class _Seen(threading.local):
    """The findings of decoding in this thread."""

    unknown = False


seen = _Seen()


class Misfit(ValueError):
    """A value that does not fit its field. ``path`` is built from the inside to the outside."""

    def __init__(self, value: Any, expected: str) -> None:
        super().__init__()
        self.value = value
        self.expected = expected
        self.path = ""

    def under(self, name: object) -> Misfit:
        """Return the same error, seen from one level up: ``name`` is a field, a key, or an
        index."""
        try:
            step = f"[{name}]" if isinstance(name, int) else str(name)
        except Exception:  # noqa: BLE001 - a key of too many digits, or whose own code raises
            step = "[...]"
        if not step.isprintable():  # lone surrogates, line ends
            step = ascii(step)
        dot = "." if self.path and not self.path.startswith("[") else ""
        self.path = f"{step}{dot}{self.path}"
        return self

    @property
    def given(self) -> str:
        """The value, short enough for a message."""
        try:
            text = repr(self.value)
        except ValueError:  # an int of more digits than Python writes
            return f"a large {type(self.value).__name__}"
        except Exception:  # noqa: BLE001 - an object whose fields are not all set, say
            return f"a {type(self.value).__name__} without a text"
        return text if len(text) <= 80 else f"{text[:60]}... ({type(self.value).__name__})"

    def __str__(self) -> str:
        place = f"{self.path}: " if self.path else ""
        return f"{place}expected {self.expected}, not {self.given}"


def kind_of(value: Any) -> str:
    """Return the JSON kind of a decoded value; a float and an int are two kinds."""
    return _KINDS.get(type(value), "")


def encode_json(value: Any, *, shallow: bool = False) -> bytes:
    """Return the bytes of plain values; keys are sorted, so that equal objects give equal bytes.

    ``shallow`` says that no value of this type is nested too deeply.

    Raises:
        Misfit: a text has lone surrogates, or the value is nested too deeply.
    """
    try:
        data = _encoder.encode(value)
    except RecursionError:
        raise too_deep() from None
    except ValueError as error:  # lone surrogates; an int of more digits than Python writes
        raise _culprit(value) or Misfit(value, f"a value that JSON has ({error})") from None
    if not shallow:
        try:
            check_nesting(data)
        except ValueError:
            raise too_deep() from None
    return data


def decode_json(data: bytes) -> dict[str, Any]:
    """Return the object in ``data``.

    Raises:
        ValueError: ``data`` holds no object, or it is nested too deeply.
    """
    check_nesting(data)
    found: dict[str, Any] = _decoder.decode(data)
    return found


def check_plain(value: Any, depth: int = MAX_DEPTH) -> None:
    """Check that JSON gives ``value`` back unchanged.

    Raises:
        Misfit: it is, or holds, anything but dicts with str keys, lists, str, int, finite float,
            bool and None; an instance of a subclass would come back as another type.
    """
    kind = type(value)
    if kind is str or kind is int or kind is bool or value is None:
        return
    at: object = ""
    try:
        if kind is dict or kind is FrozenDict:
            if not depth:
                raise too_deep()
            for at, item in value.items():
                if type(at) is not str:
                    raise Misfit(at, "a key of type str")
                kind = type(item)
                if not (kind is str or kind is int or kind is bool or item is None):
                    check_plain(item, depth - 1)
            return
        if kind is list:
            if not depth:
                raise too_deep()
            for at, item in enumerate(value):  # noqa: B007 - names the place of a Misfit
                check_plain(item, depth - 1)
            return
    except Misfit as error:
        raise error.under(at) from None
    if kind is not float:
        raise Misfit(value, "a JSON value (dict, list, str, int, float, bool or None)")
    if not math.isfinite(value):
        raise Misfit(value, "a number that JSON has: NaN and infinity cannot be stored")


def too_deep() -> Misfit:
    """Return the error for a value that is nested too deeply."""
    return Misfit("...", f"at most {MAX_DEPTH} levels of nesting")


def _culprit(value: Any) -> Misfit | None:
    """Return an error for what cannot be encoded in ``value``, with its path; None if all can
    be."""
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, (list, tuple)):
        items = enumerate(value)
    else:
        try:
            _encoder.encode(value)
        except ValueError as error:
            return Misfit(value, f"a value that JSON has ({error})")
    for at, item in items:
        found = _culprit(at) or _culprit(item)
        if found is not None:
            return found.under(at)
    return None
