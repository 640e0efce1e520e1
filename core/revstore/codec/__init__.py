"""Codecs: objects to bytes and back (runtime.Codec).

The built-in codec is JSON. It stores a value exactly or refuses it. It handles classes of attrs,
dataclasses, msgspec, pydantic and TypedDict, with fields in camelCase, and plain dicts unchanged.
docs/types.md has the table of annotations.
"""

from __future__ import annotations

import functools
from typing import Any, Protocol, TypeVar

from revstore.codec._classes import JsonName, ListKey, camel_case
from revstore.codec._evolve import evolve, set_field
from revstore.codec._frozen import FrozenDict
from revstore.codec._json import encode_json
from revstore.codec._typed import DictCodec, TypedCodec, check_fields, is_frozen
from revstore.codec._versions import Upgrade, VersionMisfit, Versions
from revstore.errors import UnsupportedType

__all__ = [
    "Codec",
    "DictCodec",
    "FrozenDict",
    "JsonName",
    "ListKey",
    "TypedCodec",
    "Upgrade",
    "VersionMisfit",
    "Versions",
    "camel_case",
    "check_fields",
    "encode_json",
    "evolve",
    "is_frozen",
    "json_codec",
    "set_field",
]

T = TypeVar("T")


class Codec(Protocol[T]):
    """Both methods are called from many threads. Any exception means that the object cannot be
    encoded, or the bytes cannot be decoded.

    A codec may also have ``field_value(obj, path)``, which returns what a field selector compares,
    ``decode_noting`` and ``merge``, which keep fields that a typed writer does not know, and
    ``upgrade`` and ``with_versions``, for stored versions (``Versions``).
    """

    def encode(self, obj: T) -> bytes:
        """Return the bytes of ``obj``; equal objects must give equal bytes, since an update that
        changes no byte is not written."""
        ...

    def decode(self, data: bytes) -> T:
        """Return a new object, which the caller owns."""
        ...


def json_codec(object_type: Any) -> Any:
    """Return the built-in JSON codec for ``object_type``: a ``DictCodec`` or a ``TypedCodec``.

    Raises:
        UnsupportedType: a field of the class cannot be stored exactly, or the type is neither
            ``dict`` nor a class with fields.
    """
    if object_type is dict:
        return _dicts
    try:
        hash(object_type)
    except TypeError:
        raise UnsupportedType("object_type", object_type, "a class, or dict") from None
    return _typed(object_type)


_dicts = DictCodec()
_typed = functools.lru_cache(maxsize=512)(TypedCodec)
