"""Under which keys, and in which store, a resource lies."""

from __future__ import annotations

import attrs
import pytest

from revstore.config import StorageConfig
from revstore.errors import InvalidArgument
from revstore.factory import StorageFactory
from revstore.objects import ObjectMeta
from revstore.resource_type import ResourceType


@attrs.frozen(kw_only=True)
class Widget:
    metadata: ObjectMeta
    size: int = 0


def widget(name: str) -> Widget:
    return Widget(metadata=ObjectMeta(name=name))


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
    """SF-7, SF-4: equal stores are one backend, so that one check tells of both; others have one
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
