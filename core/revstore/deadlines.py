"""Timeouts and the deadlines that they become, and checks of numbers in settings."""

from __future__ import annotations

import math
import time

from revstore.errors import InvalidArgument, Timeout

__all__ = ["Deadline", "check_count", "check_poll", "check_seconds", "check_timeout"]

#: The longest wait, in seconds: locks and sockets refuse much larger numbers.
_LONGEST = 1e6
_MAX_SECONDS = 1e12


def check_timeout(timeout: float | None, default: float, key: str = "") -> float:
    """Return the seconds that a call may take: ``default`` if ``timeout`` is None.

    Every lock and socket accepts the result: it is from 0 to a million seconds.

    Raises:
        InvalidArgument: ``timeout`` is NaN or not a number; the error names ``key``.
    """
    if timeout is None:
        return default
    if not isinstance(timeout, int | float) or isinstance(timeout, bool) or not timeout <= math.inf:
        raise InvalidArgument("timeout", timeout, "a number of seconds, or None", key=key)
    return max(0.0, min(timeout, _LONGEST))


def check_poll(timeout: float | None, key: str = "") -> float | None:
    """Return the seconds that ``poll`` may wait; None and infinity give None, which is for ever.

    Raises:
        InvalidArgument: as ``check_timeout``.
    """
    if timeout is None or timeout == math.inf:
        return None
    return check_timeout(timeout, _LONGEST, key)


def check_count(name: str, value: object, low: int) -> None:
    """Check that ``value``, a setting, is a whole number from ``low`` to 2^63 - 1.

    Raises:
        InvalidArgument: it is not; the error names the setting, ``name``.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value < 1 << 63:
        if isinstance(value, int) and value.bit_length() > 128:
            value = f"a number of {value.bit_length()} bits"  # Python refuses to print the longest
        raise InvalidArgument(name, value, f"a whole number of at least {low}")


def check_seconds(name: str, value: object, low: float = 0.0, *, above: bool = False) -> None:
    """Check that ``value``, a setting, is a number of seconds: at least ``low``, at most 10^12 or
    infinity. With ``above`` it must be greater than ``low``.

    Raises:
        InvalidArgument: it is not; the error names the setting, ``name``.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and (low < value if above else low <= value):  # type: ignore[operator]
        if value <= _MAX_SECONDS or value == math.inf:  # type: ignore[operator]
            return
        value = "a number that is too large"
    bound = f"seconds above {low:g}" if above else f"{low:g} or more seconds"
    raise InvalidArgument(name, value, bound)


class Deadline:
    """The end of a call about ``key``, ``timeout`` seconds from now.

    A call makes one and passes it to each request that it sends. If ``timeout`` is None, each
    request has its backend's own default instead.

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
        """Return the seconds that the next request may take; None for the backend's default.

        Raises:
            Timeout: none are left.
        """
        left = self.rest()
        if left == 0:
            raise Timeout(f"the deadline passed before the request for {self.key!r}", key=self.key)
        return left

    def rest(self) -> float | None:
        """Return the seconds until the deadline, 0 if it has passed; None if there is none."""
        return None if self.end is None else max(0.0, self.end - time.monotonic())
