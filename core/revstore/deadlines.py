"""How long calls may take: what a timeout may be, and the deadline that it becomes; and which
numbers a part may be made with."""

from __future__ import annotations

import math
import time

from revstore.errors import InvalidArgument, Timeout

__all__ = ["Deadline", "check_count", "check_poll", "check_seconds", "check_timeout"]

#: Seconds that anything is asked to wait at most: locks and sockets refuse much larger numbers.
_LONGEST = 1e6
_MAX_SECONDS = 1e12


def check_timeout(timeout: float | None, default: float, key: str = "") -> float:
    """Return the seconds that a call may take: ``default`` if ``timeout`` is None.

    Every wait can take the result: infinity and numbers above a million are a million seconds.

    Raises:
        InvalidArgument: ``timeout`` is NaN, or no number; the error names ``key``.
    """
    if timeout is None:
        return default
    if not isinstance(timeout, int | float) or isinstance(timeout, bool) or not timeout <= math.inf:
        raise InvalidArgument("timeout", timeout, "a number of seconds, or None", key=key)
    return max(0.0, min(timeout, _LONGEST))


def check_poll(timeout: float | None, key: str = "") -> float | None:
    """Return the seconds that ``poll`` may wait, None for ever: for None and for infinity.

    Raises:
        InvalidArgument: as ``check_timeout``.
    """
    if timeout is None or timeout == math.inf:
        return None
    return check_timeout(timeout, _LONGEST, key)


def check_count(name: str, value: object, low: int) -> None:
    """Raise ``InvalidArgument`` unless ``value``, a setting, is a whole number from ``low`` to
    2^63 - 1."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value < 1 << 63:
        if isinstance(value, int) and value.bit_length() > 128:
            value = f"a number of {value.bit_length()} bits"  # Python refuses to print the longest
        raise InvalidArgument(name, value, f"a whole number of at least {low}")


def check_seconds(name: str, value: object, low: float = 0.0, *, above: bool = False) -> None:
    """Raise ``InvalidArgument`` unless ``value``, a setting, is a number of seconds from ``low``
    on, or ``above`` it: up to 10^12, or infinity."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and (low < value if above else low <= value):  # type: ignore[operator]
        if value <= _MAX_SECONDS or value == math.inf:  # type: ignore[operator]
            return
        value = "a number that is too large"
    bound = f"seconds above {low:g}" if above else f"{low:g} or more seconds"
    raise InvalidArgument(name, value, bound)


class Deadline:
    """``timeout`` seconds from now for a call about ``key``, made once and handed down to all that
    the call asks for; None leaves each request its backend's own default.

    Raises:
        InvalidArgument: as ``check_timeout``.
    """

    def __init__(self, timeout: float | None, key: str) -> None:
        #: When it is over, by the monotonic clock; None: each request has its own.
        self.end: float | None = None
        if timeout is not None:
            self.end = time.monotonic() + check_timeout(timeout, 0.0, key)
        self.key = key

    def left(self) -> float | None:
        """Return the seconds that the next request may take; raise ``Timeout`` if none are left."""
        left = self.rest()
        if left == 0:
            raise Timeout(f"the deadline passed before the request for {self.key!r}", key=self.key)
        return left

    def rest(self) -> float | None:
        """Return the seconds that may be waited before the next request, 0 if none are left."""
        return None if self.end is None else max(0.0, self.end - time.monotonic())
