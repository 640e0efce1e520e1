"""The shared suites on servers with TLS, client certificates and passwords.

``make test`` runs a part on one of them; ``make soak`` all suites on all, and both versions.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from revstore.backend import Backend
from revstore.config import StorageConfig
from revstore.plugins import open_backend
from revstore.testing import (
    BackendTests,
    CachedStorageTests,
    CachedWatchTests,
    CacherTests,
    Stall,
    StorageTests,
    WatchTests,
)
from revstore.testing.backend._compaction import CompactionTests
from revstore.testing.backend._reads import ReadTests
from revstore.testing.backend._watch import BackendWatchTests
from revstore.testing.backend._writes import WriteTests
from revstore.testing.etcd import EtcdServer

LONG = int(os.environ.get("REVSTORE_TEST_LONG", "1"))
SETUPS = ["tls", "mtls", "password"]
ALL = [(version, setup) for setup in SETUPS for version in ("3.4", "3.5")]
CHOSEN = ALL if LONG > 1 else [("3.5", "mtls")]


@pytest.fixture(scope="session", params=CHOSEN, ids="-".join)
def server(request, secured) -> Iterator[EtcdServer]:
    """A server of each version and set-up."""
    with secured(*request.param) as server:
        yield server


@pytest.fixture
def open_store(server: EtcdServer, fields_for) -> Iterator[Callable[[], Backend]]:
    """Opens one more handle; all are closed afterwards."""
    opened: list[Backend] = []

    def open_store() -> Backend:
        opened.append(
            open_backend(
                StorageConfig(type="etcd3", server_list=(server.client_url,), **fields_for(server))
            )
        )
        return opened[-1]

    yield open_store
    for backend in opened:
        backend.close()


class OnEtcd:
    """A server that all tests share: keys of their own, no compaction."""

    ephemeral = False
    large_value = 1 << 20

    @pytest.fixture
    def backend(self, open_store) -> Backend:
        return open_store()

    @pytest.fixture
    def open_backend(self, open_store):
        return open_store

    @pytest.fixture
    def stall(self, server) -> Stall:
        return server.halted


if LONG == 1:

    class TestBytes(OnEtcd, ReadTests, WriteTests, BackendWatchTests):
        """Reads, writes and watches of bytes."""

else:

    class TestBackend(OnEtcd, BackendTests):
        """Bytes."""

    class TestStorage(OnEtcd, StorageTests):
        """Objects."""

    class TestWatch(OnEtcd, WatchTests):
        """Watches of objects."""

    class TestCachedStorage(OnEtcd, CachedStorageTests):
        """Objects, behind the cache."""

    class TestCachedWatch(OnEtcd, CachedWatchTests):
        """Watches of objects, behind the cache."""

    class OnNewEtcd(OnEtcd):
        """A server for each test, whose history it may compact."""

        ephemeral = True

        @pytest.fixture(params=CHOSEN, ids="-".join)
        def server(self, request, secured) -> Iterator[EtcdServer]:
            with secured(*request.param) as server:
                yield server

    class TestCompaction(OnNewEtcd, CompactionTests):
        """CMP-1: history is dropped."""

    class TestCacher(OnNewEtcd, CacherTests):
        """The cache over it."""
