"""Filling a cache, and refilling it, and what calls do meanwhile."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from revstore.backend import Backend
from revstore.cacher import Cacher, CacherConfig
from revstore.cacher._content import retry_after
from revstore.errors import (
    Closed,
    Expired,
    NotReady,
    Unreachable,
)
from revstore.memory import MemoryBackend
from revstore.resource_type import ResourceType
from revstore.storage import ObjectList
from revstore.testing._support import promptly, wait_until
from revstore.testing.storage._parts import ForwardingBackend, Pod, name_of, pod
from revstore.typed import TypedStorage


def names(listed: ObjectList[Any]) -> list[str]:
    return [name_of(each) for each in listed]


def test_pending_ready_stopped(open_parts):
    """CACHE-2: ready only after the whole state is there; who waits goes on waiting when the feed
    breaks meanwhile; once the cache is closed, it is never ready again."""
    parts = open_parts(held=True)
    cache = parts.cache
    outcomes: list[object] = []

    def wait() -> None:
        try:
            outcomes.append(cache.wait_ready(20))
        except Closed as error:
            outcomes.append(error)

    waits = threading.Thread(target=wait)
    waits.start()
    for _ in range(2):
        opened = parts.feed.opened
        parts.feed.cut()
        wait_until(lambda opened=opened: parts.feed.opened > opened, "the feed is opened again")
        with pytest.raises(NotReady, match=r"initializing.*cut"):
            cache.ready()
        with pytest.raises(NotReady, match="initializing"):
            cache.wait_ready(0.01)
    assert outcomes == []
    parts.feed.release()
    waits.join(20)
    assert outcomes == [None]
    cache.ready()
    cache.close()
    with pytest.raises(Closed):
        cache.ready()


def test_who_waits_for_a_cache_that_is_closed(open_parts):
    """CACHE-2: the end is told at once."""
    parts = open_parts(held=True)
    told: list[str] = []

    def wait() -> None:
        try:
            parts.cache.wait_ready(20)
        except Closed as error:
            told.append(str(error))

    waits = threading.Thread(target=wait)
    waits.start()
    with promptly():
        parts.cache.close()
        waits.join(20)
    assert told == ["the cache was closed"]


@pytest.mark.parametrize(
    ("seconds", "hint"),
    [(0, 1), (10, 1), (14, 2), (20, 3), (30, 6), (40, 11), (540, 30), (1e9, 30)],
)
def test_when_to_try_again(seconds, hint):
    """CACHE-8: the longer the cache has not been ready, the later."""
    assert retry_after(seconds) == hint


def test_calls_before_the_cache_is_ready(open_parts):
    """CACHE-8, CACHE-9, GET-7, OLD-29: gets, and pages without a selector, come from the store;
    other lists and watches wait for their timeout, then say when to try again; never a hang."""
    parts = open_parts(held=True)
    parts.put("a/1", "n1")
    parts.put("a/2")
    cache = parts.cache
    for version in ("", "0", "2"):
        assert name_of(cache.get("/pods/a/1", resource_version=version)) == "a/1"
    page = cache.list("/pods", limit=1)
    assert names(page) == ["a/1"]
    assert names(cache.list("/pods", limit=1, continue_token=page.continue_token)) == ["a/2"]
    parts.store.ready()
    for ask in (
        lambda: cache.list("/pods", timeout=0.01),
        lambda: cache.list("/pods", resource_version="0", timeout=0.01),
        lambda: cache.list("/pods", limit=1, field_selector="spec.nodeName=n1", timeout=0.01),
        lambda: cache.watch("/pods", resource_version="1", timeout=0.01),
        cache.ready,
    ):
        with pytest.raises(NotReady, match="initializing") as caught:
            ask()
        assert caught.value.retry_after == 1
    parts.feed.release()
    assert names(cache.list("/pods", timeout=20)) == ["a/1", "a/2"]


def test_the_first_list_fails(open_parts):
    """FIX-3: the cache tries again by itself; calls that wait for it notice nothing."""

    class FailsFirst(ForwardingBackend):
        calls = 0

        def list(self, prefix, **options):
            self.calls += 1
            if self.calls == 1:
                raise Unreachable("not yet")
            return super().list(prefix, **options)

    parts = open_parts(FailsFirst(MemoryBackend()))
    parts.put("a/1")
    assert names(parts.cache.list("/pods")) == ["a/1"]
    assert parts.cache.counters.initialization_errors == 1


class WritesBetweenPages(ForwardingBackend):
    """Before the second page of a list is read, an object is deleted and another is created; with
    ``compacts`` the history before is dropped as well, the first time."""

    def __init__(self, inner: Backend, last: str, *, compacts: bool) -> None:
        super().__init__(inner)
        self.last = last
        self.compacts = compacts
        self.turns = 0

    def list(self, prefix, *, start="", **options):
        if start and (not self.turns or not self.compacts):
            self.turns += 1
            gone = self.inner.get(self.last).kv
            if gone is not None:
                self.inner.delete(self.last, expected_revision=gone.revision)
                new = self.inner.put(
                    self.last + "-new", gone.value.replace(b"/last", b"/new"), expected_revision=0
                )
                if self.compacts:
                    self.inner.compact(new.revision)
        return super().list(prefix, start=start, **options)


@pytest.mark.parametrize("compacts", [False, True])
def test_the_state_is_read_at_one_revision(open_parts, compacts):
    """CACHE-5: page by page, all as they were at the first; if a page is compacted away meanwhile,
    from the beginning."""
    inner = MemoryBackend()
    store = TypedStorage(inner, ResourceType(Pod, "/pods"))
    store.create("/pods/a/zz", pod("a/zz"))
    value = inner.get("/registry/pods/a/zz").kv.value
    for number in range(10_000):
        inner.put(f"/registry/pods/a/{number}", value, expected_revision=0)
    parts = open_parts(
        WritesBetweenPages(inner, "/registry/pods/a/zz", compacts=compacts), held=True
    )
    with parts.cache as cache:
        watch = None
        parts.feed.release()
        cache.wait_ready()
        filled = cache.counters
        watch = cache.watch("/pods", resource_version="10002")
        assert parts.backend.turns == 1
        assert filled.initializations == 1
        assert filled.initialization_errors == compacts
        assert len(cache.list("/pods")) == 10_001
        if compacts:
            with pytest.raises(Expired):
                watch.poll(10)
        else:
            seen = []
            while len(seen) < 2:
                seen += [str(event.type) for event in watch.poll(10)]
            assert seen == ["DELETED", "ADDED"]
        watch.close()


def test_a_new_state_takes_the_place_of_the_old(open_parts):
    """CACHE-6, HIST-3: when the store has forgotten what happened while the feed was broken, the
    state and its version are the store's, what was remembered before is gone for good, and who
    waits for a version is woken."""
    parts = open_parts()
    before = parts.put("a/1")
    parts.put("a/2")
    old = parts.settle()
    parts.feed.hold()
    parts.store.delete("/pods/a/1")
    parts.put("a/3")
    last = parts.put("a/2", "n1")
    found: list[list[str]] = []
    waits = threading.Thread(
        target=lambda: found.append(
            names(parts.cache.list("/pods", resource_version=last, timeout=3))
        )
    )
    waits.start()
    parts.feed.cut()
    parts.backend.compact(int(last))
    parts.feed.release()
    waits.join(20)
    assert found == [["a/2", "a/3"]]
    cache = parts.cache
    assert cache.list("/pods", resource_version="0").resource_version == last
    for version in (before, old):
        with pytest.raises(Expired):
            cache.watch("/pods", resource_version=version).poll(5)
        with pytest.raises(Expired):
            cache.list("/pods", resource_version=version, resource_version_match="Exact")
    assert cache.counters.initializations == 2


def test_a_closed_cache_is_not_ready():
    """CACHE-2, BOOK-6: stopped is final."""
    with MemoryBackend() as backend:
        storage = TypedStorage(backend, ResourceType(dict, "/pods"))
        cache = Cacher(CacherConfig(storage=storage, resource_type=ResourceType(dict, "/pods")))
        cache.wait_ready()
        cache.close()
        with pytest.raises(Closed):
            cache.wait_ready()
