"""A second thread that works off what the first one gives it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from revstore.raising import let_out
from revstore.threads import Wake, slices, start_thread

__all__ = ["Behind"]

T = TypeVar("T")
# So many may wait: enough that neither thread waits for a single slow step of the other.
_WAITING = 2


class Behind(Generic[T]):
    """Calls ``work`` with each thing that is given to it, in order, in a thread of its own."""

    def __init__(self, work: Callable[[T], object]) -> None:
        self._work = work
        self._waiting: deque[T] = deque()
        self._given, self._taken = Wake(), Wake()
        self._error: BaseException | None = None
        self._ending = False
        self._stopped = False
        self._thread = start_thread(self._run, "revstore-backup")

    def give(self, thing: T) -> None:
        """Let the thread work on ``thing`` later; wait while many things wait already.

        Raises:
            Exception: what ``work`` has raised.
        """
        while len(self._waiting) >= _WAITING and self._error is None:
            self._taken.wait()
        self._check()
        self._waiting.append(thing)
        self._given.set()

    def finish(self) -> None:
        """Wait until all is worked off; the thread ends.

        Raises:
            Exception: what ``work`` has raised.
        """
        self._ending = True
        self._given.set()
        for seconds in slices(None):
            self._thread.join(seconds)
            if not self._thread.is_alive():
                break
        self._check()

    def stop(self) -> None:
        """End the thread, after what it does now. Idempotent, also after ``finish``."""
        self._stopped = True
        self._given.set()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            while not self._stopped:
                if self._waiting:
                    self._work(self._waiting.popleft())
                    self._taken.set()
                elif self._ending:
                    return
                else:
                    self._given.wait()
        except BaseException as error:  # noqa: BLE001 - raised in the thread that gives
            let_out(error)
            self._error = error
            self._taken.set()
