"""What storages of every kind do with objects."""

from __future__ import annotations

from typing import TypeVar

from revstore.errors import InvalidArgument
from revstore.objects import ObjectMeta, metadata_value
from revstore.selectors import SelectionPredicate

__all__ = ["empty_object", "selects"]

T = TypeVar("T")


def selects(predicate: SelectionPredicate[T], obj: T) -> bool:
    """Whether ``obj`` is shown; one whose attributes cannot be had is not. (LIST-6, WATCH-13)"""
    try:
        return predicate.matches(obj)
    except Exception:  # noqa: BLE001 - attribute functions are the user's and may raise anything
        return False


def empty_object(object_type: type[T]) -> T:
    """The zero object of a type: all defaults, empty metadata. ``InvalidArgument`` for a type
    that needs more."""
    if object_type is dict:
        return {"metadata": {}}  # type: ignore[return-value]
    try:
        try:
            obj: T = object_type()
        except TypeError:
            obj = object_type(metadata=ObjectMeta())  # type: ignore[call-arg]
    except TypeError as error:
        raise InvalidArgument(
            "new_object",
            "",
            "a function that makes an empty object",
            message=f"bookmarks need an empty object, which cannot be made: {error}; "
            "give the storage a new_object function",
        ) from error
    metadata_value(obj, "name")
    return obj
