"""What calls have in common: the deadline of several requests, the key that errors name, and
errors that are raised more than once."""

from __future__ import annotations

import copy
import math
import time
from types import TracebackType
from typing import TypeVar

from revstore.errors import (
    Expired,
    InvalidArgument,
    NotReady,
    StorageError,
    Timeout,
    TooLargeResourceVersion,
)

__all__ = ["LONGEST", "Deadline", "Naming", "again"]

E = TypeVar("E", bound=StorageError)

#: Seconds that anything is asked to wait in one go: locks and sockets refuse much larger numbers.
LONGEST = 1e6


class Deadline:
    """``timeout`` seconds from now for a call about ``key``; None leaves each request its backend's
    own default. ``InvalidArgument`` for what is no number."""

    def __init__(self, timeout: float | None, key: str) -> None:
        if timeout is not None and math.isnan(timeout):
            raise InvalidArgument("timeout", timeout, "seconds, or None", key=key)
        self._end = None if timeout is None else time.monotonic() + timeout
        self.key = key

    def left(self) -> float | None:
        """Seconds that the next request may take; ``Timeout`` if none are left."""
        left = self.rest()
        if left == 0:
            raise Timeout(f"the deadline passed before the request for {self.key!r}", key=self.key)
        return left

    def rest(self) -> float | None:
        """Seconds that may be waited before the next request, 0 if none are left."""
        if self._end is None:
            return None
        return min(max(0.0, self._end - time.monotonic()), LONGEST)


class Naming:
    """Gives what is raised about an argument, a compacted version included, or as a cache is not
    filled, the key of the call, where it has none.

    Not the errors of a backend: it may raise one instance in several threads.
    """

    __slots__ = ("_key",)

    def __init__(self, key: str) -> None:
        self._key = key

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        kinds = (Expired, InvalidArgument, NotReady, TooLargeResourceVersion)
        if isinstance(error, kinds) and not error.key:
            error.key = self._key


def again(error: E, key: str = "") -> E:
    """The same as ``error`` for one more raise, about ``key`` if it names none. One instance raised
    many times, in many threads maybe, would gather the tracebacks of all."""
    fresh = copy.copy(error)
    fresh.__cause__ = error.__cause__
    fresh.key = fresh.key or key
    return fresh
