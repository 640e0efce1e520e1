"""Metrics: what a scrape shows after known actions, what it costs, and how it ends."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import attrs
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from revstore import metrics
from revstore.cacher import Cacher, CacherConfig, CacherCounters
from revstore.config import StorageConfig
from revstore.errors import Expired, InvalidArgument, NotReady, Timeout, Unreachable
from revstore.factory import StorageFactory, open_storage
from revstore.kinds import ResourceInfo
from revstore.memory import MemoryBackend
from revstore.metrics import Collector
from revstore.metrics._table import CACHE_METRICS, METRICS
from revstore.objects import ObjectMeta
from revstore.resource_type import ResourceType
from revstore.storage import Stats
from revstore.testing._support import run_threads, wait_until
from revstore.typed import TypedStorage

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


@attrs.frozen(kw_only=True)
class Pod:
    metadata: ObjectMeta
    node: str = ""


@attrs.frozen(kw_only=True)
class Node:
    metadata: ObjectMeta


def pod(name: str) -> Pod:
    return Pod(metadata=ObjectMeta(name=name, namespace="a"))


def moved(found, _):
    return attrs.evolve(found, node="n1")


class Scrape:
    """The samples of one scrape, by way of the text that Prometheus reads."""

    def __init__(self, registry: CollectorRegistry) -> None:
        text = generate_latest(registry).decode()
        self.kinds = {}
        self.samples = {}
        for family in text_string_to_metric_families(text):
            self.kinds[family.name] = family.type
            for sample in family.samples:
                at = (sample.name, frozenset(sample.labels.items()))
                assert at not in self.samples, f"twice: {at}"
                self.samples[at] = sample.value

    def value(self, name: str, resource: str = "pods", group: str = "", **more: str):
        labels = {"group": group, "resource": resource, **more}
        return self.samples.get((name, frozenset(labels.items())))

    def of_stores(self):
        name = "apiserver_storage_size_bytes"
        sizes = {labels: value for (of, labels), value in self.samples.items() if of == name}
        return {dict(labels)["storage_cluster_id"]: value for labels, value in sizes.items()}

    @property
    def resources(self) -> set[str]:
        all_labels = [dict(labels) for _, labels in self.samples]
        return {labels["resource"] for labels in all_labels if "resource" in labels}


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def backend() -> Iterator[MemoryBackend]:
    with MemoryBackend() as backend:
        yield backend


@pytest.fixture
def open_cache(backend):
    with ExitStack() as stack:

        def open_cache(**options):
            storage = TypedStorage(backend, ResourceType(Pod, "/pods"))
            config = CacherConfig(
                storage=storage, resource_type=ResourceType(Pod, "/pods"), **options
            )
            cache = stack.enter_context(Cacher(config))
            cache.wait_ready()
            return cache

        yield open_cache


@pytest.fixture(params=["memory", "sqlite"])
def config(request, tmp_path) -> StorageConfig:
    url = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/store.db"
    return StorageConfig.from_url(url)


def test_values_after_known_actions(config, registry):
    """STAT-5, STAT-6, STAT-7: events, lists, initial events, watches, fillings and the version of
    a cache, and the objects of each resource, are what was done, with group and resource."""
    with StorageFactory(config) as factory:
        metrics.register(factory, registry=registry)
        pods = factory.storage(Pod, cached=True)
        nodes = factory.storage(Node)
        widgets = factory.storage(Pod, resource="widgets.example.com")
        pods.wait_ready()
        for name in "abc":
            pods.create(f"/pods/a/{name}", pod(name))
        pods.guaranteed_update("/pods/a/b", moved)
        pods.delete("/pods/a/a")
        nodes.create("/nodes/n1", Node(metadata=ObjectMeta(name="n1")))
        widgets.create("/example.com/widgets/a/w", pod("w"))
        pods.list("/pods")
        pods.list("/pods", limit=1, resource_version="1", resource_version_match="Exact")
        with pods.watch("/pods", resource_version="0") as watch:
            while watch.poll(0):
                pass
            version = pods.current_revision()
            wait_until(lambda: pods.counters.resource_version == version, "the cache is fresh")
            scrape = Scrape(registry)
        counters, stats = pods.counters, pods.stats()

    value = scrape.value
    assert value("apiserver_watch_cache_events_received_total") == 5
    assert value("apiserver_watch_cache_initializations_total") == 1
    assert value("apiserver_watch_cache_initialization_errors_total") == 0
    assert value("apiserver_watch_cache_initialization_duration_seconds") > 0
    assert value("apiserver_watch_cache_resource_version") == version
    assert value("apiserver_watch_cache_read_wait_seconds_count") == counters.read_waits
    assert value("apiserver_watch_cache_read_wait_seconds_sum") == counters.read_wait_seconds
    assert value("apiserver_watch_cache_consistent_read_total", fallback="true") == 0
    assert value("watch_cache_capacity") == 102_400
    listed = "apiserver_storage_list_total"
    assert value(listed, storage="watchcache") == counters.served_by_cache
    assert value(listed, storage="etcd") == counters.served_by_store
    assert counters.served_by_cache + counters.served_by_store == 2
    assert value("apiserver_init_events_total") == 2
    assert value("apiserver_terminated_watchers_total") == 0
    assert value("revstore_watch_cache_objects") == 2
    assert value("revstore_watch_cache_watches") == 1
    assert value("revstore_watch_cache_watches_max") == 1
    assert value("revstore_watch_cache_log_events") == 5
    for resource, group, count in [
        ("pods", "", 2),
        ("nodes", "", 1),
        ("widgets", "example.com", 1),
    ]:
        assert value("apiserver_resource_objects", resource, group) == count
    old = {
        dict(labels)["resource"] for name, labels in scrape.samples if name.endswith("e_objects")
    }
    assert {"pods", "nodes", "widgets.example.com"} <= old
    size = value("apiserver_resource_size_estimate_bytes")
    assert size == stats.object_count * stats.average_size > 0
    assert scrape.resources == {"pods", "nodes", "widgets", "widgets.example.com"}
    assert value("apiserver_watch_cache_initializations_total", "nodes") is None


def test_names_and_types(registry, open_cache):
    """STAT-5, STAT-7: what is scraped has the names, types and labels that are declared, and all
    that is declared of a cache is scraped."""
    collector = metrics.register(registry=registry)
    collector.add(open_cache(), resource="pods")
    scrape = Scrape(registry)

    declared = {each.name.removesuffix("_total"): each for each in METRICS}
    assert {name: str(declared[name].kind) for name in scrape.kinds} == scrape.kinds
    assert {each.metric.name.removesuffix("_total") for each in CACHE_METRICS} <= set(scrape.kinds)
    for name, labels in scrape.samples:
        metric = declared[re.sub("_(total|count|sum)$", "", name)]
        assert {label for label, _ in labels} == set(metric.labels)
    assert [each.name for each in collector.describe()] == list(declared)


def test_a_watch_that_fell_behind(registry, open_cache):
    """STAT-7, DISP-6: watches that the log has left behind are counted, as is the log's high
    water."""
    cache = open_cache(capacity=4)
    metrics.register(registry=registry).add(cache, resource="pods")
    with cache.watch("/pods", resource_version=str(cache.current_revision())) as watch:
        for number in range(400):
            cache.create(f"/pods/a/{number}", pod(str(number)))
        wait_until(lambda: cache.counters.events_received == 400, "the cache is fresh")
        with pytest.raises(Expired):
            watch.poll(0)
    scrape = Scrape(registry)

    assert scrape.value("apiserver_terminated_watchers_total") == 1
    assert scrape.value("watch_cache_capacity") == 4
    assert scrape.value("revstore_watch_cache_log_events_max") >= 4


def test_consistency_checks(registry, backend, open_cache):
    """STAT-7: checks against the store are counted by how they came out."""
    cache = open_cache()
    metrics.register(registry=registry).add(cache, resource="pods")
    cache.check_consistency()
    cache.check_consistency()
    name = "apiserver_storage_consistency_checks_total"
    scrape = Scrape(registry)

    assert scrape.value(name, status="success") == 2
    assert scrape.value(name, status="failure") == 0


def test_objects_are_counted_now_and_then(registry, backend):
    """STAT-3: a scrape within the period shows what was counted before; one after it counts again,
    and with period 0 nothing is counted."""
    storage = TypedStorage(backend, ResourceType(Pod, "/pods"))
    rare, often, never = (Collector(count_period=period) for period in (3600.0, 1e-9, 0.0))
    registries = []
    for collector in (rare, often, never):
        collector.add(storage, resource=ResourceInfo("pods", "Pod"))
        registries.append(CollectorRegistry())
        registries[-1].register(collector)
    shown = []
    for name in "ab":
        storage.create(f"/pods/a/{name}", pod(name))
        shown.append([Scrape(each).value("apiserver_resource_objects") for each in registries])

    assert shown == [[1, 1, None], [1, 2, None]]


def test_the_period_is_the_configurations(registry, tmp_path):
    """STAT-3: ``count_metric_poll_period`` of the resource's configuration counts; 0 is off."""
    config = StorageConfig(type="memory", overrides={"nodes": {"count_metric_poll_period": 0.0}})
    with StorageFactory(config) as factory:
        metrics.register(factory, registry=registry)
        factory.storage(Pod)
        factory.storage(Node)
        scrape = Scrape(registry)

    assert scrape.value("apiserver_resource_objects", "pods") == 0
    assert scrape.value("apiserver_resource_size_estimate_bytes", "pods") == 0
    assert scrape.value("apiserver_resource_objects", "nodes") is None


class Moody(MemoryBackend):
    """A backend that counts only while ``reachable``."""

    reachable = True
    counted = 0

    def count(self, *arguments, **options):
        self.counted += 1
        if not self.reachable:
            raise Unreachable("nobody answered")
        return super().count(*arguments, **options)


def test_the_size_of_stores(tmp_path):
    """STAT-5: each store of a factory tells what it takes, asked as often as the configuration
    says; a memory store cannot tell."""
    others = {
        "events": {"type": "sqlite", "options": {"path": str(tmp_path / "events.db")}},
        "nodes": {"type": "memory"},
    }
    sizes = {}
    for period in (3600.0, 1e-9, 0.0):
        config = StorageConfig(
            type="sqlite",
            options={"path": str(tmp_path / f"{period}.db")},
            overrides=others,
            db_metric_poll_interval=period,
        )
        with StorageFactory(config) as factory:
            own = CollectorRegistry()
            metrics.register(factory, registry=own)
            factory.backend("events")
            factory.backend("nodes")
            storage = factory.storage(Pod)
            before = Scrape(own).of_stores()
            storage.create("/pods/a/b", attrs.evolve(pod("b"), node="n" * 100_000))
            sizes[period] = before, Scrape(own).of_stores()
            assert factory.backend().size() > 100_000
    rare, often, never = sizes.values()

    assert rare[0].keys() == often[0].keys() == {"sqlite-0", "sqlite-1"}
    assert rare[0] == rare[1]
    assert often[1]["sqlite-1"] > 100_000 > often[0]["sqlite-1"]
    assert never == ({}, {})


def test_a_store_that_does_not_tell_its_size(registry, monkeypatch, caplog):
    """STAT-5: a failure shows -1, and the rest of the scrape is there."""

    def unreachable(*, timeout):
        raise Unreachable("nobody answered")

    with StorageFactory("memory://") as factory:
        metrics.register(factory, registry=registry)
        factory.storage(Pod)
        monkeypatch.setattr(factory.backend(), "size", unreachable)
        scrape = Scrape(registry)

    assert scrape.of_stores() == {"memory-0": -1}
    assert scrape.value("apiserver_resource_objects") == 0
    assert "nobody answered" in caplog.text


def test_a_count_that_fails(registry, caplog):
    """STAT-3: what could not be counted is -1, until it is counted again."""
    with Moody() as backend:
        collector = Collector(count_period=1e-9)
        registry.register(collector)
        collector.add(TypedStorage(backend, ResourceType(Pod, "/pods")), resource="pods")
        shown = []
        for backend.reachable in (True, False, True):
            scrape = Scrape(registry)
            names = ["apiserver_resource_objects", "apiserver_resource_size_estimate_bytes"]
            shown.append([scrape.value(name) for name in names])

    assert shown == [[0, 0], [-1, -1], [0, 0]]
    assert [record.getMessage() for record in caplog.records] == [
        "counting the objects for metrics failed: nobody answered"
    ]


def test_a_store_in_trouble_is_left_alone(registry):
    """STAT-3: after a failure too the next count is a period away."""
    with Moody() as backend:
        backend.reachable = False
        collector = metrics.register(registry=registry)
        collector.add(TypedStorage(backend, ResourceType(Pod, "/pods")), resource="pods")
        Scrape(registry)
        backend.reachable = True
        scrape = Scrape(registry)

    assert backend.counted == 1
    assert scrape.value("apiserver_resource_objects") == -1


class Sized(TypedStorage):
    def stats(self, *, timeout=None):
        return Stats(3, 0)


def test_objects_without_a_known_size(registry, backend):
    """STAT-3: the size is -1 where there are objects but no size is known."""
    metrics.register(registry=registry).add(
        Sized(backend, ResourceType(Pod, "/pods")), resource="pods"
    )
    scrape = Scrape(registry)

    assert scrape.value("apiserver_resource_objects") == 3
    assert scrape.value("apiserver_resource_size_estimate_bytes") == -1


class Slow(TypedStorage):
    """Its counts take all the time they are given."""

    def stats(self, *, timeout=None):
        threading.Event().wait(timeout)
        raise Timeout("counting took too long")


def test_a_scrape_ends_in_time(backend):
    """STAT-3: counting is given ``timeout`` seconds a scrape; what it did not get to is not there
    yet, and comes with the next."""
    collector = Collector(timeout=0.5)
    collector.add(Slow(backend, ResourceType(Node, "/nodes")), resource="nodes")
    collector.add(TypedStorage(backend, ResourceType(Pod, "/pods")), resource="pods")
    registry = CollectorRegistry()
    registry.register(collector)
    name = "apiserver_resource_objects"

    first = Scrape(registry)
    assert (first.value(name, "nodes"), first.value(name, "pods")) == (-1, None)
    second = Scrape(registry)
    assert (second.value(name, "nodes"), second.value(name, "pods")) == (-1, 0)


def test_what_is_closed_is_told_of_no_more(registry, open_cache, backend):
    """STAT-3: a closed cache, storage or factory has no metrics, nor an error."""
    cache = open_cache()
    storage = TypedStorage(backend, ResourceType(Node, "/nodes"))
    collector = Collector(count_period=1e-9)
    registry.register(collector)
    collector.add(cache, resource="pods")
    collector.add(storage, resource="nodes")
    with StorageFactory("memory://") as factory:
        collector.add(factory)
        closed_early = factory.storage(Pod, resource="widgets.example.com", cached=True)
        factory.storage(Pod, resource="gadgets.example.com", cached=True)
        everything = {"pods", "nodes", "widgets", "gadgets"}
        assert everything <= Scrape(registry).resources
        closed_early.close()
        assert Scrape(registry).resources & everything == {"pods", "nodes", "gadgets"}
    assert Scrape(registry).resources == {"pods", "nodes"}
    cache.close()
    assert Scrape(registry).resources == {"nodes"}
    storage.close()
    assert Scrape(registry).resources == set()
    assert collector._storages == {}


class Unready(MemoryBackend):
    def list(self, *arguments, **options):
        raise Unreachable("nobody answered")


def test_a_cache_that_is_not_ready(registry):
    """STAT-7: a cache that cannot be filled shows version 0 and the errors."""
    with Unready() as backend:
        storage = TypedStorage(backend, ResourceType(Pod, "/pods"))
        config = CacherConfig(storage=storage, resource_type=ResourceType(Pod, "/pods"))
        with Cacher(config) as cache:
            metrics.register(registry=registry).add(cache, resource="pods")
            wait_until(lambda: cache.counters.initialization_errors > 0, "filling fails")
            with pytest.raises(NotReady):
                cache.ready()
            scrape = Scrape(registry)

    assert scrape.value("apiserver_watch_cache_resource_version") == 0
    assert scrape.value("apiserver_watch_cache_initializations_total") == 0
    assert scrape.value("apiserver_watch_cache_initialization_errors_total") > 0


def test_caches_of_one_resource(registry, open_cache):
    """A resource is reported once, however many hold it: numbers add up, the version is that of
    the cache furthest behind, and objects are counted once."""
    collector = metrics.register(registry=registry)
    for cache in (open_cache(), open_cache(capacity=10)):
        collector.add(cache, resource="pods")
    cache.create("/pods/a/x", pod("x"))
    for each in collector._storages:
        wait_until(lambda cache=each: cache.counters.events_received == 1, "it is there")
    scrape = Scrape(registry)

    assert scrape.value("apiserver_watch_cache_events_received_total") == 2
    assert scrape.value("apiserver_watch_cache_initializations_total") == 2
    assert scrape.value("watch_cache_capacity") == 102_410
    assert scrape.value("apiserver_watch_cache_resource_version") == cache.current_revision()
    assert scrape.value("apiserver_resource_objects") == 1


def test_merging():
    """Every counter has a part in the sum; versions and high-water marks do not add up."""
    one = CacherCounters(**{field.name: 3 for field in attrs.fields(CacherCounters)})
    two = CacherCounters(**{field.name: 5 for field in attrs.fields(CacherCounters)})
    apart = {
        "initialization_seconds": 5,
        "watches_max": 5,
        "log_length_max": 5,
        "resource_version": 3,
    }

    assert attrs.asdict(one.merged(two)) == {**dict.fromkeys(attrs.asdict(one), 8), **apart}
    assert one.merged(two) == two.merged(one)


def test_long_versions(registry):
    """STAT-7: of a version the last 15 digits are shown, which a float can hold."""
    (metric,) = [
        each for each in CACHE_METRICS if each.metric.name.endswith("cache_resource_version")
    ]
    counters = CacherCounters(resource_version=7 * 10**15 + 123)

    assert list(metric.samples(counters)) == [((), 123)]


def test_unregister_and_remove(registry, open_cache):
    """A registry takes one collector; what is removed from it, or it from the registry, is not
    shown any more."""
    cache = open_cache()
    collector = metrics.register(registry=registry)
    collector.add(cache, resource="pods")
    with pytest.raises(ValueError, match="Duplicated"):
        metrics.register(registry=registry)
    collector.remove(cache)
    collector.remove(cache)
    assert Scrape(registry).samples == {}
    collector.add(cache, resource="things.example.com")
    assert "things" in Scrape(registry).resources
    registry.unregister(collector)
    assert Scrape(registry).samples == {}

    other = metrics.register(registry=registry)
    with StorageFactory("memory://") as factory:
        other.add(factory)
        factory.storage(Pod)
        assert Scrape(registry).resources == {"pods"}
        other.remove(factory)
        assert Scrape(registry).resources == set()


def test_bad_sources(backend, open_cache):
    """A storage by itself needs its resource, and only known kinds of source are taken."""
    collector = Collector()
    with pytest.raises(InvalidArgument, match="resource"):
        collector.add(open_cache())
    with pytest.raises(InvalidArgument, match="source"):
        collector.add(backend)
    with pytest.raises(InvalidArgument, match="source"):
        Collector("memory://")
    assert collector.collect() == []


def test_nothing_is_done_between_scrapes(registry):
    """Registering starts no thread and asks the store nothing."""
    with Moody() as backend:
        storage = TypedStorage(backend, ResourceType(Pod, "/pods"))
        threads = threading.active_count()
        collector = metrics.register(registry=registry)
        collector.add(storage, resource="pods")
        assert (threading.active_count(), backend.counted) == (threads, 0)
        Scrape(registry)
        assert (threading.active_count(), backend.counted) == (threads, 1)


def test_scrapes_at_once(registry):
    """Many scrapes at once, while storages come and go, are each whole; objects are counted once
    a period."""
    with StorageFactory("memory://") as factory:
        metrics.register(factory, registry=registry)
        first = factory.storage(Pod, cached=True)
        first.create("/pods/a/x", pod("x"))

        def work(index: int) -> None:
            for number in range(10):
                if index == 0:
                    factory.storage(Pod, resource=f"w{number}.example.com", cached=True)
                elif index == 1:
                    first.create(f"/pods/a/{number}", pod(str(number)))
                else:
                    scrape = Scrape(registry)
                    assert scrape.value("apiserver_resource_objects") >= 1
                    assert scrape.value("watch_cache_capacity") == 102_400

        run_threads(5, work)
        assert len(Scrape(registry).resources) == 1 + 2 * 10


def test_single_storages_of_open_storage(registry, tmp_path):
    """What ``open_storage`` gives, cached or not, can be read by itself."""
    with open_storage(f"sqlite:///{tmp_path}/store.db", Pod, cached=True) as pods:
        metrics.register(registry=registry).add(pods, resource="pods")
        pods.create("/pods/a/x", pod("x"))
        wait_until(lambda: pods.counters.objects == 1, "it is in the cache")
        scrape = Scrape(registry)

    assert scrape.value("revstore_watch_cache_objects") == 1
    assert scrape.value("apiserver_resource_objects") == 1


def test_without_the_client():
    """Without prometheus-client the import of the module, and a configuration that asks for the
    wrapper, fail with the pip line; the error names the wrapper. All else works."""
    code = """
import sys
sys.modules["prometheus_client"] = None
import revstore
from revstore.errors import BackendBroken
from revstore.plugins import open_backend
open_backend(revstore.StorageConfig(type="memory")).close()
try:
    import revstore.metrics
except ModuleNotFoundError as error:
    print(error)
try:
    open_backend(revstore.StorageConfig(type="memory", wrappers=["metrics"]))
except BackendBroken as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")
    module, wrapper = done.stdout.splitlines()
    assert "pip install 'revstore[metrics]'" in module
    assert wrapper.startswith("wrapper 'metrics' ")
    assert "pip install 'revstore[metrics]'" in wrapper


def test_every_metric_is_described():
    """docs/metrics.md has a row for each metric: name, type, labels and meaning."""
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| ([^|]*) \| ([^|]+) \|$", PAGE.read_text(), re.M)
    declared = [
        (each.name, str(each.kind), ", ".join(each.labels), each.meaning) for each in METRICS
    ]

    assert rows == declared
