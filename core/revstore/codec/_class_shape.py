"""The JSON form of the objects of a class."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from revstore.codec._classes import UNSET, ClassInfo, FieldInfo
from revstore.codec._json import Misfit, seen
from revstore.codec._shapes import PlainShape, Shape

__all__ = ["ClassShape", "Field", "Notes"]


class Notes:
    """The findings of decoding a class, in any thread, since the program began."""

    met_unknown = False


_ANY = PlainShape()


class Field:
    """A field and its shape."""

    def __init__(self, info: FieldInfo, shape: Shape) -> None:
        self.name = info.name
        self.json_name = info.json_name
        self.default = info.default
        self.value = info.value
        self.constant = info.constant
        self.optional = info.optional
        self.shape = shape

    @property
    def unset(self) -> bool:
        """True if the field may be without a value."""
        return self.value is UNSET

    def is_empty(self, value: Any) -> bool:
        """Return whether Kubernetes leaves ``value`` out; a pointer may point to a 0, which it
        keeps."""
        return value is None if self.value is None else not value

    def get(self, obj: Any) -> Any:
        """Return the value that ``obj`` has."""
        if self.constant:
            return next(iter(self.shape.values or ()))[1]
        return obj.get(self.name) if type(obj) is dict else getattr(obj, self.name)


class ClassShape(Shape):
    """The shape of an object in JSON with the fields of one class."""

    def __init__(self, info: ClassInfo, notes: Notes) -> None:
        cls = dict if info.library == "typeddict" else info.cls
        super().__init__(info.cls.__name__, "object", cls)
        self.info = info
        self.fields: dict[str, Field] = {}  # by the name in JSON
        self.mutable = not info.frozen
        self.levels = math.inf if info.extras else 1
        self.notes = notes

    @property
    def required(self) -> list[str]:
        """The names in JSON that are never absent."""
        return [
            name
            for name, field in self.fields.items()
            if field.default is None and not field.optional
        ]

    @property
    def has_all_fields(self) -> bool:
        """True if every field is an attribute that is always stored."""
        constant = any(field.constant or field.unset for field in self.fields.values())
        return not (self.info.omit_empty or constant or self.info.library == "typeddict")

    def allow(self, name: str, value: Any) -> None:
        """Check that an object may have a field ``name`` that the class lacks.

        Raises:
            Misfit: the class forbids it.
        """
        if self.info.unknown == "forbid":
            raise Misfit(value, f"no field {name!r}, which {self.name} does not have")

    def leftover(self, rest: dict[str, Any]) -> None:
        """Note JSON fields that the class does not have.

        Raises:
            Misfit: the class forbids them.
        """
        for name, value in rest.items():
            self.allow(name, value)
        if self.info.unknown == "keep":
            seen.unknown = self.notes.met_unknown = True

    def parts(self) -> Iterator[Shape]:
        for field in self.fields.values():
            yield field.shape

    def step(self, value: Any, name: str) -> tuple[Shape, Any] | None:
        field = self.fields.get(name)
        if field is None:
            more = value.__pydantic_extra__ if self.info.extras else value
            keeps = isinstance(more, dict) and name in more
            return (_ANY, more[name]) if keeps else None
        found = field.get(value)
        if self.info.omit_empty and field.default is not None and field.is_empty(found):
            return None
        return field.shape, found

    def merge(self, old: Any, new: Any) -> Any:
        keep = self.info.unknown == "keep"
        for name, value in old.items():
            field = self.fields.get(name)
            if field is None:
                if keep:
                    new.setdefault(name, value)
            elif name in new and value is not None and new[name] is not None:
                try:
                    new[name] = field.shape.merge(value, new[name])
                except Misfit as error:
                    raise error.under(name) from None
        return new
