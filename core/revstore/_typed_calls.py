"""What calls have in common: the deadline of several requests, the key that errors name."""

from __future__ import annotations

import time
from types import TracebackType

from revstore.errors import Expired, InvalidArgument, Timeout, TooLargeResourceVersion

__all__ = ["Deadline", "Naming"]


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


class Naming:
    """Gives what is raised about an argument, a compacted version included, the key of the call,
    where it has none.

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
        kinds = (Expired, InvalidArgument, TooLargeResourceVersion)
        if isinstance(error, kinds) and not error.key:
            error.key = self._key
