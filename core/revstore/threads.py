"""How threads of this package and of backends begin."""

from __future__ import annotations

import threading
from collections.abc import Callable

from revstore.errors import BackendError

__all__ = ["start_thread"]


def start_thread(target: Callable[[], object], name: str) -> threading.Thread:
    """A daemon thread that runs ``target``; it has begun. ``BackendError`` if the machine has no
    room for one more.

    Start it under the lock that ``close`` takes to find it: joining a thread that has not begun is
    an error.
    """
    thread = threading.Thread(target=target, name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError as error:
        raise BackendError(f"the thread {name} cannot start: {error}") from error
    return thread
