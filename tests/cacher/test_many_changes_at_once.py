"""A revision with many changes, which a cache takes without stopping its readers."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from revstore.cacher import Cacher, CacherConfig, _content, _generation, _ordered
from revstore.memory import MemoryBackend
from revstore.testing.cacher._base import INDEXED
from revstore.testing.clock import FakeClock
from revstore.testing.storage._parts import PODS, pod
from revstore.typed import TypedStorage

COUNT = 600
GONE = {number for number in range(COUNT) if number % 3}


def labels(number: int) -> dict[str, str]:
    return {"third": str(number % 3), "own": str(number), "all": "yes"}


@pytest.fixture(params=["usual leaves", "small leaves"])
def cache(
    request: pytest.FixtureRequest, memory_backend: MemoryBackend, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Cacher[Any]]:
    if request.param == "small leaves":
        monkeypatch.setattr(_ordered, "_MOST", 8)
        monkeypatch.setattr(_ordered, "_COPIED", 16)
    storage = TypedStorage(memory_backend, PODS)
    for number in range(COUNT):
        new = pod(f"ns-{number % 4}/p{number:03}", f"node-{number % 5}", labels=labels(number))
        storage.create(f"/pods/ns-{number % 4}/p{number:03}", new, ttl=60 * (number in GONE))
    config = CacherConfig(storage=storage, resource_type=PODS, indexed_fields=INDEXED)
    with Cacher(config) as cache:
        cache.wait_ready()
        yield cache


def asked(name: str, **options: str) -> Callable[[Cacher[Any]], tuple[int, int]]:
    """A list from memory: how many objects, at which revision."""

    def read(cache: Cacher[Any]) -> tuple[int, int]:
        found = cache.list(name, resource_version="0", **options)
        return len(found.items), int(found.resource_version)

    return read


@pytest.mark.parametrize(
    ("name", "options", "before", "after"),
    [
        ("/pods", {}, 600, 200),
        ("/pods/ns-1", {}, 150, 50),
        ("/pods", {"label_selector": "all=yes"}, 600, 200),
        ("/pods", {"label_selector": "third=0"}, 200, 200),
        ("/pods", {"label_selector": "third=1"}, 200, 0),
        ("/pods/ns-2", {"label_selector": "third=1"}, 50, 0),
        ("/pods", {"label_selector": "own=7"}, 1, 0),
        ("/pods", {"field_selector": "spec.nodeName=node-3"}, 120, 40),
    ],
)
def test_readers_see_all_of_a_revision_or_nothing(
    cache: Cacher[Any],
    fake_clock: FakeClock,
    name: str,
    options: dict[str, str],
    before: int,
    after: int,
) -> None:
    assert len(GONE) > _content._MANY
    read = asked(name, **options)
    first = read(cache)
    assert first[0] == before
    seen: list[tuple[int, int]] = []
    gone: list[bool] = []
    started = threading.Event()

    def follow() -> None:
        while not seen or seen[-1][1] == first[1]:
            # Once a get misses an object, no later list has it.
            missed = cache.get("/pods/ns-1/p001", resource_version="0", ignore_not_found=True)
            seen.append(read(cache))
            gone.append(missed is None)
            started.set()

    thread = threading.Thread(target=follow)
    thread.start()
    assert started.wait(20)
    fake_clock.advance(61)
    thread.join(20)
    assert not thread.is_alive()
    assert set(seen) == {first, seen[-1]}
    assert seen[-1][0] == after
    assert all(not missed or found == seen[-1] for missed, found in zip(gone, seen, strict=True))
    assert cache.check_consistency().consistent


def test_watches_and_earlier_revisions_have_all_of_it(
    cache: Cacher[Any], fake_clock: FakeClock
) -> None:
    then = cache.list("/pods", limit=7)
    version = then.resource_version
    watched = {
        "all": cache.watch("/pods", resource_version=version),
        "label": cache.watch("/pods", resource_version=version, label_selector="third=1"),
        "scope": cache.watch("/pods/ns-1", resource_version=version),
        "field": cache.watch(
            "/pods", resource_version=version, field_selector="spec.nodeName=node-3"
        ),
    }
    fake_clock.advance(61)
    cache.list("/pods", timeout=20)
    counts = {}
    for name, watch in watched.items():
        with watch:
            events = watch.poll(20)
            assert events is not None
            counts[name] = len(events)
    assert counts == {"all": 400, "label": 200, "scope": 100, "field": 80}
    items = list(then.items)
    while then.continue_token:
        then = cache.list("/pods", limit=7, continue_token=then.continue_token)
        items += then.items
    names = sorted(f"ns-{number % 4}/p{number:03}" for number in range(COUNT))
    assert [each.metadata.name for each in items] == [name.partition("/")[2] for name in names]


def test_a_watch_that_begins_while_a_revision_is_sorted_in_is_told(
    cache: Cacher[Any], fake_clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its bucket is new, and the event is in a slice before it."""
    monkeypatch.setattr(_generation, "_SLICE", 50)
    version = str(cache.current_revision())
    generation = cache._content.generation
    assert generation is not None
    opened: queue.SimpleQueue[Any] = queue.SimpleQueue()
    told: queue.SimpleQueue[None] = queue.SimpleQueue()

    class Between:
        """The generation's lock; the watch begins when the first slice is in."""

        lock, first = generation._lock, True

        def __enter__(self) -> None:
            self.lock.acquire()

        def __exit__(self, *_: object) -> None:
            self.lock.release()
            if self.first and generation.shown[0] < generation.log.segment.end:
                self.first = False
                watch = cache.watch("/pods", resource_version=version, label_selector="own=4")
                watch.on_readable(lambda: told.put(None))
                assert told.empty()
                opened.put(watch)

    monkeypatch.setattr(generation, "_lock", Between())
    fake_clock.advance(61)
    with opened.get(timeout=20) as watch:
        told.get(timeout=20)
        (event,) = watch.poll(0)
    assert event.object.metadata.name == "p004"
