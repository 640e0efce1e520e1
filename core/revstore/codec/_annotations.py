"""Annotations of fields, with names resolved and type variables replaced."""

from __future__ import annotations

import sys
import types
import typing
from collections.abc import Mapping
from typing import Any

from revstore.errors import UnsupportedType

__all__ = ["own_annotations", "resolve", "substitute"]


def resolve(cls: type[Any], name: str, given: Any) -> Any:
    """Return the annotation of a field.

    Names are looked up where the class was defined, and type variables are replaced by what the
    base class was given.
    """
    owner = next((base for base in cls.__mro__ if name in own_annotations(base)), cls)
    annotation = own_annotations(owner).get(name, given) if isinstance(given, str) else given
    if annotation is None and name not in own_annotations(owner):
        raise UnsupportedType(f"{cls.__name__}.{name}", None, "an annotation")
    names = {**vars(owner), **_locals_of(owner), owner.__name__: owner}
    try:
        found = typing.get_type_hints(
            type("Holder", (), {"__annotations__": {"it": annotation}}),
            vars(sys.modules[owner.__module__]) if owner.__module__ in sys.modules else {},
            {**names, **{each.__name__: each for each in owner.__type_params__}}
            if hasattr(owner, "__type_params__")
            else names,
            include_extras=True,
        )["it"]
    except Exception as error:
        raise UnsupportedType(
            f"{cls.__name__}.{name}",
            annotation,
            "a type whose names can be resolved: define it at the top of its module, or resolve "
            f"the annotations first ({error})",
        ) from error
    return substitute(found, _bindings(cls).get(owner, {}))


def own_annotations(cls: type[Any]) -> Mapping[str, Any]:
    found = vars(cls).get("__annotations__")
    return found if isinstance(found, Mapping) else {}


def _locals_of(cls: type[Any]) -> dict[str, Any]:
    """Return the names in the function that ``cls`` was defined in, if that is still running."""
    outer, _, _ = cls.__qualname__.rpartition(".<locals>.")
    if not outer:
        return {}
    frame: types.FrameType | None = sys._getframe()  # noqa: SLF001 - the only way to the names of a running function
    while frame is not None:
        if frame.f_code.co_qualname == outer and frame.f_globals.get("__name__") == cls.__module__:
            return dict(frame.f_locals)
        frame = frame.f_back
    return {}


def _bindings(cls: type[Any]) -> dict[type[Any], dict[Any, Any]]:
    """Return the types that ``cls`` gives to the type variables of each base class."""
    found: dict[type[Any], dict[Any, Any]] = {}

    def visit(owner: type[Any], known: Mapping[Any, Any]) -> None:
        for base in owner.__dict__.get("__orig_bases__", owner.__bases__):
            origin = typing.get_origin(base) or base
            if origin in (typing.Generic, typing.Protocol, object) or not isinstance(origin, type):
                continue
            variables = getattr(origin, "__parameters__", ())
            given = [substitute(arg, known) for arg in typing.get_args(base)]
            found.setdefault(origin, dict(zip(variables, given, strict=False)))
            visit(origin, found[origin])

    visit(cls, {})
    return found


def substitute(annotation: Any, known: Mapping[Any, Any]) -> Any:
    """Return ``annotation`` with type variables replaced."""
    if not known:
        return annotation
    if isinstance(annotation, typing.TypeVar):
        return known.get(annotation, annotation)
    variables = getattr(annotation, "__parameters__", ())
    if not variables or isinstance(annotation, type):
        return annotation
    return annotation[tuple(known.get(each, each) for each in variables)]
