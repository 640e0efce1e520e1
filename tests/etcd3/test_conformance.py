"""The shared suites on real servers, raw and under the cache."""

from __future__ import annotations

import contextlib
import json
import urllib.request
from collections.abc import Iterator

import pytest

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
from revstore.testing._support import PATIENCE
from revstore.testing.backend._base import BackendSuite
from revstore.testing.backend._compaction import CompactionTests
from revstore.testing.backend._conditions import ConditionTests
from revstore.testing.backend._operator_steps import OperatorStepTests
from revstore.testing.etcd import EtcdServer
from revstore.values import Capability
from revstore_etcd3 import revstore_backend
from revstore_etcd3._wire import rpc_pb2


class OnEtcd:
    """A server that all tests share: keys of their own, no compaction."""

    ephemeral = False
    large_value = 1 << 20

    @pytest.fixture
    def backend(self, open_store) -> Iterator[Backend]:
        return open_store()

    @pytest.fixture
    def open_backend(self, open_store):
        return open_store

    @pytest.fixture
    def stall(self, server) -> Stall:
        return server.halted

    @pytest.fixture
    def open_hasty(self, open_store):
        return lambda: open_store("?timeout=0.5")

    @pytest.fixture
    def declared(self) -> frozenset[Capability]:
        return revstore_backend().capabilities

    @pytest.fixture
    def peer(self, server) -> Peer:
        def open_at(address: str) -> Backend:
            return open_backend(StorageConfig.from_url(f"etcd3://{address}"))

        return Peer(server.address, open_at)


class TestBackend(OnEtcd, BackendTests):
    """Bytes."""

    @pytest.fixture
    def add_foreign(self, backend):
        def add_foreign(prefix: str) -> None:
            request = rpc_pb2.PutRequest(key=prefix.encode() + b"a\xff", value=b"x")
            backend._client.read(lambda server: server.kv.Put, request, PATIENCE)

        return add_foreign


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

    @pytest.fixture
    def server(self, new_server) -> EtcdServer:
        return new_server


class TestCompaction(OnNewEtcd, CompactionTests):
    """CMP-1: history is dropped."""


class TestFull(OnNewEtcd, BackendSuite):
    """The server's quota is used up."""

    test_refused_writes_change_nothing = ConditionTests.test_refused_writes_change_nothing

    @pytest.fixture
    def refusal(self, server) -> Stall:
        def alarm(action: str) -> None:
            url = f"{server.client_url}/v3/maintenance/alarm"
            data = json.dumps({"action": action, "alarm": "NOSPACE"}).encode()
            urllib.request.urlopen(url, data, timeout=PATIENCE).close()

        @contextlib.contextmanager
        def full() -> Iterator[None]:
            alarm("ACTIVATE")
            yield
            alarm("DEACTIVATE")

        return full


class TestOperatorSteps(OnNewEtcd, OperatorStepTests):
    """The fence."""


class TestCacher(OnNewEtcd, CacherTests):
    """The cache over it."""
