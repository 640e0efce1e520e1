"""Timing: what is compared is measured in turns, so that the machine's moods hit both."""

from __future__ import annotations

import gc
import statistics
import threading
import time
from collections.abc import Callable

__all__ = ["in_threads", "in_turns", "median_seconds", "seconds"]


def seconds(work: Callable[[], object]) -> float:
    """How long ``work`` takes; garbage of what came before is collected first."""
    gc.collect()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def median_seconds(
    rounds: int, work: Callable[[], object], *, before: Callable[[], object] | None = None
) -> float:
    """The median time that ``work`` takes, each time after ``before``. Garbage is collected once,
    at the start: with much in memory that takes longer than the work."""
    gc.collect()
    found = []
    for _ in range(rounds):
        if before is not None:
            before()
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def in_turns(rounds: int, *works: Callable[[], float]) -> list[float]:
    """The median of what each of ``works`` measures, over ``rounds`` in which each has its turn."""
    results: list[list[float]] = [[] for _ in works]
    for _ in range(rounds):
        for work, found in zip(works, results, strict=True):
            found.append(work())
    return [statistics.median(found) for found in results]


def in_threads(count: int, work: Callable[[int], None]) -> None:
    """Run ``work(0..count-1)`` in threads, and raise what one of them raised."""
    failures: list[BaseException] = []

    def run(index: int) -> None:
        try:
            work(index)
        except BaseException as error:  # noqa: BLE001 - raised below
            failures.append(error)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
