"""What the cache does beyond the shared suites."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from revstore.cacher import Cacher, CacherConfig
from revstore.errors import Closed, Expired, InvalidArgument, NotReady, Unreachable
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


def moved(node: str):
    return lambda found, _: attrs.evolve(found, node_name=node)


@pytest.fixture
def backend():
    with MemoryBackend() as backend:
        yield backend


@pytest.fixture
def open_cache(backend):
    with ExitStack() as stack:

        def open_cache(object_type=Pod, **options):
            storage = TypedStorage(backend, ResourceType(object_type, "/pods"))
            config = CacherConfig(
                storage=storage, resource_type=ResourceType(object_type, "/pods"), **options
            )
            return stack.enter_context(Cacher(config))

        yield open_cache


def follow(watch, until: str) -> list[tuple[str, str, str]]:
    """Events until that of version ``until``."""
    seen = []
    deadline = time.monotonic() + 30
    while not seen or seen[-1][2] != until:
        events = watch.poll(max(0.0, deadline - time.monotonic()))
        assert events is not None, seen[-3:]
        seen += [(str(e.type), e.object.metadata.name, e.resource_version) for e in events]
    return seen


def test_lists_see_writes_that_went_elsewhere(backend, open_cache):
    """CACHE-13, DELEG-1: a list without a version shows every acknowledged write, also of other
    resources' revisions that the feed has no event for."""
    cache = open_cache()
    other = TypedStorage(backend, ResourceType(Pod, "/pods"))
    nodes = TypedStorage(backend, ResourceType(Pod, "/nodes"))
    for number in range(200):
        written = other.create(f"/pods/a/{number}", pod(str(number)))
        nodes.create(f"/nodes/{number}", pod(str(number)))
        listed = cache.list("/pods/a")
        assert len(listed) == number + 1
        assert int(listed.resource_version) >= int(written.metadata.resource_version)


def test_old_states_come_from_the_log(open_cache):
    """CACHE-15, CACHE-19, DELEG-5, DELEG-7: exact lists and pages are those of the store, also of
    states that the store itself has compacted."""
    cache = open_cache()
    storage = cache._storage
    versions = []
    for number in range(40):
        key = f"/pods/{'ab'[number % 2]}/{number % 7}"
        if number % 5 == 4 and storage.get(key, ignore_not_found=True):
            versions.append(storage.delete(key).metadata.resource_version)
        elif storage.get(key, ignore_not_found=True):
            versions.append(
                storage.guaranteed_update(key, moved(str(number))).metadata.resource_version
            )
        else:
            name = key.rpartition("/")[2]
            versions.append(storage.create(key, pod(name)).metadata.resource_version)
    expected = {
        (version, scope): storage.list(
            scope, resource_version=version, resource_version_match="Exact"
        )
        for version in versions
        for scope in ("/pods", "/pods/a", "/pods/b")
    }
    cache.list("/pods")
    cache._storage._backend.compact(int(versions[-1]))
    for (version, scope), want in expected.items():
        got = cache.list(scope, resource_version=version, resource_version_match="Exact")
        assert (got.items, got.resource_version) == (want.items, want.resource_version)
        paged, token = [], ""
        while True:
            page = cache.list(
                scope,
                resource_version="" if token else version,
                resource_version_match="" if token else "Exact",
                limit=2,
                continue_token=token,
            )
            paged += page.items
            token = page.continue_token
            if not token:
                break
        assert tuple(paged) == want.items


SELECTORS = ["app=x", "app=y", "app!=x", "app in (x,y),tier", "!app", "tier=1,app=x", ""]
FIELDS = ["", "nodeName=n1", "nodeName!=n1", "metadata.namespace=a", "nodeName=n2,metadata.name=p1"]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 5),
            st.sampled_from(["put", "delete"]),
            st.sampled_from(["", "n1", "n2"]),
            st.dictionaries(st.sampled_from(["app", "tier"]), st.sampled_from(["x", "y", "1"])),
        ),
        max_size=25,
    )
)
def test_indexes_find_what_a_scan_finds(steps):
    """CACHE-17: whatever happened, a list by selector equals the store's."""
    with MemoryBackend() as backend:
        storage = TypedStorage(backend, ResourceType(Pod, "/pods"))
        config = CacherConfig(
            storage=storage,
            resource_type=ResourceType(Pod, "/pods"),
            indexed_fields=("nodeName", "metadata.namespace"),
        )
        with Cacher(config) as cache:
            for number, what, node, labels in steps:
                key = f"/pods/{'ab'[number % 2]}/p{number}"
                new = pod(f"p{number}", "ab"[number % 2], node, **labels)
                if what == "put":
                    storage.guaranteed_update(
                        key, lambda _, __, new=new: new, ignore_not_found=True
                    )
                elif storage.get(key, ignore_not_found=True):
                    storage.delete(key)
            for label in SELECTORS:
                for field in FIELDS:
                    for scope in ("/pods", "/pods/a"):
                        asked = {"label_selector": label, "field_selector": field}
                        got, want = cache.list(scope, **asked), storage.list(scope, **asked)
                        assert got == want


def test_a_feed_that_is_cut_loses_nothing(open_cache):
    """CACHE-4, CACHE-7, DECISIONS 13: reconnecting keeps watchers; each sees every event once, in
    order."""
    cache = open_cache()
    watches = [cache.watch("/pods", resource_version="1") for _ in range(3)]
    done = threading.Event()

    def write(index: int) -> None:
        if index == 3:
            while not done.is_set():
                cache._feed.cut()
                done.wait(0.001)
            return
        for number in range(300):
            key = f"/pods/a/{index}-{number % 10}"
            cache.guaranteed_update(
                key,
                lambda _, __, number=number: pod(f"{index}-{number % 10}", node=str(number)),
                ignore_not_found=True,
            )
        if index == 0:
            wait_until(lambda: cache.current_revision() == 901, "all writes")
            done.set()

    run_threads(4, write)
    want = [str(version) for version in range(2, 902)]
    for watch in watches:
        assert [version for _, _, version in follow(watch, "901")] == want


def test_a_slow_watch_falls_off_and_is_told(open_cache):
    """HIST-5, DECISIONS 13: the log is bounded; whoever falls behind gets Expired, each time it
    polls, with the version to list from, and delays nobody."""
    cache = open_cache(capacity=100)
    slow, quick = (cache.watch("/pods", resource_version="1") for _ in range(2))
    for number in range(400):
        written = cache.create(f"/pods/a/{number}", pod(str(number)))
        (event,) = quick.poll(5)
        assert event.resource_version == written.metadata.resource_version
    for _ in range(2):
        with pytest.raises(Expired, match="fell behind") as caught:
            slow.poll(5)
        assert int(caught.value.resource_version) >= 300
    with pytest.raises(Expired, match="too old") as caught:
        cache.watch("/pods", resource_version="2").poll(5)
    assert [e[2] for e in follow(cache.watch("/pods", resource_version="395"), "401")] == [
        str(version) for version in range(396, 402)
    ]


def test_closing_ends_ten_thousand_watches(open_cache):
    """BOOK-6: quickly, and without a thread left."""
    before = threading.active_count()
    cache = open_cache()
    cache.wait_ready()
    watches = [cache.watch(f"/pods/ns{number}", resource_version="0") for number in range(10_000)]
    ended = []

    def iterate() -> None:
        ended.extend(watches[0])
        ended.append("end")

    reader = threading.Thread(target=iterate)
    reader.start()
    start = time.perf_counter()
    cache.close()
    assert time.perf_counter() - start < 1
    reader.join(5)
    assert ended == ["end"]
    wait_until(lambda: threading.active_count() == before, "no thread left")
    for watch in watches:
        with pytest.raises(Closed):
            watch.poll(0)
    with pytest.raises(Closed):
        cache.get("/pods/a/x")


def test_mutable_objects_are_copied_for_each_reader(open_cache):
    """DESIGN 6: nothing that a reader does to its object is seen by another."""
    cache = open_cache(dict)
    cache.create("/pods/a/x", {"metadata": {"name": "x", "labels": {"k": "v"}}})
    watches = [cache.watch("/pods", resource_version="1") for _ in range(2)]
    events = [watch.poll(5)[0] for watch in watches]
    readers = [
        lambda: cache.list("/pods")[0],
        lambda: cache.get("/pods/a/x", resource_version="2"),
        lambda: next(iter(cache.watch("/pods"))).object,
        *(lambda event=event: event.object for event in events),
    ]
    for read in readers:
        found = read()
        assert found["metadata"]["labels"] == {"k": "v"}
        found["metadata"]["labels"]["k"] = "changed"
        found["metadata"].pop("name")
    assert cache.list("/pods")[0]["metadata"]["labels"] == {"k": "v"}
    cache.guaranteed_update("/pods/a/x", lambda found, _: found["metadata"].clear() or found)
    assert events[0].type is EventType.ADDED


def test_a_relist_ends_watches(backend, open_cache):
    """CACHE-3, CACHE-4, DECISIONS 13: when history was compacted while the feed was away, nothing
    is made up."""
    cache = open_cache()
    cache.wait_ready()
    watch = cache.watch("/pods", resource_version="1")
    # The feed is held back by its own lock while the store moves on and forgets.
    with cache._content._lock:
        other = TypedStorage(backend, ResourceType(Pod, "/pods"))
        for number in range(3):
            other.create(f"/pods/a/{number}", pod(str(number)))
        cache._feed.cut()
        backend.compact(4)
    wait_until(lambda: _expired_or_events(watch), "an end")
    assert len(cache.list("/pods")) == 3


def _expired_or_events(watch) -> bool:
    try:
        events = watch.poll(0.05)
    except Expired:
        return True
    return bool(events) and events[-1].resource_version == "4"


def test_until_the_first_list_calls_wait_then_say_not_ready(backend):
    """CACHE-8, CACHE-9: never a hang, never an empty answer."""

    class Hidden(MemoryBackend):
        def list(self, *arguments, **options):
            raise Unreachable("not yet")

    with Hidden() as hidden:
        storage = TypedStorage(hidden, ResourceType(Pod, "/pods"))
        config = CacherConfig(storage=storage, resource_type=ResourceType(Pod, "/pods"))
        with Cacher(config) as cache:
            with pytest.raises(NotReady):
                cache.ready()
            with pytest.raises(NotReady, match="initializing"):
                cache.list("/pods", timeout=0.2)
            with pytest.raises(NotReady):
                cache.watch("/pods", timeout=0.2)
            assert cache.get("/pods/a/x", ignore_not_found=True) is None


@pytest.mark.parametrize(
    ("field", "value"), [("event_history_window", 60), ("capacity", 0), ("capacity", -1)]
)
def test_bad_configuration(field, value, backend):
    """CACHE-1: refused by name."""
    storage = TypedStorage(backend, ResourceType(Pod, "/pods"))
    with pytest.raises(InvalidArgument, match=field):
        CacherConfig(storage=storage, resource_type=ResourceType(Pod, "/pods"), **{field: value})
