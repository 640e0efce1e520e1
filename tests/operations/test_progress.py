"""Progress of long operations: what a callback receives, and the bar on a terminal."""

import contextlib
import os
import pty
import sys

from revstore.cli._progress import progress_bar
from revstore.operations import Progress
from revstore.operations._progress import Meter


def test_a_step_reports_its_beginning_and_its_end():
    seen = []
    meter = Meter(seen.append, "writing", 3)
    for _ in range(3):
        meter.add()
    meter.finish()

    assert [(each.step, each.done, each.total) for each in (seen[0], seen[-1])] == [
        ("writing", 0, 3),
        ("writing", 3, 3),
    ]
    assert seen[0].seconds <= seen[-1].seconds
    # Not one for each key.
    assert len(seen) < 5


def test_bars_of_two_steps_on_a_terminal(monkeypatch):
    master, slave = pty.openpty()
    with os.fdopen(slave, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        with progress_bar() as show:
            show(Progress("reading", 0, None, 0.0))
            show(Progress("reading", 50, None, 0.5))
            show(Progress("reading", 80, 80, 0.5))
            show(Progress("writing", 0, 80, 0.0))
            show(Progress("writing", 40, 80, 0.1))
            show(Progress("writing", 80, 80, 2.0))
            show(Progress("nothing", 0, 0, 0.0))
    shown = b""
    with contextlib.suppress(OSError):  # the end, once the terminal is closed
        while part := os.read(master, 65536):
            shown += part
    os.close(master)

    reading, writing, nothing, end = shown.decode().split("\n")
    assert "100/s" in reading
    assert "80/80" in reading
    assert "40/80" in writing
    assert "40/s" in writing
    assert "nothing" in nothing
    assert end == ""


def test_no_bar_without_a_terminal(capsys):
    with progress_bar() as show:
        show(Progress("reading", 0, 1, 0.0))

    assert capsys.readouterr() == ("", "")
