"""Exceptions at any line, like those of a signal's handler.

A handler that raises (Ctrl-C, a timeout of a task queue, ``pytest-timeout``) interrupts the main
thread between any two instructions. ``interrupt_every_line`` interrupts a call at each of its lines
in turn, ``interrupt_by_signal`` at random moments with real signals. With both, the test can check
what is left after each interrupt.
"""

from __future__ import annotations

import contextlib
import dis
import functools
import gc
import inspect
import io
import itertools
import random
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Any

__all__ = [
    "Interrupted",
    "code_below",
    "interrupt_by_signal",
    "interrupt_every_line",
    "unreported",
]


class Interrupted(BaseException):
    """The default error: no ``except Exception`` stops it, as with KeyboardInterrupt."""


def code_below(*places: ModuleType | type) -> Callable[[CodeType], bool]:
    """Return a ``where`` that is true for the code in the folders of these modules and classes."""
    folders = tuple(Path(inspect.getfile(place)).parent for place in places)

    @functools.cache
    def is_below(code: CodeType) -> bool:
        return any(map(Path(code.co_filename).is_relative_to, folders))

    return is_below


def interrupt_every_line(
    attempt: Callable[[], object],
    *,
    where: Callable[[CodeType], bool],
    after: Callable[[str], object] = lambda spot: None,
    error: Callable[[], BaseException] = Interrupted,
    visits: int = 2,
) -> int:
    """Run ``attempt`` again and again; the n-th run is interrupted at its n-th line.

    Lines count in this thread alone and in the code that ``where`` names, each as often as it is
    come to, but at most ``visits`` times in a run. After each run ``after`` is called with the
    place of the interrupt, such as ``"_writer.py:120 in submit"``, and checks what is left. A run
    that nothing interrupts is the last. Returns how many runs were interrupted.

    Left out, since no signal can strike there: a bare ``try:``, a ``return`` or ``break`` that ends
    an ``except`` block, and the way out of a ``with`` block, before ``__exit__`` is called. And
    finalizers (``__del__``, the end of a generator), from which no exception comes out. On Python
    3.13 also the ends of some loops: there a defect of the interpreter passes every ``except``,
    ``finally`` and ``with`` by (python/cpython#130279), unless the loop is a function of its own.

    Raises:
        AssertionError: ``attempt`` swallowed the exception or turned it into another.
    """
    for count in range(sys.maxsize):
        strike = _Strike(count, where, error, visits)
        caught = strike.run(attempt)
        if not strike.spot:
            if caught is not None:
                raise caught
            return count
        assert caught is strike.raised, f"{strike.spot}: the interrupt became {caught!r}"
        del caught
        strike.raised = None  # its traceback keeps all frames, and what they hold
        after(strike.spot)
    raise AssertionError("unreachable")


class _Strike:
    """One run, interrupted at line ``count``; ``spot`` is "" until then."""

    def __init__(
        self,
        count: int,
        where: Callable[[CodeType], bool],
        error: Callable[[], BaseException],
        visits: int,
    ) -> None:
        self.spot = ""
        self.raised: BaseException | None = None
        self._left = count
        self._where = where
        self._error = error
        self._visits = visits
        self._seen: Counter[tuple[CodeType, int]] = Counter()

    def run(self, attempt: Callable[[], object]) -> BaseException | None:
        """Return what ``attempt`` raised, None if nothing."""
        before = sys.gettrace()
        sys.settrace(self._call)
        try:
            attempt()
        except BaseException as error:  # noqa: BLE001 - the caller judges it
            return error
        finally:
            sys.settrace(before)
        return None

    def _call(self, frame: FrameType, _event: str, _argument: object) -> Any:
        if self.spot or not self._where(frame.f_code):
            return None
        return self._line

    def _line(self, frame: FrameType, event: str, _argument: object) -> Any:
        if event != "line" or self.spot or frame.f_lasti in _spared(frame.f_code):
            return self._line
        here = frame.f_code, frame.f_lineno
        self._seen[here] += 1
        if self._seen[here] > self._visits or _in_finalizer(frame):
            return self._line
        self._left -= 1
        if self._left >= 0:
            return self._line
        name = Path(frame.f_code.co_filename).name
        self.spot = f"{name}:{frame.f_lineno} in {frame.f_code.co_name}"
        self.raised = self._error()
        raise self.raised


def _in_finalizer(frame: FrameType | None) -> bool:
    if isinstance(sys.exc_info()[1], GeneratorExit):
        return True
    while frame is not None:
        if frame.f_code.co_name == "__del__":
            return True
        frame = frame.f_back
    return False


@functools.cache
def _spared(code: CodeType) -> frozenset[int]:
    """Return the offsets at which no exception is raised.

    They are those of instructions that do nothing, which the interpreter leaves out of its table of
    handlers; those at which a handler ends (an exception there would remain the thread's current
    one for ever, and keep all frames of its traceback); and those at which the exits of ``with``
    blocks begin: ``__exit__(None, None, None)``, and before it what turns the stack for a
    ``return``.
    """
    steps = [step for step in dis.get_instructions(code) if step.opname != "CACHE"]
    found = {step.offset for step in steps if step.opname in ("NOP", "POP_EXCEPT")}
    for index in range(len(steps) - 3):
        nones = steps[index : index + 3]
        call = steps[index + 3]
        if call.opname not in ("PRECALL", "CALL") or call.arg not in (2, 3):
            continue
        if any(step.opname != "LOAD_CONST" or step.argval is not None for step in nones):
            continue
        found.add(nones[0].offset)
        before = index - 1
        while before >= 0 and steps[before].opname in ("SWAP", "POP_TOP"):
            found.add(steps[before].offset)
            before -= 1
    return frozenset(found | _jumps_without_handler(code))


def _jumps_without_handler(code: CodeType) -> set[int]:
    """Return the offsets of jumps that have no handler, although the code before and after them has
    the same one."""
    byte_code: Any = dis.Bytecode(code)
    jumps = {step.offset: "JUMP" in step.opname for step in byte_code}
    found: set[int] = set()
    for entry, following in itertools.pairwise(byte_code.exception_entries):
        between = [offset for offset in jumps if entry.end <= offset < following.start]
        if entry.target == following.target and all(jumps[offset] for offset in between):
            found.update(between)
    return found


def _is_of_half_made_file(error: BaseException | None) -> bool:
    """Return whether a finalizer failed because a file of the standard library lacks one of its own
    attributes.

    Examples are ``SocketIO._sock`` and ``HTTPResponse.fp``: an interrupt came in the file's
    ``__init__``, and nobody has this file or could close it. Files of other packages, and other
    errors, are reported as usual.
    """
    file = error.obj if isinstance(error, AttributeError) else None
    package = type(file).__module__.partition(".")[0]
    return isinstance(file, io.IOBase) and package in sys.stdlib_module_names


@contextlib.contextmanager
def unreported(kind: type[BaseException]) -> Iterator[list[type[BaseException]]]:
    """Collect in the list the exceptions of ``kind`` that finalizers drop while the block lasts, in
    place of Python's report. A signal's handler raised them. What finalizers of half-made files
    raise is dropped."""
    dropped: list[type[BaseException]] = []

    def unraisable(found: Any) -> None:
        if found.exc_type is kind:
            dropped.append(kind)
        elif not _is_of_half_made_file(found.exc_value):
            hook(found)

    hook, sys.unraisablehook = sys.unraisablehook, unraisable
    try:
        yield dropped
    finally:
        sys.unraisablehook = hook


@unreported(Interrupted)
def interrupt_by_signal(
    attempt: Callable[[], object],
    *,
    rounds: int,
    seed: int,
    longest: float,
    after: Callable[[], object] = lambda: None,
) -> int:
    """Run ``attempt`` ``rounds`` times, and in each let the handler of a real signal raise
    ``Interrupted``.

    Return the number of rounds that were interrupted before they finished. The signal comes at a
    random moment within ``longest`` seconds. It comes in the main thread, where this must be
    called, and is SIGALRM. ``after`` is called after each round.
    """
    armed = False

    def strike(_number: int, _frame: FrameType | None) -> None:
        nonlocal armed
        if armed:
            armed = False
            raise Interrupted

    dice = random.Random(seed)
    hits = 0
    before = signal.signal(signal.SIGALRM, strike)
    collects = gc.isenabled()
    gc.disable()  # errors raised within its callbacks do not reach the caller
    try:
        for _ in range(rounds):
            try:
                armed = True
                signal.setitimer(signal.ITIMER_REAL, dice.uniform(1e-6, longest))
                attempt()
                armed = False
            except Interrupted:
                hits += 1
            signal.setitimer(signal.ITIMER_REAL, 0)
            after()
    finally:
        armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if collects:
            gc.enable()
    return hits
