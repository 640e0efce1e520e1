"""Factories and registries in the child of a fork."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from revstore.errors import Closed
from revstore.factory import StorageFactory, open_registry
from revstore.testing._support import PATIENCE
from revstore.testing.backend._forks import Child, need_fork


@pytest.mark.parametrize("cached", [False, True], ids=["raw", "cached"])
def test_what_a_parent_opened_is_closed_in_a_child(tmp_path: Path, cached: bool) -> None:
    """The factory, its registries and their watches; closing them is harmless, the child can open
    its own, and the parent does not notice."""
    need_fork()
    url = f"sqlite:///{tmp_path}/store.db"
    pod = {"metadata": {"name": "a"}}
    with StorageFactory(url) as factory:
        registry = factory.registry("pods", cached=cached)
        registry.create(pod)
        watch = registry.watch()
        health, ready = factory.health_check(), factory.ready_check()
        health.check()
        calls = {
            "get": functools.partial(registry.get, "a"),
            "any": functools.partial(registry.get, "a", resource_version="0"),
            "list": registry.list,
            "create": functools.partial(registry.create, pod),
            "apply": functools.partial(registry.apply, pod),
            "delete": functools.partial(registry.delete, "a"),
            "watch": registry.watch,
            "poll": functools.partial(watch.poll, PATIENCE),
            "health": health.check,
            "ready": ready.check,
            "backend": factory.backend,
            "registry": functools.partial(factory.registry, "pods", cached=cached),
            "storage": functools.partial(factory.storage, dict, resource="nodes", cached=cached),
            "stored": factory.stored_resources,
        }

        def work() -> list[str]:
            wrong = []
            for name, call in calls.items():
                try:
                    wrong.append(f"{name}: {call()!r}")
                except Closed:
                    continue
            for each in (watch, registry, factory):
                each.close()
            with open_registry(url, dict, resource="pods", cached=cached) as own:
                own.create({"metadata": {"name": "b"}})
                wrong += [obj["metadata"]["name"] for obj in own.list()]
            return wrong

        assert Child(work).result() == ["a", "b"]
        registry.create({"metadata": {"name": "c"}})
        assert [obj["metadata"]["name"] for obj in registry.list()] == ["a", "b", "c"]
