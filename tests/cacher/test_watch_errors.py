"""What polls raise and leave behind."""

from __future__ import annotations

import queue
import time
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from revstore.cacher import Cacher
from revstore.errors import (
    Expired,
    InternalError,
)
from revstore.storage import EventType

Cache = Cacher[dict[str, Any]]


Open = Callable[..., Cache]


def put(cache: Cache, name: str, **labels: str) -> str:
    made = cache.create(f"/pods/{name}", {"metadata": {"name": name, "labels": labels}})
    return str(made["metadata"]["resourceVersion"])


def test_each_watch_raises_an_error_of_its_own(open_dict_cache: Open) -> None:
    """All watches end for one reason; neither they nor later polls share the traceback.
    (HIST-5, CACHE-6)"""
    cache = open_dict_cache()
    version = put(cache, "a")
    watches = [cache.watch("/pods", resource_version=version) for _ in range(3)]
    cache._feed.cut(InternalError("the test refills the cache"))
    errors, depths = [], []
    for watch in watches:
        for timeout in (20, 0, 0):
            with pytest.raises(Expired) as raised:
                watch.poll(timeout)
            assert raised.value.key == "/pods"
            errors.append(raised.value)
            if not timeout:
                depths.append(len(traceback.extract_tb(raised.value.__traceback__)))
    assert len(set(map(id, errors))) == len(errors)
    assert len(set(depths)) == 1


def test_a_watch_of_the_future_needs_no_past(open_dict_cache: Open) -> None:
    """What the log drops before the watch's version is not missed. (WATCH-6, HIST-4)"""
    cache = open_dict_cache(capacity=100)
    start = cache.current_revision() + 200
    with cache.watch("/pods", resource_version=str(start)) as watch:
        for at in range(250):
            version = put(cache, str(at))
        cache.get("/pods/0", resource_version=version)
        assert cache._content.generation is not None
        assert cache._content.generation.log.segment.base > 0
        events = watch.poll(20) or ()
        assert [int(event.resource_version) for event in events] == list(
            range(start + 1, start + 51)
        )


def test_progress_that_is_asked_for_is_told(open_dict_cache: Open) -> None:
    """A callback that waits learns of progress that ``request_progress`` asked for, behind the
    events that it is behind. (WATCH-19, WATCH-20, BOOK-3)"""
    cache = open_dict_cache()
    start = put(cache, "first")
    told: queue.SimpleQueue[None] = queue.SimpleQueue()
    with cache.watch(
        "/pods", resource_version=start, label_selector="shown", progress_notify=True
    ) as watch:
        shown = put(cache, "a", shown="yes")
        hidden = put(cache, "b")
        cache.get("/pods/b", resource_version=hidden)
        watch.on_readable(lambda: told.put(None))
        cache.request_progress()
        seen: list[Any] = []
        while not seen or seen[-1].type is not EventType.BOOKMARK:
            told.get(timeout=20)
            seen += watch.poll(0) or ()
    assert [event.resource_version for event in seen] == [shown, hidden]


@pytest.mark.parametrize("bookmarks", [False, True])
def test_progress_is_told_by_time(open_dict_cache: Open, bookmarks: bool) -> None:
    """Unrelated writes wake no watch that waits for progress, however many there are; a
    bookmark comes once the interval is over. (WATCH-19, BOOK-1)"""
    cache = open_dict_cache(bookmark_interval=0.5)
    start = put(cache, "first")
    calls: list[float] = []
    with cache.watch(
        "/pods/x", resource_version=start, progress_notify=True, allow_bookmarks=bookmarks
    ) as watch:
        watch.on_readable(lambda: calls.append(time.monotonic()))
        began = time.monotonic()
        written = [put(cache, str(number)) for number in range(1000)]
        cache.get("/pods/0", resource_version=written[-1])
        took = time.monotonic() - began
        assert len(calls) <= 1 + took / 0.5
        seen = [event for _ in range(3) for event in watch.poll(2) or ()]
        assert {event.type for event in seen} == {EventType.BOOKMARK}
        assert len(seen) <= 3
        assert seen[-1].resource_version == written[-1]
