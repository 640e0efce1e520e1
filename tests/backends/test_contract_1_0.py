"""A backend that was written for contract 1.0, which knows nothing of what came later."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from revstore.backend import Backend
from revstore.memory import MemoryBackend
from revstore.testing import BackendTests
from revstore.values import Capability

CAPABILITIES = frozenset(
    {
        Capability.HISTORICAL_READS,
        Capability.TTL,
        Capability.PROGRESS,
        Capability.COMPACTION,
        Capability.VERSIONS,
        Capability.NESTED_KEYS,
    }
)


class OldBackend(Backend):
    """The nine methods, and nothing else."""

    def __init__(self):
        self._store = MemoryBackend()

    capabilities = CAPABILITIES

    def status(self, **options):
        return self._store.status(**options)

    def get(self, key, **options):
        return self._store.get(key, **options)

    def list(self, prefix, **options):
        return self._store.list(prefix, **options)

    def count(self, prefix, **options):
        return self._store.count(prefix, **options)

    def put(self, key, value, **options):
        return self._store.put(key, value, **options)

    def delete(self, key, **options):
        return self._store.delete(key, **options)

    def watch(self, key, **options):
        return self._store.watch(key, **options)

    def compact(self, revision, **options):
        self._store.compact(revision, **options)

    def close(self):
        self._store.close()


class TestOldBackend(BackendTests):
    """It passes the suite of today: what it does not claim is Unsupported."""

    starts_at_one = True

    @pytest.fixture
    def backend(self) -> Iterator[Backend]:
        with OldBackend() as backend:
            yield backend
