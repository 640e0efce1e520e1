"""How long calls may take: what a timeout may be, and the deadline that it becomes."""

from __future__ import annotations

import math
import time

from revstore.errors import InvalidArgument, Timeout

__all__ = ["Deadline", "check_poll", "check_timeout"]

#: Seconds that anything is asked to wait at most: locks and sockets refuse much larger numbers.
_LONGEST = 1e6


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
