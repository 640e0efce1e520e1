"""The etcd2 backend against bare urllib3 calls to the same server."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from urllib.parse import urlencode

import urllib3

from benchmarks._figures import Figure
from benchmarks._measure import in_turns, seconds
from revstore import StorageConfig
from revstore.backend import Backend
from revstore.plugins import open_backend
from revstore.testing.etcd import EtcdServer, find_etcd

__all__ = ["figures"]

VALUE = b'{"kind":"Pod","spec":"' + b"x" * 976 + b'"}'
WRITES = 300
READS = 500
OBJECTS = 5_000
ROUNDS = 7
TARGET = 1.5
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}
_KEYS = "/v2/keys"


def figures() -> Iterator[Figure]:
    """All figures of this part; none where there is no etcd with the v2 API."""
    binaries = find_etcd()
    if not binaries:
        return
    with EtcdServer(next(iter(binaries.values())), enable_v2=True) as server:
        server.start()
        host, port = server.address.split(":")
        bare = urllib3.HTTPConnectionPool(host, int(port))
        with open_backend(StorageConfig.from_url(f"etcd2://{server.address}")) as backend:
            yield _figure("put", "us", 1e6 / WRITES, _puts(backend, bare))
            yield _figure("get", "us", 1e6 / READS, _gets(backend, bare))
            yield _figure(f"list of {OBJECTS:,}", "ms", 1e3, _lists(backend, bare))
        bare.close()


def _figure(name: str, unit: str, factor: float, found: list[float]) -> Figure:
    ours, bound = found
    return Figure(
        name=name,
        value=ours * factor,
        unit=unit,
        bound=bound * factor,
        bound_name="bare urllib3 and json, the same request",
        relation="<=",
        target=TARGET,
    )


def _key(number: int) -> str:
    return f"/registry/pods/default/pod-{number:08d}"


def _puts(backend: Backend, bare: urllib3.HTTPConnectionPool) -> list[float]:
    numbers = itertools.count()

    def ours() -> None:
        for _ in range(WRITES):
            assert backend.put(_key(next(numbers)), VALUE, expected_revision=0).succeeded

    def plain() -> None:
        for _ in range(WRITES):
            body = urlencode({"value": VALUE.decode(), "prevExist": "false"})
            path = _KEYS + _key(next(numbers))
            answer = bare.urlopen("PUT", path, body=body, headers=_FORM)
            assert answer.status == 201
            json.loads(answer.data)

    return in_turns(ROUNDS, lambda: seconds(ours), lambda: seconds(plain))


def _gets(backend: Backend, bare: urllib3.HTTPConnectionPool) -> list[float]:
    def ours() -> None:
        for number in range(READS):
            assert backend.get(_key(number)).kv is not None

    def plain() -> None:
        for number in range(READS):
            answer = bare.urlopen("GET", f"{_KEYS}{_key(number)}?quorum=true")
            assert json.loads(answer.data)["node"]["value"]

    return in_turns(ROUNDS, lambda: seconds(ours), lambda: seconds(plain))


def _lists(backend: Backend, bare: urllib3.HTTPConnectionPool) -> list[float]:
    for number in range(OBJECTS):
        backend.put(f"/list/{number:06d}", VALUE, expected_revision=0)

    def ours() -> None:
        assert len(backend.list("/list/").kvs) == OBJECTS

    def plain() -> None:
        answer = bare.urlopen("GET", f"{_KEYS}/list?recursive=true&sorted=true&quorum=true")
        assert len(json.loads(answer.data)["node"]["nodes"]) == OBJECTS

    return in_turns(ROUNDS, lambda: seconds(ours), lambda: seconds(plain))
