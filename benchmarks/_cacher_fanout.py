"""From a write to the last of many watchers that all see it.

Times begin when the write is called: the memory backend's part and that of the cache's thread are
in them. At a window of 8 eight writes follow each other, then all is waited for.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import statistics
from collections.abc import Iterator

import attrs

from benchmarks._figures import Figure
from benchmarks._measure import median_seconds
from benchmarks._pods import RESOURCE, Pod, rewrite
from benchmarks._serving import Arrivals, Server
from revstore.aio import AsyncStorage, AsyncWatch
from revstore.cacher import Cacher
from revstore.selectors import LabelRequirement, LabelSelector
from revstore.storage import Event, EventType, Watch

__all__ = ["figures", "in_tasks", "selector_of"]

ROUNDS = 25
WINDOW = 8
MANY = 10_000

_images = itertools.count()


@attrs.frozen
class _Served:
    """Watchers that are measured; times in ms, rates in millions a second. Each has a selector
    object of its own, equal to all others or ``different`` from all."""

    watchers: int
    target: float
    target_rate: float
    go: float | None = None
    go_rate: float | None = None
    different: bool = False

    @property
    def name(self) -> str:
        return f"{self.watchers:,} watchers" + self.different * ", different selectors"

    def open(self, cacher: Cacher[Pod]) -> list[Watch[Pod]]:
        version = str(cacher.current_revision())
        return [
            cacher.watch(
                RESOURCE,
                resource_version=version,
                label_selector=selector_of(f"x{number}" if self.different else "x"),
            )
            for number in range(self.watchers)
        ]


def figures(cacher: Cacher[Pod]) -> Iterator[Figure]:
    """One thread that serves all watchers."""
    for each in (
        _Served(1000, target=1, target_rate=5, go=0.463, go_rate=5.0),
        _Served(MANY, target=10, target_rate=5, go=14.259, go_rate=2.2),
        _Served(1000, target=1, target_rate=2.5, different=True),
    ):
        yield from _figures(cacher, each)


def _figures(cacher: Cacher[Pod], each: _Served) -> Iterator[Figure]:
    watchers, deliveries = each.watchers, each.watchers * WINDOW / 1e6
    with Server(each.open(cacher)) as server:
        latency = _seconds(cacher, server.arrivals, watchers, 1)
        burst = _seconds(cacher, server.arrivals, watchers, WINDOW)
    bound_name = "a loop that appends an event to as many lists"
    yield Figure(
        name=f"{each.name}, write to last",
        value=latency * 1e3,
        unit="ms",
        bound=_bare(watchers, 1) * 1e3,
        bound_name=bound_name,
        target=each.target,
        absolute=True,
        go=each.go,
    )
    yield Figure(
        name=f"{each.name}, window {WINDOW}: deliveries",
        value=deliveries / burst,
        unit="M/s",
        bound=deliveries / _bare(watchers, WINDOW),
        bound_name=bound_name,
        relation=">=",
        target=each.target_rate,
        absolute=True,
        go=each.go_rate,
    )


def selector_of(other: str) -> LabelSelector:
    return LabelSelector((LabelRequirement("tier", "in", frozenset({"web", other})),))


def _seconds(cacher: Cacher[Pod], arrivals: Arrivals, watchers: int, window: int) -> float:
    def write() -> None:
        for number in range(window):
            rewrite(cacher, number, f"image:{next(_images)}")

    gc.collect()
    return statistics.median(
        [arrivals.seconds(watchers * window, write) for _ in range(ROUNDS)],
    )


def _bare(watchers: int, window: int) -> float:
    event = Event(EventType.MODIFIED, None, "1")
    lists: list[list[object]] = [[] for _ in range(watchers)]

    def append() -> None:
        for one in lists:
            for _ in range(window):
                one.append(event)

    return median_seconds(ROUNDS, append)


def in_tasks(cacher: Cacher[Pod]) -> Iterator[Figure]:
    """An asyncio task for each watcher. Closes the cache."""
    value = asyncio.run(_tasks(cacher))
    bound = asyncio.run(_bare_tasks())
    yield Figure(
        name=f"{MANY:,} asyncio tasks, write to last",
        value=value * 1e3,
        unit="ms",
        bound=bound * 1e3,
        bound_name="as many tasks, each with a future that one callback resolves",
        target=25,
        absolute=True,
    )


async def _tasks(cacher: Cacher[Pod]) -> float:
    arrivals = Arrivals()
    version = str(cacher.current_revision())

    async def follow(watch: AsyncWatch[Pod]) -> None:
        async for _event in watch:
            arrivals.seen += 1
            arrivals.look()

    async with AsyncStorage(cacher) as storage:
        watches = [await storage.watch(RESOURCE, resource_version=version) for _ in range(MANY)]
        tasks = [asyncio.create_task(follow(watch)) for watch in watches]
        value = await asyncio.to_thread(_seconds, cacher, arrivals, MANY, 1)
        for watch in watches:
            await watch.close()
        await asyncio.gather(*tasks)
    return value


async def _bare_tasks() -> float:
    arrivals = Arrivals()
    loop = asyncio.get_running_loop()
    waiters: list[asyncio.Future[bool]] = []

    async def follow() -> None:
        going_on = True
        while going_on:
            waiter = loop.create_future()
            waiters.append(waiter)
            going_on = await waiter
            arrivals.seen += 1
            arrivals.look()

    def resolve(going_on: bool) -> None:
        ready = waiters.copy()
        waiters.clear()
        for waiter in ready:
            waiter.set_result(going_on)

    def write() -> None:
        loop.call_soon_threadsafe(resolve, True)

    def measure() -> float:
        gc.collect()
        return statistics.median([arrivals.seconds(MANY, write) for _ in range(ROUNDS)])

    tasks = [asyncio.create_task(follow()) for _ in range(MANY)]
    await asyncio.sleep(0)
    value = await asyncio.to_thread(measure)
    resolve(False)
    await asyncio.gather(*tasks)
    return value
