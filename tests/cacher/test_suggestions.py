"""The cache's object is what a write begins with."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from revstore.codec import TypedCodec
from revstore.resource_type import ResourceType
from revstore.testing.storage._parts import Pod, on_node, pod


def test_what_the_caller_remembers_is_not_used(open_parts):
    """DEL-15, GU-19, OLD-33: the cache's object is what a write begins with, also when it lags;
    then the store's own; and if the cache has none, the store's from the start."""
    TypedCodec(Pod).forget_unknown()  # of objects of other tests
    parts = open_parts()
    parts.put("a/1", "old")
    parts.put("a/2", "old")
    parts.settle()
    parts.feed.hold()
    for name in ("a/1", "a/2", "a/3"):
        parts.put(name, "new")
    wrong = attrs.evolve(pod("a/1", "wrong"))
    seen: list[str] = []

    def refuse_old(found: Any) -> None:
        seen.append(found.spec.node_name)
        if seen[-1] != "new":
            raise ValueError("not that one")

    parts.cache.delete("/pods/a/1", validate=refuse_old, suggestion=wrong)
    assert seen == ["old", "new"]
    seen.clear()

    def move(found: Any, _: Any) -> Any:
        seen.append(found.spec.node_name)
        return on_node(found, found.spec.node_name + "er")

    written = parts.cache.guaranteed_update("/pods/a/2", move, suggestion=wrong)
    assert seen == ["old", "new"]
    assert written.spec.node_name == "newer"
    seen.clear()
    parts.cache.guaranteed_update("/pods/a/3", move, suggestion=wrong)
    parts.cache.delete("/pods/a/3", validate=lambda found: seen.append(found.spec.node_name))
    assert seen == ["new", "newer"]


def test_a_suggestion_is_a_copy(open_parts):
    """DEL-15, GU-19: of mutable objects, so that what a function does to it stays its own."""
    parts = open_parts(resource_type=ResourceType(dict, "/pods"))
    parts.cache.create("/pods/a/1", {"metadata": {"name": "1"}, "spec": {"nodeName": "n1"}})
    parts.settle()

    def spoil(found: dict, _: object = None) -> dict:
        found["spec"].clear()
        raise ValueError("never mind")

    for write in (
        lambda: parts.cache.guaranteed_update("/pods/a/1", spoil),
        lambda: parts.cache.delete("/pods/a/1", validate=spoil),
    ):
        with pytest.raises(ValueError, match="never mind"):
            write()
        assert parts.cache.get("/pods/a/1", resource_version="0")["spec"] == {"nodeName": "n1"}
