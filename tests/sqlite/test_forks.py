"""Forks of a process that has a store open. Each case runs in a process of its own."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")

FORKS = Path(__file__).with_name("forks.py")


def run(task: str, path: str, *arguments: object) -> str:
    """What the task wrote to standard error."""
    command = [sys.executable, str(FORKS), task, path, *map(str, arguments)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert found.returncode == 0, found.stderr
    return found.stderr


def check_log(path: str, writes: int) -> None:
    """All acknowledged writes are in the file, each with a revision of its own, without gaps."""
    with closing(sqlite3.connect(path)) as connection:
        found = [row[0] for row in connection.execute("SELECT id >> 20 FROM log ORDER BY 1")]
        assert found == list(range(2, writes + 2))
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("SELECT count(*) FROM state").fetchone() == (writes,)


@pytest.mark.parametrize("end", ["closes", "killed"])
def test_children_that_open_the_store_anew_lose_nothing(path: str, end: str) -> None:
    """DURABLE: the parent opens a store and writes, three forked children open it again, the
    parent closes it or dies, other processes come and go, the children write: all is there, and
    the parent's handle is Closed in the children."""
    assert run("recipe", path, end) == ""
    # Of the parent, three children, a visitor of each, and one afterwards.
    check_log(path, 1 + 300 + 3 + 1)


def test_children_forked_in_the_middle_of_everything_can_write(path: str) -> None:
    """40 children, forked while a thread of the parent writes, one reads for long and one
    watches: every child can write, the parent's threads notice nothing, the watch misses none."""
    assert run("busy", path, 40) == ""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_of_multiprocessing(path: str, method: str) -> None:
    """Workers open the store again while the parent closes it, however they were started."""
    assert run("pool", path, method) == ""
    check_log(path, 1 + 300 + 1)


def test_a_server_that_forks_its_workers(path: str) -> None:
    """Master, workers and children of workers write beside each other; one worker is killed."""
    assert run("server", path) == ""
    check_log(path, 1 + 3 * 100 + 1 + 1 + 1 + 1)


def test_a_fork_inside_a_call(path: str) -> None:
    """The child of a thread that is in the middle of a write cannot open the store, and says so;
    what the parent writes is not harmed by it, even as the child's interpreter ends."""
    assert "the child cannot open it" in run("within", path)
    check_log(path, 1 + 100 + 1)
