"""What a signal's handler raises is told from every other error of the same kind."""

from __future__ import annotations

import os
import signal
import socket

import pytest

from revstore.backend_tools import ignoring, let_out


def handler(_number, _frame):
    raise TimeoutError("of a handler")


class Handlers:
    def method(self, *arguments):
        raise TimeoutError("of a handler")


@pytest.fixture(params=[handler, Handlers().method], ids=["function", "method"])
def struck(request):
    """A function that a handler interrupts by ``TimeoutError``."""
    before = signal.signal(signal.SIGUSR1, request.param)
    yield lambda: os.kill(os.getpid(), signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, before)


def waits_in_vain():
    """Raises ``TimeoutError`` by itself."""
    one, other = socket.socketpair()
    with one, other:
        one.settimeout(0.001)
        one.recv(1)


def passes_on(call, kind):
    """What a backend does with an error that it would translate."""
    try:
        call()
    except kind as error:
        let_out(error)


def test_what_a_handler_raises_comes_out(struck):
    """As it is, out of a block that ignores its kind, and out of one that translates it."""
    with pytest.raises(TimeoutError, match="of a handler"), ignoring(OSError):
        struck()
    with pytest.raises(TimeoutError, match="of a handler"):
        passes_on(struck, OSError)


def test_what_was_made_of_it_comes_out_as_it_was(struck):
    """A library on the way may have turned it into an error of its own."""

    def library():
        try:
            struck()
        except TimeoutError:
            raise ValueError from None

    with pytest.raises(TimeoutError, match="of a handler"):
        passes_on(library, ValueError)


def test_other_errors_stay(struck):
    """Also while the caller is dealing with what a handler raised before."""
    with ignoring(TimeoutError):
        waits_in_vain()
    try:
        struck()
    except TimeoutError:
        with ignoring(TimeoutError):
            waits_in_vain()
