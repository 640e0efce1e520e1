"""Health checks: how often they probe, and which result they give."""

from __future__ import annotations

import threading

import pytest

import revstore.health
import revstore.threads
from revstore.errors import Closed, NotReady, Timeout
from revstore.health import HealthCheck
from revstore.memory import MemoryBackend
from revstore.testing._support import PATIENCE, promptly, run_threads
from revstore.testing.interrupts import interrupt_every_line


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Store:
    """A probe whose failure can be switched on, and that counts its calls."""

    def __init__(self):
        self.calls = 0
        self.error = None

    def __call__(self):
        self.calls += 1
        if self.error is not None:
            raise self.error


def test_a_missing_key_is_healthy():
    """HLT-1: what is probed is whether the store answers, not what; a closed store does not."""
    backend = MemoryBackend()
    check = HealthCheck(lambda: backend.get("/registry/health", timeout=1) and None, timeout=0)
    check.check()
    backend.close()
    with pytest.raises(NotReady, match="does not answer") as caught:
        check.check()
    assert isinstance(caught.value.__cause__, Closed)


def test_one_probe_in_half_the_timeout():
    """HLT-4: within timeout/2 the last result is given again, good or bad, without a probe."""
    clock, store = Clock(), Store()
    check = HealthCheck(store, timeout=2.0, clock=clock)
    check.check()
    store.error = Timeout("too slow")
    clock.now += 0.99
    check.check()
    assert store.calls == 1
    clock.now += 0.01
    for _ in range(3):
        with pytest.raises(NotReady, match="too slow") as caught:
            check.check()
        assert caught.value.__cause__ is store.error
    assert store.calls == 2
    store.error = None
    clock.now += 1.0
    check.check()
    assert store.calls == 3


def test_many_callers_share_one_probe():
    """HLT-4: also the very first time, when there is no result yet, there is one probe; the others
    wait for it."""
    store = Store()
    check = HealthCheck(store, timeout=PATIENCE, clock=Clock())

    run_threads(16, lambda _: check.check())

    assert store.calls == 1


class Held:
    """A probe that fails once it is let go."""

    def __init__(self):
        self.entered = threading.Event()
        self.go = threading.Event()

    def __call__(self):
        self.entered.set()
        assert self.go.wait(PATIENCE)
        raise Timeout("late")


def in_thread(check):
    """Call check in a thread; what gives the error it raised, when it has ended."""
    raised = []

    def run():
        try:
            check.check()
        except (NotReady, Closed) as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def result():
        thread.join(PATIENCE)
        assert not thread.is_alive()
        return raised

    return result


def test_a_late_failure_does_not_hide_a_newer_result():
    """HLT-4: results are ordered by when their probes began; only the caller of the late one
    hears of its failure."""
    clock, held = Clock(), Held()
    probes = iter([held, lambda: None])

    def probe():
        next(probes)()

    check = HealthCheck(probe, timeout=2.0, clock=clock)
    late = in_thread(check)
    assert held.entered.wait(PATIENCE)
    clock.now += 1.5
    check.check()
    held.go.set()

    assert [str(error.__cause__) for error in late()] == ["late"]
    check.check()


def test_no_result_in_time():
    """HLT-2: while the first probe hangs, the others are told after the timeout."""
    held = Held()
    check = HealthCheck(held, timeout=0.05, clock=Clock())
    first = in_thread(check)
    assert held.entered.wait(PATIENCE)
    with promptly(), pytest.raises(NotReady, match=r"no answer within 0\.05 s"):
        check.check()
    held.go.set()
    assert len(first()) == 1


def test_nothing_after_close():
    """HLT-3, HLT-5: a check after close raises Closed without a probe; so does one under way, and
    one that waits is woken."""
    held = Held()
    check = HealthCheck(held, timeout=PATIENCE, clock=Clock())
    first = in_thread(check)
    assert held.entered.wait(PATIENCE)
    waiting = in_thread(check)
    check.close()
    check.close()
    with promptly():
        assert [type(error) for error in waiting()] == [Closed]
    with pytest.raises(Closed):
        check.check()
    held.go.set()
    assert [type(error) for error in first()] == [Closed]


def test_an_interrupted_check_leaves_the_next_one_right():
    """At whatever line it was interrupted: no thread waits for a lock, or for a result that does
    not come, longer than the timeout."""
    files = {revstore.health.__file__, revstore.threads.__file__, threading.__file__}
    clock, store = Clock(), Store()
    checks = [HealthCheck(store, timeout=0.05, clock=clock)]

    def attempt() -> None:
        checks[-1].check()
        checks[-1].check()
        checks[-1].close()

    def after(spot: str) -> None:
        clock.now += 1
        last = checks[-1]
        if not last._closed:
            with promptly():
                run_threads(1, lambda _: last.check())
            run_threads(1, lambda _: last.close())
        with pytest.raises(Closed):
            last.check()
        checks.append(HealthCheck(store, timeout=0.05, clock=clock))

    assert interrupt_every_line(attempt, where=lambda c: c.co_filename in files, after=after)
