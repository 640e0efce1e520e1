"""The shared suites over the sqlite backend."""

from __future__ import annotations

import atexit
import contextlib
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp

import pytest
from hypothesis import settings

from revstore.backend import Backend
from revstore.testing import BackendTests, Stall
from revstore.testing.model import backend_machine
from revstore_sqlite._backend import SQLiteBackend
from revstore_sqlite._options import SQLiteOptions

pytestmark = pytest.mark.slow


class TestSQLiteBackend(BackendTests):
    """BASE, TTL, WATCH and CMP rows of docs/behaviours.md, as the shared suite cites them."""

    starts_at_one = True

    @pytest.fixture
    def options(self, tmp_path: Path) -> SQLiteOptions:
        return SQLiteOptions(path=str(tmp_path / "store.db"), poll_interval=0.005)

    @pytest.fixture
    def backend(self, options: SQLiteOptions) -> Iterator[Backend]:
        with SQLiteBackend(options) as backend:
            yield backend

    @pytest.fixture
    def open_backend(self, options: SQLiteOptions):
        return lambda: SQLiteBackend(options)

    @pytest.fixture
    def stall(self, options: SQLiteOptions) -> Stall:
        @contextlib.contextmanager
        def locked() -> Iterator[None]:
            with contextlib.closing(sqlite3.connect(options.path, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                yield
                other.execute("ROLLBACK")

        return locked


_folder = Path(mkdtemp(prefix="revstore-machine-"))
atexit.register(shutil.rmtree, _folder, ignore_errors=True)
_numbers = iter(range(1 << 30))


def _open_new() -> Backend:
    path = _folder / f"{next(_numbers)}.db"
    return SQLiteBackend(SQLiteOptions(path=str(path), synchronous="NORMAL", poll_interval=0.005))


TestSQLiteMachine = backend_machine(_open_new).TestCase
TestSQLiteMachine.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)
