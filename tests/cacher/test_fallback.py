"""Reads that go to the store after all are bounded and merged."""

from __future__ import annotations

import contextlib
import threading
from types import CodeType

import pytest

import revstore.cacher._fallback
import revstore.threads
from revstore.cacher._fallback import Fallbacks
from revstore.deadlines import Deadline
from revstore.errors import Timeout, Unreachable
from revstore.testing._support import promptly, run_threads, wait_until
from revstore.testing.interrupts import interrupt_every_line


def within(seconds: float) -> Deadline:
    return Deadline(seconds, "/pods")


class Store:
    """Counts reads, which go on until they are let go."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.reads = self.running = self.most = 0
        self.go = threading.Event()

    def read(self) -> int:
        with self.lock:
            self.reads += 1
            number = self.reads
            self.running += 1
            self.most = max(self.most, self.running)
        assert self.go.wait(20)
        with self.lock:
            self.running -= 1
        return number


def test_a_few_at_a_time_and_equal_ones_together():
    """CACHE-13: thirty callers make at most the running reads and one more that all the others
    share; none gets a read that began before it asked."""
    store, fallbacks = Store(), Fallbacks(limit=2)
    first = [
        threading.Thread(target=fallbacks.run, args=("k", store.read, within(20))) for _ in range(2)
    ]
    for thread in first:
        thread.start()
    wait_until(lambda: store.running == 2, "two reads")
    results = []
    others = [
        threading.Thread(target=lambda: results.append(fallbacks.run("k", store.read, within(20))))
        for _ in range(30)
    ]
    for thread in others:
        thread.start()
    wait_until(lambda: fallbacks._waiting, "a third that waits")
    store.go.set()
    for thread in first + others:
        thread.join(20)
    assert len(results) == 30
    assert min(results) >= 3, "a read that had begun before was handed out"
    assert store.most <= 2
    assert store.reads < 32


def test_different_reads_are_not_merged():
    """Equal keys only."""
    fallbacks = Fallbacks()
    assert run_threads(8, lambda index: fallbacks.run(index, lambda: index, within(5))) == list(
        range(8)
    )


def test_no_turn_in_time():
    """A caller's deadline holds while it waits for a turn, and does no harm to others."""
    store, fallbacks = Store(), Fallbacks(limit=1)
    running = threading.Thread(target=fallbacks.run, args=("a", store.read, within(20)))
    running.start()
    wait_until(lambda: store.running == 1, "a read")
    with pytest.raises(Timeout, match="busy"):
        fallbacks.run("b", store.read, within(0.01))
    patient: list[int] = []
    waits = threading.Thread(
        target=lambda: patient.append(fallbacks.run("b", store.read, within(20)))
    )
    waits.start()
    wait_until(lambda: "b" in fallbacks._waiting, "who waits")
    with pytest.raises(Timeout):
        fallbacks.run("b", store.read, within(0.01))
    store.go.set()
    running.join(20)
    waits.join(20)
    assert patient == [2]


def test_errors_are_shared():
    """Those of the store; the place is free again afterwards."""
    fallbacks = Fallbacks(limit=1)

    def fail() -> int:
        raise Unreachable("gone")

    for _ in range(3):
        with pytest.raises(Unreachable):
            fallbacks.run("k", fail, within(1))
    assert fallbacks.run("k", lambda: 5, within(1)) == 5


def test_who_reads_and_is_interrupted_leaves_the_others_to_themselves():
    """Ctrl-C in one thread is nobody else's."""
    store, fallbacks = Store(), Fallbacks(limit=1)
    holder = threading.Thread(target=fallbacks.run, args=("x", store.read, within(20)))
    holder.start()
    wait_until(lambda: store.running == 1, "a read")

    def interrupted() -> int:
        raise KeyboardInterrupt

    caught: list[BaseException] = []

    def lead() -> None:
        try:
            fallbacks.run("k", interrupted, within(20))
        except KeyboardInterrupt as error:
            caught.append(error)

    leader = threading.Thread(target=lead)
    leader.start()
    wait_until(lambda: "k" in fallbacks._waiting, "a leader")
    results: list[int] = []
    follower = threading.Thread(
        target=lambda: results.append(fallbacks.run("k", lambda: 7, within(20)))
    )
    follower.start()
    store.go.set()
    for thread in (holder, leader, follower):
        thread.join(20)
    assert len(caught) == 1
    assert results == [7]


@pytest.mark.parametrize("failing", [False, True], ids=["done", "failed"])
def test_who_leads_may_be_interrupted_anywhere(failing: bool) -> None:
    """Neither its turn nor its question stays taken; who has followed reads by itself."""
    fallbacks = Fallbacks(limit=1)
    files = {revstore.cacher._fallback.__file__, revstore.threads.__file__, threading.__file__}
    results: list[int] = []
    followers: list[threading.Thread] = []
    spared = False

    def follow() -> None:
        try:
            results.append(fallbacks.run("k", lambda: 7, within(20)))
        except Unreachable:
            results.append(8)  # the leader's

    def read() -> int:
        nonlocal spared
        spared = True
        followers.append(threading.Thread(target=follow))
        followers[-1].start()
        spared = False
        if failing:
            raise Unreachable("gone")
        return 8

    def attempt() -> None:
        with contextlib.suppress(Unreachable):
            fallbacks.run("k", read, within(20))

    def after(spot: str) -> None:
        with promptly():
            assert run_threads(2, lambda _: fallbacks.run("k", lambda: 9, within(20)))
            for follower in followers:
                follower.join(20)
        assert len(results) == len(followers), spot
        followers.clear()
        results.clear()

    def where(code: CodeType) -> bool:
        return code.co_filename in files and not spared

    assert interrupt_every_line(attempt, where=where, after=after, visits=1) > 20
