"""Reads that go to the store after all: a few at a time, equal ones together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from revstore.deadlines import Deadline
from revstore.errors import StorageError, Timeout
from revstore.raising import fresh_copy

__all__ = ["Fallbacks"]

R = TypeVar("R")

# Seconds that a read without a deadline waits for its turn.
_PATIENCE = 60.0


class _Flight:
    """One read that several callers wait for."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.result: Any = None
        self.error: StorageError | None = None
        #: The one who read gave up: those who wait must try by themselves.
        self.abandoned = True


class Fallbacks:
    """At most ``limit`` reads run at once. A read that waits for its turn serves all equal ones
    that come meanwhile: each begins after its callers asked, so none is too old."""

    def __init__(self, limit: int = 4) -> None:
        self._turns = threading.BoundedSemaphore(limit)
        self._lock = threading.Lock()  # guards _waiting
        self._waiting: dict[Hashable, _Flight] = {}

    def run(self, key: Hashable, read: Callable[[], R], deadline: Deadline) -> R:
        """What ``read`` returns, maybe to several callers; equal keys mean equal reads.
        ``Timeout`` if there is no turn by the deadline."""
        while True:
            with self._lock:
                flight = self._waiting.get(key)
                leads = flight is None
                if flight is None:
                    flight = self._waiting[key] = _Flight()
            if leads:
                return self._lead(key, flight, read, deadline)
            if not flight.done.wait(_patience(deadline)):
                raise _busy(deadline)
            if flight.error is not None:
                raise fresh_copy(flight.error) from flight.error.__cause__
            if not flight.abandoned:
                result: R = flight.result
                return result

    def _lead(self, key: Hashable, flight: _Flight, read: Callable[[], R], deadline: Deadline) -> R:
        has_turn = False
        try:
            try:
                has_turn = self._turns.acquire(timeout=_patience(deadline))
            finally:
                with self._lock:
                    del self._waiting[key]
            if not has_turn:
                raise _busy(deadline)
            flight.result = result = read()
            flight.abandoned = False
            return result
        except Timeout:
            raise  # the deadline was this caller's own
        except StorageError as error:
            flight.error = error
            raise
        finally:
            if has_turn:
                self._turns.release()
            flight.done.set()


def _patience(deadline: Deadline) -> float:
    left = deadline.rest()
    return _PATIENCE if left is None else left


def _busy(deadline: Deadline) -> Timeout:
    return Timeout("the store is busy with reads that the cache could not answer", key=deadline.key)
