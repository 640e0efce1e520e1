"""Health checks that do not burden the store, however often they are called."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from revstore.deadlines import check_seconds
from revstore.errors import Closed, NotReady
from revstore.forks import OpenGuard
from revstore.raising import text_of
from revstore.threads import Waiters

__all__ = ["HealthCheck"]


class HealthCheck:
    """Checks whether ``probe`` succeeds, and calls it at most once in half of ``timeout``.

    ``probe`` returns if all is well and raises if not. ``timeout`` is in seconds, and the probe
    must keep to it by itself, for example by the ``timeout`` of the backend's method that it calls.
    Many threads may use one check. (HLT-1 to HLT-5)
    """

    def __init__(
        self,
        probe: Callable[[], None],
        *,
        timeout: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._probe = probe
        self._timeout = timeout
        self._clock = clock
        check_seconds("timeout", timeout)
        # Guards _closed, _started, _started_at, _finished and _error.
        self._lock = threading.Lock()
        self._waiters = Waiters()  # for the first result
        self._closed = False
        self._guard = OpenGuard(self, what="health check", in_child=HealthCheck._in_child)
        self._started = 0  # probes, so that each has a number
        self._started_at = 0.0
        self._finished = 0  # the number of the latest probe with a result
        self._error: Exception | None = None  # that result

    def check(self) -> None:
        """Return if the store is well.

        It calls the probe, unless the last probe began less than half of the timeout ago. In that
        case the last result counts: that of the probe that began last among those that have ended.

        Raises:
            NotReady: the probe failed; its error is the cause.
            Closed: after ``close``.
        """
        self._guard.check()
        with self._lock:
            self._check_open()
            now = self._clock()
            number = 0
            if not self._started or now - self._started_at >= self._timeout / 2:
                number = self._started + 1
                self._started, self._started_at = number, now
        error = self._run(number) if number else self._last()
        if error is not None:
            raise NotReady(f"the store does not answer: {text_of(error)}") from error

    def close(self) -> None:
        """Make every later check raise ``Closed``. Idempotent."""
        if self._guard.inherited:
            return
        with self._lock:
            self._closed = True
        self._waiters.wake()

    def _run(self, number: int) -> Exception | None:
        error: Exception | None = None
        try:
            self._probe()
        except Exception as raised:  # noqa: BLE001 - whatever fails, the store is not well
            error = raised
        with self._lock:
            self._check_open()
            # A probe that hung reports the past; one that began after it is more recent.
            if number > self._finished:
                self._finished, self._error = number, error
        self._waiters.wake()
        return error

    def _last(self) -> Exception | None:
        """Return the last result; wait for the very first one."""
        self._waiters.wait_for(lambda: self._finished or self._closed, self._timeout)
        with self._lock:
            self._check_open()
            if not self._finished:
                return TimeoutError(f"no answer within {self._timeout:g} s")
            return self._error

    def _in_child(self) -> None:
        self._lock = threading.Lock()
        self._waiters = Waiters()

    def _check_open(self) -> None:
        if self._closed:
            raise Closed("the health check was closed")
