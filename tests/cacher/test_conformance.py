"""The shared suite of cached storage, over the backends of this repository."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from revstore.backend import Backend
from revstore.errors import Unsupported
from revstore.memory import MemoryBackend
from revstore.testing import CacherTests
from revstore.testing.storage._parts import ForwardingBackend
from revstore.values import Capability
from revstore_sqlite._backend import SQLiteBackend
from revstore_sqlite._options import SQLiteOptions

pytestmark = pytest.mark.slow


class TestMemoryCacher(CacherTests):
    """A new store in memory."""

    @pytest.fixture
    def backend(self) -> Iterator[Backend]:
        with MemoryBackend() as backend:
            yield backend


class TestSQLiteCacher(CacherTests):
    """A new file, written to through a second handle."""

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


class TestInUseCacher(CacherTests):
    """A store with compacted history and a writer beside the suite, whose revisions the caches
    have no events for."""

    ephemeral = False

    @pytest.fixture
    def backend(self) -> Iterator[Backend]:
        backend = MemoryBackend()
        for number in range(50):
            last = backend.put(f"/in-use/{number}", b"x", expected_revision=0).revision
        backend.compact(last)
        stop = threading.Event()
        writer = threading.Thread(target=_write, args=(backend, last, stop))
        writer.start()
        yield backend
        stop.set()
        writer.join(10)
        assert {kv.key for kv in backend.list("", keys_only=True).kvs} == {
            f"/in-use/{number}" for number in range(50)
        }
        backend.close()


def _write(backend: Backend, revision: int, stop: threading.Event) -> None:
    while not stop.wait(0.001):
        revision = backend.put("/in-use/49", b"y", expected_revision=revision).revision


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

    def watch(self, key, **options):
        watch = super().watch(key, **{**options, "progress": False})
        watch.request_progress = _refuse_progress
        return watch

    def compact(self, revision, **options):
        raise Unsupported(Capability.COMPACTION)

    def _refuse_past(self, revision):
        if 0 < revision < self.status().revision:
            raise Unsupported(Capability.HISTORICAL_READS)


def _refuse_progress():
    raise Unsupported(Capability.PROGRESS)


class TestBareCacher(CacherTests):
    """A backend without capabilities: no old states, no progress, no compaction."""

    @pytest.fixture
    def backend(self) -> Iterator[Backend]:
        with _Bare(MemoryBackend()) as backend:
            yield backend
