"""The catalogue's rows about watches on the cache, and their bookmarks."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import attrs
import pytest

from revstore.backend import Backend
from revstore.cacher import Cacher, CacherConfig
from revstore.errors import Closed, Expired, TooLargeResourceVersion, Unsupported
from revstore.memory import MemoryBackend
from revstore.resource_type import ResourceType
from revstore.storage import INITIAL_EVENTS_END, Event, EventType, Storage, Watch
from revstore.testing._support import PATIENCE, let_block, promptly, run_threads, wait_until
from revstore.testing.cacher._feed import ControlledStorage
from revstore.testing.storage._parts import PODS, ForwardingBackend, Pod, name_of, pod
from revstore.typed import TypedStorage
from revstore.values import Capability


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

    def put(self, name: str, node: str = "", prefix: str = "/pods", **metadata: Any) -> str:
        """Write to the store, past the cache; the version."""
        new = pod(name, node, **metadata)
        store = TypedStorage(self.backend, ResourceType(Pod, prefix))
        written = store.guaranteed_update(
            f"{prefix}/{name}", lambda _, __: new, ignore_not_found=True
        )
        return written.metadata.resource_version


OpenParts = Callable[..., Parts]


@pytest.fixture
def open_parts() -> Iterator[OpenParts]:
    with ExitStack() as stack:

        def open_parts(
            backend: Backend | None = None,
            resource_type: ResourceType[Pod] = PODS,
            **options: Any,
        ) -> Parts:
            backend = stack.enter_context(backend or MemoryBackend())
            store = TypedStorage(backend, resource_type)
            feed = ControlledStorage(store)
            config = CacherConfig(storage=feed, resource_type=resource_type, **options)
            cache = stack.enter_context(Cacher(config))
            stack.callback(feed.release)
            cache.wait_ready()
            return Parts(cache, feed, store, backend)

        yield open_parts


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


# --- where a watch starts, and what it sees ----------------------------------------------------


def test_a_start_without_a_version(open_parts):
    """CWATCH-2: the store's revision counts, not what the cache shows. Only a watch that begins
    with the state waits for the cache to get there, and fails if it does not; "0" waits for
    nothing."""
    parts = open_parts(fresh_timeout=0.2)
    parts.put("a/1")
    parts.settle()
    parts.feed.hold()
    parts.put("a/2")
    with parts.cache.watch("/pods", send_initial_events=True) as fails:
        for _ in range(2):
            with pytest.raises(TooLargeResourceVersion) as caught:
                fails.poll(5)
            assert (caught.value.wanted, caught.value.retry_after) == (3, 1)
    with parts.cache.watch("/pods", resource_version="0", send_initial_events=True) as any_state:
        assert brief(take(any_state, 1)) == ["ADDED a/1"]
    with promptly():
        watch = parts.cache.watch("/pods", send_initial_events=False)
    assert watch.resource_version == "3"
    parts.put("a/3")
    assert watch.poll(0) is None
    parts.feed.release()
    assert brief(take(watch, 1)) == ["ADDED a/3"]
    watch.close()


class NoProgress(ForwardingBackend):
    """A backend that cannot be asked for progress and tells none by itself."""

    @property
    def capabilities(self):
        return super().capabilities - {Capability.PROGRESS}

    def watch(self, key, **options):
        watch = super().watch(key, **{**options, "progress": False})

        def refuse() -> None:
            raise Unsupported(Capability.PROGRESS)

        watch.request_progress = refuse
        return watch


def test_initial_events_without_progress(open_parts):
    """CWATCH-3: a watch begins with the state if the cache has got to the wanted version by
    events; if it cannot know that, the watch fails when it has waited."""
    parts = open_parts(NoProgress(MemoryBackend()), fresh_timeout=0.2)
    last = parts.put("a/1")
    with parts.cache.watch("/pods", send_initial_events=True, allow_bookmarks=True) as watch:
        added, end = take(watch, 2)
        assert added.resource_version == end.resource_version == last
        assert end.type is EventType.BOOKMARK
    parts.put("n1", prefix="/nodes")
    with (
        parts.cache.watch("/pods", send_initial_events=True) as unknown,
        pytest.raises(TooLargeResourceVersion),
    ):
        unknown.poll(5)
    with parts.cache.watch("/pods", resource_version=last, send_initial_events=True) as watch:
        assert brief(take(watch, 1)) == ["ADDED a/1"]


def test_who_does_not_wait_turns_no_cache_off(open_parts):
    """DELEG-1, DELEG-8: lists go on from the cache, in pages, though somebody has asked in vain
    for a version that the store may never reach, or had no time; only when the cache did not get
    to where the store is, though it had time, is the store asked for a while."""
    parts = open_parts(NoProgress(MemoryBackend()), fresh_timeout=0.2)
    last = parts.put("a/1")
    parts.put("a/2")
    parts.cache.list("/pods", resource_version=last)

    def served():
        before = parts.cache.counters.served_by_store
        parts.cache.list("/pods")
        return parts.cache.counters.served_by_store - before

    for timeout in (0.01, 5):
        with pytest.raises(TooLargeResourceVersion):
            parts.cache.list("/pods", resource_version=str(int(last) + 50), timeout=timeout)
    assert served() == 0
    parts.put("n1", prefix="/nodes")
    parts.cache.list("/pods", timeout=0.1)
    waits = parts.cache.counters.read_waits
    assert served() == 1
    assert parts.cache.counters.read_waits == waits + 1
    assert served() == 1
    assert parts.cache.counters.read_waits == waits + 1


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
    """CWATCH-7: of an object that leaves a selector, watches get the content before at the
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


# --- its end -----------------------------------------------------------------------------------


def test_watches_that_end_are_forgotten(open_parts):
    """CWATCH-8, BOOK-5: by close, however often, by its timeout, or because it fell behind."""
    parts = open_parts(capacity=100, indexed_fields=("spec.nodeName",))
    start = parts.settle()
    watches = [
        parts.cache.watch(key, resource_version=start, allow_bookmarks=True, **options)
        for key in ("/pods", "/pods/a")
        for options in ({}, {"field_selector": "spec.nodeName=n1"}, {"label_selector": "x"})
    ]
    assert parts.cache.counters.watches == len(watches)
    for watch in watches:
        watch.close()
        watch.close()
        with pytest.raises(Closed):
            watch.poll(0)
    assert parts.cache.counters.watches == 0
    timed = parts.cache.watch("/pods", resource_version=start, timeout=0.01)
    assert list(timed) == []
    behind = parts.cache.watch("/pods", resource_version=start)
    for number in range(300):
        parts.put("a/1", f"x{number}")
    parts.settle()
    with pytest.raises(Expired):
        behind.poll(0)
    counters = parts.cache.counters
    assert (counters.watches, counters.watches_max, counters.terminated_watches) == (0, 6, 1)


def test_initial_events_are_finished_first(open_parts):
    """DISP-4: a watch whose cache is filled anew, or whose log goes on without it, still gets the
    state that it began with to the end, then Expired; one that is closed gets no more."""
    parts = open_parts()
    names = [f"a/{number:03}" for number in range(600)]
    for name in names:
        parts.put(name)
    last = parts.settle()
    asked = {"resource_version": "0", "send_initial_events": True, "allow_bookmarks": True}
    watch, closed = parts.cache.watch("/pods", **asked), parts.cache.watch("/pods", **asked)
    first = watch.poll(0)
    assert 0 < len(first) < 600
    closed.poll(0)
    parts.feed.hold()
    parts.store.delete("/pods/a/000")
    parts.feed.cut()
    parts.backend.compact(parts.backend.status().revision)
    parts.feed.release()
    wait_until(lambda: parts.cache.counters.initializations == 2, "a new filling")
    *rest, end = take(watch, 601 - len(first))
    assert [name_of(event.object) for event in [*first, *rest]] == names
    assert (end.type, end.resource_version) == (EventType.BOOKMARK, last)
    with pytest.raises(Expired):
        watch.poll(5)
    closed.close()
    with pytest.raises(Closed):
        closed.poll(0)


def test_closing_while_bookmarks_are_due(open_parts):
    """DISP-5: a watch that is closed while it is polled, with bookmarks due all the time and
    events coming, ends, a thousand times; nobody is stuck."""
    parts = open_parts(bookmark_interval=1e-4)
    start = parts.settle()
    done = threading.Event()

    def work(index: int) -> None:
        if index == 0:
            number = 0
            while not done.is_set():
                number += 1
                parts.put("a/1", f"n{number}")
                done.wait(0.001)
            return
        try:
            for _ in range(500):
                _poll_and_close(parts.cache, start)
        finally:
            if index == 1:
                done.set()

    run_threads(3, work)
    assert parts.cache.counters.watches == 0


def _poll_and_close(cache: Cacher[Any], start: str) -> None:
    watch = cache.watch("/pods", resource_version="0", allow_bookmarks=True)
    closes = threading.Thread(target=watch.close)
    closes.start()
    deadline = time.monotonic() + PATIENCE
    for _ in watch:
        assert time.monotonic() < deadline
    closes.join(PATIENCE)


# --- bookmarks ---------------------------------------------------------------------------------


def test_bookmarks_among_events(open_parts):
    """BOOK-2, BOOK-3: a bookmark is never below an event that came before it, and every event
    after it is above it, whoever writes what meanwhile; none goes back behind another."""
    parts = open_parts(bookmark_interval=2e-3)
    start = parts.settle()
    chance = random.Random(1)

    def work(index: int) -> list[Event[Any]]:
        if index == 0:
            for number in range(600):
                name, node = chance.choice(["a/1", "a/2"]), chance.choice(["n1", "n2"])
                prefix = "/pods" if number % 3 else "/nodes"
                parts.put(name, node, prefix, labels={"turn": str(number)})
            parts.put("a/last", "n1")
            return []
        seen: list[Event[Any]] = []
        with parts.cache.watch(
            "/pods",
            resource_version=start,
            field_selector="spec.nodeName=n1",
            allow_bookmarks=True,
        ) as watch:
            while not seen or name_of(seen[-1].object) != "a/last":
                seen += watch.poll(PATIENCE) or ()
        return seen

    _, *results = run_threads(3, work)
    for seen in results:
        bookmarks = 0
        last, passed = int(start), 0
        for event in seen:
            revision = int(event.resource_version)
            if event.type is EventType.BOOKMARK:
                bookmarks += 1
                assert revision >= last
                assert int(event.object.metadata.resource_version) == revision
                assert name_of(event.object) == ""
                passed = max(passed, revision)
            else:
                assert revision > max(passed, last)
            last = revision
        assert bookmarks


@pytest.mark.parametrize("asked", ["", "0", "N"])
def test_the_bookmark_after_the_initial_events(open_parts, asked):
    """BOOK-4, WATCH-16: it comes right after them, in a quiet cache too, once, with the version
    that the state is of: for "" the store's, for "0" the cache's, for N that or a later one."""
    parts = open_parts(bookmark_interval=0.05)
    for name in ("a/1", "a/2", "b/1"):
        parts.put(name)
    cached = parts.settle()
    parts.feed.hold()
    elsewhere = parts.put("n1", prefix="/nodes")
    if asked != "0":
        parts.feed.release()
    with parts.cache.watch(
        "/pods/a",
        resource_version=elsewhere if asked == "N" else asked,
        send_initial_events=True,
        allow_bookmarks=True,
    ) as watch:
        *added, end = take(watch, 3)
        assert brief(added) == ["ADDED a/1", "ADDED a/2"]
        assert end.type is EventType.BOOKMARK
        assert end.object.metadata.annotations == {INITIAL_EVENTS_END: "true"}
        assert end.resource_version == (cached if asked == "0" else elsewhere)
        assert watch.resource_version == end.resource_version
        (later,) = take(watch, 1)
        assert later.type is EventType.BOOKMARK
        assert later.object.metadata.annotations == {}
        assert int(later.resource_version) >= int(end.resource_version)


def test_initial_events_wait_for_the_version(open_parts):
    """BOOK-4, CWATCH-2: with version N they are of a state that has it."""
    parts = open_parts()
    parts.settle()
    parts.feed.hold()
    wanted = parts.put("a/1")
    found: list[str] = []

    def open_and_take() -> None:
        with parts.cache.watch(
            "/pods", resource_version=wanted, send_initial_events=True, allow_bookmarks=True
        ) as watch:
            found.extend(str(event.type) for event in take(watch, 2))

    opens = threading.Thread(target=open_and_take)
    opens.start()
    let_block()
    assert found == []
    parts.feed.release()
    opens.join(PATIENCE)
    assert found == ["ADDED", "BOOKMARK"]
