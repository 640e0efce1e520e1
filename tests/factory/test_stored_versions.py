"""Stored versions by the arguments of the factory, and by the configuration."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import attrs
import pytest

import revstore
from revstore import ObjectMeta, StorageFactory
from revstore.errors import ConfigError, IncompatibleVersion, InvalidArgument
from revstore.resource_type import ResourceType


@attrs.frozen(kw_only=True)
class Widget:
    metadata: ObjectMeta
    capacity: int = 0


def to_v2(value: dict[str, Any]) -> dict[str, Any]:
    value["capacity"] = value.pop("size")
    return value


UPGRADES = {"v1": to_v2}
NAME = "widgets.example.com"


@pytest.fixture
def functions(monkeypatch: pytest.MonkeyPatch) -> str:
    """A module with the upgrade, and what a mistaken configuration could name."""
    module = types.ModuleType("widgets_of_tests")
    module.to_v2 = to_v2  # type: ignore[attr-defined]
    module.number = 1  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module.__name__


def configured(functions: str, **more: Any) -> revstore.StorageConfig:
    table = {"kind": "Widget", "version": "v2", "upgrades": [f"v1={functions}:to_v2"], **more}
    return revstore.StorageConfig(type="memory", resources={NAME: table})


@pytest.mark.parametrize("kind", [dict, Widget])
@pytest.mark.parametrize("by", ["arguments", "configuration"])
def test_a_registry_upgrades(kind, by, functions):
    config = (
        configured(functions) if by == "configuration" else revstore.StorageConfig(type="memory")
    )
    given = {"version": "v2", "upgrades": UPGRADES} if by == "arguments" else {}
    with StorageFactory(config) as factory:
        old = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "a"}}
        key = "/registry/example.com/widgets/default/a"
        data = json.dumps({**old, "size": 3}).encode()
        factory.backend().put(key, data, expected_revision=0)
        registry = factory.registry(NAME, kind, **given)
        got = registry.get("a")
        updated = registry.guaranteed_update("a", lambda obj, _: obj)

        for obj in got, updated:
            assert (obj["capacity"] if kind is dict else obj.capacity) == 3
        value = json.loads(factory.backend().get(key).kv.value)
        assert value["apiVersion"] == "example.com/v2"
        assert value["kind"] == "Widget"
        assert value["capacity"] == 3
        # An unversioned registry of the same resource is another one.
        assert (factory.registry(NAME, kind) is registry) == (by == "configuration")
        # Arguments win over the configuration.
        with pytest.raises(IncompatibleVersion):
            factory.registry(NAME, kind, version="v1").get("a")


def test_open_registry_and_open_storage_take_them():
    with revstore.open_registry("memory://", Widget, version="v2", upgrades=UPGRADES) as widgets:
        widget = widgets.create(Widget(metadata=ObjectMeta(name="a"), capacity=1))
        assert widgets.list().items == (widget,)
    with revstore.open_storage("memory://", Widget, version="v2", cached=True) as storage:
        storage.create("/widgets/a", Widget(metadata=ObjectMeta(name="a")))
        assert len(storage.list("/widgets").items) == 1


def test_a_resource_type_has_its_own_versions():
    own = ResourceType(Widget, "/widgets")
    with StorageFactory("memory://") as factory, pytest.raises(InvalidArgument):
        factory.storage(own, version="v2")


@pytest.mark.parametrize(
    "upgrade",
    ["v1=no_such_module:to_v2", "v1=widgets_of_tests:missing", "v1=widgets_of_tests:number"],
)
def test_functions_that_cannot_be_imported(upgrade, functions):
    with (
        StorageFactory(configured(functions, upgrades=[upgrade])) as factory,
        pytest.raises(ConfigError) as caught,
    ):
        factory.registry(NAME)
    assert caught.value.field == f"resources.{NAME}.upgrades"


@pytest.mark.parametrize("upgrade", ["to_v2", "v1=to_v2", "v1=a:b c", "=a:b", "v1=:b", "v1=a:"])
def test_names_of_functions_are_checked_with_the_configuration(upgrade, functions):
    with pytest.raises(ConfigError) as caught:
        configured(functions, upgrades=[upgrade])
    assert caught.value.field == f"resources.{NAME}.upgrades"


def test_from_a_file(tmp_path: Path, functions):
    file = tmp_path / "store.toml"
    file.write_text(
        'type = "memory"\n[resources."widgets.example.com"]\nkind = "Widget"\n'
        f'version = "v2"\nupgrades = ["v1={functions}:to_v2"]\n'
    )
    with revstore.open_registry(file, dict, resource=NAME) as widgets:
        obj = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "a"}}
        assert widgets.create({**obj, "size": 3})["capacity"] == 3
