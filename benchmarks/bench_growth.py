"""How costs grow: rows by the number of objects, and rows by the number of watches.

Each size of each kind is measured in a process of its own, so that memory and garbage of one are
not the next one's. ``LARGEST`` in the environment bounds the sizes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import attrs

from benchmarks import _growth_cache, _growth_stores, _growth_watches
from benchmarks._growth import Growth, Point, rows_of
from benchmarks._growth_data import store_path

__all__ = ["figures"]

OBJECTS = (1_000, 10_000, 100_000, 1_000_000)
WATCHES = (1, 100, 10_000, 100_000)

_KINDS: dict[str, tuple[str, tuple[int, ...], Callable[[int], Iterator[Point]]]] = {
    "cache": ("objects", OBJECTS, _growth_cache.points),
    "stores": ("objects", OBJECTS, _growth_stores.points),
    "watches": ("watches", WATCHES, _growth_watches.points),
}


def figures() -> list[Growth]:
    """All rows, the slow sizes last."""
    largest = int(os.environ.get("LARGEST", OBJECTS[-1]))
    rows: list[Growth] = []
    for kind, (of, sizes, _) in _KINDS.items():
        points = {}
        for size in sizes:
            if size <= largest:
                start = time.perf_counter()
                points[size] = _in_child(kind, size)
                spent = time.perf_counter() - start
                print(f"  {kind}, {size:,} {of}: {spent:.0f} s", flush=True)
        rows += rows_of(of, points)
    return rows


def _in_child(kind: str, size: int) -> list[Point]:
    if kind != "watches":
        store_path(size)
    command = [sys.executable, "-m", "benchmarks.bench_growth", kind, str(size)]
    found = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout
    return [Point(**each) for each in json.loads(found)]


if __name__ == "__main__":
    _, wanted, count = sys.argv
    print(json.dumps([attrs.asdict(point) for point in _KINDS[wanted][2](int(count))]))
