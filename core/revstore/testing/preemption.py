"""Threads that may be switched at every line, so that rare races become frequent.

CPython switches threads only at calls and back jumps, and rarely there: code that reads two fields
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
        # By the identity of the code, since its hash is expensive.
        self._traced: dict[int, tuple[CodeType, Any]] = {}

    def __call__(self, frame: FrameType, _event: str, _argument: object) -> Any:
        code = frame.f_code
        known = self._traced.get(id(code))
        if known is None:
            chance = self._chance(code)
            known = self._traced[id(code)] = code, self._switching(chance) if chance else None
        return known[1]

    def _switching(self, chance: float) -> Any:
        draw = self._random.random

        def line(_frame: FrameType, event: str, _argument: object) -> Any:
            if event == "line" and draw() < chance:
                self.switches += 1
                # Longer than a moment, so that a thread that waits for the interpreter gets it.
                time.sleep(0.00001)
            return line

        return line


@contextmanager
def preempted(seed: int, chance: Callable[[CodeType], float]) -> Iterator[Preemption]:
    """Switch threads that begin in the block before each line of a function, with the probability
    that ``chance`` returns for its code."""
    preemption = Preemption(seed, chance)
    before = threading.gettrace()
    threading.settrace(preemption)
    try:
        yield preemption
    finally:
        threading.settrace(before)


def lines_of(cls: type, chance: float) -> Callable[[CodeType], float]:
    """Return a ``chance`` for the lines of the package that defines ``cls``, and none for
    others."""
    folder = Path(inspect.getfile(cls)).parent
    return lambda code: chance if Path(code.co_filename).is_relative_to(folder) else 0.0
