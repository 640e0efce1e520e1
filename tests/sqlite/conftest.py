"""Fixtures of the sqlite tests: stores in a folder of their own, and other processes."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from revstore_sqlite._backend import SQLiteBackend
from revstore_sqlite._options import SQLiteOptions

WORKER = Path(__file__).with_name("worker.py")


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "store.db")


@pytest.fixture
def open_store(path: str) -> Iterator[Callable[..., SQLiteBackend]]:
    """A function that opens one more backend on the file of ``path``, closed after the test."""
    with ExitStack() as stack:

        def open_store(
            *, clock: Callable[[], float] = time.time, **options: object
        ) -> SQLiteBackend:
            options = {"path": path, "poll_interval": 0.01, **options}
            return stack.enter_context(SQLiteBackend(SQLiteOptions(**options), clock=clock))

        yield open_store


@pytest.fixture
def start(path: str) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """A function that starts a task of worker.py on ``path``; killed after the test."""
    running: list[subprocess.Popen[str]] = []

    def start(task: str, *arguments: object, prefix: tuple[str, ...] = (), **options: object):
        command = [*prefix, sys.executable, str(WORKER), task, path, *map(str, arguments)]
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()
