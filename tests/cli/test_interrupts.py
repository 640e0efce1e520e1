"""Ctrl-C at any moment of a command: it ends without a word, and with its code."""

import random
import signal
import subprocess
import sys

import pytest

#: Strikes when the n-th module is imported after the command has begun.
STRIKE_AT_IMPORT = """
import os, signal, sys
from revstore.__main__ import main

class Striker:
    left = int(sys.argv.pop(1))

    @classmethod
    def find_spec(cls, *_):
        cls.left -= 1
        if cls.left == 0:
            os.kill(os.getpid(), signal.{signal})

sys.meta_path.insert(0, Striker)
sys.exit(main())
"""

#: Strikes while the class of an enum is made, as the modules of some drivers make many.
STRIKE_IN_AN_ENUM = """
import os, signal

class Member:
    def __set_name__(self, owner, name):
        os.kill(os.getpid(), signal.SIGINT)

class Owner:
    member = Member()
"""

#: Strikes in a text that is run, as those of named tuples are when their module is imported.
STRIKE_IN_A_TEXT = """
import signal, sys
from revstore import __main__

__main__._imported = lambda: lambda: exec("signal.raise_signal(signal.{signal})")
sys.exit(__main__.main())
"""

#: Strikes where nothing can be raised, and then waits, as a command that follows changes does.
STRIKE_IN_A_DESTRUCTOR = """
import signal, sys, time
from revstore import __main__

class Gone:
    def __del__(self):
        signal.raise_signal(signal.{signal})

def run():
    Gone()
    time.sleep(60)

__main__._imported = lambda: run
sys.exit(__main__.main())
"""

ANNOUNCED = """
import sys
from revstore.__main__ import main
print("begun", flush=True)
sys.exit(main())
"""


def run(revstore, code, *arguments, **env):
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        env={**revstore.env, **env},
        timeout=30,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_at_any_import_is_silent(revstore, name, code):
    """Most of the first tenth of a second goes by in imports."""
    for count in [*range(1, 100, 20), *range(100, 2000, 150)]:
        script = STRIKE_AT_IMPORT.format(signal=name)
        done = run(revstore, script, str(count), "get", "pods", "-A")
        if done.returncode == 0:
            assert count > 200
            return
        assert (done.returncode, done.stdout, done.stderr) == (code, "", ""), count
    raise AssertionError("it never came through")


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_while_a_text_is_run_ends_the_command_with_its_code(name, code, tmp_path):
    """Python remembers it, and would end ``python -m revstore`` by SIGINT."""
    (tmp_path / "strike.py").write_text(STRIKE_IN_A_TEXT.format(signal=name))
    command = [sys.executable, "-m", "strike"]
    done = subprocess.run(command, capture_output=True, timeout=30, check=False, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (code, b"", b"")


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_from_which_nothing_is_raised_is_not_lost(name, code, tmp_path):
    (tmp_path / "strike.py").write_text(STRIKE_IN_A_DESTRUCTOR.format(signal=name))
    command = [sys.executable, "-m", "strike"]
    done = subprocess.run(command, capture_output=True, timeout=30, check=False, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (code, b"", b"")


@pytest.mark.slow
def test_ctrl_c_at_any_moment_is_silent(revstore, pod):
    """Also when all is done, and Python itself ends: then the signal kills, as a shell sees it."""
    revstore.apply(pod("web"))
    dice = random.Random(13)
    codes = set()
    for _ in range(16):
        command = [sys.executable, "-c", ANNOUNCED, "get", "pods", "-o", "name"]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=revstore.env
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        try:
            out, errors = process.communicate(timeout=dice.uniform(0.001, 0.4))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            out, errors = process.communicate(timeout=30)
        assert errors == ""
        assert process.returncode in (130, -signal.SIGINT) or out == "pod/web\n"
        codes.add(process.returncode)

    assert 130 in codes


def test_ctrl_c_that_an_import_turned_into_an_error(revstore, tmp_path):
    """Python 3.11 makes a RuntimeError of what is raised within ``__set_name__``, and a failed
    import is another error: it is Ctrl-C all the same."""
    (tmp_path / "interrupted.py").write_text(STRIKE_IN_AN_ENUM)
    folder = tmp_path / "interrupted-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: interrupted\nVersion: 1\n")
    (folder / "entry_points.txt").write_text("[revstore.backends]\ninterrupted = interrupted\n")
    command = [sys.executable, "-m", "revstore", "--store", "interrupted://x", "get", "pods"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={**revstore.env, "PYTHONPATH": str(tmp_path)},
        timeout=30,
        check=False,
    )

    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
