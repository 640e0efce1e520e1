"""Under which keys, and in which store, a resource lies."""

from __future__ import annotations

import json

import attrs
import pytest

from revstore import kinds
from revstore.config import StorageConfig
from revstore.errors import ConfigError, CorruptObject, InvalidArgument, InvalidObject, KeyExists
from revstore.factory import StorageFactory
from revstore.objects import ObjectMeta
from revstore.resource_type import ResourceType


@attrs.frozen(kw_only=True)
class Widget:
    metadata: ObjectMeta
    size: int = 0


def widget(name: str) -> Widget:
    return Widget(metadata=ObjectMeta(name=name))


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("pod", "pods"),
        ("po", "pods"),
        ("deployments", "deployments.apps"),
        ("deploy.apps", "deployments.apps"),
        ("deployments.v1.apps", "deployments.apps"),
        ("goose", "geese"),
        ("gs", "geese"),
    ],
)
def test_an_override_under_another_name_is_refused(name, meant):
    """It would never be found, and the resource would lie in the main store."""
    geese = {"geese": {"kind": "Goose", "short_names": ["gs"]}}
    config = StorageConfig(overrides={name: {"prefix": "/x"}}, resources=geese)

    with pytest.raises(ConfigError, match=f"overrides.{name}: .*: {meant}$"):
        StorageFactory(config)
    for good in (meant, "*.apps", "gadgets", "gadgets.example.com"):
        StorageFactory(StorageConfig(overrides={good: {"prefix": "/x"}}, resources=geese)).close()


@pytest.fixture
def config(tmp_path):
    return StorageConfig(
        type="sqlite",
        options={"path": str(tmp_path / "store.db")},
        overrides={"gadgets": {"url": f"sqlite:///{tmp_path}/gadgets.db"}},
        resources={"geese": {"kind": "Goose", "namespaced": False}},
    )


@pytest.mark.parametrize(
    ("asked", "prefix"),
    [
        ({}, "/widgets"),
        ({"resource": "gizmos"}, "/gizmos"),
        ({"resource": "gizmos.example.com"}, "/example.com/gizmos"),
        ({"resource": "ingresses.networking.k8s.io"}, "/ingresses"),
        ({"resource": "geese"}, "/geese"),
        ({"resource": "gizmos", "object_type": ResourceType(Widget, "/special")}, "/special"),
    ],
)
def test_where_a_resource_is_stored(config, asked, prefix):
    """SF-3: an explicit prefix goes over the table of kinds, that over the resource's name, which
    without a name is the type's plural in lower case."""
    with StorageFactory(config) as factory:
        storage = factory.storage(**{"object_type": Widget, **asked})
        storage.create(f"{prefix}/a", widget("a"))
        assert factory.backend().get(f"/registry{prefix}/a").kv is not None
        with pytest.raises(InvalidArgument, match="prefix"):
            storage.create(f"{prefix}s/a", widget("a"))


@pytest.mark.parametrize("prefix", ["/", "widgets"])
@pytest.mark.parametrize("cached", [False, True])
def test_a_bad_prefix(config, prefix, cached):
    """SF-3, KEY-8: refused when the storage is made, cached or not."""
    with (
        StorageFactory(config) as factory,
        pytest.raises(InvalidArgument, match="resource_prefix"),
    ):
        factory.storage(ResourceType(Widget, prefix), cached=cached)


def test_an_override_that_names_the_same_store(config):
    """SF-7, SF-4: equal stores are one backend, so that one check covers both; others have one
    each."""
    url = config.overrides["gadgets"]["url"]
    both = attrs.evolve(
        config, overrides={name: {"url": url} for name in ("gadgets", "gizmos.example.com")}
    )
    with StorageFactory(both) as factory:
        gadgets, gizmos = factory.backend("gadgets"), factory.backend("gizmos.example.com")
        assert gadgets is gizmos
        assert gadgets is not factory.backend()
        for resource in ("gadgets", "gizmos.example.com", ""):
            factory.health_check(resource).check()
            factory.ready_check(resource).check()


def class_called(name: str) -> type:
    """A class like ``Widget`` of another name."""
    return attrs.make_class(
        name, {"metadata": attrs.field(type=ObjectMeta)}, frozen=True, kw_only=True
    )


@pytest.mark.parametrize(("name", "prefix"), [("Limit", "/limits"), ("C", "/cs"), ("Pod", "/pods")])
@pytest.mark.parametrize("named", [False, True])
def test_a_class_is_of_its_own_kind(config, name, prefix, named):
    """Its plural may be another kind's short name; it does not land there."""
    kind = class_called(name)
    with StorageFactory(config) as factory:
        registry = factory.registry(prefix[1:] if named else "", kind)
        registry.create(kind(metadata=ObjectMeta(name="a")))
        assert factory.stored_resources() == (prefix,)


@pytest.mark.parametrize("name", ["pod", "Endpoint", "Geese", "Gees"])
def test_a_class_that_would_be_taken_for_a_kind(config, name):
    """It is refused with the kind that may be meant, unless it is merely unknown."""
    config = attrs.evolve(config, resources={"gees": {"kind": "Goose"}})
    with StorageFactory(config) as factory:
        if name in ("Geese", "Gees"):
            assert factory.registry(object_type=class_called(name))
        else:
            with pytest.raises(InvalidArgument, match="did you mean"):
                factory.registry(object_type=class_called(name))


def test_two_classes_with_one_plural(config):
    """Neither reads, replaces or deletes the other's objects."""
    policy, policie = class_called("Policy"), class_called("Policie")
    with StorageFactory(config) as factory:
        first, second = (factory.registry(object_type=each) for each in (policy, policie))
        kept = first.create(policy(metadata=ObjectMeta(name="a")))
        other = policie(metadata=ObjectMeta(name="a"))
        with pytest.raises(KeyExists):
            second.create(other)
        for call in (second.apply, second.update, lambda _: second.delete("a")):
            with pytest.raises(CorruptObject, match="its kind is 'Policy', not 'Policie'"):
                call(other)
        assert first.get("a") == kept


def test_an_object_is_not_replaced_by_one_of_another_kind(config):
    """Two unknown kinds with one plural have one key: the second is refused, not stored over."""
    first, second = (
        {"apiVersion": "example.com/v1", "kind": kind, "metadata": {"name": "a"}}
        for kind in ("Policy", "Policie")
    )
    with StorageFactory(config) as factory:
        policies = factory.registry("policies.example.com")
        kept = policies.create(first)
        for call in (policies.apply, policies.update):
            with pytest.raises(InvalidObject, match="'Policy', the kind of the stored object"):
                call(second)
        with pytest.raises(InvalidObject, match="kind"):
            policies.guaranteed_update("a", lambda *_: second)
        assert policies.get("a") == kept


@pytest.mark.parametrize(
    "resource", ["pods.nodes", "x.a", "a/b", "a/b.example.com", ".example.com"]
)
def test_a_resource_among_the_keys_of_another(config, resource):
    """Below "/nodes/pods/" lie nodes; a group of one's own has a dot."""
    with StorageFactory(config) as factory, pytest.raises(InvalidArgument, match="resource"):
        factory.registry(resource)


@pytest.mark.parametrize(
    ("name", "resource", "kind"),
    [
        ("N", "widgets", "Widget"),
        ("Policy", "policies", "Policy"),
        ("P", "policies.example.com", "Policy"),
        ("Limit", "things.example.com", "Thing"),
        ("Limit", "limits", "Limit"),
        ("Node", "", "Node"),
        ("Data", "data", ""),
    ],
)
def test_the_kind_that_is_stored_leads_back(name, resource, kind):
    """A manifest of a typed object belongs where the object is, whatever its class is called; where
    no kind leads there, none is stored."""
    cls = attrs.make_class(name, {"metadata": attrs.field(type=ObjectMeta)}, kw_only=True)
    with StorageFactory("memory://") as factory:
        with factory.registry(resource or "nodes", cls) as objects:
            objects.create(cls(metadata=ObjectMeta(name="a")))
        (kv,) = factory.backend().list("").kvs
        stored = json.loads(kv.value)
        assert stored.get("kind", "") == kind
        if kind:
            info = kinds.for_object(stored)
            assert kv.key.startswith(f"/registry{info.prefix}/")


@pytest.mark.parametrize("kind", ["Secret", "configmap", "ConfigMapList", ""])
def test_a_registry_of_a_known_resource_takes_no_new_object_of_another_kind(kind):
    """Nor an update of one that names none; the objects of a resource known only by its keys may
    have any kind."""
    with StorageFactory("memory://") as factory:
        maps = factory.registry("configmaps")
        maps.create({"metadata": {"name": "bare"}})
        for name, write in (("a", maps.create), ("a", maps.apply), ("bare", maps.update)):
            with pytest.raises(InvalidObject, match="'ConfigMap', the kind of the") as caught:
                write({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}})
            assert caught.value.field == "kind"
        assert [each["metadata"]["name"] for each in maps.list()] == ["bare"]
        maps.update({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "bare"}})
        factory.registry("things").create({"kind": kind, "metadata": {"name": "a"}})
