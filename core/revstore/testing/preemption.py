"""Threads that may be switched at every line, so that races show that are hit once in a year.

CPython switches threads at calls and back jumps only, and rarely there: code that reads two fields
one after the other passes any plain stress test.
"""

from __future__ import annotations

import inspect
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

__all__ = ["Preemption", "lines_of", "preempted"]


class Preemption:
    """A trace function; use ``preempted``. ``switches`` counts."""

    def __init__(self, seed: int, chance: Callable[[CodeType], float]) -> None:
        self.switches = 0
        self._random = random.Random(seed)
        self._chance = chance
        self._chances: dict[CodeType, float] = {}

    def __call__(self, frame: FrameType, _event: str, _argument: object) -> Any:
        code = frame.f_code
        chance = self._chances.get(code)
        if chance is None:
            chance = self._chances[code] = self._chance(code)
        return self._line if chance else None

    def _line(self, frame: FrameType, event: str, _argument: object) -> Any:
        if event == "line" and self._random.random() < self._chances[frame.f_code]:
            self.switches += 1
            # Longer than a moment, so that whoever waits for the interpreter gets it.
            time.sleep(0.00001)
        return self._line


@contextmanager
def preempted(seed: int, chance: Callable[[CodeType], float]) -> Iterator[Preemption]:
    """Threads that begin in the block are switched: before each line of a function, with the
    probability that ``chance`` gives for its code."""
    preemption = Preemption(seed, chance)
    before = threading.gettrace()
    threading.settrace(preemption)
    try:
        yield preemption
    finally:
        threading.settrace(before)


def lines_of(cls: type, chance: float) -> Callable[[CodeType], float]:
    """``chance`` for the lines of the package that defines ``cls``, none for others."""
    folder = Path(inspect.getfile(cls)).parent
    return lambda code: chance if Path(code.co_filename).is_relative_to(folder) else 0.0
