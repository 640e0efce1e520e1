"""Copiers: what a reader of a shared object is handed (runtime.ObjectCopier).

Objects that nobody can change are shared as they are; others are copied. ``default_copier``
chooses by the type.
"""

from __future__ import annotations

import collections.abc
import copy
import datetime
import decimal
import enum
import types
import typing
import uuid
from typing import Any, NoReturn, Protocol, TypeVar

import attrs

__all__ = ["Copier", "DeepCopier", "FrozenDict", "SharingCopier", "default_copier", "is_frozen"]

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")

_ATOMS: tuple[type, ...] = (
    str, bytes, int, float, bool, complex, type(None), decimal.Decimal, datetime.datetime,
    datetime.date, datetime.time, datetime.timedelta, uuid.UUID, enum.Enum,
)  # fmt: skip


class Copier(Protocol[T]):
    """Hands out an object that others hold too."""

    def copy(self, obj: T) -> T:
        """An object equal to ``obj`` that its holder cannot change ``obj`` through."""
        ...


class SharingCopier:
    """Hands out the object itself: for types that cannot be changed, or callers who promise."""

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


class FrozenDict(dict[K, V]):
    """A dict that cannot be changed: what ``Mapping`` fields of decoded frozen objects hold.

    Equal to a dict with the same items; copies, pickles and encodes as one does.
    """

    __slots__ = ()

    def _refuse(self, *args: object, **kwargs: object) -> NoReturn:
        raise TypeError("this mapping is shared and cannot be changed; make a dict of it first")

    __setitem__ = __delitem__ = clear = pop = popitem = setdefault = update = _refuse
    __ior__ = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self),)

    def __copy__(self) -> FrozenDict[K, V]:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenDict[K, V]:
        return type(self)(copy.deepcopy(dict(self), memo))


def is_frozen(object_type: Any) -> bool:
    """Whether no instance of ``object_type``, decoded by the built-in codec, can be changed: a
    frozen attrs class whose fields are such classes, plain values, ``tuple``, ``frozenset`` or
    ``Mapping`` of them, or a union of those. Unknown types count as changeable."""
    return _frozen(object_type, frozenset())


def _frozen(kind: Any, above: frozenset[Any]) -> bool:
    if kind in above:
        return True  # a class that holds itself is as frozen as the rest of it
    origin = typing.get_origin(kind)
    if origin is typing.Annotated:
        return _frozen(typing.get_args(kind)[0], above)
    if origin in (typing.Union, types.UnionType, tuple, frozenset, collections.abc.Mapping):
        return all(arg is Ellipsis or _frozen(arg, above) for arg in typing.get_args(kind))
    if isinstance(kind, type) and attrs.has(kind):
        return _frozen_class(kind, above | {kind})
    atom = isinstance(kind, type) and issubclass(kind, _ATOMS)
    return atom or origin is typing.Literal


def _frozen_class(cls: type[Any], above: frozenset[Any]) -> bool:
    # attrs has no public way to ask whether a class is frozen.
    if getattr(cls.__setattr__, "__name__", "") != "_frozen_setattrs":
        return False
    return all(_frozen(field.type, above) for field in attrs.fields(attrs.resolve_types(cls)))


def default_copier(object_type: Any) -> Copier[Any]:
    """``SharingCopier`` for frozen types, else ``DeepCopier``."""
    return SharingCopier() if is_frozen(object_type) else DeepCopier()
