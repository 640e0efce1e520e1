"""Copiers: what a reader of a shared object is handed (runtime.ObjectCopier).

Objects that nobody can change are shared as they are; others are copied. ``default_copier``
chooses by the type.
"""

from __future__ import annotations

import copy
from typing import Any, Protocol, TypeVar

from revstore.codec import FrozenDict, is_frozen

__all__ = ["Copier", "DeepCopier", "FrozenDict", "SharingCopier", "default_copier", "is_frozen"]

T = TypeVar("T")


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


def default_copier(object_type: Any) -> Copier[Any]:
    """``SharingCopier`` for frozen types, else ``DeepCopier``."""
    return SharingCopier() if is_frozen(object_type) else DeepCopier()
