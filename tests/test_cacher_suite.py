"""The shared suites over the cache."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from revstore.backend import Backend
from revstore.cacher import Cacher, CacherConfig
from revstore.errors import CorruptObjects
from revstore.memory import MemoryBackend
from revstore.testing import StorageTests, WatchTests
from revstore_sqlite._backend import SQLiteBackend
from revstore_sqlite._options import SQLiteOptions

#: Tests of the shared suites that hold for a raw storage only, by name or parameter: catalogue
#: row, and why. What holds of the cache instead is in test_cacher.py.
DIFFERENCES = {
    "test_ready": "CACHE-9: ready means that the cache is filled",
    "test_functions_may_use_the_storage": "GU-19, DEL-15: a cached suggestion may cost a call",
    "test_delete_checks_fail_on_a_stale_suggestion": "DEL-15: the cache's own suggestion goes",
    "test_delete_checks_pass_on_a_stale_suggestion_only": "DEL-15: the cache's own suggestion goes",
    "test_expired_token": "DELEG-7: the cache still remembers what the store has compacted",
    "test_expired_token_that_someone_made": "DELEG-7: as above",
    "test_expiry_and_updates": "GU-19: of a cached suggestion the expiry is not known",
    "test_delete_validator": "DEL-15: a cached suggestion may cost a call",
    "test_list_after_compaction": "DELEG-5: the cache still remembers",
    "rv=compacted": "DELEG-5: the cache still remembers",
    "test_watch_compacted_version": "HIST-4: the cache still remembers",
    "test_watch_initial_state_is_compacted_away": "CWATCH-1: the state comes from memory",
    "test_list_attributes_are_computed_for_selectors_only": "CACHE-17: labels are indexed",
}


class Settled(Cacher):
    """Resource version "0" may show any state, N any from N on; so that the suites can tell
    which, it is that of all writes before."""

    def get(self, key, *, resource_version="", **options):
        self._settle(resource_version)
        return super().get(key, resource_version=resource_version, **options)

    def list(self, key, *, resource_version="", **options):
        self._settle(resource_version)
        return super().list(key, resource_version=resource_version, **options)

    def watch(self, key, *, resource_version="", **options):
        self._settle(resource_version)
        return super().watch(key, resource_version=resource_version, **options)

    def _settle(self, resource_version):
        if resource_version:
            with contextlib.suppress(CorruptObjects):  # comes after the wait
                super().list(self._prefix, limit=1)


class Cached:
    """Every storage is decorated."""

    raw = False

    @pytest.fixture(autouse=True)
    def _same_as_raw(self, request):
        for name, why in DIFFERENCES.items():
            if name == request.node.originalname or f"{name}-" in request.node.name:
                pytest.skip(f"differs: {why}")

    @pytest.fixture
    def backend(self) -> Iterator[Backend]:
        with MemoryBackend() as backend:
            yield backend

    def make_storage(self, backend, object_type, **options):
        storage = super().make_storage(backend, object_type, **options)
        names = ("versioner", "copier", "labels", "fields", "new_object", "resource_prefix")
        shared = {name: options[name] for name in names if name in options}
        return Settled(
            CacherConfig(storage=storage, object_type=object_type, fresh_timeout=0.5, **shared)
        )


class OnSQLite(Cached):
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


class TestMemoryStorage(Cached, StorageTests):
    """In memory."""


class TestSQLiteStorage(OnSQLite, StorageTests):
    """On sqlite."""


class TestSQLiteWatch(OnSQLite, WatchTests):
    """On sqlite."""


class TestMemoryWatch(Cached, WatchTests):
    """In memory."""
