"""From configuration to storages: sharing, overrides, ownership, health."""

from __future__ import annotations

import threading

import attrs
import pytest

from revstore import kinds
from revstore.cacher import Cacher
from revstore.config import StorageConfig
from revstore.errors import (
    BackendError,
    BackendNotInstalled,
    Closed,
    ConfigError,
    InvalidArgument,
    KeyExists,
    NotReady,
    Unreachable,
)
from revstore.factory import (
    StorageFactory,
    new_raw_storage,
    open_registry,
    open_storage,
    storage_with_cacher,
)
from revstore.objects import ObjectMeta
from revstore.resource_type import ResourceType
from revstore.testing._support import run_threads


@attrs.frozen(kw_only=True)
class Node:
    metadata: ObjectMeta
    zone: str = ""


@attrs.frozen(kw_only=True)
class Widget:
    metadata: ObjectMeta
    size: int = 0


def node(name: str, **fields: object) -> Node:
    return Node(metadata=ObjectMeta(name=name), **fields)


def pod(name: str, namespace: str = "a") -> dict:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace}}


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/store.db"


def test_open_storage_by_url(url):
    """A URL and a type are enough; keys are the type's plural, as kubectl's."""
    with open_storage(url, Node) as storage:
        storage.create("/nodes/n1", node("n1", zone="a"))
    with open_storage(url, Node) as storage:
        assert storage.get("/nodes/n1").zone == "a"
        assert [each.metadata.name for each in storage.list("/nodes")] == ["n1"]


@pytest.mark.parametrize("where", ["url", "toml", "config", "env"])
def test_every_way_to_say_where(where, url, tmp_path, monkeypatch):
    """From a URL, a TOML file, code, or the environment."""
    path = tmp_path / "store.toml"
    path.write_text(f'url = "{url}"\n')
    monkeypatch.setenv("REVSTORE_URL", url)
    given = {
        "url": url,
        "toml": path,
        "config": StorageConfig(type="sqlite", options={"path": str(tmp_path / "store.db")}),
        "env": None,
    }[where]

    with open_storage(given, Node) as storage:
        storage.create("/nodes/n1", node("n1"))

    assert (tmp_path / "store.db").stat().st_size > 0


def test_unset_type_is_sqlite_or_etcd3(tmp_path, monkeypatch):
    """CFG-1: no type means etcd3 if there are servers, else the embedded default."""
    monkeypatch.chdir(tmp_path)
    with open_storage(StorageConfig(), Node) as storage:
        storage.create("/nodes/n1", node("n1"))
    assert (tmp_path / "revstore.db").exists()
    with (
        open_storage(StorageConfig(server_list=("127.0.0.1:1",)), Node) as storage,
        pytest.raises(Unreachable, match="etcd at 127"),
    ):
        storage.get("/nodes/n1", timeout=1)


def test_closing_a_storage_closes_its_backend(url):
    """Close replaces DestroyFunc; nothing that was opened is left."""
    before = threading.active_count()
    storage = open_storage(url, Node)
    watch = storage.watch("/nodes")
    storage.close()
    storage.close()

    with pytest.raises(Closed):
        storage.get("/nodes/n1")
    with pytest.raises(Closed):
        watch.poll(0)
    assert threading.active_count() == before


def test_open_registry_by_names(url):
    """Names instead of keys; the scope of known kinds is Kubernetes'."""
    with open_registry(url, Node) as nodes, open_registry(url, Widget) as widgets:
        nodes.create(node("n1"))
        widgets.create(Widget(metadata=ObjectMeta(name="w"), size=3))
        assert nodes.get("n1").metadata.namespace == ""
        assert widgets.get("w").metadata.namespace == "default"
    with open_storage(url, Widget, resource="widgets") as storage:
        assert storage.get("/widgets/default/w").size == 3


def test_a_failed_opening_leaves_nothing_open(url):
    """CFG-6: partial failure releases what was opened."""
    before = threading.active_count()
    with pytest.raises(InvalidArgument, match="resource_prefix"):
        new_raw_storage(url, ResourceType(Node, "nodes"))
    with pytest.raises(TypeError):
        open_registry(url, int)
    assert threading.active_count() == before


def test_where_the_compactor_cannot_start_nothing_is_left_open(url, monkeypatch):
    """CFG-6: the store is closed again if the machine has no room for one more thread."""
    start = threading.Thread.start

    def refuse(thread):
        if thread.name == "revstore-compactor":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    before = threading.active_count()
    with pytest.raises(BackendError, match="revstore-compactor"):
        open_storage(url, Node)
    assert threading.active_count() == before


def test_storage_with_cacher(url):
    """OLD-27, BOOK-7, DEC-1: the same storage behind a cache; capacity 0 is none; closing it, or
    failing to make it, leaves nothing open."""
    before = threading.active_count()
    with storage_with_cacher(url, Node, indexed_fields=("zone",)) as cached:
        assert isinstance(cached, Cacher)
        cached.create("/nodes/n1", node("n1", zone="a"))
        assert len(cached.list("/nodes", field_selector="zone=a")) == 1
        assert cached.get("/nodes/n1", resource_version="0").zone == "a"
    with storage_with_cacher(url, Node, capacity=0) as raw:
        assert not isinstance(raw, Cacher)
        assert raw.get("/nodes/n1").zone == "a"
    with pytest.raises(InvalidArgument, match="capacity"):
        storage_with_cacher(url, Node, capacity=-1)
    with pytest.raises(Closed):
        cached.list("/nodes")
    assert threading.active_count() == before


def test_dicts_need_a_resource(url):
    """A plain dict says nothing about where it belongs."""
    with pytest.raises(InvalidArgument, match="resource"):
        open_storage(url, dict)
    with open_storage(url, dict, resource="pods") as storage:
        storage.create("/pods/a/x", pod("x"))


def test_prefix_and_group_in_keys():
    """KEY-7: the configured prefix stands before all, the group before a custom
    resource."""
    with StorageFactory(StorageConfig(type="memory", prefix="/cluster-1")) as factory:
        factory.registry("widgets.example.com", Widget).create(
            Widget(metadata=ObjectMeta(name="w", namespace="x"))
        )
        factory.registry("deployments.apps").create(pod("d") | {"kind": "Deployment"})
        keys = [kv.key for kv in factory.backend().list("", keys_only=True).kvs]

    assert keys == ["/cluster-1/deployments/a/d", "/cluster-1/example.com/widgets/x/w"]


def test_registries_are_shared_and_live_with_the_factory():
    """The same resource gives the same registry; closing the factory ends it."""
    with StorageFactory("memory://") as factory:
        pods = factory.registry("pods")
        assert factory.registry(kinds.lookup("po")) is pods
        pods.create(pod("x"))
    with pytest.raises(Closed):
        pods.get("x", "a")
    with pytest.raises(Closed):
        factory.registry("pods")
    with pytest.raises(Closed):
        factory.backend()
    factory.close()


def test_overrides_choose_another_store(tmp_path):
    """SF-1, SF-4: a resource with an override lives in its own store, others do not see it."""
    config = StorageConfig(
        type="sqlite",
        options={"path": str(tmp_path / "main.db")},
        overrides={"events": {"url": f"sqlite:///{tmp_path}/events.db"}},
    )
    with StorageFactory(config) as factory:
        factory.registry("pods").create(pod("x"))
        factory.registry("events").create(pod("e") | {"kind": "Event"})
        assert factory.backend("events") is not factory.backend("pods")
        assert factory.backend("pods") is factory.backend()
        assert factory.stored_resources() == ("/events", "/pods")
        assert factory.backend().count("").count == 1
        assert factory.backend("events").count("").count == 1


def test_overrides_above_the_backend_share_it():
    """CFG-5: resources that differ in what is done above the store use one backend."""
    config = StorageConfig(
        type="memory",
        compaction_interval=300,
        overrides={
            "events": {"compaction_interval": 60, "deserialization_cache_size": 10},
            "pods": {"prefix": "/elsewhere"},
        },
    )
    with StorageFactory(config) as factory:
        assert factory.backend("events") is factory.backend("pods") is factory.backend()
        factory.registry("pods").create(pod("x"))
        factory.registry("events").create(pod("e") | {"kind": "Event"})
        keys = [kv.key for kv in factory.backend().list("", keys_only=True).kvs]
        assert keys == ["/elsewhere/pods/a/x", "/registry/events/a/e"]


def test_stored_resources_skip_from_one_to_the_next():
    """Names that sort between "/" and "0", groups, and stray keys are all told apart."""
    with StorageFactory("memory://") as factory:
        backend = factory.backend()
        for key in (
            "compact_rev_key",
            "/registry",
            "/registry/stray",
            "/registry/pods/a/x",
            "/registry/pods/a/y",
            "/registry/pods-old/x",
            "/registry/pods0/x",
            "/registry/example.com/widgets/a/w",
            "/registry/example.com/gadgets/a/w",
            "/registry/example.com/stray",
            "/registry/example.org/",
            "/registry0/zebras/x",
        ):
            backend.put(key, b"{}", expected_revision=0)

        assert factory.stored_resources() == (
            "/example.com/gadgets",
            "/example.com/widgets",
            "/pods",
            "/pods-old",
            "/pods0",
        )


@pytest.mark.parametrize("prefix", ["/", "/registry"])
def test_stored_resources_with_any_prefix(prefix):
    """KEY-7: "/" is no prefix at all."""
    with StorageFactory(StorageConfig(type="memory", prefix=prefix)) as factory:
        factory.registry("pods").create(pod("x"))
        factory.registry("zebras.example.com").create(pod("x"))
        assert factory.stored_resources() == ("/example.com/zebras", "/pods")


def test_configured_copier_codec_and_cache():
    """What the configuration names is used; an argument goes over it."""
    config = StorageConfig(type="memory", copier="share", deserialization_cache_size=10)
    with StorageFactory(config) as factory:
        storage = factory.storage(dict, resource="pods")
        storage.create("/pods/a/x", pod("x"))
        assert storage.get("/pods/a/x") is storage.get("/pods/a/x")
        own = ResourceType(dict, "/pods", copier=_DeepCopier())
        deep = factory.storage(own, resource="pods")
        assert deep.get("/pods/a/x") is not deep.get("/pods/a/x")


class _DeepCopier:
    def copy(self, obj):
        import copy

        return copy.deepcopy(obj)


def test_health_and_readiness(url):
    """HLT-1, HLT-2: a missing health key is healthy; a store that is closed is not."""
    factory = StorageFactory(url)
    health, ready = factory.health_check(), factory.ready_check()
    health.check()
    ready.check()
    factory.close()
    later = factory.ready_check()
    with pytest.raises((NotReady, Closed)):
        later.check()


def test_unknown_names_are_refused_at_opening():
    """CFG-5, SF-5: an unknown backend, codec or option is named."""
    with pytest.raises(BackendNotInstalled, match="nosuch"):
        open_storage("nosuch://", Node)
    with pytest.raises(BackendNotInstalled, match="cbor"):
        open_storage(StorageConfig(type="memory", codec="cbor"), Node)
    with pytest.raises(ConfigError, match="colour"):
        open_storage("memory://?colour=red", Node)


def test_memory_stores_of_one_factory_are_one():
    """One factory, one store: two storages of it see each other's writes."""
    with StorageFactory("memory://") as factory:
        one = factory.storage(Node)
        two = factory.storage(Node)
        one.create("/nodes/n", node("n"))
        with pytest.raises(KeyExists):
            two.create("/nodes/n", node("n"))


def test_a_registry_is_made_once():
    """Threads that ask for one registry at the same time get the same; of the others' caches
    nothing is left, no thread either."""
    with StorageFactory("memory://") as factory:
        together = threading.Barrier(8)

        def ask(_: int) -> object:
            together.wait(20)
            return factory.registry("pods", cached=True)

        registries = run_threads(8, ask)
        assert len(set(map(id, registries))) == 1
        assert len(factory.open_storages()) == 1
        registries[0].create(pod("web"))
        caches = [each for each in threading.enumerate() if each.name == "revstore-cacher"]
        assert len(caches) == 1


@pytest.mark.parametrize("cached", [False, True])
def test_a_registry_that_was_closed_is_not_given_again(cached):
    """The next one works, no matter who closed the last; the closed one is no longer among the
    open."""
    with StorageFactory("memory://") as factory:
        for turn in range(3):
            with factory.registry("pods", cached=cached) as pods:
                pods.create(pod(f"x{turn}"))
                assert factory.registry("pods", cached=cached) is pods
                assert len(factory.open_storages()) == 1
            assert factory.open_storages() == ()
        assert len(factory.registry("pods", cached=cached).list()) == 3
        with pytest.raises(Closed):
            pods.list()


def test_stored_resources_with_a_prefix_of_their_own():
    """An override with another prefix in the same store: keys from before it are not counted."""
    overrides = {"events": {"prefix": "/ev"}}
    with StorageFactory(StorageConfig(type="memory", overrides=overrides)) as factory:
        backend = factory.backend()
        for key in ("/registry/events/a/old", "/registry/pods/a/p"):
            backend.put(key, b"{}", expected_revision=0)
        assert factory.stored_resources() == ("/pods",)
        backend.put("/ev/events/a/new", b"{}", expected_revision=0)
        assert factory.stored_resources() == ("/events", "/pods")
