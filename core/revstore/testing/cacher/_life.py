"""``CacherTests``, part: many readers and writers at once, shared objects, and closing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from revstore.cacher import Cacher
from revstore.errors import Closed
from revstore.storage import ObjectList
from revstore.testing._support import PATIENCE, run_threads
from revstore.testing.cacher._base import (
    SELECTIONS,
    CachedPods,
    CacherSuite,
    OpenCache,
)
from revstore.testing.cacher._history import Ask, History
from revstore.testing.cacher._replay import Replay
from revstore.testing.storage._base import Pods
from revstore.testing.storage._parts import Pod, pod

__all__ = ["CachedLifeTests"]

_WATCHES = 2000


class CachedLifeTests(CacherSuite):
    """Concurrency, shared objects, and closing."""

    def test_cached_hammer(self, cached: CachedPods, elsewhere: Pods) -> None:
        """While Pods move between labels, each list shows one state: nothing newer than its
        version, nothing missing, nothing twice. Versions never fall, and watches replay the same
        history (CACHE-18, CACHE-15, CWATCH-1, BASE-1)."""
        start, writers, turns = cached.settle(), 3, 50
        feed = cached.feed.inner.changes(cached.prefix, after=start)
        asks = [Ask(cached.prefix, selection=each) for each in SELECTIONS[:3]]
        over = threading.Event()
        left = [writers]
        lock = threading.Lock()

        def work(index: int) -> list[tuple[Ask, ObjectList[Pod]]]:
            if index < writers:
                try:
                    _move(cached if index else elsewhere, cached, index, turns)
                finally:
                    with lock:
                        left[0] -= 1
                        if not left[0]:
                            over.set()
                return []
            return _list_until(over, cached, asks)

        watches = [
            (ask, cached.storage.watch(ask.key, resource_version="", **ask.options)) for ask in asks
        ]
        answers = [answer for found in run_threads(writers + 2, work) for answer in found]
        last = int(elsewhere.create("c/last").metadata.resource_version)
        history = History(start)
        with feed:
            history.follow(feed, last, PATIENCE)
        for ask, listed in answers:
            assert list(listed) == ask.among(history.at(int(listed.resource_version)))
        for ask, watch in watches:
            replay = Replay(watch, history, ask, minimum=start)
            replay.drain(last, PATIENCE)
            assert replay.ended is None
            replay.close()

    def test_mutable_objects_have_one_owner(self, open_cache: OpenCache) -> None:
        """Each reader gets a mutable object of its own: neither other readers nor the cache see
        what it changes (DISP-7, DISP-8)."""
        cached = open_cache(dict, indexed_fields=())
        storage: Cacher[Any] = cached.cache
        key = cached.key("a/x")
        start = cached.settle()
        manifest = {"metadata": {"name": "x", "namespace": "a", "labels": {"k": "v"}}}
        version = storage.create(key, manifest)["metadata"]["resourceVersion"]

        def watched(resource_version: str) -> Any:
            with storage.watch(cached.prefix, resource_version=resource_version) as watch:
                events = watch.poll(PATIENCE)
            assert events
            return events[0].object

        readers: list[Callable[[], Any]] = [
            lambda: storage.list(cached.prefix)[0],
            lambda: storage.list(cached.prefix, label_selector="k=v")[0],
            lambda: storage.list(cached.prefix, resource_version="0", limit=1)[0],
            lambda: storage.get(key),
            lambda: storage.get(key, resource_version=version),
            lambda: watched(str(start)),
            lambda: watched("0"),
        ]
        for read in [*readers, *readers]:
            found = read()
            assert found["metadata"]["labels"] == {"k": "v"}
            found["metadata"]["labels"]["k"] = "changed"
            del found["metadata"]["name"]

    def test_frozen_objects_are_shared(self, cached: CachedPods) -> None:
        """Frozen objects are not copied: lists and gets between two changes return the same ones
        (DISP-7)."""
        cached.create("a/x", labels={"app": "x"})
        version = str(cached.settle())
        (first,) = cached.list()
        (second,) = cached.list(label_selector="app=x", resource_version=version)
        assert first is second
        assert cached.storage.get(cached.key("a/x"), resource_version=version) is first

    def test_closing_with_many_watches(self, cached: CachedPods) -> None:
        """``close`` is quick, however many watches there are. It wakes waiting calls, and
        afterwards every call raises Closed (BOOK-6, CWATCH-8, CACHE-2)."""
        watches = [
            cached.storage.watch(
                cached.key(f"ns{number % 100}"),
                resource_version="0",
                **SELECTIONS[number % len(SELECTIONS)].options,
            )
            for number in range(_WATCHES)
        ]
        ended: list[str] = []

        def iterate() -> None:
            assert list(watches[0]) == []
            ended.append("iteration")
            with pytest.raises(Closed):
                watches[1].poll()
            ended.append("poll")

        reader = threading.Thread(target=iterate)
        reader.start()
        for watch in watches[2::2]:
            watch.close()
        began = time.monotonic()
        cached.cache.close()
        assert time.monotonic() - began < 2
        reader.join(PATIENCE)
        assert ended == ["iteration", "poll"]
        for watch in watches:
            with pytest.raises(Closed):
                watch.poll(0)
        for call in (
            cached.list,
            lambda: cached.list(resource_version="0"),
            lambda: cached.read("a/x"),
            lambda: cached.create("a/x"),
            cached.watch,
            cached.cache.ready,
        ):
            with pytest.raises(Closed):
                call()
        cached.cache.close()

    def test_closing_wakes_who_waits(self, open_cache: OpenCache, elsewhere: Pods) -> None:
        """``close`` ends a list that waits for the cache to show a revision (CACHE-8, CACHE-10)."""
        cached = open_cache(fresh_timeout=PATIENCE)
        cached.settle()
        cached.feed.hold()
        version = elsewhere.create("a/x").metadata.resource_version
        errors: list[BaseException] = []

        def wait() -> None:
            try:
                cached.list(resource_version=version)
            except Closed as error:
                errors.append(error)

        waiter = threading.Thread(target=wait)
        waiter.start()
        began = time.monotonic()
        cached.cache.close()
        waiter.join(PATIENCE)
        assert time.monotonic() - began < PATIENCE / 2
        assert [type(error) for error in errors] == [Closed]


def _move(pods: Pods, cached: CachedPods, index: int, turns: int) -> None:
    """Move two Pods between labels; after each move, the next list by the new label must show the
    Pod."""
    for number in range(turns):
        name = f"a/{index}-{number % 2}"
        app = "xy"[number // 2 % 2]
        new = pod(name, labels={"app": app, "turn": str(number)})
        written = pods.storage.guaranteed_update(
            pods.key(name), lambda *_, new=new: new, ignore_not_found=True
        )
        assert written in cached.list(label_selector=f"app={app}").items


def _list_until(
    over: threading.Event, cached: CachedPods, asks: list[Ask]
) -> list[tuple[Ask, ObjectList[Pod]]]:
    found: list[tuple[Ask, ObjectList[Pod]]] = []
    last = 0
    while not over.is_set() and len(found) < 2000:
        for ask in asks:
            for version in ("", "0"):
                listed = cached.list(resource_version=version, **ask.selection.options)
                assert int(listed.resource_version) >= last
                last = int(listed.resource_version)
                found.append((ask, listed))
    return found
