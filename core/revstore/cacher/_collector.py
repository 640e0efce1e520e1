"""Many objects that are made, or dropped, without stopping other threads for long."""

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
    """Keep the collector from running in this process, for a moment.

    It would go over all that was made so far again and again, and find nothing: that takes a third
    of the time in which a cache is filled. Only one thread at a time pauses it, so that it is never
    paused for longer than one of them takes; for the others, and where it is disabled, this does
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
    """Empty a list that may have the last references to its objects. Other threads can run in
    between, which they cannot while a whole list is freed."""
    while objects:
        objects.pop()


def _in_child() -> None:
    """Go on in the child of a fork, where the thread that paused it is missing."""
    if _turn.locked():
        gc.enable()
        _turn.release()


os.register_at_fork(after_in_child=_in_child)
