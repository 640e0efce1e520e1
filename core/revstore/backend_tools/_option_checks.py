"""Validators for the fields of an options class."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from revstore.errors import ConfigError

if TYPE_CHECKING:
    import attrs

__all__ = ["seconds", "whole_number"]


def seconds(low: float, high: float) -> Callable[[Any, attrs.Attribute[Any], object], None]:
    """Return an attrs validator for a field of type ``float``: seconds from ``low`` to ``high``.

    Texts such as "500ms" or "1m30s" in a URL, a file or a variable have become numbers before a
    validator sees them. The validator raises ``ConfigError``, which names ``options.FIELD``, also
    for NaN.
    """
    return _between(low, high, "number of seconds", int | float)


def whole_number(low: int, high: int) -> Callable[[Any, attrs.Attribute[Any], object], None]:
    """Return an attrs validator for a field of type ``int`` from ``low`` to ``high``.

    The validator raises ``ConfigError``, which names ``options.FIELD``, also for a bool.
    """
    return _between(low, high, "whole number", int)


def _between(
    low: float, high: float, what: str, kind: Any
) -> Callable[[Any, attrs.Attribute[Any], object], None]:
    def check(_: object, field: attrs.Attribute[Any], value: Any) -> None:
        if not isinstance(value, kind) or isinstance(value, bool) or not low <= value <= high:
            expected = f"a {what} from {low:.10g} to {high:.10g}"
            raise ConfigError(f"options.{field.name}", value, expected)

    return check
