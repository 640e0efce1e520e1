"""What becomes of a cache and its watches when the feed breaks, or cannot begin."""

from __future__ import annotations

import threading
import time

import attrs
import pytest

from revstore.cacher import Cacher, CacherConfig
from revstore.errors import Expired, NotReady, Unreachable
from revstore.memory import MemoryBackend
from revstore.objects import ObjectMeta
from revstore.resource_type import ResourceType
from revstore.testing._support import run_threads, wait_until
from revstore.typed import TypedStorage


@attrs.frozen(kw_only=True)
class Pod:
    metadata: ObjectMeta
    node_name: str = ""


def pod(name: str, namespace: str = "a", node: str = "", **labels: str) -> Pod:
    return Pod(metadata=ObjectMeta(name=name, namespace=namespace, labels=labels), node_name=node)


def follow(watch, until: str) -> list[tuple[str, str, str]]:
    """Events until that of version ``until``."""
    seen = []
    deadline = time.monotonic() + 30
    while not seen or seen[-1][2] != until:
        events = watch.poll(max(0.0, deadline - time.monotonic()))
        assert events is not None, seen[-3:]
        seen += [(str(e.type), e.object.metadata.name, e.resource_version) for e in events]
    return seen


def test_a_feed_that_is_cut_loses_nothing(open_cache):
    """CACHE-4, CACHE-7: reconnecting keeps watchers; each sees every event once, in
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


def test_a_relist_ends_watches(backend, open_cache):
    """CACHE-3, CACHE-4: when history was compacted while the feed was away, nothing
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
