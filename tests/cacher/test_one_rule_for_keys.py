"""One rule for keys: with a cache and without, every call takes, refuses and finds the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from revstore.cacher import Cacher, CacherConfig
from revstore.errors import InvalidArgument, InvalidObject, StorageError
from revstore.memory import MemoryBackend
from revstore.preconditions import Preconditions
from revstore.registry import Registry
from revstore.resource_type import ResourceType
from revstore.storage import Storage
from revstore.typed import TypedStorage

PODS = ResourceType(dict, "/pods")
STORED = ["/pods/a", "/pods/ab", "/pods/a/b", "/pods/ns/a", "/pods/.ns/.a", "/pods/é", "/pods/..."]
SEGMENTS = [
    "",
    ".",
    "..",
    "...",
    ".ns",
    "a",
    "ab",
    "b",
    "ns",
    "é",
    "\0",
    "\ud800",
    "%",
    " ",
    "pods",
]
keys = st.builds(
    lambda begin, segments, end: begin + "/".join(segments) + end,
    st.sampled_from(["", "/", "/pods", "/pods/", "/podsx/", "/Pods/", "//pods/"]),
    st.lists(st.sampled_from(SEGMENTS), max_size=3),
    st.sampled_from(["", "/"]),
)
odd: st.SearchStrategy[Any] = st.sampled_from(
    [None, 0, b"/pods/a", ("/pods/a",), "/pods/" + "k" * 5000]
)


@pytest.fixture(scope="module")
def both() -> Iterator[tuple[Storage[Any], Storage[Any]]]:
    """The storage and a cache of it, over one store that stands still."""
    with MemoryBackend() as backend, TypedStorage(backend, PODS) as raw:
        for key in STORED:
            last = raw.create(key, {"metadata": {"name": key}})
        with Cacher(CacherConfig(storage=raw, resource_type=PODS)) as cached:
            cached.get("/pods/a", resource_version=last["metadata"]["resourceVersion"])
            yield raw, cached


def calls(storage: Storage[Any], key: Any) -> dict[str, Any]:
    """Each call with ``key``, and none that changes what is stored."""

    def events(recursive: bool) -> list[Any]:
        with storage.watch(
            key, recursive=recursive, send_initial_events=True, allow_bookmarks=True
        ) as watch:
            found: list[Any] = []
            while not found or found[-1].type != "BOOKMARK":
                found += watch.poll(5)
            return [each.object for each in found[:-1]]

    def unchanged(current: Any, _: Any) -> Any:
        return current

    def refused(_: Any) -> None:
        raise StorageError("not deleted")

    return {
        "get": lambda: storage.get(key),
        "get from memory": lambda: storage.get(key, resource_version="0"),
        "list": lambda: storage.list(key).items,
        "list from memory": lambda: storage.list(key, resource_version="0").items,
        "list of one": lambda: storage.list(key, recursive=False).items,
        "list of one from memory": lambda: (
            storage.list(key, recursive=False, resource_version="0").items
        ),
        "page": lambda: storage.list(key, limit=1).items,
        "watch": lambda: events(True),
        "watch of one": lambda: events(False),
        "count": lambda: storage.count(key),
        "update": lambda: storage.guaranteed_update(key, unchanged),
        "delete": lambda: storage.delete(key, validate=refused),
        "changes": lambda: storage.changes(key).close(),
        # A key that exists is refused; one that does not is not created, as it has a version.
        "create": lambda: storage.create(key, {"metadata": {"resourceVersion": "1"}}),
    }


def outcome(call: Any) -> Any:
    try:
        return call()
    except StorageError as error:
        return type(error), str(error), error.key


@settings(max_examples=300, deadline=None)
@given(key=keys | odd)
@example(key="/pods/.ns/")
@example(key="/pods/.ns/.a")
@example(key="/pods")
@example(key="/pods/")
@example(key="/pods/a/")
@example(key="/")
@example(key="")
def test_with_a_cache_and_without(both: tuple[Storage[Any], Storage[Any]], key: Any) -> None:
    """The same objects, or the same error with the same words and key."""
    raw, cached = both
    ours = calls(cached, key)
    for name, call in calls(raw, key).items():
        assert outcome(ours[name]) == outcome(call), name


names: st.SearchStrategy[Any] = st.sampled_from(
    [*SEGMENTS, "a/b", "a%2Fb", "k" * 300, None, 0, b"a", ("a",)]
) | st.text(max_size=3)


def is_fine(name: Any) -> bool:
    """The rule, in other words than the code's."""
    if not isinstance(name, str) or name in (".", "..") or set(name) & set("/%\0"):
        return False
    if not name or name.isspace():
        return False
    return not any(0xD800 <= ord(each) < 0xE000 for each in name)


def calls_by_name(registry: Registry[Any], name: Any, namespace: Any) -> dict[str, Any]:
    """Each call with the two as arguments, and none that changes what is stored."""

    def refused(_: Any, __: Any) -> Any:
        raise StorageError("not updated")

    gone = Preconditions(uid="another")
    return {
        "get": lambda: registry.get(name, namespace),
        "get from memory": lambda: registry.get(name, namespace, resource_version="0"),
        "update": lambda: registry.guaranteed_update(name, refused, namespace),
        "delete": lambda: registry.delete(name, namespace, preconditions=gone),
        "watch": lambda: registry.watch(namespace, name=name).close() if name is not None else None,
    }


def calls_with_object(registry: Registry[Any], name: Any, namespace: Any) -> dict[str, Any]:
    """Each call with an object that has the two, and none that changes what is stored."""
    obj = {"metadata": {"name": name, "namespace": namespace, "uid": "another"}}
    return {"create": lambda: registry.create(obj, ttl=-1), "update": lambda: registry.update(obj)}


@settings(max_examples=300, deadline=None)
@given(name=names, namespace=names)
@example(name="a", namespace="ns")
@example(name="a\0", namespace="ns")
@example(name="a", namespace="\ud800")
def test_names_and_namespaces(
    both: tuple[Storage[Any], Storage[Any]], name: Any, namespace: Any
) -> None:
    """A registry takes what can be a segment of a key, and its storage never refuses what it takes;
    a bad argument is InvalidArgument, a bad object InvalidObject, by the name of what is wrong."""
    registries = [Registry(storage, resource_prefix="/pods") for storage in both]
    raw, cached = (calls_by_name(each, name, namespace) for each in registries)
    fine = is_fine(name) and (namespace is None or is_fine(namespace))
    for kind, call in raw.items():
        found = outcome(call)
        assert outcome(cached[kind]) == found, kind
        if kind != "watch" or name is not None:
            assert (found.__class__ is tuple and found[0] is InvalidArgument) != fine, (kind, found)
    for registry in registries:
        listed = outcome(lambda registry=registry: list(registry.list(namespace)))
        assert isinstance(listed, list) == (namespace is None or is_fine(namespace))
        fine = is_fine(name) and (namespace in (None, "") or is_fine(namespace))
        for kind, call in calls_with_object(registry, name, namespace).items():
            assert (outcome(call)[0] is InvalidObject) != fine, kind
