"""The options of the etcd3 backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from revstore.errors import ConfigError

__all__ = ["Etcd3Options"]


def _seconds(low: float, high: float) -> Callable[[Any, Any, Any], None]:
    def check(_: object, field: attrs.Attribute[float], value: object) -> None:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not low <= float(str(value)) <= high:
            raise ConfigError(
                f"options.{field.name}", value, f"a number of seconds from {low:g} to {high:g}"
            )

    return check


def _check_page(_: object, field: attrs.Attribute[int], value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 1_000_000:
        raise ConfigError(f"options.{field.name}", value, "a whole number from 1 to 1000000")


@attrs.frozen(kw_only=True)
class Etcd3Options:
    """How an etcd cluster is spoken to; ``ConfigError`` names the field that is wrong.

    ``timeout``: seconds that a call may take if it was given none. ``dial_timeout``: seconds after
    which another server is tried. ``keepalive_time``: seconds of silence after which the other end
    is asked whether it lives; ``keepalive_timeout``: seconds that it may take to say so. ``page``:
    how many keys are read in one request; halved where a page is too large for one message.
    """

    timeout: float = attrs.field(default=30.0, validator=_seconds(0.1, 3600))
    dial_timeout: float = attrs.field(default=2.0, validator=_seconds(0.1, 60))
    keepalive_time: float = attrs.field(default=10.0, validator=_seconds(1, 3600))
    keepalive_timeout: float = attrs.field(default=5.0, validator=_seconds(0.5, 600))
    page: int = attrs.field(default=10_000, validator=_check_page)
