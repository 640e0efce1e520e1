"""What a cache takes: memory, and the time until it is filled."""

from __future__ import annotations

import gc
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from benchmarks._figures import Figure
from benchmarks._measure import in_threads, in_turns, seconds
from benchmarks._pods import RESOURCE, Pod, cached, fill, key_of, pod
from revstore import StorageConfig
from revstore.backend import Backend
from revstore.cacher import Cacher
from revstore.codec import json_codec
from revstore.memory import MemoryBackend
from revstore.plugins import open_backend
from revstore.resource_type import ResourceType
from revstore.typed import TypedStorage
from revstore.watch_selector import WatchSelector

__all__ = ["figures"]

R = TypeVar("R")

OBJECTS = 20_000
WATCHERS = 10_000
READY = 100_000
THREADS = 16


def figures() -> Iterator[Figure]:
    """Memory first."""
    with MemoryBackend() as backend:
        storage = TypedStorage(backend, ResourceType(Pod, RESOURCE))
        fill(storage, OBJECTS)
        with _traced():
            yield from _memory(storage)
    yield _ready()


def _memory(storage: TypedStorage[Pod]) -> Iterator[Figure]:
    objects, decoded = _bytes(lambda: storage.list(RESOURCE).items)
    del objects
    cacher, held = _bytes(lambda: cached(storage))
    with cacher:
        yield Figure(
            name="a cached object, all told",
            value=held / OBJECTS,
            unit="B",
            bound=decoded / OBJECTS,
            bound_name="the decoded object alone",
            target=3300,
            absolute=True,
            go=2900,
        )
        yield _watchers(cacher, "an idle watcher", lambda _: "")
        yield _watchers(
            cacher,
            "an idle watcher, own selector",
            lambda number: f"spec.nodeName=node-{number}",
        )


def _watchers(cacher: Cacher[Pod], name: str, selector: Callable[[int], str]) -> Figure:
    """With what it takes to serve them by one thread."""
    version = str(cacher.current_revision())

    def opened() -> WatchSelector:
        served = WatchSelector()
        for number in range(WATCHERS):
            watch = cacher.watch(
                RESOURCE, resource_version=version, field_selector=selector(number)
            )
            served.add(watch, number)
        return served

    served, held = _bytes(opened)
    served.close()
    return Figure(
        name=name,
        value=held / WATCHERS,
        unit="B",
        target=1024,
        absolute=True,
        go=6200,
    )


@contextmanager
def _traced() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


def _bytes(make: Callable[[], R]) -> tuple[R, int]:
    gc.collect()
    before = tracemalloc.get_traced_memory()[0]
    made = make()
    gc.collect()
    return made, tracemalloc.get_traced_memory()[0] - before


def _ready() -> Figure:
    codec, prefix = json_codec(Pod), f"/registry{RESOURCE}/"
    # Beside the checkout, not in a temporary folder that may be memory.
    with (
        tempfile.TemporaryDirectory(prefix="bench-", dir=".") as folder,
        _open(folder) as backend,
    ):
        storage = TypedStorage(backend, ResourceType(Pod, RESOURCE))

        def create(index: int) -> None:
            for number in range(index, READY, THREADS):
                obj = pod(number)
                storage.create(key_of(obj), obj)

        in_threads(THREADS, create)

        def ready() -> float:
            filled: list[Cacher[Pod]] = []
            taken = seconds(
                lambda: filled.append(cached(TypedStorage(backend, ResourceType(Pod, RESOURCE))))
            )
            filled[0].close()
            return taken

        def alone() -> float:
            return seconds(lambda: [codec.decode(kv.value) for kv in backend.list(prefix).kvs])

        value, bound = in_turns(3, ready, alone)
    return Figure(
        name=f"ready with {READY:,} from sqlite",
        value=value,
        unit="s",
        bound=bound,
        bound_name="reading and decoding them",
        target=2,
        go=1.95,
    )


def _open(folder: str) -> Backend:
    return open_backend(StorageConfig.from_url(f"sqlite:///{folder}/ready.db"))
