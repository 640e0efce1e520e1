"""Models of pydantic: their contents besides fields, and the way to rebuild them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from revstore.codec._class_shape import ClassShape
from revstore.codec._json import Misfit, check_plain, decode_json, encode_json

__all__ = ["make_model", "validate_model", "with_extras", "with_private"]


def with_extras(encode: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Store the extras of a model beside its fields."""

    def encode_all(obj: Any) -> Any:
        found = encode(obj)
        for name, value in (obj.__pydantic_extra__ or {}).items():
            try:
                if name in found:
                    raise Misfit(value, "a different name: a field already has this one")
                check_plain(value)
            except Misfit as error:
                raise error.under(name) from None
            found[name] = value
        return found

    return encode_all


def with_private(encode: Callable[[Any], Any], shape: ClassShape) -> Callable[[Any], Any]:
    """Refuse private attributes that an object rebuilt from its fields would not have."""

    def encode_checked(obj: Any) -> Any:
        found = encode(obj)
        again = shape.decode(decode_json(encode_json(found))).__pydantic_private__ or {}
        for name, value in (obj.__pydantic_private__ or {}).items():
            if name not in again or type(again[name]) is not type(value) or again[name] != value:
                raise Misfit(
                    value, "its value in a new object: private attributes are not stored"
                ).under(name)
        return found

    return encode_checked


def make_model(cls: Any, values: dict[str, Any], extra: dict[str, Any] | None) -> Any:
    """Return a model with exactly these values; its validators do not run."""
    obj = cls.__new__(cls)
    object.__setattr__(obj, "__dict__", values)
    object.__setattr__(obj, "__pydantic_fields_set__", set(values))
    if not cls.__pydantic_root_model__:
        object.__setattr__(obj, "__pydantic_extra__", extra)
        object.__setattr__(obj, "__pydantic_private__", None)
    return obj


def validate_model(shape: ClassShape, values: dict[str, Any]) -> None:
    """Run the validators.

    Raises:
        Misfit: they refuse a value; it is about the first one that they name.
    """
    cls: Any = shape.info.cls
    try:
        if cls.__pydantic_root_model__:
            cls.__pydantic_validator__.validate_python(values["root"])
        else:
            cls.__pydantic_validator__.validate_python({**values}, by_alias=False, by_name=True)
    except Exception as error:
        # The attributes of pydantic's own ValidationError.
        errors: list[Any] = getattr(error, "errors", list)()
        first: dict[str, Any] = errors[0] if errors else {"msg": error, "loc": (), "input": values}
        misfit = Misfit(
            first["input"], f"what the validators of {shape.name} accept ({first['msg']})"
        )
        known = {field.name: name for name, field in shape.fields.items()}
        for step in reversed(first["loc"]):
            misfit.under(known.get(step, step))
        raise misfit from error
