"""Every public call that takes a number: which ones it takes, and that it refuses all else by name,
before anything is done."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import pytest

from revstore import aio
from revstore.cacher import Cacher, CacherConfig
from revstore.errors import Closed, InvalidArgument, NotReady, StorageError, Timeout
from revstore.factory import StorageFactory
from revstore.memory import MemoryBackend
from revstore.registry import Registry
from revstore.resource_type import ResourceType
from revstore.storage import Storage, WithTTL
from revstore.typed import TypedStorage
from revstore.watch_selector import WatchSelector

PODS: ResourceType[dict[str, Any]] = ResourceType(dict, "/pods")


@attrs.frozen
class Parts:
    """All that has calls."""

    backend: MemoryBackend
    storage: Storage[Any]
    registry: Registry[Any]
    factory: StorageFactory

    def aio(self, call: Callable[[Any], Any], of: Callable[[Any], Any] = aio.AsyncStorage) -> Any:
        """Call a method of the asyncio facade."""

        async def run() -> Any:
            return await call(of(self.storage))

        return asyncio.run(run())


@pytest.fixture(params=["raw", "cached"])
def parts(request: pytest.FixtureRequest) -> Iterator[Parts]:
    with MemoryBackend() as backend, StorageFactory("memory://") as factory:
        storage: Storage[Any] = TypedStorage(backend, PODS)
        if request.param == "cached":
            storage = cache = Cacher(CacherConfig(storage=storage, resource_type=PODS))
            cache.wait_ready(20)
        with storage:
            made = storage.create(KEY, pod("a"))
            storage.get(KEY, resource_version=made["metadata"]["resourceVersion"], timeout=20)
            yield Parts(backend, storage, Registry(storage, resource_prefix="/pods"), factory)


def pod(name: str, **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "default"}, **more}


def poll(watch: Any, value: Any) -> Any:
    with watch:
        return watch.poll(value)


def select(value: Any) -> Any:
    with WatchSelector() as selector:
        return selector.select(value)


def lease(parts: Parts, method: str, *args: Any, **options: Any) -> Any:
    leases = parts.backend.leases()
    return getattr(leases, method)(*args, **options)


async def poll_async(storage: Any, value: Any) -> Any:
    async with storage.watch("/pods") as watch:
        return await watch.poll(value)


Call = Callable[[Parts, Any], Any]
KEY = "/pods/default/a"

#: By the argument's name and what takes it: whole numbers from 0.
WHOLE: dict[str, Call] = {
    "limit of list": lambda p, v: p.storage.list("/pods", limit=v),
    "limit of list, any state": lambda p, v: p.storage.list("/pods", limit=v, resource_version="0"),
    "limit of list of one": lambda p, v: p.storage.list(KEY, recursive=False, limit=v),
    "limit of registry": lambda p, v: p.registry.list(limit=v),
    "limit of aio": lambda p, v: p.aio(lambda s: s.list("/pods", limit=v)),
    "limit of backend": lambda p, v: p.backend.list("/", limit=v),
    "ttl of create": lambda p, v: p.storage.create("/pods/default/b", pod("b"), ttl=v),
    "ttl of registry": lambda p, v: p.registry.create(pod("b"), ttl=v),
    "ttl of update": lambda p, v: p.storage.guaranteed_update(KEY, lambda o, _: WithTTL(o, v)),
    "ttl of registry's update": lambda p, v: p.registry.guaranteed_update(
        "a", lambda o, _: WithTTL(o, v)
    ),
    "ttl of aio": lambda p, v: p.aio(lambda s: s.create("/pods/default/b", pod("b"), ttl=v)),
    "ttl of grant": lambda p, v: lease(p, "grant", v),
    "lease of grant": lambda p, v: lease(p, "grant", 10, lease=v),
    "lease of get": lambda p, v: lease(p, "get", v),
    "lease of keep_alive": lambda p, v: lease(p, "keep_alive", v),
    "lease of revoke": lambda p, v: lease(p, "revoke", v),
    "ttl of transaction": lambda p, v: p.backend.transaction(lambda t: t.put("/x", b"", ttl=v)),
    "lease of transaction": lambda p, v: p.backend.transaction(lambda t: t.put("/x", b"", lease=v)),
    "limit of transaction": lambda p, v: p.backend.transaction(lambda t: t.list("/", limit=v)),
    "revision of get": lambda p, v: p.backend.get("/x", revision=v),
    "revision of list": lambda p, v: p.backend.list("/x", revision=v),
    "revision of count": lambda p, v: p.backend.count("/x", revision=v),
    "revision of compact": lambda p, v: p.backend.compact(v),
    "revision of raise_revision": lambda p, v: p.backend.raise_revision(v),
    "expected_revision of put": lambda p, v: p.backend.put("/x", b"", expected_revision=v),
    "expected_revision of delete": lambda p, v: p.backend.delete("/x", expected_revision=v),
    "after_revision of watch": lambda p, v: p.backend.watch("/", recursive=True, after_revision=v),
    "capacity of factory": lambda p, v: p.factory.storage(
        dict, resource="pods", cached=True, capacity=v
    ),
}
NO_WHOLE = [1 << 63, 1 << 64, "3", None, True, 1.0, math.nan, math.inf, b"3"]
#: Where None has a meaning of its own.
NONE_IS_FINE = {"ttl of transaction", "lease of transaction", "capacity of factory"}
#: An id of a lease may be any number of 64 bits.
SIGNED = {name for name in WHOLE if name.startswith("lease")}

#: What takes seconds: any number but NaN.
TIMED: dict[str, Call] = {
    "create": lambda p, v: p.storage.create("/pods/default/b", pod("b"), timeout=v),
    "get": lambda p, v: p.storage.get(KEY, timeout=v),
    "get, any state": lambda p, v: p.storage.get(KEY, resource_version="0", timeout=v),
    "list": lambda p, v: p.storage.list("/pods", timeout=v),
    "delete": lambda p, v: p.storage.delete(KEY, timeout=v),
    "guaranteed_update": lambda p, v: p.storage.guaranteed_update(KEY, lambda o, _: o, timeout=v),
    "watch": lambda p, v: p.storage.watch("/pods", timeout=v).close(),
    "changes": lambda p, v: p.storage.changes("/pods", timeout=v).close(),
    "count": lambda p, v: p.storage.count("/pods", timeout=v),
    "stats": lambda p, v: p.storage.stats(timeout=v),
    "current_revision": lambda p, v: p.storage.current_revision(timeout=v),
    "compact_revision": lambda p, v: p.storage.compact_revision(timeout=v),
    "ready": lambda p, v: p.storage.ready(timeout=v),
    "registry's create": lambda p, v: p.registry.create(pod("b"), timeout=v),
    "registry's get": lambda p, v: p.registry.get("a", timeout=v),
    "registry's list": lambda p, v: p.registry.list(timeout=v),
    "registry's update": lambda p, v: p.registry.update(pod("a", n=1), timeout=v),
    "registry's apply": lambda p, v: p.registry.apply(pod("a", n=1), timeout=v),
    "registry's delete": lambda p, v: p.registry.delete("a", timeout=v),
    "registry's watch": lambda p, v: p.registry.watch(timeout=v).close(),
    "aio's get": lambda p, v: p.aio(lambda s: s.get(KEY, timeout=v)),
    "aio's list": lambda p, v: p.aio(lambda s: s.list("/pods", timeout=v)),
    "grant": lambda p, v: lease(p, "grant", 10, timeout=v),
    "list of leases": lambda p, v: lease(p, "list", timeout=v),
    "leases": lambda p, v: p.backend.leases(timeout=v),
    "transactions": lambda p, v: p.backend.transactions([], timeout=v),
    "transaction": lambda p, v: p.backend.transaction(lambda t: None, timeout=v),
    "remaining_ttl": lambda p, v: p.backend.remaining_ttl("/x", timeout=v),
    "raise_revision": lambda p, v: p.backend.raise_revision(1, timeout=v),
    "fence": lambda p, v: p.backend.fence("why", timeout=v),
    "unfence": lambda p, v: p.backend.unfence(timeout=v),
}
POLLED: dict[str, Call] = {
    "poll": lambda p, v: poll(p.storage.watch("/pods", send_initial_events=True), v),
    "backend's poll": lambda p, v: poll(p.backend.watch("/", recursive=True, after_revision=0), v),
    "feed's poll": lambda p, v: poll(p.storage.changes("/pods"), v),
    "select": lambda p, v: select(v),
    "aio's poll": lambda p, v: p.aio(lambda s: poll_async(s, v)),
}
NO_SECONDS = ["3", True, math.nan, b"3", 1j]


def shown(value: Any) -> str:
    return repr(value)[:8]


@pytest.mark.parametrize("value", NO_WHOLE, ids=shown)
@pytest.mark.parametrize("name", WHOLE)
def test_what_is_no_whole_number(parts: Parts, name: str, value: Any) -> None:
    """It is refused by name, and nothing is changed."""
    if value is None and name in NONE_IS_FINE:
        return
    before = parts.backend.status().revision
    with pytest.raises(InvalidArgument) as raised:
        WHOLE[name](parts, value)
    assert raised.value.field == name.partition(" ")[0]
    assert parts.backend.status().revision == before


@pytest.mark.parametrize("name", sorted(WHOLE.keys() - SIGNED))
def test_below_zero(parts: Parts, name: str) -> None:
    """It is refused by name."""
    with pytest.raises(InvalidArgument) as raised:
        WHOLE[name](parts, -1)
    assert raised.value.field == name.partition(" ")[0]


@pytest.mark.parametrize("value", NO_SECONDS, ids=shown)
@pytest.mark.parametrize("name", [*TIMED, *POLLED])
def test_what_is_no_number_of_seconds(parts: Parts, name: str, value: Any) -> None:
    """It is refused by name, and nothing is changed."""
    before = parts.backend.status().revision
    with pytest.raises(InvalidArgument) as raised:
        (TIMED | POLLED)[name](parts, value)
    assert raised.value.field == "timeout"
    assert parts.backend.status().revision == before


@pytest.mark.parametrize("value", [None, math.inf, 1 << 63, 10**400, 30], ids=shown)
@pytest.mark.parametrize("name", TIMED)
def test_any_timeout(parts: Parts, name: str, value: Any) -> None:
    """None and infinity too, and a number longer than a float can be."""
    TIMED[name](parts, value)


@pytest.mark.parametrize("value", [-1, -math.inf, 0], ids=shown)
@pytest.mark.parametrize("name", TIMED)
def test_a_timeout_that_is_over(parts: Parts, name: str, value: Any) -> None:
    """The call answers, or says that its time is over."""
    try:
        TIMED[name](parts, value)
    except StorageError as error:
        assert isinstance(error, Timeout | NotReady | Closed), repr(error)  # noqa: PT017
