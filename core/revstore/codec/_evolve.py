"""Copies of objects with other values in some fields, whichever library made their class."""

from __future__ import annotations

import copy
import functools
from typing import Any

import msgspec

from revstore.codec._classes import library_of

__all__ = ["evolve", "set_field"]


@functools.cache
def _state(cls: type[Any]) -> tuple[str, tuple[str, ...], frozenset[str]]:
    """Return the library of a class, the slots that hold its state, and the names of its cached
    properties, which must not survive a change."""
    fields = {each.name for each in getattr(cls, "__attrs_attrs__", ())}
    slots = []
    for base in cls.__mro__:
        own = base.__dict__.get("__slots__", ())
        names = (own,) if isinstance(own, str) else tuple(own)
        derived = "__attrs_attrs__" in base.__dict__
        slots += [
            name
            for name in names
            if name not in ("__weakref__", "__dict__") and (name in fields or not derived)
        ]
    cached = {
        name
        for base in cls.__mro__
        for name, value in vars(base).items()
        if isinstance(value, functools.cached_property)
    }
    return library_of(cls), tuple(slots), frozenset(cached)


def evolve(obj: Any, **changes: Any) -> Any:
    """Return a copy of ``obj`` with other values in these fields.

    It does not call ``__init__``, which could change the values of all other fields.
    """
    cls: Any = type(obj)
    if cls is dict:
        return {**obj, **changes}
    library, slots, cached = _state(cls)
    if library == "pydantic":
        return obj.model_copy(update=changes)
    if library == "namedtuple":
        return obj._replace(**changes)
    if library == "msgspec":
        new = copy.copy(obj)
        for name, value in changes.items():
            msgspec.structs.force_setattr(new, name, value)
        return new
    new = object.__new__(cls)
    for name in slots:
        if hasattr(obj, name):
            object.__setattr__(new, name, getattr(obj, name))
    if hasattr(obj, "__dict__"):
        state = {name: value for name, value in obj.__dict__.items() if name not in cached}
        new.__dict__.update(state)
    if hasattr(obj, "_attrs_cached_hash"):
        object.__setattr__(new, "_attrs_cached_hash", None)
    for name, value in changes.items():
        object.__setattr__(new, name, value)
    return new


def set_field(obj: Any, name: str, value: Any) -> None:
    """Set a field of an object that nobody else has seen, even if its class is frozen."""
    if isinstance(obj, msgspec.Struct):
        msgspec.structs.force_setattr(obj, name, value)
    else:
        object.__setattr__(obj, name, value)
