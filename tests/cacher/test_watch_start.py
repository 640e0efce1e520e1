"""Where a watch begins, and what it waits for."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from revstore.errors import TooLargeResourceVersion, Unsupported
from revstore.memory import MemoryBackend
from revstore.storage import Event, EventType, Watch
from revstore.testing._support import PATIENCE, let_block, promptly
from revstore.testing.storage._parts import ForwardingBackend, name_of
from revstore.values import Capability


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
