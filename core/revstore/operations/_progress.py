"""Reports of how much of a long operation is done."""

from __future__ import annotations

import time
from collections.abc import Callable

import attrs

__all__ = ["Meter", "OnProgress", "Progress"]

# Seconds between two reports: as often as a person can see.
_INTERVAL = 0.1


@attrs.frozen
class Progress:
    """How far an operation is.

    ``step`` names what it does now, such as "writing". ``done`` of ``total`` keys, or of what else
    the step counts, are done; ``total`` is None if it is not known. ``seconds`` is the time since
    the step began.
    """

    step: str
    done: int
    total: int | None
    seconds: float


OnProgress = Callable[[Progress], None]
"""A function that an operation calls in its own thread about ten times a second, and at the
beginning and end of each step. What it raises ends the operation."""


class Meter:
    """Counts what one step has done, and reports it."""

    def __init__(
        self, on_progress: OnProgress | None, step: str, total: int | None = None, *, done: int = 0
    ) -> None:
        self.total = total
        self.done = done
        self._on_progress = on_progress
        self._step = step
        self._began = time.monotonic()
        self._next = self._began + _INTERVAL
        self._report()

    def add(self, count: int = 1) -> None:
        """Count ``count`` more, and report if the last report is old enough."""
        self.done += count
        if self._on_progress is not None and time.monotonic() >= self._next:
            self._report()

    def finish(self) -> None:
        """Report the end of the step."""
        self.total = self.done
        self._report()

    def _report(self) -> None:
        if self._on_progress is None:
            return
        now = time.monotonic()
        self._next = now + _INTERVAL
        self._on_progress(Progress(self._step, self.done, self.total, now - self._began))
