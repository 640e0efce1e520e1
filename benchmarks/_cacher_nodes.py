"""Ten thousand watchers, each with the pods of a node of its own.

Where the cache alone is measured, a feed brings it objects that were made before.
"""

from __future__ import annotations

import gc
import itertools
import statistics
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import partial

import attrs

from benchmarks._figures import Figure
from benchmarks._measure import in_turns, median_seconds
from benchmarks._pods import RESOURCE, Pod, cached, fill, pod, rewrite
from benchmarks._serving import FeedStorage, HandedOn, Server
from revstore.cacher import Cacher
from revstore.memory import MemoryBackend
from revstore.resource_type import ResourceType
from revstore.storage import Storage, Watch
from revstore.typed import TypedStorage

__all__ = ["NODES", "changed", "figures", "watch_nodes"]

NODES = 10_000
EVENTS = 8_000

_images = itertools.count()


def figures() -> Iterator[Figure]:
    """Events that concern one watcher of all, and events that concern none."""
    yield from _one_of_all()
    yield _none_of_all()


def _one_of_all() -> Iterator[Figure]:
    storage = FeedStorage(pod(number, nodes=NODES) for number in range(NODES))
    with cached(storage) as cacher, Server(watch_nodes(cacher, NODES)) as server:

        def alone(window: int) -> float:
            batches = storage.batches(changed(number % NODES for number in range(EVENTS)))
            return _rate(server, window, lambda at: storage.push(batches[at : at + window]))

        spent = _Spent(server)
        with HandedOn() as handed_on:
            one, handed_one, eight, handed_eight = in_turns(
                3,
                lambda: alone(1),
                lambda: _rate(handed_on, 1, lambda at: handed_on.push(1)),
                lambda: alone(8),
                lambda: _rate(handed_on, 8, lambda at: handed_on.push(8)),
            )
        spent.reset()
        alone(8)
        feed, serving = spent.each()
    with MemoryBackend() as backend:
        whole = TypedStorage(backend, ResourceType(Pod, RESOURCE))
        fill(whole, NODES, nodes=NODES)
        writes = 1000 / median_seconds(5, partial(_write, whole, 0, 1000))
        with cached(whole) as cacher, Server(watch_nodes(cacher, NODES)) as server:
            path = _rate(server, 8, lambda at: _write(cacher, at, 8))
    name = f"{NODES:,} watchers of own nodes"
    yield Figure(
        name=f"{name}, window 8: events",
        value=eight,
        unit="/s",
        relation=">=",
        target=70_000,
        absolute=True,
        go=137_000,
        bound=handed_eight,
        bound_name=(beside := "numbers that as many threads hand on, and nothing else"),
    )
    yield Figure(
        name=f"{name}, window 8: the feed's thread works, an event",
        value=feed,
        unit="us",
        bound=serving,
        bound_name="the serving thread works; they cannot both at once",
    )
    yield Figure(
        name=f"{name}, window 1: events",
        value=one,
        unit="/s",
        go=73_000,
        bound=handed_one,
        bound_name=beside,
    )
    yield Figure(
        name=f"{name}, window 8, with memory backend: events",
        value=path,
        unit="/s",
        bound=writes,
        bound_name="the writes alone",
    )


class _Spent:
    """The processor's time that threads have used, which waiting for each other does not add to."""

    def __init__(self, server: Server) -> None:
        (feed,) = [each for each in threading.enumerate() if each.name == "revstore-cacher"]
        self._threads = (feed, server.thread)
        self._before = (0.0, 0.0)
        self.reset()

    def reset(self) -> None:
        self._before = self._now()

    def each(self) -> tuple[float, float]:
        """Return what the feed's thread and the serving one have used, in us an event."""
        now = zip(self._now(), self._before, strict=True)
        feed, serving = [(after - before) / EVENTS * 1e6 for after, before in now]
        return feed, serving

    def _now(self) -> tuple[float, float]:
        feed, serving = [_used(each) for each in self._threads]
        return feed, serving


def _used(thread: threading.Thread) -> float:
    assert thread.ident is not None
    return time.clock_gettime(time.pthread_getcpuclockid(thread.ident))


def _none_of_all() -> Figure:
    """Only the last event concerns somebody."""
    with ExitStack() as stack:

        def measured(watchers: int) -> Callable[[], float]:
            storage = FeedStorage(pod(number, nodes=NODES) for number in range(NODES))
            cacher = stack.enter_context(cached(storage))
            # Of nodes that have no pods, except the first.
            watches = watch_nodes(cacher, 1) + watch_nodes(cacher, watchers, first=NODES)
            server = stack.enter_context(Server(watches))

            def measure() -> float:
                numbers = [*(1 + number % (NODES - 1) for number in range(EVENTS - 1)), 0]
                batches = storage.batches(changed(numbers))
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
        target=1.3,
    )


def watch_nodes(cacher: Cacher[Pod], count: int, *, first: int = 0) -> list[Watch[Pod]]:
    version = str(cacher.counters.resource_version)
    return [
        cacher.watch(
            RESOURCE, resource_version=version, field_selector=f"spec.nodeName=node-{number}"
        )
        for number in range(first, first + count)
    ]


def changed(numbers: Iterable[int]) -> Iterator[Pod]:
    for number in numbers:
        obj = pod(number, nodes=NODES)
        image = f"image:{next(_images)}"
        yield attrs.evolve(obj, spec=attrs.evolve(obj.spec, containers=(image,)))


def _rate(server: Server | HandedOn, window: int, write: Callable[[int], None]) -> float:
    """Events a second, if ``write(at)`` writes as many as the window has, and then waits."""
    gc.collect()
    spent = [server.arrivals.seconds(window, partial(write, at)) for at in range(0, EVENTS, window)]
    return window / statistics.median(spent)


def _write(storage: Storage[Pod], first: int, count: int) -> None:
    for number in range(first, first + count):
        rewrite(storage, number % NODES, f"image:{next(_images)}")
