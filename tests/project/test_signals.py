"""The tests themselves, where SIGINT is ignored at their start: under nohup, or in the background
of a script."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest


def test_ctrl_c_reaches_this_process():
    """A test can interrupt itself."""
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_ctrl_c_reaches_a_process_of_a_test():
    """A test can interrupt what it starts."""
    code = "print(flush=True); import time; time.sleep(60)"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)

    assert process.returncode == -signal.SIGINT
    assert b"KeyboardInterrupt" in errors


@pytest.mark.parametrize("workers", ["0", "1"])
def test_where_ctrl_c_is_ignored_at_the_start(workers, tmp_path):
    """Both hold where SIGINT is ignored when pytest starts, in its workers too."""
    # A folder of its own: pytest closes the one that all share to others, which tests open.
    options = ["-q", "-n", workers, "-k", "reaches", f"--basetemp={tmp_path}/base"]
    command = [sys.executable, "-m", "pytest", *options, __file__]
    done = subprocess.run(
        ["sh", "-c", 'trap "" INT QUIT HUP; exec "$@"', "sh", *command],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert "2 passed" in done.stdout, done.stdout + done.stderr
