"""Reads that the cache cannot answer and the store must: a few at a time, equal ones together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from revstore.call_times import Waiting
from revstore.deadlines import Deadline
from revstore.errors import StorageError, Timeout
from revstore.raising import fresh_copy
from revstore.threads import Waiters

__all__ = ["Fallbacks"]

R = TypeVar("R")

# Seconds that a read without a deadline waits for its turn.
_PATIENCE = 60.0


class _Flight:
    """One read that several callers wait for."""

    def __init__(self) -> None:
        self.waiters = Waiters()
        self.over = False
        self.result: Any = None
        self.error: StorageError | None = None
        #: The caller that read gave up: those who wait must try by themselves.
        self.abandoned = True

    def is_over(self) -> bool:
        return self.over


class Fallbacks:
    """At most ``limit`` reads run at once. A read that waits for its turn serves all equal ones
    that arrive meanwhile. Each begins after its callers asked, so none is too old."""

    def __init__(self, limit: int = 4) -> None:
        self._limit = limit
        self._turns = Waiters()
        self._lock = threading.Lock()  # guards _waiting and _running
        self._waiting: dict[Hashable, _Flight] = {}
        self._running: set[_Flight] = set()

    def run(self, key: Hashable, read: Callable[[], R], deadline: Deadline) -> R:
        """Return the result of ``read``, perhaps to several callers; equal keys mean equal reads.

        Raises:
            Timeout: there is no turn by the deadline.
        """
        while True:
            own = _Flight()
            try:
                with self._lock:
                    flight = self._waiting.setdefault(key, own)
                if flight is own:
                    return self._lead(key, own, read, deadline)
            except BaseException:  # an interrupt may have come anywhere
                self._land(key, own)
                raise
            with Waiting():
                is_over = flight.waiters.wait_for(flight.is_over, _patience(deadline))
            if not is_over:
                raise _busy(deadline)
            if flight.error is not None:
                raise fresh_copy(flight.error) from flight.error.__cause__
            if not flight.abandoned:
                result: R = flight.result
                return result

    def _lead(self, key: Hashable, flight: _Flight, read: Callable[[], R], deadline: Deadline) -> R:
        try:
            with Waiting():
                has_turn = self._turns.wait_for(
                    lambda: self._begin(key, flight), _patience(deadline)
                )
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
            self._land(key, flight)

    def _begin(self, key: Hashable, flight: _Flight) -> bool:
        """Take a turn, if there is one."""
        with self._lock:
            if len(self._running) >= self._limit:
                return False
            self._running.add(flight)
            del self._waiting[key]
            return True

    def _land(self, key: Hashable, flight: _Flight) -> None:
        """Give the turn back, and wake those who wait for it or for the result. May be repeated."""
        with self._lock:
            if self._waiting.get(key) is flight:
                del self._waiting[key]
            self._running.discard(flight)
            flight.over = True
        self._turns.wake()
        flight.waiters.wake()


def _patience(deadline: Deadline) -> float:
    left = deadline.rest()
    return _PATIENCE if left is None else left


def _busy(deadline: Deadline) -> Timeout:
    return Timeout("the store is busy with reads that the cache could not answer", key=deadline.key)
