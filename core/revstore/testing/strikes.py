"""Forks and signals while a workload runs, as a program around a store causes them."""

from __future__ import annotations

import contextlib
import http.client
import random
import signal
import socket
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType

import attrs

from revstore.backend import Backend
from revstore.errors import BackendError, Closed
from revstore.testing._support import PATIENCE
from revstore.testing.backend._forks import Child
from revstore.testing.history import History, Operation, OperationType, Recorder
from revstore.testing.interrupts import unreported
from revstore.testing.workload import Workload

__all__ = ["Strikes", "Struck", "run_under_strikes"]

#: How often the main thread is interrupted for each child that is forked.
_INTERRUPTS = 6
#: Seconds between two interrupts, each of which may cost a connection.
_PAUSE = 0.02
#: What the finalizers of connections and answers call.
_OF_FINALIZERS = ("close", "closed", "flush", "_close_conn", "_real_close", "_decref_socketios")


class Struck(TimeoutError):
    """The error that the signal's handler raises: an ordinary exception, as timeouts of a task
    are."""


@attrs.define
class Strikes:
    """The recorded history, of children too; how many of them opened the store and wrote, and how
    many calls of the main thread were interrupted."""

    history: History
    children: int = 0
    interrupts: int = 0


def run_under_strikes(
    plan: Workload,
    backend: Backend,
    reopen: Callable[[], Backend],
    *,
    clients: Callable[[int], Backend] | None = None,
) -> Strikes:
    """Run ``plan`` on ``clients``, by default on ``backend`` alone, while this process forks, and a
    signal's handler raises in its main thread, from which it must be called.

    The main thread writes to the same keys with ``backend``, and is interrupted within 10 ms, again
    and again, by SIGALRM. Now and then it forks a child, which finds ``backend``
    closed, opens the store itself by ``reopen``, and writes. All of it is in the history; a write
    that was interrupted has no known outcome. ``plan.seed`` settles the moments.

    Raises:
        AssertionError: the handle of the parent was open in a child, a child failed, or a call
            kept what the signal's handler raised to itself.
    """
    mine = Recorder(backend)
    strikes = Strikes(mine.history)
    choose = random.Random(f"strikes-{plan.seed}")
    before = signal.getsignal(signal.SIGALRM)
    with ThreadPoolExecutor(1) as pool, unreported(Struck) as dropped:
        run = pool.submit(plan.run, clients or (lambda _: backend))
        alarm = _Alarm()
        try:
            deadline = time.monotonic() + PATIENCE
            # On a busy machine the workload may be done before a child could write.
            while not run.done() or (not strikes.children and time.monotonic() < deadline):
                if strikes.interrupts % _INTERRUPTS == 0:
                    _fork(plan, mine, reopen, choose, strikes)
                seen, seconds = len(dropped), choose.uniform(1e-4, 0.01)
                came_out = _is_interrupted(
                    alarm, seconds, lambda: _write(plan, mine, choose, "main")
                )
                lost = not (came_out or len(dropped) > seen or alarm.in_finalizer)
                assert not lost, f"a call kept what a signal's handler raised: {alarm.place}"
                strikes.interrupts += 1
                plan.stop.wait(_PAUSE)
        except BaseException:
            plan.stop.set()
            raise
        finally:
            signal.signal(signal.SIGALRM, before)
        history = run.result()
    history.operations += mine.history.operations
    strikes.history = history
    return strikes


class _Alarm:
    """A signal whose handler raises ``Struck`` once, some time after ``set``."""

    def __init__(self) -> None:
        self.raised = False
        #: The lines at which the signal came, innermost first.
        self.place: list[str] = []
        #: Maybe in the finalizer of a file, which before Python 3.13 drops exceptions in silence.
        self.in_finalizer = False
        signal.signal(signal.SIGALRM, self._strike)

    def set(self, seconds: float) -> None:
        self.raised = False
        signal.setitimer(signal.ITIMER_REAL, seconds)

    def _strike(self, _number: int, frame: FrameType | None) -> None:
        self.raised = True
        stack = traceback.extract_stack(frame, 8)[::-1]
        self.place = [f"{Path(each.filename).name}:{each.lineno} in {each.name}" for each in stack]
        files = (http.client.__file__, socket.__file__)
        self.in_finalizer = any(
            each.filename in files and each.name in _OF_FINALIZERS for each in stack
        )
        raise Struck


def _is_interrupted(alarm: _Alarm, seconds: float, write: Callable[[], None]) -> bool:
    """Write until the signal strikes; whether what its handler raised came out."""
    try:
        alarm.set(seconds)
        _write_until_struck(alarm, write)  # 3.13 catches nothing where a loop jumps back
    except Struck:
        return True
    return False


def _write_until_struck(alarm: _Alarm, write: Callable[[], None]) -> None:
    while not alarm.raised:
        with contextlib.suppress(BackendError):  # the store may be away
            write()


def _write(plan: Workload, recorder: Recorder, choose: random.Random, who: str) -> None:
    """Overwrite the key; an interrupted write is recorded as one of unknown outcome."""
    key = f"{plan.prefix}k{choose.randrange(plan.keys)}"
    kv = recorder.get(key).kv
    start, value = time.monotonic(), f"{who}-{choose.random()}".encode()
    expected = kv.revision if kv else 0
    try:
        recorder.put(key, value, expected_revision=expected)
    except Struck:
        recorder.history.operations.append(
            Operation(
                type=OperationType.PUT,
                key=key,
                start=start,
                value=value,
                expected_revision=expected,
            )
        )
        raise


def _fork(
    plan: Workload,
    mine: Recorder,
    reopen: Callable[[], Backend],
    choose: random.Random,
    strikes: Strikes,
) -> None:
    """Fork a child, and take what it recorded."""
    dice = random.Random(choose.random())

    def work() -> tuple[bool, list[Operation]]:
        closed = _is_closed(mine.backend)
        history = History()
        with contextlib.suppress(BackendError), reopen() as own:  # the store may be away
            for _ in range(2):
                _write(plan, Recorder(own, history), dice, "child")
        return closed, history.operations

    closed, operations = Child(work).result()
    assert closed, "the handle of the parent is open in a child"
    mine.history.operations += operations
    strikes.children += any(each.succeeded for each in operations)


def _is_closed(backend: Backend) -> bool:
    try:
        backend.status()
    except Closed:
        return True
    return False
