"""Conversion of raw values from files, variables, URLs and callers to typed values."""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Collection, Iterator, Mapping
from typing import Any, TypeVar

import attrs

from revstore.config._text import Unseen, clean, clean_secret
from revstore.errors import ConfigError
from revstore.secret import Secret

__all__ = ["CODE", "FrozenMap", "Given", "Origin", "convert", "refuse", "unknown_name"]

V_co = TypeVar("V_co", covariant=True)

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
# Checked as the consumers of the values check them, so that the configuration fails, and not a
# call.
_MAX_SECONDS = 1e12
_MAX_INT = (1 << 63) - 1
_BOOLS = {
    **dict.fromkeys(("true", "1", "yes", "on"), True),
    **dict.fromkeys(("false", "0", "no", "off"), False),
}
_EXPECTED = {
    str: "a string",
    int: "a whole number below 2**63",
    float: "a number of seconds up to 1e12, or a duration such as '500ms', '60s' or '1h30m'",
    bool: "true or false",
    tuple: "a list of strings",
    Secret: "a string",
}


@attrs.frozen
class Origin:
    """The source of a value. Errors show ``label``: a file's name, a variable, "URL". With
    ``text``, each value from the source is a string, to be parsed as the field's type."""

    label: str = ""
    text: bool = False


#: Given by a caller, with its proper type.
CODE = Origin()


@attrs.frozen
class Given:
    """A raw value and its origin."""

    value: Any
    origin: Origin = CODE


class FrozenMap(Mapping[str, V_co]):
    """A mapping that cannot be changed; ``repr`` shows the keys only, as values may be secret."""

    __slots__ = ("_items",)

    def __init__(self, items: Mapping[str, V_co] = types.MappingProxyType({})) -> None:
        self._items = dict(items)

    def __getitem__(self, key: str) -> V_co:
        return self._items[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return "{" + ", ".join(f"{key!r}: ..." for key in self._items) + "}"

    def __reduce__(self) -> tuple[Any, ...]:
        return FrozenMap, (self._items,)


def refuse(field: str, given: Given, expected: str, *, secret: bool = False) -> ConfigError:
    """Return the error for a value that is not allowed. It shows the value, unless that may be
    secret."""
    shown: object = "***" if secret else given.value
    where = f"{given.origin.label}: " if given.origin.label else ""
    if isinstance(shown, int) and abs(shown) > _MAX_INT:  # Python refuses to print the longest
        shown = "a number that is too large"
    text = shown if secret else repr(shown)
    return ConfigError(
        field, shown, expected, message=f"{where}invalid {field} {text}: expected {expected}"
    )


def unknown_name(field: str, origin: Origin, known: Collection[str], what: str) -> ConfigError:
    """Return the error for ``field``, a name that nothing knows.

    It does not show the value, which may be a password under a mistyped name.
    """
    head, _, name = field.rpartition(".")
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        meant = f"{head}.{close[0]}" if head else close[0]
        expected = f"{meant!r}?"
        hint = f"did you mean {expected}"
    else:
        expected = f"one of {', '.join(sorted(known))}" if known else "none"
        hint = f"expected {expected}"
    where = f"{origin.label}: " if origin.label else ""
    return ConfigError(field, "", expected, message=f"{where}unknown {what} {field!r}: {hint}")


def convert(given: Given, wanted: Any, field: str) -> Any:
    """Return ``given.value`` as the type ``wanted``.

    That is str, int, float (seconds, not negative), bool, tuple[str, ...] or Secret, or one of
    these or None.

    Raises:
        ConfigError: the value does not have this type.
    """
    value = given.value
    options = typing.get_args(wanted) if isinstance(wanted, types.UnionType) else (wanted,)
    if value is None and types.NoneType in options:
        return None
    kind = next(option for option in options if option is not types.NoneType)
    base = typing.get_origin(kind) or kind
    try:
        result = _READERS[base](value, given.origin.text)
    except Unseen as error:
        raise refuse(field, given, str(error), secret=base is Secret) from None
    if result is None:
        raise refuse(field, given, _EXPECTED[base], secret=base is Secret)
    return result


def _read_str(value: Any, text: bool) -> str | None:
    return clean(value) if isinstance(value, str) else None


def _read_secret(value: Any, text: bool) -> Secret | None:
    if isinstance(value, Secret):
        return value
    return Secret(clean_secret(value)) if isinstance(value, str) else None


def _read_bool(value: Any, text: bool) -> bool | None:
    if text and isinstance(value, str):
        return _BOOLS.get(clean(value).lower())
    return value if isinstance(value, bool) else None


def _read_int(value: Any, text: bool) -> int | None:
    if text and isinstance(value, str):
        value = clean(value)
        value = int(value) if re.fullmatch(r"-?[0-9]{1,19}", value) else None
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if abs(value) <= _MAX_INT else None


def _read_seconds(value: Any, text: bool) -> float | None:
    if isinstance(value, str):
        value = _parse_duration(clean(value))
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if 0 <= value <= _MAX_SECONDS else None


def _read_strings(value: Any, text: bool) -> tuple[str, ...] | None:
    if isinstance(value, str):
        return tuple(filter(None, map(clean, value.split(",")))) if text else None
    if not isinstance(value, list | tuple) or not all(isinstance(part, str) for part in value):
        return None
    return tuple(map(clean, value))


_READERS: dict[Any, Any] = {
    str: _read_str,
    int: _read_int,
    float: _read_seconds,
    bool: _read_bool,
    tuple: _read_strings,
    Secret: _read_secret,
}


def _parse_duration(text: str) -> float | None:
    if _NUMBER.fullmatch(text):
        return float(text)
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in parts)
