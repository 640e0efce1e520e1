"""Watches that tell when they are readable."""

from __future__ import annotations

import gc
import queue
import threading
from functools import partial

import attrs
import pytest

from revstore.errors import Closed
from revstore.objects import ObjectMeta
from revstore.testing._support import run_threads
from revstore.watch_selector import WatchSelector


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


def drain(watch, revision):
    """Events up to ``revision``. A poll may end where a batch has nothing for the watch, so its
    position tells the end, of which a mark tells where other keys were written."""
    watch.request_progress()
    while int(watch.resource_version) < revision:
        yield from watch.poll(0) or ()


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


def test_a_watch_that_is_served_no_more_is_freed_at_once(open_parts):
    """It does not wait for the garbage collector, which a process with many objects runs rarely."""
    parts = open_parts()
    gc.disable()
    try:
        with WatchSelector() as selector:
            watch = parts.cache.watch("/pods", resource_version=parts.settle())
            selector.add(watch)
            parts.put("a/1", "n1")
            parts.settle()
            assert selector.select(timeout=20)
            assert watch.poll(0)
            selector.remove(watch)
            watch.close()
            kind = type(watch)
            before = sum(type(each) is kind for each in gc.get_objects())
            del watch
            assert sum(type(each) is kind for each in gc.get_objects()) == before - 1
    finally:
        gc.enable()
