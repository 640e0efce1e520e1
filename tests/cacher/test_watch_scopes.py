"""Which events a watch shows, and as what."""

from __future__ import annotations

import time
from typing import Any

from revstore.resource_type import ResourceType
from revstore.storage import Event, EventType, Watch
from revstore.testing._support import PATIENCE
from revstore.testing.storage._parts import Pod, name_of


def take(watch: Watch[Any], count: int) -> list[Event[Any]]:
    """The next ``count`` events."""
    events: list[Event[Any]] = []
    deadline = time.monotonic() + PATIENCE
    while len(events) < count:
        events += watch.poll(max(0.0, deadline - time.monotonic())) or ()
        assert events or time.monotonic() < deadline
    assert len(events) == count, events
    return events


def brief(events: list[Event[Any]] | tuple[Event[Any], ...]) -> list[str]:
    return [f"{event.type} {name_of(event.object)}" for event in events]


def test_scopes(open_parts):
    """CWATCH-4, KEY-10: a watch or list of a key is of that key alone, as the store's; one of a
    prefix ends at a slash: "ns2" is not below "ns"."""
    parts = open_parts()
    start = parts.settle()
    asked = {
        "/pods/ns": ["ns/x", "ns/y/z"],
        "/pods/ns/": ["ns/x", "ns/y/z"],
        "/pods/ns2": ["ns2/x"],
        "/pods": ["ns", "ns/x", "ns/y/z", "ns2/x", "nsx"],
    }
    watches = {key: parts.cache.watch(key, resource_version=start) for key in asked}
    single = parts.cache.watch("/pods/ns", resource_version=start, recursive=False)
    raw = parts.store.watch("/pods/ns", resource_version=start, recursive=False)
    for name in asked["/pods"]:
        parts.put(name)
    parts.settle()
    for key, names in asked.items():
        assert [name_of(event.object) for event in take(watches[key], len(names))] == names
        assert [name_of(each) for each in parts.cache.list(key)] == names
        assert watches[key].poll(0) is None
    assert brief(take(single, 1)) == brief(take(raw, 1)) == ["ADDED ns"]
    assert single.poll(0) is raw.poll(0) is None
    assert [name_of(each) for each in parts.cache.list("/pods/ns", recursive=False)] == ["ns"]
    raw.close()
    single.close()
    with parts.cache.watch("/pods/ns", resource_version=start, recursive=False) as late:
        assert brief(take(late, 1)) == ["ADDED ns"]  # the only one, and the log was looked through
        assert late.poll(0) is None


def test_attributes_that_lack_the_namespace(open_parts):
    """CWATCH-5: which watches an event concerns goes by its key, so that a type whose fields tell
    nothing of name and namespace is watched all the same."""

    def fields(obj: Any, path: str) -> str:
        if path.startswith("metadata."):
            raise KeyError(path)
        return obj.spec.node_name

    parts = open_parts(
        resource_type=ResourceType(Pod, "/pods", fields=fields), indexed_fields=("spec.nodeName",)
    )
    start = parts.settle()
    below = parts.cache.watch("/pods/a", resource_version=start)
    single = parts.cache.watch("/pods/a/1", resource_version=start, recursive=False)
    node = parts.cache.watch("/pods", resource_version=start, field_selector="spec.nodeName=n1")
    parts.put("a/1", "n1")
    parts.put("b/1", "n2")
    parts.settle()
    for watch in (below, single, node):
        assert brief(take(watch, 1)) == ["ADDED a/1"]
        assert watch.poll(0) is None


def test_a_deleted_object_is_a_new_one(open_parts):
    """CWATCH-7, OLD-31: of an object that leaves a selector, watches get the content before at the
    update's version; the object that the cache has shown before keeps its own."""
    parts = open_parts()
    first = parts.put("a/1", "n1")
    parts.settle()
    shown = parts.cache.get("/pods/a/1", resource_version="0")
    watch = parts.cache.watch("/pods", resource_version=first, field_selector="spec.nodeName=n1")
    second = parts.put("a/1", "n2")
    (event,) = take(watch, 1)
    assert (event.type, event.resource_version) == (EventType.DELETED, second)
    assert event.object.metadata.resource_version == second
    assert event.object.spec.node_name == "n1"
    assert shown.metadata.resource_version == first
