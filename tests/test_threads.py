"""Threads that begin, and are interrupted at any line while they do, the interpreter's own lines
included."""

from __future__ import annotations

import ctypes
import math
import operator
import queue
import signal
import sys
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice

import pytest

from revstore.cacher import Cacher, CacherConfig
from revstore.errors import BackendError
from revstore.memory import MemoryBackend
from revstore.resource_type import ResourceType
from revstore.testing._support import run_threads, wait_until
from revstore.testing.interrupts import interrupt_every_line
from revstore.threads import acquire, slices, start_thread
from revstore.typed import TypedStorage
from revstore.values import WatchBatch
from revstore.watch_selector import WatchSelector

_STARTS = ("/threading.py", "/revstore/threads.py")


def in_starts(code) -> bool:
    return code.co_filename.endswith(_STARTS)


def in_caches(code) -> bool:
    return code.co_filename.endswith((*_STARTS, "/_cacher.py", "/_content.py", "/_feed.py"))


def test_an_interrupted_start_leaves_no_thread():
    """And what it was to run is not run."""
    before = set(threading.enumerate())
    ran = []

    def attempt() -> None:
        started = []
        started.append(start_thread(lambda: ran.append(bool(started)), "new"))
        started[0].join()
        ran.clear()

    def after(spot: str) -> None:
        wait_until(lambda: set(threading.enumerate()) <= before, f"the thread ends: {spot}")
        ran.clear()

    assert interrupt_every_line(attempt, where=in_starts, after=after) > 10


def test_no_room_for_a_thread(monkeypatch):
    """It is the library's error, in the main thread as in others."""

    def refuse(*_, **__):
        raise RuntimeError("can't start new thread")

    # It has another name since Python 3.13.
    start = "_start_joinable_thread" if sys.version_info >= (3, 13) else "_start_new_thread"
    monkeypatch.setattr(threading, start, refuse)
    with pytest.raises(BackendError, match="can't start new thread"):
        start_thread(lambda: None, "new")


def test_an_interrupted_cache_leaves_no_thread():
    """A constructor that raised has nothing that goes on, though its storage stays open."""
    resource_type = ResourceType(dict, "/pods")
    with MemoryBackend() as backend, TypedStorage(backend, resource_type) as storage:
        before = set(threading.enumerate())

        opened = []

        def attempt() -> None:
            cache = Cacher(CacherConfig(storage=storage, resource_type=resource_type))
            opened.append(cache._feed)
            cache._feed.close()

        def after(spot: str) -> None:
            while opened:
                opened.pop().close()
            wait_until(lambda: set(threading.enumerate()) <= before, f"the feed ends: {spot}")

        interrupt_every_line(attempt, where=in_caches, after=after)


def test_an_interrupted_poll_is_woken_the_next_time():
    """Whatever of a poll that waits is interrupted, the next one is woken by a write."""
    with MemoryBackend() as backend:
        watch = backend.watch("/", recursive=True, after_revision=1, progress=False)
        revisions = [1]
        found: list[WatchBatch | None] = []

        def attempt() -> None:
            watch.poll(0.001)

        def after(spot: str) -> None:
            def work(index: int) -> None:
                if index == 0:
                    found.append(watch.poll(10))
                    return
                wait_until(lambda: watch in backend._shared.waiting or bool(found), spot)
                put = backend.put(
                    "/a", b"", expected_revision=revisions[-1] if revisions[1:] else 0
                )
                revisions.append(put.revision)

            found.clear()
            run_threads(2, work, patience=5)
            assert found, spot
            assert found[0] is not None, spot
            assert found[0].revision == revisions[-1], spot

        def where(code) -> bool:
            return code.co_filename.endswith((*_STARTS, "/memory/_watch.py"))

        assert interrupt_every_line(attempt, where=where, after=after) > 20


def test_an_interrupted_write_wakes_who_waits():
    """A change that was noted reaches the watch that waits, with no further call."""
    with MemoryBackend() as backend:
        watch = backend.watch("/", recursive=True, after_revision=1, progress=False)
        polls = []

        def follow() -> None:
            while True:
                polls.append(watch.poll())

        numbers = iter(range(1 << 30))

        def where(code) -> bool:
            return code.co_name in ("_finish", "wake", "set", "carry_out")

        def attempt() -> None:
            wait_until(lambda: watch in backend._shared.waiting, "the poll waits")
            number = next(numbers)
            count = len(polls)
            try:
                backend.put(f"/{number}", b"", expected_revision=0)
            finally:
                wait_until(lambda: len(polls) > count, "the poll is woken", 5)

        thread = threading.Thread(target=_until_closed, args=(follow,))
        thread.start()
        assert interrupt_every_line(attempt, where=where) > 5
        watch.close()
        thread.join()
        assert [event.kv.key for batch in polls for event in batch.events] == [
            f"/{number}" for number in range(next(numbers))
        ]


def _until_closed(work) -> None:
    with pytest.raises(Exception, match="closed"):
        work()


def test_an_interrupted_close_is_repeated():
    """Whatever of a close is interrupted, the next one ends polls and threads."""
    before = set(threading.enumerate())
    opened = []

    def attempt() -> None:
        backend = MemoryBackend()
        opened.append(backend.close)
        backend.put("/a", b"", expected_revision=0, ttl=1000)
        watch = backend.watch("/", recursive=True, after_revision=2, progress=False)
        thread = threading.Thread(target=_until_closed, args=(watch.poll,))
        thread.start()
        wait_until(lambda: watch in backend._shared.waiting, "the poll waits")
        backend.close()

    def after(spot: str) -> None:
        while opened:
            opened.pop()()
        wait_until(lambda: set(threading.enumerate()) <= before, f"threads end: {spot}")

    def where(code) -> bool:
        return code.co_filename.endswith(("/memory/_backend.py", "/memory/_watch.py", "/forks.py"))

    assert interrupt_every_line(attempt, where=where, after=after) > 20
    after("")


class _Interrupt(Exception):
    pass


class _SignalledFirst:
    """What waits, with a signal that arrives when the interpreter has looked for signals the last
    time: both are done by one call in C."""

    def __init__(self, **waits) -> None:
        for name, wait in waits.items():
            setattr(self, name, self._signalled(wait))

    @staticmethod
    def _signalled(wait):
        raise_signal = ctypes.PyDLL(None)["raise"]

        def signalled(*args, **options):
            steps = partial(raise_signal, signal.SIGUSR1), partial(wait, *args, **options)
            return deque(map(operator.call, steps), maxlen=1)[0]

        return signalled


@pytest.fixture
def interrupting():
    """SIGUSR1 raises ``_Interrupt``."""

    def interrupt(*_):
        raise _Interrupt

    before = signal.signal(signal.SIGUSR1, interrupt)
    yield
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("timeout", [60, None])
def test_a_signal_just_before_the_main_thread_waits(interrupting, timeout):
    """Its handler runs soon, not when the wait is over."""
    held = threading.Lock()
    held.acquire()
    taken = queue.SimpleQueue()
    selector = WatchSelector()
    lock = _SignalledFirst(acquire=held.acquire)
    selector._told = _SignalledFirst(get=taken.get)
    selector._told.qsize = taken.qsize

    for wait in (partial(acquire, lock), selector.select):
        began = time.monotonic()
        with pytest.raises(_Interrupt):
            wait(timeout)
        assert time.monotonic() - began < 30


@pytest.mark.parametrize("timeout", [-1, 0, 1e-3, 0.25, math.inf, None])
def test_waits_add_up(timeout):
    """The main thread's waits are as long as what was asked for; others wait once."""
    held = threading.Lock()
    held.acquire()
    wanted = math.inf if timeout is None else max(timeout, 0.0)
    if wanted < 1:
        began = time.monotonic()
        assert not acquire(held, timeout)
        assert time.monotonic() - began >= wanted
    assert all(0 <= seconds <= 0.1 for seconds in islice(slices(timeout), 3))
    with ThreadPoolExecutor(1) as pool:
        (once,) = pool.submit(lambda: list(slices(timeout))).result()
    assert once == min(wanted, threading.TIMEOUT_MAX)
    held.release()
    assert acquire(held, timeout)
