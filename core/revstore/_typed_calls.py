"""The deadline of a call that makes several requests."""

from __future__ import annotations

import time

from revstore.errors import Timeout

__all__ = ["Deadline"]


class Deadline:
    """``timeout`` seconds from now; None leaves each request its backend's own default."""

    def __init__(self, timeout: float | None) -> None:
        self._end = None if timeout is None else time.monotonic() + timeout

    def left(self, key: str) -> float | None:
        """Seconds that the next request may take; ``Timeout`` if none are left."""
        if self._end is None:
            return None
        left = self._end - time.monotonic()
        if left <= 0:
            raise Timeout(f"the deadline passed before the request for {key!r}", key=key)
        return left
