"""Ten thousand watchers, each with the pods of a node of its own.

Where the cache alone is measured, a feed brings it objects that were made before.
"""

from __future__ import annotations

import gc
import itertools
import statistics
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import partial

import attrs

from benchmarks._figures import Figure
from benchmarks._measure import in_turns, median_seconds
from benchmarks._pods import RESOURCE, Pod, cached, fill, pod, rewrite
from benchmarks._serving import FeedStorage, Server
from revstore.cacher import Cacher
from revstore.memory import MemoryBackend
from revstore.storage import Watch
from revstore.typed import TypedStorage

__all__ = ["figures"]

NODES = 10_000
EVENTS = 8_000

_images = itertools.count()


def figures() -> Iterator[Figure]:
    """Events that concern one watcher of all, and events that concern none."""
    yield from _one_of_all()
    yield _none_of_all()


def _one_of_all() -> Iterator[Figure]:
    storage = FeedStorage(pod(number, nodes=NODES) for number in range(NODES))
    with cached(storage) as cacher, Server(_watch_nodes(cacher, NODES)) as server:

        def alone(window: int) -> float:
            batches = storage.batches(_changed(number % NODES for number in range(EVENTS)))
            return _rate(server, window, lambda at: storage.push(batches[at : at + window]))

        one, eight = in_turns(3, lambda: alone(1), lambda: alone(8))
    with MemoryBackend() as backend:
        whole = TypedStorage(backend, Pod, resource_prefix=RESOURCE)
        fill(whole, NODES, nodes=NODES)
        writes = _writes(whole)
        with cached(whole) as cacher, Server(_watch_nodes(cacher, NODES)) as server:

            def write(at: int) -> None:
                for number in range(at, at + 8):
                    rewrite(cacher, number % NODES, f"image:{next(_images)}")

            path = statistics.median([_rate(server, 8, write) for _ in range(3)])
    name = f"{NODES:,} watchers of {NODES:,} nodes"
    yield _events(f"{name}, cache alone, window 8", eight, 70_000, 137_000)
    yield _events(f"{name}, cache alone, window 1", one, 0, 73_000)
    yield attrs.evolve(
        _events(f"{name}, with the writes, window 8", path, 0, None),
        bound=writes,
        bound_name="the writes alone",
        target=0.5,
        absolute=False,
    )


def _events(name: str, rate: float, target: float, go: float | None) -> Figure:
    return Figure(
        name=name, value=rate, unit="/s", relation=">=", target=target, absolute=True, go=go
    )


def _none_of_all() -> Figure:
    """Only the last event concerns somebody."""
    with ExitStack() as stack:

        def measured(watchers: int) -> Callable[[], float]:
            storage = FeedStorage(pod(number, nodes=NODES) for number in range(NODES))
            cacher = stack.enter_context(cached(storage))
            # Of nodes that have no pods, but for the first.
            watches = _watch_nodes(cacher, 1) + _watch_nodes(cacher, watchers, first=NODES)
            server = stack.enter_context(Server(watches))

            def measure() -> float:
                numbers = [*(1 + number % (NODES - 1) for number in range(EVENTS - 1)), 0]
                batches = storage.batches(_changed(numbers))
                gc.collect()
                return server.arrivals.seconds(1, lambda: storage.push(batches))

            return measure

        many, one = in_turns(7, measured(NODES), measured(1))
    return Figure(
        name=f"an event, {NODES:,} watchers of other nodes",
        value=many / EVENTS * 1e6,
        unit="us",
        bound=one / EVENTS * 1e6,
        bound_name="the same with one",
        relation="<=",
        target=1.3,
    )


def _watch_nodes(cacher: Cacher[Pod], count: int, *, first: int = 0) -> list[Watch[Pod]]:
    version = str(cacher.counters.resource_version)
    return [
        cacher.watch(
            RESOURCE, resource_version=version, field_selector=f"spec.nodeName=node-{number}"
        )
        for number in range(first, first + count)
    ]


def _changed(numbers: Iterable[int]) -> Iterator[Pod]:
    for number in numbers:
        obj = pod(number, nodes=NODES)
        image = f"image:{next(_images)}"
        yield attrs.evolve(obj, spec=attrs.evolve(obj.spec, containers=(image,)))


def _rate(server: Server, window: int, write: Callable[[int], None]) -> float:
    """Events a second, if ``write(at)`` writes as many as the window has, and then waits."""
    gc.collect()
    spent = [server.arrivals.seconds(window, partial(write, at)) for at in range(0, EVENTS, window)]
    return window / statistics.median(spent)


def _writes(storage: TypedStorage[Pod]) -> float:
    def write() -> None:
        for number in range(1000):
            rewrite(storage, number, f"image:{next(_images)}")

    return 1000 / median_seconds(5, write)
