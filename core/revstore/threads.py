"""Tools to start threads, and to wake them, for this package and for backends."""

from __future__ import annotations

import _thread
import threading
import time
import weakref
from collections.abc import Callable, Iterator

from revstore.errors import BackendError
from revstore.raising import let_out

__all__ = ["Waiters", "Wake", "acquire", "slices", "start_thread"]

#: The most seconds that the main thread waits at a time.
_LOOK = 0.1


def slices(timeout: float | None) -> Iterator[float]:
    """Yield the seconds of the waits that make up a wait of ``timeout`` seconds; None: without end.

    A signal that arrives between the interpreter's last look for one and the system call that
    waits does not end that wait, and its handler runs only afterwards. So the main thread, in which
    handlers run, waits for a tenth of a second at a time. Other threads wait once.
    """
    left = threading.TIMEOUT_MAX if timeout is None else min(timeout, threading.TIMEOUT_MAX)
    if threading.get_ident() == threading.main_thread().ident:
        end = time.monotonic() + left
        while left > _LOOK:
            yield _LOOK
            left = end - time.monotonic()
    yield max(left, 0.0)


def acquire(lock: threading.Lock, timeout: float | None) -> bool:
    """Acquire ``lock`` within ``timeout`` seconds, None: without end; return whether it is held.

    In the main thread a signal's handler runs at most a tenth of a second late, see ``slices``.
    """
    return lock.acquire(blocking=False) or any(
        lock.acquire(timeout=seconds) for seconds in slices(timeout)
    )


class Wake:
    """An event for one thread that waits; waking clears it.

    It is one lock, and each step is one call of it, so an exception that a signal handler raises at
    any moment leaves it usable. ``threading.Event``, ``Condition`` and ``queue.Queue`` are written
    in Python. They may keep their inner lock in that case, and then every other thread waits for
    ever.
    """

    __slots__ = ("__weakref__", "_lock")

    def __init__(self) -> None:
        self._lock = threading.Lock()  # held while there is nothing to wake for
        self._lock.acquire()

    def set(self) -> None:
        """Wake the thread that waits, or the next one that will."""
        try:
            self._lock.release()
        except RuntimeError as error:  # it is set
            let_out(error)

    def is_set(self) -> bool:
        """Return whether the next ``wait`` returns at once."""
        return not self._lock.locked()

    def clear(self) -> None:
        """Forget that it was set."""
        self._lock.acquire(blocking=False)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, at most ``timeout`` seconds, and clear it; return False if it was
        not set."""
        return acquire(self._lock, timeout)


class Waiters:
    """Threads that wait for a condition; each one checks it by itself.

    It does what ``threading.Condition`` does, and an exception that a signal handler raises leaves
    it usable, see ``Wake``.
    """

    __slots__ = ("_lock", "_waiting")

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _waiting
        # Weak, so that the place of an interrupted thread goes with it.
        self._waiting: weakref.WeakSet[Wake] = weakref.WeakSet()

    def wait_for(self, condition: Callable[[], object], timeout: float) -> bool:
        """Wait until ``condition()`` is true, at most ``timeout`` seconds; return whether it is. It
        is called without a lock."""
        end = time.monotonic() + timeout
        wake = Wake()
        with self._lock:
            self._waiting.add(wake)
        while not condition():
            left = end - time.monotonic()
            if left <= 0:
                return False
            wake.wait(left)
        return True

    def wake(self) -> None:
        """Wake all threads that wait, so that they check again."""
        with self._lock:
            for wake in self._waiting:
                wake.set()


def start_thread(target: Callable[[], object], name: str) -> threading.Thread:
    """Start a daemon thread that runs ``target``, and return it once it has begun.

    If this call is interrupted, the thread ends and does not run ``target``. Call it under the lock
    that ``close`` takes to find the thread: joining a thread that has not begun is an error.

    Raises:
        BackendError: the machine has no room for another thread.
    """
    go = Wake()
    wanted = False

    def run() -> None:
        go.wait()
        if wanted:
            target()

    thread = threading.Thread(target=run, name=name, daemon=True)
    try:
        _start(thread)
        wanted = True
        go.set()
    except BaseException as error:
        wanted = False
        go.set()
        if not isinstance(error, RuntimeError):
            raise
        let_out(error)
        raise BackendError(f"the thread {name} cannot start: {error}") from error
    return thread


def _start(thread: threading.Thread) -> None:
    """Call ``thread.start()`` where no signal handler runs.

    It is written in Python, and an exception in it may leave a lock held that the new thread waits
    for.
    """
    if threading.current_thread() is not threading.main_thread():
        thread.start()
        return
    begun = Wake()
    failures: list[RuntimeError] = []

    def start() -> None:
        try:
            thread.start()
        except RuntimeError as error:
            failures.append(error)
        begun.set()

    _thread.start_new_thread(start, ())
    begun.wait()
    if failures:
        raise failures[0]
