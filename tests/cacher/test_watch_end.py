"""How watches end, and what is left of them."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from revstore.cacher import Cacher
from revstore.errors import Closed, Expired
from revstore.storage import Event, EventType, Watch
from revstore.testing._support import PATIENCE, run_threads, wait_until
from revstore.testing.storage._parts import name_of


def take(watch: Watch[Any], count: int) -> list[Event[Any]]:
    """The next ``count`` events."""
    events: list[Event[Any]] = []
    deadline = time.monotonic() + PATIENCE
    while len(events) < count:
        events += watch.poll(max(0.0, deadline - time.monotonic())) or ()
        assert events or time.monotonic() < deadline
    assert len(events) == count, events
    return events


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
    """DISP-4: a watch whose cache is refilled, or whose log goes on without it, still gets the
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
