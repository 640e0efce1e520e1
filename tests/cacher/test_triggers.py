"""Which watches an event concerns: scopes, selectors and indexed fields."""

from __future__ import annotations

import json
import queue
from functools import partial

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st

from revstore.cacher import Cacher, CacherConfig
from revstore.memory import MemoryBackend
from revstore.objects import ObjectMeta
from revstore.resource_type import ResourceType
from revstore.typed import TypedStorage


@attrs.frozen(kw_only=True)
class Pod:
    metadata: ObjectMeta
    node_name: str = ""


def pod(name: str, namespace: str = "a", node: str = "", **labels: str) -> Pod:
    return Pod(metadata=ObjectMeta(name=name, namespace=namespace, labels=labels), node_name=node)


def put(cache, key, new):
    written = cache.guaranteed_update(key, lambda _, __: new, ignore_not_found=True)
    return written.metadata.resource_version


def settle(cache, version):
    cache.list("/pods", resource_version=version, limit=1, resource_version_match="NotOlderThan")


SCOPES = [
    {"key": "/pods"},
    {"key": "/pods/a"},
    {"key": "/pods/b"},
    {"key": "/pods/a/p1", "recursive": False},
    {"key": "/pods/c"},
]


SELECTORS = [
    {},
    {"field_selector": "nodeName=n1"},
    {"field_selector": "nodeName=n2,metadata.namespace=a"},
    {"field_selector": "nodeName!=n1"},
    {"field_selector": "nodeName="},
    {"label_selector": "app=x"},
    {"label_selector": "app!=x", "field_selector": "nodeName=n1"},
    {"label_selector": "app"},
    {"label_selector": "app in (x,y)"},
    {"label_selector": "app in (y,z)"},
    {"label_selector": "app in (y,z)", "field_selector": "metadata.namespace=a"},
    {"label_selector": "tier,app in (x,z)"},
]


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["a/p1", "a/p2", "b/p1", "b/p2"]),
            st.sampled_from(["put", "put", "delete", "poll"]),
            st.sampled_from(["", "n1", "n2"]),
            st.dictionaries(st.sampled_from(["app", "tier"]), st.sampled_from(["x", "y", "z"])),
        ),
        max_size=30,
    ),
    start=st.integers(0, 29),
)
def test_every_watch_shows_what_the_stores_watch_shows(steps, start):
    """CWATCH-5, CWATCH-6, CWATCH-7, WATCH-10: whatever trigger a watch stands under and whenever
    it was opened, its events are those of a watch without a cache."""
    with MemoryBackend() as backend:
        storage = TypedStorage(backend, ResourceType(Pod, "/pods"))
        config = CacherConfig(
            storage=storage, resource_type=ResourceType(Pod, "/pods"), indexed_fields=("nodeName",)
        )
        with Cacher(config) as cache:
            cache.wait_ready()
            asked = [{**scope, **selector} for scope in SCOPES for selector in SELECTORS]
            opened, seen = [], []
            for number, (name, what, node, labels) in enumerate(steps):
                if number == start:
                    version = str(cache.current_revision() // 2 + 1)
                    opened = [cache.watch(resource_version=version, **each) for each in asked]
                    seen = [[] for _ in asked]
                key = f"/pods/{name}"
                if what == "put":
                    put(storage, key, pod(name[2:], name[0], node, **labels))
                elif what == "delete":
                    if storage.get(key, ignore_not_found=True):
                        storage.delete(key)
                else:
                    for events, watch in zip(seen, opened, strict=True):
                        events.extend(watch.poll(0) or ())
            last = cache.current_revision()
            settle(cache, str(last))
            for each, events, watch in zip(asked, seen, opened, strict=bool(opened)):
                events.extend(watch.poll(0) or ())
                with storage.watch(resource_version=version, **each) as raw:
                    want = list(drain(raw, last))
                assert events == want, each
                assert watch.resource_version == str(last)
                watch.close()
            generation = cache._content.generation
            assert not [view for bucket in generation._buckets() for view in bucket.views]
            assert not generation._scopes
            assert not generation._labels
            assert not any(generation._fields)


def drain(watch, revision):
    """Events up to ``revision``. A poll may end where a batch has nothing for the watch, so its
    position tells the end, of which a mark tells where other keys were written."""
    watch.request_progress()
    while int(watch.resource_version) < revision:
        yield from watch.poll(0) or ()


def test_only_concerned_watches_are_told(open_cache):
    """CWATCH-6, BOOK-5: of many watches on many values an event wakes those of its old and its
    new value, and none else."""
    cache = open_cache()
    version = put(cache, "/pods/a/1", pod("1", node="n1"))
    settle(cache, version)
    told: queue.SimpleQueue[str] = queue.SimpleQueue()
    watches = {}
    for number in range(1000):
        name = f"n{number}"
        watches[name] = cache.watch(
            "/pods", resource_version=version, field_selector=f"nodeName={name}"
        )
        watches[name].on_readable(partial(told.put, name))
    watches["ns"] = cache.watch("/pods/b", resource_version=version)
    watches["ns"].on_readable(partial(told.put, "ns"))
    put(cache, "/pods/a/1", pod("1", node="n7"))
    put(cache, "/pods/b/2", pod("2", "b", node="n9"))
    woken = {told.get(timeout=10) for _ in range(4)}
    assert woken == {"n1", "n7", "n9", "ns"}
    assert told.empty()
    types = {name: [str(event.type) for event in watches[name].poll(0)] for name in sorted(woken)}
    assert types == {"n1": ["DELETED"], "n7": ["ADDED"], "n9": ["ADDED"], "ns": ["ADDED"]}


def test_only_watches_of_a_label_of_its_own_are_told(open_cache):
    """CWATCH-6: of many watches on many labels an event wakes those of its old and its new labels
    in the watch's scope, and none else."""
    cache = open_cache()
    version = put(cache, "/pods/a/1", pod("1", app="x1"))
    settle(cache, version)
    told: queue.SimpleQueue[str] = queue.SimpleQueue()
    asked = {f"x{number}": ("/pods", f"app=x{number}") for number in range(1000)}
    asked |= {
        "two": ("/pods", "app in (x1,x7)"),
        "more": ("/pods", "app in (x7),tier"),
        "a": ("/pods/a", "app=x7"),
        "b": ("/pods/b", "app=x7"),
    }
    watches = {}
    for name, (key, selector) in asked.items():
        watches[name] = cache.watch(key, resource_version=version, label_selector=selector)
        watches[name].on_readable(partial(told.put, name))
    settle(cache, put(cache, "/pods/a/1", pod("1", app="x7")))
    woken = sorted(told.get(timeout=10) for _ in range(5))
    assert woken == ["a", "more", "two", "x1", "x7"]
    assert told.empty()
    types = {name: [str(event.type) for event in watches[name].poll(0) or ()] for name in woken}
    assert types == {
        "a": ["ADDED"],
        "more": [],
        "two": ["MODIFIED"],
        "x1": ["DELETED"],
        "x7": ["ADDED"],
    }


def test_a_late_opener_and_a_bucket_of_others(open_cache):
    """CWATCH-1: a watch that joins a trigger which others wait at, from a version before they
    came, sees what happened before they came."""
    cache = open_cache()
    first = put(cache, "/pods/a/1", pod("1", node="n1"))
    put(cache, "/pods/a/2", pod("2", node="n2"))
    put(cache, "/pods/a/3", pod("3", node="n1"))
    settle(cache, str(cache.current_revision()))
    selector = {"field_selector": "nodeName=n1"}
    early = cache.watch("/pods", resource_version=str(cache.current_revision()), **selector)
    last = put(cache, "/pods/a/4", pod("4", node="n1"))
    late = cache.watch("/pods", resource_version=first, **selector)
    settle(cache, last)
    assert [event.object.metadata.name for event in late.poll(0)] == ["3", "4"]
    assert [event.object.metadata.name for event in early.poll(0)] == ["4"]


def test_labels_that_are_no_text(open_cache, backend):
    """LIST-6: objects whose labels nobody can select, which another program has stored, are listed
    and watched all the same."""
    cache = open_cache(dict, indexed_fields=())

    def store(name, labels, expected=0):
        data = json.dumps({"metadata": {"name": name, "labels": labels}}).encode()
        return backend.put(f"/registry/pods/a/{name}", data, expected_revision=expected).revision

    first = store("1", {"app": ["x"], "tier": "web"})
    store("2", "none")
    store("1", {"app": {"y": 1}, "tier": "web"}, first)
    assert len(cache.list("/pods")) == 2
    assert [each["metadata"]["name"] for each in cache.list("/pods", label_selector="tier=web")]
    assert not cache.list("/pods", label_selector="app=x").items
    with cache.watch("/pods", label_selector="tier=web") as watch:
        assert len(watch.poll(10)) == 1
