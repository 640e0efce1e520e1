"""What a cache costs by how many objects it holds. Everything is measured as it is used: through
the public interface, with the garbage collector on."""

from __future__ import annotations

import gc
import random
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import attrs

from benchmarks._growth import Point, typical
from benchmarks._growth_data import open_store, store_path
from benchmarks._growth_feed import Cached, GivenStorage, cache_over, namespace_of, touched
from benchmarks._growth_lists import lists
from benchmarks._pods import RESOURCE, Pod, key_of
from revstore.storage import ChangeBatch, EventType

__all__ = ["points", "resident"]

PAGE = 500
_PAGE = "a page costs what it holds, whatever happened since"
_SHARED = f"{RESOURCE}/shared"
# From here on the objects of a cache weigh more than what else a process takes meanwhile.
_WEIGHED = 10_000

# The longest that a lock may be held which readers wait for, in seconds.
_AIM = 5e-3


def resident() -> int | None:
    """Return the bytes of memory that the process itself holds; None where that is not known."""
    gc.collect()
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    (line,) = [line for line in status.splitlines() if line.startswith("RssAnon")]
    return int(line.split()[1]) * 1024


def points(count: int) -> Iterator[Point]:
    """All rows of a cache of ``count`` objects, over sqlite until it is filled, then over a feed
    that costs nothing."""
    with open_store(store_path(count)) as backend:
        storage = GivenStorage(backend)
        before, start = resident(), time.perf_counter()
        with cache_over(storage) as cacher:
            ready = time.perf_counter() - start
            yield Point(
                name="cache: ready, from sqlite",
                value=ready,
                at_most=1,
                why="each object is read, decoded and filed once",
                floor=0.1,
            )
            after = resident()
            if before is not None and after is not None and count >= _WEIGHED:
                yield Point(
                    name="cache: memory an object",
                    value=(after - before) / count,
                    unit="B",
                    at_most=0,
                    why="an object brings its own bytes and its places in indexes",
                )
            yield from _rows(Cached(cacher, storage, count))


def _rows(cached: Cached) -> Iterator[Point]:
    yield _get(cached)
    yield from lists(cached)
    yield from _pages(cached)
    yield from _front(cached)
    yield _write_to_event(cached)
    yield _open_watch(cached)
    yield _page_after_deletions(cached)
    yield from _bulk_deletion(cached)


def _get(cached: Cached) -> Point:
    numbers = random.Random(1).choices(range(cached.count), k=5_000)
    keys = [key_of(cached.member(number)) for number in numbers]

    def read() -> None:
        for key in keys:
            cached.cacher.get(key, resource_version="0")

    return Point(
        name='cache: get, resource version "0"',
        value=typical(read) / len(keys),
        at_most=0,
        why="a look-up in a dict",
        floor=2e-6,
    )


def _pages(cached: Cached) -> Iterator[Point]:
    cacher = cached.cacher
    yield Point(
        name=f"cache: page of {PAGE}, first",
        value=typical(
            lambda: cacher.list(RESOURCE, limit=PAGE), before=partial(cached.change, 0), rounds=100
        ),
        at_most=0,
        why=_PAGE,
    )
    tokens: list[str] = []

    def begin() -> None:
        tokens[:] = [_half(cached, 0)]
        cached.change(1)

    yield Point(
        name=f"cache: page of {PAGE}, in the middle, after a change",
        value=typical(
            lambda: cacher.list(RESOURCE, limit=PAGE, continue_token=tokens[0]), before=begin
        ),
        at_most=0,
        why=_PAGE,
        floor=PAGE * 0.25e-6,  # what came before has taken all of the processor's caches
    )


def _half(cached: Cached, number: int) -> str:
    """Change a pod, and return where the second half of the state then begins."""
    cached.change(number)
    return cached.cacher.list(RESOURCE, limit=cached.count // 2).continue_token


def _page_after_deletions(cached: Cached) -> Point:
    """The first page from each of three states of before, after 2 % of all was deleted since."""
    cacher = cached.cacher
    tokens = [_half(cached, number) for number in range(3)]
    gone = [cached.member(number) for number in range(3, cached.count, 50)]
    batch = cached.storage.batch(EventType.DELETED, gone)
    cached.storage.give(batch)
    while cacher.counters.resource_version < batch.revision:
        time.sleep(0.01)
    turns = iter(tokens)
    return Point(
        name=f"cache: page of {PAGE}, after 2 % were deleted",
        value=typical(
            lambda: cacher.list(RESOURCE, limit=PAGE, continue_token=next(turns)),
            rounds=len(tokens),
        ),
        at_most=0,
        why=_PAGE,
        floor=1e-3,
    )


def _front(cached: Cached) -> Iterator[Point]:
    many = 100
    names = [f"a-{many - number:03}" for number in range(many)]  # each before the last
    plain = cached.member(0)
    objects = [
        attrs.evolve(plain, metadata=attrs.evolve(plain.metadata, namespace="a", name=name))
        for name in names
    ]

    def written(kind: EventType, objs: list[Pod]) -> None:
        batches = [cached.storage.batch(kind, [obj]) for obj in objs]
        last = str(batches[-1].revision)
        start = time.perf_counter()
        cached.storage.give(*batches)
        cached.cacher.get(key_of(plain), resource_version=last)
        times[kind].append((time.perf_counter() - start) / many)

    times: dict[EventType, list[float]] = {EventType.ADDED: [], EventType.DELETED: []}
    for _ in range(7):
        written(EventType.ADDED, objects)
        written(EventType.DELETED, objects[::-1])
    for kind, name in ((EventType.ADDED, "insert"), (EventType.DELETED, "delete")):
        yield Point(
            name=f"cache: {name} at the front",
            value=sorted(times[kind])[len(times[kind]) // 4],
            at_most=0,
            why="no other object has to move",
            floor=20e-6,
        )


def _write_to_event(cached: Cached) -> Point:
    obj = cached.member(0)
    version = str(cached.cacher.counters.resource_version)
    batches: list[ChangeBatch[Pod]] = []

    def before() -> None:
        batches[:] = [cached.storage.batch(EventType.MODIFIED, [touched(obj)])]

    with closing(cached.cacher.watch(namespace_of(obj), resource_version=version)) as watch:

        def write() -> None:
            cached.storage.give(*batches)
            assert watch.poll(10)

        value = typical(write, before=before, rounds=200)
    return Point(
        name="cache: write to event",
        value=value,
        at_most=0,
        why="an event concerns one object",
        floor=50e-6,
    )


def _open_watch(cached: Cached) -> Point:
    obj = cached.member(0)
    version = str(cached.cacher.counters.resource_version)
    opened = []

    def open_one() -> None:
        opened.append(cached.cacher.watch(namespace_of(obj), resource_version=version))

    value = typical(open_one, rounds=200)
    for watch in opened:
        watch.close()
    return Point(
        name="cache: open a watch",
        value=value,
        at_most=0,
        why="it begins where the cache is",
        floor=10e-6,
    )


class _Held:
    """A lock that notes the longest time of the processor for which it was held."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since = 0.0
        self.longest = 0.0

    def __enter__(self) -> None:
        self._lock.acquire()
        self._since = time.thread_time()

    def __exit__(self, *_: object) -> None:
        self.longest = max(self.longest, time.thread_time() - self._since)
        self._lock.release()


def _bulk_deletion(cached: Cached) -> Iterator[Point]:
    """How long a list waits while a tenth of all goes in one revision, and until it is gone."""
    cacher = cached.cacher
    content: Any = cacher._content  # noqa: SLF001 - its locks are what readers wait for
    held = [_Held(), _Held()]
    content._lock, content.generation._lock = held  # noqa: SLF001
    gone = [cached.member(number) for number in range(4, cached.count, 10)]
    batch = cached.storage.batch(EventType.DELETED, gone)
    longest, start = 0.0, time.perf_counter()
    cached.storage.give(batch)
    shown = 0
    while shown < batch.revision:
        asked = time.perf_counter()
        shown = int(cacher.list(_SHARED, resource_version="0", limit=1).resource_version)
        longest = max(longest, time.perf_counter() - asked)
    whole = time.perf_counter() - start
    yield Point(
        name='cache: list("0") while 10 % are deleted in one revision',
        value=longest,
        at_most=0,
        why="readers do not wait for the feed",
        # Twice the time for which the interpreter lets a thread run, and the aim.
        floor=10e-3 + _AIM,
    )
    yield Point(
        name="cache: a lock that readers wait for, held at a stretch meanwhile",
        value=max(each.longest for each in held),
        at_most=0,
        why="only what has been prepared is done under it",
        floor=_AIM,
    )
    yield Point(
        name="cache: 10 % deleted in one revision, until shown",
        value=whole,
        at_most=1,
        why="each deletion costs the same",
        floor=1e-3,
    )
