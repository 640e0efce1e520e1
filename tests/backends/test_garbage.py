"""What a call has used is free once it has returned, and does not wait for a garbage collection,
which may be far away: a process with few objects may hold large values for long."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from revstore.backend import Backend
from revstore.config import StorageConfig
from revstore.errors import StorageError
from revstore.factory import StorageFactory
from revstore.memory import MemoryBackend
from revstore.plugins import open_backend
from revstore.registry import Registry
from revstore.testing.etcd import EtcdServer
from revstore.testing.fixtures import etcd_binary
from revstore.values import Capability
from revstore_sqlite._backend import SQLiteBackend

KINDS = ("memory", "sqlite", "etcd3", "etcd2")


@pytest.fixture(scope="module")
def server() -> Iterator[EtcdServer]:
    """A server of both APIs."""
    with EtcdServer(etcd_binary(), enable_v2=True) as started:
        yield started.start()


@pytest.fixture(params=KINDS)
def config(request: pytest.FixtureRequest, tmp_path: Path) -> StorageConfig:
    if request.param == "memory":
        return StorageConfig(type="memory")
    if request.param == "sqlite":
        return StorageConfig.from_url(f"sqlite:///{tmp_path}/store.db")
    address = request.getfixturevalue("server").address
    return StorageConfig.from_url(f"{request.param}://{address}")


def garbage(call: Callable[[], object]) -> list[str]:
    """The types of the objects that only a collection frees after a call."""
    with suppress(StorageError):
        call()  # what is made once and kept is made now
    # Threads leave garbage too, but not each time.
    return sorted(set.intersection(*(left_by(call) for _ in range(3))))


def left_by(call: Callable[[], object]) -> set[str]:
    gc.freeze()  # what was there before is not looked at: the heap of a whole test run is large
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        with suppress(StorageError):
            call()
        gc.collect()
        return {type(each).__qualname__ for each in gc.garbage}
    finally:
        gc.set_debug(0)
        gc.enable()
        gc.garbage.clear()
        gc.unfreeze()


@contextmanager
def open_registry(config: StorageConfig, *, cached: bool) -> Iterator[Registry]:
    with StorageFactory(config) as factory, factory.registry("configmaps", cached=cached) as found:
        yield found


def raw_calls(backend: Backend) -> Iterator[tuple[str, Callable[[], object]]]:
    numbers = iter(range(1000))

    def put() -> None:
        backend.put(f"/garbage/{next(numbers)}", b"x", expected_revision=0)

    def delete() -> None:
        kv = backend.list("/garbage/").kvs[0]
        assert backend.delete(kv.key, expected_revision=kv.revision).succeeded

    def watch() -> None:
        with backend.watch("/garbage/", recursive=True, after_revision=0) as found:
            put()
            while found.poll(5) is None:
                pass

    yield "put", put
    yield "refused put", lambda: backend.put("/garbage/0", b"x", expected_revision=7)
    yield "bad put", lambda: backend.put("", b"x", expected_revision=0)
    yield "get", lambda: backend.get("/garbage/0")
    yield "get of nothing", lambda: backend.get("/garbage/none")
    yield "list", lambda: backend.list("/garbage/")
    yield "count", lambda: backend.count("/garbage/")
    yield "status", backend.status
    if isinstance(backend, (MemoryBackend, SQLiteBackend)):  # those of etcd have threads of streams
        yield "watch", watch
    if Capability.TRANSACTIONS in backend.capabilities:
        yield (
            "transaction",
            lambda: backend.transaction(
                lambda seen: bool(seen.put(f"/garbage/{next(numbers)}", b"x"))
            ),
        )
    yield "delete", delete


def typed_calls(registry: Registry) -> Iterator[tuple[str, Callable[[], object]]]:
    numbers = iter(range(1000))

    def create() -> None:
        registry.create({"metadata": {"name": f"c{next(numbers)}", "namespace": "default"}})

    def update() -> None:
        found = registry.get("c0", namespace="default")
        registry.update(found | {"data": {"n": str(next(numbers))}})

    def stale() -> None:
        found = registry.get("c0", namespace="default")
        found["metadata"]["resourceVersion"] = "1"
        registry.update(found)

    def watch() -> None:
        with registry.watch() as found:
            create()
            while not found.poll(5):
                pass

    yield "create", create
    yield (
        "create again",
        lambda: registry.create({"metadata": {"name": "c0", "namespace": "default"}}),
    )
    yield "get", lambda: registry.get("c0", namespace="default")
    yield "get of nothing", lambda: registry.get("none", namespace="default")
    yield "update", update
    yield "stale update", stale
    yield "list", registry.list
    yield "list by label", lambda: registry.list(label_selector="a=b")
    yield "page", lambda: registry.list(limit=1)
    yield "watch", watch
    yield "delete", lambda: registry.delete(f"c{next(numbers) - 1}", namespace="default")


def test_calls_of_backends(config: StorageConfig) -> None:
    with open_backend(config) as backend:
        found = {name: garbage(call) for name, call in raw_calls(backend)}
    assert {name: types for name, types in found.items() if types} == {}


@pytest.mark.parametrize("cached", [False, True])
def test_calls_of_registries(config: StorageConfig, *, cached: bool) -> None:
    with ExitStack() as stack:
        registry = stack.enter_context(open_registry(config, cached=cached))
        found = {name: garbage(call) for name, call in typed_calls(registry)}
    assert {name: types for name, types in found.items() if types} == {}
