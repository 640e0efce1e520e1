"""Many objects are created or dropped here without stopping other threads for long."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["collector_paused", "drop_one_by_one"]

_turn = threading.Lock()  # held by the thread that has paused the collector


@contextmanager
def collector_paused() -> Iterator[None]:
    """Keep the garbage collector from running in this process, for a moment.

    Otherwise it traverses all new objects again and again and finds nothing, which takes a third of
    the time in which a cache is filled. Only one thread at a time pauses it, so that it is never
    paused for longer than one of them takes. For the others, and where it is disabled, this does
    nothing.
    """
    if not gc.isenabled() or not _turn.acquire(blocking=False):
        yield
        return
    try:
        gc.disable()
        yield
    finally:
        gc.enable()
        _turn.release()


def drop_one_by_one(objects: list[Any]) -> None:
    """Empty a list that may have the last references to its objects, so that other threads can run
    in between. They cannot while a whole list is freed."""
    while objects:
        objects.pop()


def _in_child() -> None:
    """Resume the collector in the child of a fork, where the thread that paused it does not
    exist."""
    if _turn.locked():
        gc.enable()
        _turn.release()


os.register_at_fork(after_in_child=_in_child)
