"""Bookmarks between and after events."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest

from revstore.storage import INITIAL_EVENTS_END, Event, EventType, Watch
from revstore.testing._support import PATIENCE, run_threads
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


def brief(events: list[Event[Any]] | tuple[Event[Any], ...]) -> list[str]:
    return [f"{event.type} {name_of(event.object)}" for event in events]


def test_bookmarks_among_events(open_parts):
    """BOOK-2, BOOK-3: a bookmark is never below an event that came before it, and every event
    after it is above it, whatever is written meanwhile; none goes back behind another."""
    parts = open_parts(bookmark_interval=2e-5)
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
