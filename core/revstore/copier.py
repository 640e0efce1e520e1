"""Copiers: each decides how a reader receives a shared object (runtime.ObjectCopier).

Objects that nobody can change are shared; others are copied. ``default_copier`` chooses by the
type.
"""

from __future__ import annotations

import copy
from typing import Any, Protocol, TypeVar

from revstore.codec import FrozenDict, TypedCodec, is_frozen
from revstore.errors import InvalidObject

__all__ = [
    "CodecCopier",
    "Copier",
    "DeepCopier",
    "FrozenDict",
    "SharingCopier",
    "default_copier",
    "is_frozen",
]

T = TypeVar("T")


class Copier(Protocol[T]):
    """Gives a reader an object that others hold too."""

    def copy(self, obj: T) -> T:
        """Return an object equal to ``obj``; to change it must not change ``obj``."""
        ...


class SharingCopier:
    """Returns the object itself: for types that cannot be changed, or callers who promise not
    to."""

    def copy(self, obj: Any) -> Any:
        return obj


class DeepCopier:
    """Copies all the way down; plain JSON values faster than ``copy.deepcopy`` does."""

    def copy(self, obj: Any) -> Any:
        kind = type(obj)
        if kind is dict:
            return {key: self.copy(value) for key, value in obj.items()}
        if kind is list:
            return [self.copy(value) for value in obj]
        if kind in (str, int, float, bool, type(None)):
            return obj
        return copy.deepcopy(obj)


class CodecCopier(DeepCopier):
    """Copies objects of one class through its built-in codec, which is exact.

    ``copy.deepcopy`` is slower, calls ``__post_init__`` on values that it has changed before, and
    fails on a lock.
    """

    def __init__(self, codec: TypedCodec[Any]) -> None:
        self._codec = codec

    def copy(self, obj: Any) -> Any:
        try:
            return self._codec.decode(self._codec.encode(obj))
        except InvalidObject:  # a field without a value
            return super().copy(obj)


def default_copier(object_type: Any, codec: Any = None) -> Copier[Any]:
    """Return a ``SharingCopier`` for frozen types, else a ``DeepCopier``; ``codec`` is that of the
    objects."""
    if is_frozen(object_type):
        return SharingCopier()
    return CodecCopier(codec) if isinstance(codec, TypedCodec) else DeepCopier()
