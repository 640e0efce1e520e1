"""The shared suites over the cache."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from revstore.backend import Backend
from revstore.memory import MemoryBackend
from revstore.testing import CachedStorageTests, CachedWatchTests
from revstore_sqlite._backend import SQLiteBackend
from revstore_sqlite._options import SQLiteOptions

pytestmark = pytest.mark.slow


class OnMemory:
    """A new store each."""

    @pytest.fixture
    def backend(self) -> Iterator[Backend]:
        with MemoryBackend() as backend:
            yield backend


class OnSQLite:
    """A file each."""

    @pytest.fixture
    def sqlite_options(self, tmp_path) -> SQLiteOptions:
        return SQLiteOptions(path=str(tmp_path / "store.db"), poll_interval=0.005)

    @pytest.fixture
    def backend(self, sqlite_options) -> Iterator[Backend]:
        with SQLiteBackend(sqlite_options) as backend:
            yield backend

    @pytest.fixture
    def open_backend(self, sqlite_options):
        return lambda: SQLiteBackend(sqlite_options)


class TestMemoryStorage(OnMemory, CachedStorageTests):
    """In memory."""


class TestMemoryWatch(OnMemory, CachedWatchTests):
    """In memory."""


class TestSQLiteStorage(OnSQLite, CachedStorageTests):
    """On sqlite."""


class TestSQLiteWatch(OnSQLite, CachedWatchTests):
    """On sqlite."""
