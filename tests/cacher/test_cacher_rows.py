"""The catalogue's rows about reads through the cache, its filling, and its log."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import attrs
import pytest

from revstore.backend import Backend
from revstore.cacher import Cacher, CacherConfig
from revstore.cacher._content import retry_after
from revstore.errors import (
    Closed,
    Expired,
    InvalidArgument,
    KeyNotFound,
    NotReady,
    TooLargeResourceVersion,
    Unreachable,
)
from revstore.memory import MemoryBackend
from revstore.paging import decode_continue
from revstore.resource_type import ResourceType
from revstore.storage import ObjectList, Storage
from revstore.testing._support import promptly, wait_until
from revstore.testing.cacher._feed import ControlledStorage
from revstore.testing.storage._parts import ForwardingBackend, Pod, name_of, on_node, pod
from revstore.typed import TypedStorage


@attrs.frozen
class Parts:
    """A cache, the feed it follows, and the store under both."""

    cache: Cacher[Any]
    feed: ControlledStorage
    store: Storage[Any]
    backend: Backend

    def settle(self) -> str:
        """Wait until the cache shows all there is; the revision."""
        return self.cache.list("/pods", timeout=20).resource_version

    def put(self, name: str, node: str = "", **metadata: Any) -> str:
        """Write to the store, past the cache; the version."""
        new = pod(name, node, **metadata)
        key = f"/pods/{name}"
        written = self.store.guaranteed_update(key, lambda _, __: new, ignore_not_found=True)
        return written.metadata.resource_version


OpenParts = Callable[..., Parts]


@pytest.fixture
def open_parts() -> Iterator[OpenParts]:
    with ExitStack() as stack:

        def open_parts(
            backend: Backend | None = None,
            object_type: type = Pod,
            *,
            held: bool = False,
            **options: Any,
        ) -> Parts:
            backend = stack.enter_context(backend or MemoryBackend())
            resource_type = ResourceType(object_type, "/pods")
            store = TypedStorage(backend, resource_type)
            feed = ControlledStorage(store)
            if held:
                feed.hold()
            config = CacherConfig(storage=feed, resource_type=resource_type, **options)
            cache = stack.enter_context(Cacher(config))
            stack.callback(feed.release)
            if not held:
                cache.wait_ready()
            return Parts(cache, feed, store, backend)

        yield open_parts


def names(listed: ObjectList[Any]) -> list[str]:
    return [name_of(each) for each in listed]


# --- filling and readiness ---------------------------------------------------------------------


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
        wait_until(lambda opened=opened: parts.feed.opened > opened, "the feed is made anew")
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
    """CACHE-8, CACHE-9, GET-7: gets, and pages without a selector, come from the store; other
    lists and watches wait for their timeout, then say when to try again; never a hang."""
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
    """FIX-3: the cache tries again by itself; whoever waits for it notices nothing."""

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


# --- who serves --------------------------------------------------------------------------------


def test_what_goes_to_the_store_whatever_the_cache_shows(open_parts):
    """DELEG-12, CREATE-7, GET-7: writes, gets without a version, counts and revisions are the
    store's at once; gets with a version and watches are the cache's, which sees writes through its
    feed only."""
    parts = open_parts()
    cache = parts.cache
    parts.settle()
    parts.feed.hold()
    created = cache.create("/pods/a/1", pod("a/1"))
    assert cache.get("/pods/a/1") == created
    assert cache.get("/pods/a/1", resource_version="0", ignore_not_found=True) is None
    assert names(cache.list("/pods", resource_version="0")) == []
    watch = cache.watch("/pods", resource_version="0")
    assert watch.poll(0.01) is None
    assert cache.count("/pods") == cache.stats().object_count == 1
    moved = cache.guaranteed_update("/pods/a/1", lambda found, _: on_node(found, "n1"))
    assert cache.current_revision() == int(moved.metadata.resource_version)
    cache.delete("/pods/a/1")
    assert cache.get("/pods/a/1", ignore_not_found=True) is None
    assert cache.counters.events_received == 0
    parts.feed.release()
    seen = []
    while len(seen) < 3:
        seen += [str(event.type) for event in watch.poll(20)]
    assert seen == ["ADDED", "MODIFIED", "DELETED"]


def test_what_the_store_has_compacted(open_parts):
    """CACHE-23: ``compact_revision`` is the store's, also while the cache remembers more."""
    parts = open_parts()
    first = parts.put("a/1")
    parts.put("a/1", "n1")
    last = parts.settle()
    parts.backend.compact(int(last))
    assert parts.cache.compact_revision() == int(last)
    exact = parts.cache.list("/pods", resource_version=first, resource_version_match="Exact")
    assert exact.resource_version == first
    assert exact[0].spec.node_name == ""


def test_a_miss_tells_the_caches_version(open_parts):
    """GET-8, GET-3: and a hit is the one object that all readers share."""
    parts = open_parts()
    parts.put("a/1")
    last = parts.settle()
    with pytest.raises(KeyNotFound) as caught:
        parts.cache.get("/pods/a/2", resource_version="0")
    assert caught.value.resource_version == last
    assert caught.value.key == "/pods/a/2"
    assert parts.cache.get("/pods/a/2", resource_version="0", ignore_not_found=True) is None
    hits = [parts.cache.get("/pods/a/1", resource_version=each) for each in ("0", last)]
    assert hits[0] is hits[1] is parts.cache.list("/pods")[0]


def test_versions_of_the_future(open_parts):
    """GET-2, CACHE-10: the store refuses at once with no hint, the cache once it has waited, with
    one; a version that is not there yet goes before a key that is not."""
    parts = open_parts(fresh_timeout=0.3)
    parts.put("a/1")
    last = int(parts.settle())
    for key in ("/pods/a/1", "/pods/a/none"):
        with pytest.raises(TooLargeResourceVersion) as raw:
            parts.store.get(key, resource_version=str(last + 5))
        began = time.monotonic()
        with pytest.raises(TooLargeResourceVersion) as cached:
            parts.cache.get(key, resource_version=str(last + 5))
        assert time.monotonic() - began >= 0.3
        assert (raw.value.retry_after, cached.value.retry_after) == (0, 1)
        assert (cached.value.wanted, cached.value.current) == (last + 5, last)
    with pytest.raises(TooLargeResourceVersion):
        parts.cache.list("/pods", resource_version=str(last + 5), timeout=0.01)


class CountsRequests(ForwardingBackend):
    """Counts how often progress was asked for."""

    requests = 0

    def watch(self, key, **options):
        watch = super().watch(key, **options)
        ask = watch.request_progress

        def request_progress() -> None:
            self.requests += 1
            ask()

        watch.request_progress = request_progress
        return watch


def test_progress_is_asked_for_while_somebody_waits(open_parts):
    """CACHE-11: about every 100 ms, not before and not after, nor for reads that need none."""
    parts = open_parts(CountsRequests(MemoryBackend()), fresh_timeout=1.05)
    parts.settle()
    parts.feed.hold()
    parts.put("a/1")
    asked = parts.backend.requests
    for _ in range(50):
        parts.cache.list("/pods", resource_version="0")
    assert parts.backend.requests == asked
    assert names(parts.cache.list("/pods")) == ["a/1"]  # waits in vain, then asks the store
    assert 2 <= parts.backend.requests - asked <= 12
    asked = parts.backend.requests
    for _ in range(50):
        parts.cache.list("/pods", resource_version="0")
    assert parts.backend.requests == asked


# --- lists from memory -------------------------------------------------------------------------


def test_pages_with_a_selector(open_parts):
    """CACHE-16, LIST-10: a page goes on after its last match, iff any object follows it."""
    parts = open_parts()
    for number, node in enumerate(["n1", "", "n1", "n1", ""]):
        parts.put(f"a/{number}", node)
    parts.settle()
    seen, token = [], ""
    while True:
        page = parts.cache.list(
            "/pods", limit=1, field_selector="spec.nodeName=n1", continue_token=token
        )
        seen += names(page)
        assert page.remaining_item_count is None
        token = page.continue_token
        if not token:
            break
        if page.items:
            assert decode_continue(token, "/pods/").start == f"/pods/{seen[-1]}\0"
    assert seen == ["a/0", "a/2", "a/3"]


def test_states_that_the_log_has_forgotten(open_parts):
    """DELEG-10, CACHE-20: exact lists and pages go to the store then; where it has forgotten as
    well, they are Expired, pages with a token that goes on."""
    parts = open_parts(capacity=100)
    for number in range(3):
        first = parts.put(f"a/{number}")
    token = parts.cache.list("/pods", limit=1).continue_token
    for number in range(400):
        parts.put("a/0", f"n{number}")
    last = parts.settle()
    ask = {"resource_version": first, "resource_version_match": "Exact"}
    served = parts.cache.counters.served_by_store
    assert parts.cache.list("/pods", **ask) == parts.store.list("/pods", **ask)
    assert names(parts.cache.list("/pods", continue_token=token)) == ["a/1", "a/2"]
    assert parts.cache.counters.served_by_store == served + 2
    parts.backend.compact(int(last))
    with pytest.raises(Expired):
        parts.cache.list("/pods", **ask)
    with pytest.raises(Expired) as caught:
        parts.cache.list("/pods", continue_token=token)
    rest = parts.cache.list("/pods", continue_token=caught.value.continue_token)
    assert (names(rest), rest.resource_version) == (["a/1", "a/2"], last)


# --- suggestions -------------------------------------------------------------------------------


def test_what_the_caller_remembers_is_not_used(open_parts):
    """DEL-15, GU-19, OLD-33: the cache's object is what a write begins with, also when it lags;
    then the store's own; and if the cache has none, the store's from the start."""
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
    parts = open_parts(object_type=dict)
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


# --- the log -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "capacity"),
    [
        ({}, 102_400),
        ({"event_history_window": 75}, 102_400),
        ({"event_history_window": 76}, 204_800),
        ({"event_history_window": 150}, 204_800),
        ({"event_history_window": 151}, 409_600),
        ({"event_history_window": 1e12}, 102_400 << 14),
        ({"event_history_window": 1e12, "capacity": 7}, 7),
    ],
)
def test_capacity(open_parts, options, capacity):
    """HIST-1: the upper bound doubles with the window; an explicit one goes over it."""
    assert open_parts(**options).cache.counters.log_capacity == capacity


def test_the_log_grows_and_shrinks(open_parts, monkeypatch):
    """HIST-1, HIST-2: events of the window are all kept, however many; older ones go when others
    come, but for about a hundred."""
    parts = open_parts()
    for number in range(1000):
        parts.put("a/1", f"n{number}")
    parts.settle()
    assert parts.cache.counters.log_length == 1000
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 80)
    for number in range(300):
        parts.put("a/1", f"m{number}")
    last = parts.settle()
    assert 300 <= parts.cache.counters.log_length <= 600
    monkeypatch.setattr(time, "monotonic", lambda: now + 1000)
    for number in range(200):
        parts.put("a/1", f"n{number}")
    parts.settle()
    assert 200 <= parts.cache.counters.log_length <= 400
    with parts.cache.watch("/pods", resource_version=last) as watch:
        seen = 0
        while seen < 200:
            seen += len(watch.poll(0))
        assert seen == 200


def test_the_oldest_version_that_can_be_watched(open_parts):
    """HIST-4, OLD-30, CACHE-3: of a cache that was filled at R, R and what comes after; what is
    older is Expired, and stays so."""
    backend = MemoryBackend()
    store = TypedStorage(backend, ResourceType(Pod, "/pods"))
    for number in range(3):
        store.create(f"/pods/a/{number}", pod(f"a/{number}"))
    parts = open_parts(backend)
    filled = int(parts.cache.list("/pods", resource_version="0").resource_version)
    assert filled == 4
    with (
        parts.cache.watch("/pods", resource_version=str(filled)) as at,
        parts.cache.watch("/pods", resource_version=str(filled + 1)) as after,
        parts.cache.watch("/pods", resource_version=str(filled - 1)) as before,
    ):
        for _ in range(2):
            with pytest.raises(Expired, match=f"version {filled - 1} is too old.*{filled}"):
                before.poll(5)
        parts.put("a/0", "n1")
        parts.put("a/1", "n1")
        parts.settle()
        assert [event.resource_version for event in at.poll(20)] == [
            str(filled + 1),
            str(filled + 2),
        ]
        assert [event.resource_version for event in after.poll(20)] == [str(filled + 2)]


@pytest.mark.parametrize("prefix", ["", "/", "pods", "/other"])
def test_a_prefix_that_is_not_the_storages(prefix):
    """CACHE-1, KEY-8: refused when the cache is made, by name."""
    with MemoryBackend() as backend:
        storage = TypedStorage(backend, ResourceType(dict, "/pods"))
        with pytest.raises(InvalidArgument):
            Cacher(CacherConfig(storage=storage, resource_type=ResourceType(dict, prefix)))
    assert not [each for each in threading.enumerate() if each.name == "revstore-cacher"]


def test_a_closed_cache_is_not_ready():
    """CACHE-2, BOOK-6: stopped is final."""
    with MemoryBackend() as backend:
        storage = TypedStorage(backend, ResourceType(dict, "/pods"))
        cache = Cacher(CacherConfig(storage=storage, resource_type=ResourceType(dict, "/pods")))
        cache.wait_ready()
        cache.close()
        with pytest.raises(Closed):
            cache.wait_ready()
