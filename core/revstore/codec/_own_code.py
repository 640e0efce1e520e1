"""Guards of stored values against changes by a class's own code."""

from __future__ import annotations

import copy
import types
from collections.abc import Callable
from typing import Any

from revstore.codec._class_shape import ClassShape
from revstore.codec._json import Misfit, decode_json, encode_json
from revstore.codec._shapes import Shape

__all__ = ["again", "copying", "is_code", "texts", "with_code"]


def with_code(encode: Callable[[Any], Any], shape: ClassShape) -> Callable[[Any], Any]:
    """Refuse a value that a property, in place of a field, would read back as something else."""

    def encode_checked(obj: Any) -> Any:
        found = encode(obj)
        data = encode_json(found)
        again = encode(shape.decode(decode_json(data)))
        if encode_json(again) != data:
            name = next(name for name in found if again[name] != found[name])
            raise Misfit(found[name], "a value that its property reads back").under(name)
        return found

    return encode_checked


def is_code(slot: Any) -> bool:
    """Return whether setting the field runs code, judged by the class attribute of its name."""
    return hasattr(type(slot), "__set__") and not isinstance(slot, types.MemberDescriptorType)


def texts(shapes: tuple[Shape, ...]) -> Callable[[Any], list[bytes]]:
    """Return a function from values to their bytes, which reveal a change in place."""
    return lambda values: [
        encode_json({"": shape.encode(value)}) for shape, value in zip(shapes, values, strict=True)
    ]


def again(shapes: tuple[Shape, ...], texts_of: Any) -> Callable[[list[bytes], Any], list[Any]]:
    """Return a function from the bytes before, and values, to the values that those bytes
    encode."""

    def made_anew(before: list[bytes], values: Any) -> list[Any]:
        after: list[Any]
        try:
            after = texts_of(values)
        except Misfit:  # they no longer fit
            after = [None] * len(before)
        return [
            value if old == new else shape.decode(decode_json(old)[""])
            for shape, value, old, new in zip(shapes, values, before, after, strict=True)
        ]

    return made_anew


def copying(value: Any) -> Callable[[Any], Any]:
    """Return a function that copies the default ``value``, so that an object may change or stamp
    it."""
    return lambda _: copy.deepcopy(value)
