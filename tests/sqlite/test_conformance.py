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
from revstore.values import Capability
from revstore_sqlite import _backend, revstore_backend
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

    @pytest.fixture
    def wiped(self, backend: Backend, options: SQLiteOptions):
        def wiped() -> Backend:
            backend.close()
            for path in Path(options.path).parent.glob("store.db*"):
                path.unlink()
            return SQLiteBackend(options)

        return wiped

    @pytest.fixture
    def open_hasty(self, open_backend, monkeypatch: pytest.MonkeyPatch):
        def open_hasty() -> Backend:
            monkeypatch.setattr(_backend, "DEFAULT_TIMEOUT", 0.5)
            return open_backend()

        return open_hasty

    @pytest.fixture
    def damage(self, options: SQLiteOptions):
        def damage(key: str) -> None:
            with contextlib.closing(sqlite3.connect(options.path)) as other, other:
                other.execute("PRAGMA ignore_check_constraints=ON")
                changed = other.execute(
                    "UPDATE log SET value = x'00' WHERE key = ? AND value IS NOT NULL", (key,)
                )
                assert changed.rowcount

        return damage

    @pytest.fixture
    def declared(self) -> frozenset[Capability]:
        return revstore_backend().capabilities


_folder = Path(mkdtemp(prefix="revstore-machine-"))
atexit.register(shutil.rmtree, _folder, ignore_errors=True)
_numbers = iter(range(1 << 30))


def _open_new() -> Backend:
    path = _folder / f"{next(_numbers)}.db"
    return SQLiteBackend(SQLiteOptions(path=str(path), synchronous="NORMAL", poll_interval=0.005))


TestSQLiteMachine = backend_machine(_open_new).TestCase
TestSQLiteMachine.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)
