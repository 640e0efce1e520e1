"""Interrupts at every line: the tool itself, on code that survives them and code that does not."""

from __future__ import annotations

import io
import socket
import sys
import threading
from http.client import HTTPResponse
from types import SimpleNamespace

import pytest

from revstore.testing.interrupts import (
    Interrupted,
    code_below,
    interrupt_by_signal,
    interrupt_every_line,
)


class Account:
    """Two fields that must agree."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.paid = self.booked = 0

    def careless(self) -> None:
        self.paid += 1
        self.booked += 1

    def careful(self) -> int:
        with self.lock:
            self.paid, self.booked = self.paid + 1, self.booked + 1
            for _ in range(100):
                if self.paid:
                    continue
            return self.paid

    def swallows(self) -> None:
        try:
            self.careless()
        except BaseException:  # noqa: BLE001 - the fault under test
            self.paid = self.booked

    def check(self, spot: str = "") -> None:
        assert self.paid == self.booked, spot
        assert not self.lock.locked(), spot


def own_code(code: object) -> bool:
    return getattr(code, "co_filename", "") == __file__


def test_every_line_is_struck_once() -> None:
    """Each line of the call is struck in turn, a loop's only as often as asked for; a lock that a
    ``with`` block holds is never left locked, since no signal can strike at its way out."""
    account = Account()
    spots: list[str] = []

    def after(spot: str) -> None:
        account.check(spot)
        spots.append(spot)

    count = interrupt_every_line(account.careful, where=own_code, after=after, visits=3)

    assert count == len(spots) == 12
    assert len(set(spots)) == 6
    assert all(spot.endswith("in careful") for spot in spots)


def test_torn_state_is_found() -> None:
    """What an interrupt leaves torn is seen by ``after``, with the line that did it."""
    account = Account()
    with pytest.raises(AssertionError, match=r"test_interrupts.py:[0-9]+ in careless"):
        interrupt_every_line(account.careless, where=own_code, after=account.check)


def test_a_swallowed_interrupt_is_found() -> None:
    """An exception that does not come out of the call is a failure that names the line."""
    with pytest.raises(AssertionError, match="in swallows: the interrupt became None"):
        interrupt_every_line(Account().swallows, where=own_code)


def test_no_strike_outlives_its_run() -> None:
    """No strike makes an exception the thread's current one for good, which would keep all that
    the frames of its traceback hold."""

    def drain(box: list[int]) -> None:
        while True:
            try:
                box.pop()
            except IndexError:
                return

    left: list[BaseException | None] = []
    count = interrupt_every_line(
        lambda: drain([1]), where=own_code, after=lambda _: left.append(sys.exception())
    )
    assert left == [None] * count
    assert count > 3


def test_other_errors_come_through() -> None:
    """A call that fails by itself ends the run with its own error; tracing is off afterwards."""
    before = sys.gettrace()
    with pytest.raises(ZeroDivisionError):
        interrupt_every_line(lambda: 1 // 0, where=lambda _: False)
    assert sys.gettrace() is before


def test_signals_strike() -> None:
    """A real signal interrupts a call that would never end; one that comes late does no harm."""

    def forever() -> None:
        while True:
            pass

    assert interrupt_by_signal(forever, rounds=5, seed=1, longest=0.01) == 5
    rounds = interrupt_by_signal(lambda: None, rounds=200, seed=1, longest=0.00001)
    assert 0 <= rounds <= 200


class OwnFile(io.RawIOBase):
    """A file of a backend whose making can be interrupted before it has a name."""

    def close(self) -> None:
        super().close()
        assert self.name  # type: ignore[attr-defined]


def test_only_half_made_files_of_the_standard_library_are_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What else a finalizer raises while signals strike is reported."""
    reported: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda found: reported.append(found.object))

    def finalize(file: io.IOBase) -> None:
        """As Python 3.13 does it; before, it kept all errors to itself."""
        try:
            file.close()
        except Exception as error:  # noqa: BLE001 - that of the test
            report = SimpleNamespace(exc_type=type(error), exc_value=error, object=file)
            sys.unraisablehook(report)  # type: ignore[arg-type]

    files = [
        socket.SocketIO.__new__(socket.SocketIO),
        HTTPResponse.__new__(HTTPResponse),
        OwnFile(),
    ]
    interrupt_by_signal(lambda: [*map(finalize, files)], rounds=1, seed=1, longest=20)
    assert reported == files[2:]


def test_where_names_packages() -> None:
    """``code_below`` is true for files beside a class or module and below, and for no others."""
    where = code_below(Interrupted)
    assert where(interrupt_every_line.__code__)
    assert not where(test_signals_strike.__code__)
