"""The time that one call of a storage spends in each part; the parts record it.

Unless the storage is traced, nothing is recorded, which costs next to nothing; see
``revstore.tracing``.
"""

from __future__ import annotations

import time
from contextvars import ContextVar

__all__ = ["CURRENT", "CallTimes", "Waiting"]


class CallTimes:
    """All times are in seconds."""

    # Class defaults instead of attributes that each call sets: most calls change few of them.

    #: Requests to the backend, and their time.
    requests: int = 0
    backend: float = 0.0
    encode: float = 0.0
    decode: float = 0.0
    #: In the value transformer.
    transform: float = 0.0
    #: For the cache to be filled or fresh enough, or for a turn to ask the store.
    waiting: float = 0.0
    #: In functions of the caller, such as that of an update, and how often they were called.
    functions: float = 0.0
    attempts: int = 0


#: The call that this thread, or task, is in; None if there is none, or it is not traced.
CURRENT: ContextVar[CallTimes | None] = ContextVar("revstore_call", default=None)


class Waiting:
    """Count the time of a ``with`` block as waiting of the current call."""

    __slots__ = ("_start",)

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        times = CURRENT.get()
        if times is not None:
            times.waiting += time.perf_counter() - self._start
