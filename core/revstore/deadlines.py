"""The deadline of a call: made once, and handed down to all that the call asks for."""

from __future__ import annotations

import math
import time

from revstore.errors import InvalidArgument, Timeout

__all__ = ["LONGEST", "Deadline"]

#: Seconds that anything is asked to wait in one go: locks and sockets refuse much larger numbers.
LONGEST = 1e6


class Deadline:
    """``timeout`` seconds from now for a call about ``key``; None leaves each request its backend's
    own default. Raises ``InvalidArgument`` if ``timeout`` is not a number."""

    def __init__(self, timeout: float | None, key: str) -> None:
        if timeout is not None and math.isnan(timeout):
            raise InvalidArgument("timeout", timeout, "seconds, or None", key=key)
        self._end = None if timeout is None else time.monotonic() + timeout
        self.key = key

    def left(self) -> float | None:
        """Return the seconds that the next request may take; raise ``Timeout`` if none are left."""
        left = self.rest()
        if left == 0:
            raise Timeout(f"the deadline passed before the request for {self.key!r}", key=self.key)
        return left

    def rest(self) -> float | None:
        """Return the seconds that may be waited before the next request, 0 if none are left."""
        if self._end is None:
            return None
        return min(max(0.0, self._end - time.monotonic()), LONGEST)
