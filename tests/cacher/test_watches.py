"""Triggers, and watches that tell when they are readable."""

from __future__ import annotations

import queue
import threading
import time
from contextlib import ExitStack
from functools import partial

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from revstore.cacher import Cacher, CacherConfig
from revstore.errors import Closed, Expired
from revstore.memory import MemoryBackend
from revstore.objects import ObjectMeta
from revstore.resource_type import ResourceType
from revstore.storage import EventType
from revstore.testing._support import run_threads, wait_until
from revstore.typed import TypedStorage


@attrs.frozen(kw_only=True)
class Pod:
    metadata: ObjectMeta
    node_name: str = ""


def pod(name: str, namespace: str = "a", node: str = "", **labels: str) -> Pod:
    return Pod(metadata=ObjectMeta(name=name, namespace=namespace, labels=labels), node_name=node)


@pytest.fixture
def open_cache():
    with ExitStack() as stack:

        def open_cache(object_type=Pod, **options):
            backend = stack.enter_context(MemoryBackend())
            storage = TypedStorage(backend, ResourceType(object_type, "/pods"))
            config = CacherConfig(
                storage=storage,
                resource_type=ResourceType(object_type, "/pods"),
                **{"indexed_fields": ("nodeName",), **options},
            )
            cache = stack.enter_context(Cacher(config))
            cache.wait_ready()
            return cache

        yield open_cache


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
]


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["a/p1", "a/p2", "b/p1", "b/p2"]),
            st.sampled_from(["put", "put", "delete", "poll"]),
            st.sampled_from(["", "n1", "n2"]),
            st.dictionaries(st.just("app"), st.sampled_from(["x", "y"])),
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
            assert not generation._views
            assert not generation._scopes
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


def test_a_quiet_watch_does_not_fall_behind(open_cache):
    """HIST-5: the log drops what concerns others as often as it likes; a watch that nothing
    concerned goes on, whether or not it was polled."""
    cache = open_cache(capacity=100)
    version = put(cache, "/pods/a/1", pod("1"))
    quiet = cache.watch("/pods/b", resource_version=version)
    settle(cache, version)
    assert quiet.poll(0) is None
    never = cache.watch("/pods", resource_version=version, field_selector="nodeName=n1")
    assert never.poll(0) is None
    busy = cache.watch("/pods/a", resource_version=version)
    for number in range(500):
        last = put(cache, "/pods/a/1", pod("1", node=f"x{number}"))
    settle(cache, last)
    put(cache, "/pods/b/1", pod("1", "b", "n1"))
    assert [event.type for event in quiet.poll(10)] == [EventType.ADDED]
    assert [event.type for event in never.poll(10)] == [EventType.ADDED]
    with pytest.raises(Expired, match="fell behind"):
        busy.poll(0)
    assert cache.counters.terminated_watches == 1


def test_one_poll_a_call_misses_nothing(open_cache):
    """Watch.on_readable: one thread serves many watches, each polled once when it is told, while
    several threads write; every watch sees every event once, in order."""
    cache = open_cache()
    start = str(cache.current_revision())
    told: queue.SimpleQueue[int] = queue.SimpleQueue()
    asked = [SELECTORS[number % 3] for number in range(60)]
    watches = [cache.watch("/pods", resource_version=start, **each) for each in asked]
    seen: list[list[str]] = [[] for _ in watches]
    finished = threading.Event()

    def work(index: int) -> None:
        if index:
            for number in range(150):
                put(cache, f"/pods/a/{index}", pod(str(index), node=f"n{number % 3}"))
            return
        for number, watch in enumerate(watches):
            watch.on_readable(partial(told.put, number))
        end = str(cache.current_revision() + 450)  # at most: the writers have begun
        while not finished.is_set() or not told.empty():
            try:
                number = told.get(timeout=0.05)
            except queue.Empty:
                continue
            events = watches[number].poll(0) or ()
            seen[number] += [event.resource_version for event in events]
            if not finished.is_set() and int(watches[0].resource_version) >= 451:
                finished.set()
        assert end

    run_threads(4, work)
    storage = cache._storage
    for number, each in enumerate(asked[:3]):
        with storage.watch("/pods", resource_version=start, **each) as raw:
            want = [event.resource_version for event in drain(raw, cache.current_revision())]
        assert want
        for events in seen[number::3]:
            assert events == want


def test_readable_at_once_and_taken_back(open_cache):
    """Watch.on_readable: called at once if there is something, initial events or a failure too;
    not after None; close is told."""
    cache = open_cache()
    version = put(cache, "/pods/a/1", pod("1"))
    settle(cache, version)
    calls: list[str] = []
    with cache.watch("/pods") as initial:
        initial.on_readable(lambda: calls.append("initial"))
        assert calls == ["initial"]
        assert len(initial.poll(0)) == 1
        assert calls == ["initial"]
        initial.on_readable(None)
        put(cache, "/pods/a/2", pod("2"))
        assert len(initial.poll(10)) == 1
        assert calls == ["initial"]
    with cache.watch("/pods", resource_version=version) as behind:
        behind.on_readable(lambda: calls.append("behind"))
        assert calls[1:] == ["behind"]
    watch = cache.watch("/pods", resource_version=str(cache.current_revision()))
    watch.on_readable(lambda: calls.append("closed"))
    watch.close()
    assert calls[2:] == ["closed"]
    with pytest.raises(Closed):
        watch.poll(0)


def test_a_callback_that_raises_harms_nobody(open_cache, caplog):
    """It is logged; the feed and other watches go on."""
    cache = open_cache()
    version = str(cache.current_revision())

    def fail() -> None:
        raise ValueError("mine")

    told: queue.SimpleQueue[None] = queue.SimpleQueue()
    bad = cache.watch("/pods", resource_version=version)
    good = cache.watch("/pods", resource_version=version)
    bad.on_readable(fail)
    good.on_readable(partial(told.put, None))
    for number in range(2):
        put(cache, "/pods/a/1", pod("1", node=str(number)))
        told.get(timeout=10)
        assert len(good.poll(0)) == 1
    assert "mine" in caplog.text


def test_bookmarks_come_to_those_who_wait_to_be_told(open_cache):
    """BOOK-1, BOOK-2, BOOK-5: a watch that is served by callback gets its bookmarks, and is told
    when its time is over, without anybody polling it in between."""
    cache = open_cache(bookmark_interval=0.2)
    version = put(cache, "/pods/a/1", pod("1"))
    settle(cache, version)
    told: queue.SimpleQueue[None] = queue.SimpleQueue()
    watch = cache.watch("/pods", resource_version=version, allow_bookmarks=True)
    watch.on_readable(partial(told.put, None))
    told.get(timeout=10)
    (bookmark,) = watch.poll(0)
    assert (bookmark.type, bookmark.resource_version) == (EventType.BOOKMARK, version)
    watch.close()
    brief = cache.watch("/pods", resource_version=version, timeout=0.2)
    ended: queue.SimpleQueue[None] = queue.SimpleQueue()
    brief.on_readable(partial(ended.put, None))
    ended.get(timeout=10)
    with pytest.raises(Closed):
        brief.poll(0)
    wait_until(lambda: not cache._content.generation._timers, "no timer left")


def test_a_bookmark_before_the_end(open_cache):
    """BOOK-1: a watch that ends before its next bookmark is due gets one two seconds before, and
    none after that."""
    cache = open_cache()
    version = put(cache, "/pods/a/1", pod("1"))
    settle(cache, version)
    with cache.watch("/pods", resource_version=version, allow_bookmarks=True, timeout=2.2) as watch:
        assert watch._bookmark_due == watch._deadline - 2
        (bookmark,) = watch.poll(10)
        assert bookmark.type is EventType.BOOKMARK
        with pytest.raises(Closed):
            watch.poll(10)


def test_the_log_is_held_for_who_replays_slowly(open_cache, monkeypatch):
    """HIST-5, DISP-4: while a watch reads its initial events, age drops nothing from the log; it
    gets through and goes on without a gap."""
    cache = open_cache()
    for number in range(600):
        last = put(cache, f"/pods/a/{number:03}", pod(f"{number:03}"))
    settle(cache, last)
    watch = cache.watch("/pods", resource_version="0")
    assert len(watch.poll(0)) == 500
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 1000)
    for number in range(300):
        last = put(cache, "/pods/b/1", pod("1", "b", str(number)))
    settle(cache, last)
    assert len(watch.poll(0)) == 100
    assert len(watch.poll(0)) == 300
    for _ in range(300):
        last = put(cache, "/pods/b/1", pod("1", "b", f"more {last}"))
    settle(cache, last)
    log = cache._content.generation.log
    assert log.held == 0


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


def test_labels_that_are_no_text(open_cache):
    """LIST-6: objects whose labels nobody can select are listed and watched all the same."""
    cache = open_cache(dict, indexed_fields=())
    odd = {"metadata": {"name": "1", "labels": {"app": ["x"], "tier": "web"}}}
    cache.create("/pods/a/1", odd)
    cache.create("/pods/a/2", {"metadata": {"name": "2", "labels": "none"}})
    cache.guaranteed_update(
        "/pods/a/1", lambda found, _: found["metadata"]["labels"].update(app={"y": 1}) or found
    )
    assert len(cache.list("/pods")) == 2
    assert [each["metadata"]["name"] for each in cache.list("/pods", label_selector="tier=web")]
    assert not cache.list("/pods", label_selector="app=x").items
    with cache.watch("/pods", label_selector="tier=web") as watch:
        assert len(watch.poll(10)) == 1
