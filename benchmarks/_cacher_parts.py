"""Where the time of an event goes, from the feed to the watchers that see it.

One thread does here what the feed's thread and the serving one do, so that nothing is handed over
between threads: no hand-over can make the whole faster than the sum of these parts. Times are the
processor's, and each part stands beside the sum.
"""

from __future__ import annotations

import gc
import itertools
import queue
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import attrs

from benchmarks._cacher_fanout import selector_of
from benchmarks._cacher_nodes import NODES, changed, watch_nodes
from benchmarks._figures import Figure
from benchmarks._pods import RESOURCE, Pod, cached, pod
from benchmarks._serving import FeedStorage
from revstore.cacher import Cacher
from revstore.resource_type import ResourceType
from revstore.storage import ChangeBatch, Watch
from revstore.watch_selector import WatchSelector

__all__ = ["figures"]

EVENTS = 8_000
WATCHERS = 1_000
ROUNDS = 40
SUM = "all parts"

_notes = itertools.count()


@attrs.define
class _Parts:
    """Seconds of the processor for each part of one round."""

    applied: float = 0.0
    selected: float = 0.0
    polled: float = 0.0
    delivered: int = 0

    @property
    def all(self) -> float:
        return self.applied + self.selected + self.polled


class _OneThread:
    """The feed and the server of ``watches`` in the calling thread."""

    def __init__(self, cacher: Cacher[Pod], watches: Sequence[Watch[Pod]]) -> None:
        # What the feed's thread calls with each batch: there is no public way to be that thread.
        self._apply: Callable[[ChangeBatch[Pod]], None] = cacher._content._apply  # noqa: SLF001
        self._selector = WatchSelector()
        for watch in watches:
            self._selector.add(watch)

    def bring(self, batches: Sequence[ChangeBatch[Pod]], parts: _Parts) -> None:
        """Apply the batches, and deliver them to the watches."""
        start = time.thread_time()
        for batch in batches:
            self._apply(batch)
        applied = time.thread_time()
        found = self._selector.select(0)
        selected = time.thread_time()
        for watch, _ in found:
            for _event in watch.poll(0) or ():
                parts.delivered += 1
        parts.polled += time.thread_time() - selected
        parts.selected += selected - applied
        parts.applied += applied - start


def figures() -> Iterator[Figure]:
    """Of watchers of own nodes, and of many that see the same event."""
    yield from _own_nodes()
    yield from _matching(different=False)
    yield from _matching(different=True)


def _own_nodes() -> Iterator[Figure]:
    storage = FeedStorage(pod(number, nodes=NODES) for number in range(NODES))
    with cached(storage) as cacher:
        thread = _OneThread(cacher, watch_nodes(cacher, NODES))
        rounds = {8: _Parts(), 1: _Parts()}
        for window, parts in rounds.items():
            batches = storage.batches(changed(number % NODES for number in range(EVENTS)))
            gc.collect()
            for at in range(0, EVENTS, window):
                thread.bring(batches[at : at + window], parts)
            assert parts.delivered == EVENTS
    name = f"{NODES:,} watchers of own nodes"
    for window, go in ((8, 137_000), (1, 73_000)):
        parts = rounds[window]
        yield Figure(
            name=f"{name}, window {window}, one thread: events",
            value=EVENTS / parts.all,
            unit="/s",
            bound=_there_and_back(window),
            bound_name="numbers that one thread hands to another, which answers the last",
            go=go,
        )
        yield from _each(f"{name}, window {window}", parts, EVENTS, "us")
    yield _attributes()


def _there_and_back(window: int) -> float:
    """Return how many numbers a second pass to another thread and are answered: the fewest
    hand-overs that there can be between a writer and a server."""
    there: queue.SimpleQueue[int] = queue.SimpleQueue()
    back: queue.SimpleQueue[int] = queue.SimpleQueue()

    def answer() -> None:
        while (left := there.get(timeout=60)) >= 0:
            if not left:
                back.put(left)

    thread = threading.Thread(target=answer)
    thread.start()
    found = []
    for _ in range(0, EVENTS, window):
        start = time.perf_counter()
        for left in reversed(range(window)):
            there.put(left)
        back.get(timeout=60)
        found.append(time.perf_counter() - start)
    there.put(-1)
    thread.join()
    return window / statistics.median(found)


def _each(name: str, parts: _Parts, count: int, unit: str) -> Iterator[Figure]:
    scale = {"us": 1e6, "ms": 1e3}[unit] / count
    for part, what in (
        (parts.applied, "the cache is changed and watches are woken"),
        (parts.selected, "the selector finds them"),
        (parts.polled, "they are polled"),
    ):
        yield Figure(
            name=f"{name}: {what}",
            value=part * scale,
            unit=unit,
            bound=parts.all * scale,
            bound_name=SUM,
        )


def _attributes() -> Figure:
    """What the functions of the user's type take of it, which any cache has to call."""
    kind = ResourceType(Pod, RESOURCE)
    objects = [pod(number) for number in range(EVENTS)]
    start = time.thread_time()
    for obj in objects:
        kind.labels(obj)
        kind.fields(obj, "spec.nodeName")
    each = (time.thread_time() - start) / EVENTS
    start = time.thread_time()
    for obj in objects:
        _ = obj.metadata.labels, obj.spec.node_name
    bare = (time.thread_time() - start) / EVENTS
    return Figure(
        name="the labels and the indexed field of an event's object",
        value=each * 1e6,
        unit="us",
        bound=bare * 1e6,
        bound_name="reading the attributes alone",
    )


def _matching(*, different: bool) -> Iterator[Figure]:
    storage = FeedStorage(pod(number) for number in range(WATCHERS))
    with cached(storage) as cacher:
        version = str(cacher.counters.resource_version)
        watches = [
            cacher.watch(
                RESOURCE,
                resource_version=version,
                label_selector=selector_of(f"x{number}" if different else "x"),
            )
            for number in range(WATCHERS)
        ]
        thread = _OneThread(cacher, watches)
        rounds: list[_Parts] = []
        gc.collect()  # once, as it would cool the processor's caches each time
        for _ in range(ROUNDS):
            parts = _Parts()
            batches = storage.batches([_noted()])
            thread.bring(batches, parts)
            assert parts.delivered == WATCHERS
            rounds.append(parts)
    median = _Parts(
        statistics.median(each.applied for each in rounds),
        statistics.median(each.selected for each in rounds),
        statistics.median(each.polled for each in rounds),
    )
    name = f"{WATCHERS:,} watchers" + different * ", different selectors"
    yield Figure(
        name=f"{name}, one thread: event to last",
        value=median.all * 1e3,
        unit="ms",
        bound=_called() * 1e3,
        bound_name="as many calls of an empty method",
        go=None if different else 0.463,
    )
    yield from _each(name, median, 1, "ms")


def _noted() -> Pod:
    obj = pod(0)
    note = {"note": f"{next(_notes)}"}
    return attrs.evolve(obj, metadata=attrs.evolve(obj.metadata, annotations=note))


class _Empty:
    def poll(self, timeout: float) -> None:
        """Do nothing."""


def _called() -> float:
    nobody = [_Empty() for _ in range(WATCHERS)]
    found = []
    for _ in range(ROUNDS):
        start = time.thread_time()
        for one in nobody:
            one.poll(0)
        found.append(time.thread_time() - start)
    return statistics.median(found)
