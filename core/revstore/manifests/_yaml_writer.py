"""Values to YAML that every reader reads as the same values."""

from __future__ import annotations

import math
from typing import Any

import yaml

from revstore.errors import InvalidArgument
from revstore.manifests._yaml_reader import reads_as_string
from revstore.nesting import MAX_LIST_DEPTH, TOO_DEEP

__all__ = ["write"]

_Base: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class _Dumper(_Base):  # type: ignore[misc]
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_str(dumper: Any, text: str) -> Any:
    style = None
    if "\n" in text:
        style = "|"
    elif not reads_as_string(text):
        # PyYAML omits the quotes where only PyYAML reads a string: 1e3, y, 22:22.
        style = '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_str)
# Objects that a codec shares are frozen dicts.
_Dumper.add_multi_representer(dict, _Dumper.represent_dict)


class _Refused(ValueError):
    """A value that no reader would read as the same. ``place`` grows from the inside out."""

    place = ""


def write(value: Any) -> str:
    """Write one document, keys sorted, without a marker in front.

    Raises:
        InvalidArgument: ``value`` is or holds something that JSON lacks.
    """
    try:
        _check(value, MAX_LIST_DEPTH)
    except _Refused as refused:
        place = refused.place if len(refused.place) <= 80 else f"{refused.place[:80]}..."
        message = f"{place}: {refused}" if place else str(refused)
        raise InvalidArgument("value", place, "a JSON value", message=message) from None
    text: str = yaml.dump(
        value,
        Dumper=_Dumper,
        sort_keys=True,
        default_flow_style=False,
        allow_unicode=True,
        width=4096,
    )
    return text


def _check(value: Any, depth: int) -> None:
    at: object = ""
    try:
        if isinstance(value, (dict, list)):
            if not depth:
                raise _Refused(TOO_DEEP)
            for at, item in value.items() if isinstance(value, dict) else enumerate(value):
                if isinstance(value, dict):
                    _check_key(at)
                _check(item, depth - 1)
        else:
            _check_scalar(value)
    except _Refused as refused:
        step = f"[{at}]" if isinstance(value, list) else str(at)
        if step and step.isprintable():
            dot = "." if refused.place and not refused.place.startswith("[") else ""
            refused.place = f"{step}{dot}{refused.place}"
        raise


def _check_key(key: object) -> None:
    if type(key) is not str:
        raise _Refused(f"a key of type {type(key).__name__}, which is no string")
    _check_scalar(key)


def _check_scalar(value: object) -> None:
    if value is None or type(value) is bool:
        return
    if type(value) is str:
        try:
            value.encode()
        except UnicodeEncodeError:
            raise _Refused("a string has half a character (a lone surrogate)") from None
    elif type(value) is int:
        try:
            str(value)
        except ValueError:
            raise _Refused("an integer has more digits than Python writes") from None
    elif type(value) is not float:
        raise _Refused(f"a value of type {type(value).__name__}, which JSON does not have")
    elif not math.isfinite(value):
        raise _Refused(f"{value} cannot be represented in JSON")
