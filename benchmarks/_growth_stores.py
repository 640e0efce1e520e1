"""What the sqlite and memory backends cost by how many keys they hold, without a cache."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator

from benchmarks._growth import Point, typical
from benchmarks._growth_data import member, open_store, store_path
from benchmarks._pods import RESOURCE, key_of
from revstore.backend import Backend
from revstore.memory import MemoryBackend

__all__ = ["points"]

PAGE = 500
_PREFIX = f"/registry{RESOURCE}/"
_VALUE = b"x" * 1000
# n log n, between a thousand and a million.
_SEARCHED = 1.1
_TREE = "a way down a tree, whose depth hardly grows"


def points(count: int) -> Iterator[Point]:
    """All rows of both at ``count`` keys."""
    yield from _sqlite(count)
    yield from _memory(count)


def _sqlite(count: int) -> Iterator[Point]:
    path = store_path(count)
    some = random.Random(2).choices(range(count), k=500)
    keys = [f"/registry{key_of(member(number, count))}" for number in some]

    def opened() -> None:
        with open_store(path) as store:
            store.get(keys[0])

    yield Point(
        name="sqlite: open, get one object, close",
        value=typical(opened),
        at_most=0,
        why="opening reads no objects",
        floor=1e-3,
    )
    with open_store(path) as backend:
        yield from _reads("sqlite", backend, keys)
        turns = iter(keys * 3)

        def update() -> None:
            key = next(turns)
            found = backend.get(key).kv
            assert found is not None
            done = backend.put(key, found.value, expected_revision=found.revision)
            assert done.succeeded

        yield Point(
            name="sqlite: update, synced to disk",
            value=typical(update, rounds=300),
            at_most=0,
            why=_TREE,
            floor=0.2e-3,
        )
        then = backend.status().revision - 1
        yield Point(
            name="sqlite: count at an older revision",
            value=typical(lambda: backend.count(_PREFIX, revision=then), budget=3),
            at_most=_SEARCHED,
            why="every key has to be looked for in a tree",
            floor=0.1e-3,
        )


def _reads(name: str, backend: Backend, keys: list[str]) -> Iterator[Point]:
    middle = sorted(keys)[len(keys) // 2]

    def get_all() -> None:
        for key in keys:
            backend.get(key)

    yield Point(
        name=f"{name}: get",
        value=typical(get_all) / len(keys),
        at_most=0,
        why=_TREE if name == "sqlite" else "a look-up in a dict",
    )
    yield Point(
        name=f"{name}: page of {PAGE}, in the middle",
        value=typical(lambda: backend.list(_PREFIX, start=middle, limit=PAGE)),
        at_most=0,
        why="a page costs what it holds",
        floor=0.1e-3,
    )
    yield Point(
        name=f"{name}: the same with how many remain",
        value=typical(lambda: backend.list(_PREFIX, start=middle, limit=PAGE, remaining=True)),
        at_most=_SEARCHED if name == "sqlite" else 0,
        why="the rest is counted" if name == "sqlite" else "the place of a key is known",
        floor=0.1e-3,
    )
    yield Point(
        name=f"{name}: count",
        value=typical(lambda: backend.count(_PREFIX)),
        at_most=_SEARCHED if name == "sqlite" else 0,
        why="the keys are counted" if name == "sqlite" else "the place of a key is known",
        floor=20e-6,
    )


def _memory(count: int) -> Iterator[Point]:
    now = 0.0
    with MemoryBackend(clock=lambda: now) as backend:
        keys = [f"{_PREFIX}pod-{number:07}" for number in range(count)]
        for number, key in enumerate(keys):
            backend.put(key, _VALUE, expected_revision=0, ttl=60 if number % 10 == 4 else 0)
        yield from _reads("memory", backend, random.Random(3).choices(keys, k=500))
        yield _insert_and_delete(backend)
        now = 100.0
        yield from _sweep(backend)


def _insert_and_delete(backend: Backend) -> Point:
    front = f"{_PREFIX}a"

    def there_and_back() -> None:
        made = backend.put(front, _VALUE, expected_revision=0)
        assert backend.delete(front, expected_revision=made.revision).succeeded

    return Point(
        name="memory: insert and delete at the front",
        value=typical(there_and_back, rounds=200),
        at_most=0,
        why="no other key has to move",
        floor=20e-6,
    )


def _sweep(backend: MemoryBackend) -> Iterator[Point]:
    """How long others wait while a tenth of all expires, and how long that takes."""
    spent = 0.0

    def sweep() -> None:
        nonlocal spent
        start = time.perf_counter()
        assert backend.sweep()
        spent = time.perf_counter() - start

    sweeper = threading.Thread(target=sweep)
    longest = 0.0
    sweeper.start()
    while sweeper.is_alive():
        start = time.perf_counter()
        backend.status()
        longest = max(longest, time.perf_counter() - start)
    sweeper.join()
    yield Point(
        name="memory: status while 10 % expire",
        value=longest,
        at_most=0,
        why="the lock is not held for all of them at once",
        floor=15e-3,
    )
    yield Point(
        name="memory: 10 % expire",
        value=spent,
        at_most=1,
        why="each deletion costs the same",
        floor=1e-3,
    )
