"""Types that JSON stores as one text or number."""

from __future__ import annotations

import base64
import datetime as dt
import decimal
import enum
import math
import re
import sys
import uuid
from typing import Any

import msgspec

from revstore.codec._json import Misfit, kind_of
from revstore.codec._shapes import FloatShape, ScalarShape, Shape, ValuesShape
from revstore.errors import UnsupportedType

__all__ = ["enum_shape", "literal_shape", "scalar_shape"]

_MOMENT = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?"
    r"(Z|[+-]\d\d:\d\d(:\d\d(\.\d{6})?)?)?"
)

_SECOND = dt.timedelta(seconds=1)


def _zone(value: Any) -> None:
    zone = value.tzinfo
    if zone is not None and zone is not dt.UTC:
        offset = zone.utcoffset(None) if type(zone) is dt.timezone or _of_pydantic(zone) else None
        if offset is None or not (_of_pydantic(zone) or repr(zone) == repr(dt.timezone(offset))):
            raise Misfit(value, "a fixed offset from UTC, a timezone without a name")
        if offset and abs(offset) < _SECOND:  # Python writes it, and reads it as UTC
            raise Misfit(value, "an offset from UTC of a second at least")
    if value.fold:
        raise Misfit(value, "fold=0: it is not stored")


def _of_pydantic(zone: dt.tzinfo) -> bool:
    """Return whether it is the fixed offset that pydantic gives to times that it reads from
    text."""
    core = sys.modules.get("pydantic_core")
    return core is not None and type(zone) is core.TzInfo


def _write_moment(value: dt.datetime) -> str:
    _zone(value)
    text = value.isoformat()
    return text[:-6] + "Z" if text.endswith("+00:00") else text


def _read_moment(text: str) -> dt.datetime:
    if not _MOMENT.fullmatch(text):
        raise ValueError(text)
    return dt.datetime.fromisoformat(text)


def _write_time(value: dt.time) -> str:
    _zone(value)
    return value.isoformat()


def _read_time(text: str) -> dt.time:
    found = dt.time.fromisoformat(text)
    if found.isoformat() != text:
        raise ValueError(text)
    return found


def _read_date(text: str) -> dt.date:
    found = dt.date.fromisoformat(text)
    if found.isoformat() != text:
        raise ValueError(text)
    return found


def _write_decimal(value: decimal.Decimal) -> str:
    if not value.is_finite():
        raise Misfit(value, "a finite Decimal")
    return str(value)


def _read_decimal(text: str) -> decimal.Decimal:
    found = decimal.Decimal(text)
    if not found.is_finite():
        raise ValueError(text)
    return found


def _read_bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _read_duration(text: str) -> dt.timedelta:
    return msgspec.convert(text, dt.timedelta)


_SHAPES: dict[Any, Shape] = {
    str: Shape("str", "str", str, check="type({v}) is str"),
    int: Shape("int", "int", int, check="type({v}) is int"),
    bool: Shape("bool", "bool", bool, check="type({v}) is bool"),
    type(None): Shape("None", "null", type(None), check="{v} is None"),
    float: FloatShape(),
    bytes: ScalarShape(bytes, lambda value: base64.b64encode(value).decode(), _read_bytes),
    dt.datetime: ScalarShape(dt.datetime, _write_moment, _read_moment),
    dt.date: ScalarShape(dt.date, dt.date.isoformat, _read_date),
    dt.time: ScalarShape(dt.time, _write_time, _read_time),
    dt.timedelta: ScalarShape(dt.timedelta, msgspec.to_builtins, _read_duration),
    decimal.Decimal: ScalarShape(decimal.Decimal, _write_decimal, _read_decimal),
    uuid.UUID: ScalarShape(uuid.UUID, str, uuid.UUID),
}


def scalar_shape(kind: Any) -> Shape | None:
    """Return the shape of a built-in scalar type, None for others."""
    return _SHAPES.get(kind)


def enum_shape(cls: type[enum.Enum], where: str) -> Shape:
    """Return the shape of an enum: its members by their values, a Flag as an int.

    Raises:
        UnsupportedType: a member's value is not a str, int, bool, float or None.
    """
    if issubclass(cls, enum.Flag):
        return ScalarShape(cls, lambda value: value.value, _flag_reader(cls), kind="int")
    members: dict[tuple[str, Any], Any] = {}
    for member in cls:
        value = member.value
        kind = kind_of(value)
        if kind not in ("str", "int", "bool", "float", "null") or (
            kind == "float" and not math.isfinite(value)
        ):
            raise UnsupportedType(
                where, member, "an Enum whose values are str, int, float, bool or None"
            )
        members[kind, value] = member
    return ValuesShape(f"a {cls.__name__}: one of {[each.value for each in cls]}", members)


def _flag_reader(cls: type[enum.Flag]) -> Any:
    def read(value: int) -> Any:
        found = cls(value)
        if type(found) is not cls or found.value != value:
            raise ValueError(value)
        return found

    return read


def literal_shape(values: tuple[Any, ...], where: str) -> Shape:
    """Return the shape of ``Literal[values]``.

    Raises:
        UnsupportedType: two values are the same in JSON, or one cannot be stored.
    """
    members: dict[tuple[str, Any], Any] = {}
    for value in values:
        json = value.value if isinstance(value, enum.Enum) else value
        kind = kind_of(json)
        if kind not in ("str", "int", "bool", "null"):
            raise UnsupportedType(where, value, "a Literal of str, int, bool, None or enum members")
        known = members.setdefault((kind, json), value)
        if type(known) is not type(value):
            raise UnsupportedType(
                where,
                value,
                f"a Literal without both {known!r} and {value!r}, which are the same in JSON",
            )
    return ValuesShape(f"one of {list(values)}", members, literal=True)
