"""The etcd3 backend as a client of an endpoint: it keeps the whole contract there.

``REVSTORE_TEST_LONG=2`` runs all of the suite, over both stores; else only its main parts run, over
memory.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
from tests.serve.conftest import STORES, open_store
from tests.serve.processes import Served

from revstore.backend import Backend
from revstore.config import StorageConfig
from revstore.plugins import open_backend
from revstore.testing import (
    BackendTests,
    CachedStorageTests,
    CachedWatchTests,
    CacherTests,
    Peer,
    Stall,
    StorageTests,
    WatchTests,
)
from revstore.testing.backend._compaction import CompactionTests
from revstore.testing.backend._reads import ReadTests
from revstore.testing.backend._watch import BackendWatchTests
from revstore.testing.backend._writes import WriteTests
from revstore_serve import serve

pytestmark = pytest.mark.slow

LONG = int(os.environ.get("REVSTORE_TEST_LONG", "1"))


@pytest.fixture(scope="module", params=STORES)
def served(request, tmp_path_factory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    store = "memory://" if request.param == "memory" else f"sqlite:///{folder}/served.db"
    with Served(store) as served:
        yield served


class OnEndpoint:
    """What opens the backend at an address."""

    large_value = 1 << 20

    @pytest.fixture
    def open_backend(self, address: str) -> Iterator[Callable[..., Backend]]:
        opened: list[Backend] = []

        def open_one(options: str = "") -> Backend:
            opened.append(open_backend(StorageConfig.from_url(f"etcd3://{address}{options}")))
            return opened[-1]

        yield open_one
        for backend in opened:
            backend.close()

    @pytest.fixture
    def backend(self, open_backend) -> Backend:
        return open_backend()


class TestMainParts(OnEndpoint, WriteTests, ReadTests, BackendWatchTests, CompactionTests):
    """On an endpoint of its own in this process for each test."""

    starts_at_one = True
    many_keys = 1_050

    @pytest.fixture(params=STORES if LONG > 1 else ["memory"])
    def address(self, request, tmp_path) -> Iterator[str]:
        with open_store(request.param, tmp_path) as served, serve(served) as endpoint:
            yield endpoint.address


if LONG > 1:

    class OnServed(OnEndpoint):
        """On a store that all tests share."""

        ephemeral = False

        @pytest.fixture
        def address(self, served) -> str:
            return served.address

        @pytest.fixture
        def open_hasty(self, open_backend):
            return lambda: open_backend("?timeout=0.5")

        @pytest.fixture
        def stall(self, served) -> Stall:
            return served.halted

        @pytest.fixture
        def peer(self, served) -> Peer:
            return Peer(
                served.address,
                lambda address: open_backend(StorageConfig.from_url(f"etcd3://{address}")),
            )

    class TestBackend(OnServed, BackendTests):
        """Bytes."""

        def test_size(self, request, backend, space):
            """A store in memory does not know its size, for which etcd has no word."""
            if "memory" in request.node.name:
                pytest.skip("the size of a store in memory is not known")
            super().test_size(backend, space)

    class TestStorage(OnServed, StorageTests):
        """Objects."""

    class TestWatch(OnServed, WatchTests):
        """Watches of objects."""

    class TestCachedStorage(OnServed, CachedStorageTests):
        """Objects, behind the cache."""

    class TestCachedWatch(OnServed, CachedWatchTests):
        """Watches of objects, behind the cache."""

    class TestCacher(OnEndpoint, CacherTests):
        """The cache, on a process of its own for each test, whose history it may compact."""

        @pytest.fixture(params=STORES)
        def served_alone(self, request, tmp_path) -> Iterator[Served]:
            store = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/served.db"
            with Served(store) as served:
                yield served

        @pytest.fixture
        def address(self, served_alone) -> str:
            return served_alone.address

        @pytest.fixture
        def stall(self, served_alone) -> Stall:
            return served_alone.halted

        @pytest.fixture
        def peer(self, served_alone) -> Peer:
            return Peer(
                served_alone.address,
                lambda address: open_backend(StorageConfig.from_url(f"etcd3://{address}")),
            )
