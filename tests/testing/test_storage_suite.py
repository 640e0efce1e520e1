"""The shared suites of typed storage, over the backends of this repository."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from revstore.backend import Backend
from revstore.errors import Unsupported
from revstore.memory import MemoryBackend
from revstore.testing import StorageTests, WatchTests
from revstore.testing.storage._parts import ForwardingBackend
from revstore.typed import _watch as _typed_watch
from revstore.values import Capability
from revstore_sqlite import _hub, _reader, _watch
from revstore_sqlite._backend import SQLiteBackend
from revstore_sqlite._options import SQLiteOptions

pytestmark = pytest.mark.slow


class OnMemory:
    """A new store in memory."""

    starts_at_one = True

    @pytest.fixture
    def backend(self) -> Iterator[Backend]:
        with MemoryBackend() as backend:
            yield backend


class OnSQLite:
    """A new file."""

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


class WithSmallLimits(OnSQLite):
    """A file read in small pages and with a short memory, and few decoded objects kept: every
    limit that takes thousands of objects to reach is met by a few."""

    @pytest.fixture
    def options(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SQLiteOptions:
        monkeypatch.setattr(_typed_watch, "_PAGE", 3)
        monkeypatch.setattr(_typed_watch, "_FEED_PAGE", 5)
        monkeypatch.setattr(_hub, "_CAPACITY", 8)
        monkeypatch.setattr(_hub, "_PAGE", 3)
        monkeypatch.setattr(_watch, "_PAGE", 3)
        monkeypatch.setattr(_watch, "_LAG", 4)
        monkeypatch.setattr(_reader, "_PAGE_BYTES", 500)
        return SQLiteOptions(path=str(tmp_path / "store.db"), poll_interval=0.005)

    def make_storage(self, backend, resource_type, **options):
        return super().make_storage(backend, resource_type, **{"cache_size": 3, **options})


class InUse:
    """Somebody else's keys stay as they are."""

    ephemeral = False

    @pytest.fixture
    def backend(self, store_in_use: Backend) -> Backend:
        return store_in_use


class _Bare(ForwardingBackend):
    """A backend that can do nothing beyond the minimum, as etcd2 and less."""

    @property
    def capabilities(self):
        return frozenset()

    def get(self, key, *, revision=0, **options):
        self._refuse_past(revision)
        return super().get(key, revision=revision, **options)

    def list(self, prefix, *, revision=0, limit=0, remaining=False, **options):
        self._refuse_past(revision)
        return super().list(prefix, revision=revision, **options)

    def put(self, key, value, *, ttl=0, **options):
        if ttl:
            raise Unsupported(Capability.TTL)
        return super().put(key, value, ttl=0, **options)

    def watch(self, key, **options):
        watch = super().watch(key, **options)
        watch.request_progress = _refuse_progress
        return watch

    def compact(self, revision, **options):
        raise Unsupported(Capability.COMPACTION)

    def _refuse_past(self, revision):
        if 0 < revision < self.status().revision:
            raise Unsupported(Capability.HISTORICAL_READS)


def _refuse_progress():
    raise Unsupported(Capability.PROGRESS)


class OnBare:
    """The suite asks a backend without capabilities for the refusals, not the features."""

    starts_at_one = True

    @pytest.fixture
    def backend(self) -> Iterator[Backend]:
        with _Bare(MemoryBackend()) as backend:
            yield backend


class TestMemoryStorage(OnMemory, StorageTests):
    """Typed storage on memory."""


class TestMemoryWatch(OnMemory, WatchTests):
    """Typed watches on memory."""


class TestSQLiteStorage(OnSQLite, StorageTests):
    """Typed storage on a file."""


class TestSQLiteWatch(OnSQLite, WatchTests):
    """Typed watches on a file."""


class TestSmallLimitsStorage(WithSmallLimits, StorageTests):
    """Typed storage on a file, with small limits."""


class TestSmallLimitsWatch(WithSmallLimits, WatchTests):
    """Typed watches on a file, with small limits."""


class TestInUseStorage(InUse, StorageTests):
    """Typed storage beside others."""


class TestInUseWatch(InUse, WatchTests):
    """Typed watches beside others."""


class TestBareStorage(OnBare, StorageTests):
    """Typed storage on a backend without capabilities."""


class TestBareWatch(OnBare, WatchTests):
    """Typed watches on a backend without capabilities."""
