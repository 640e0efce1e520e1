"""Lists and gets of a cache, each the default, consistent kind unless it says otherwise."""

from __future__ import annotations

import gc
import itertools
import random
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import attrs

from benchmarks._figures import Figure
from benchmarks._measure import median_seconds
from benchmarks._pods import RESOURCE, Pod, key_of, pod, rewrite
from revstore.cacher import Cacher

__all__ = ["figures"]

ROUNDS = 25
PAGE = 500
WRITES = 1_000  # a second
# What changes before a list: it is in the namespace, has the label and the field of the lists.
CHANGED = 7

_SCALES = {"us": 1e6, "ms": 1e3}

_images = itertools.count()


def figures(cacher: Cacher[Pod]) -> Iterator[Figure]:
    """Over a cache that holds all pods."""
    yield from _lists(cacher)
    yield _exact(cacher)
    yield _after_write_elsewhere(cacher)
    yield from _pages(cacher)
    yield _get(cacher)


def change(cacher: Cacher[Pod], number: int = CHANGED) -> None:
    """Change a pod, and wait until the cache shows it."""
    revision = rewrite(cacher, number, f"image:{next(_images)}")
    cacher.list(RESOURCE, resource_version=str(revision), limit=1)


@attrs.frozen
class _Listed:
    """A list that is measured; target and Go's figure in seconds."""

    name: str
    unit: str
    target: float
    go: float
    key: str = RESOURCE
    label: str = ""
    field: str = ""

    def read(self, cacher: Cacher[Pod]) -> tuple[Pod, ...]:
        return cacher.list(self.key, label_selector=self.label, field_selector=self.field).items


_LISTS = (
    _Listed("all of 100,000", "ms", 4e-3, 16e-3),
    _Listed("namespace, 2,000", "us", 100e-6, 105e-6, key=f"{RESOURCE}/ns-7"),
    _Listed("label, 1,000", "us", 500e-6, 14e-3, label="app=app-7"),
    _Listed("indexed field, 100", "us", 17e-6, 17e-6, field="spec.nodeName=node-7"),
)


def _lists(cacher: Cacher[Pod]) -> Iterator[Figure]:
    by_key = {key_of(obj): obj for obj in cacher.list(RESOURCE)}
    asked = median_seconds(200, cacher.current_revision)
    for each in _LISTS:
        yield _after_change(cacher, each, by_key)
        yield Figure(
            name=f"list {each.name}, repeated",
            value=median_seconds(200, partial(each.read, cacher)) * 1e6,
            unit="us",
            bound=asked * 1e6,
            bound_name="asking the store for its revision",
            target=min(50, each.target * 1e6),
            absolute=True,
            go=each.go * 1e6,
        )
    yield _each_another(cacher)


def _each_another(cacher: Cacher[Pod]) -> Figure:
    """Nothing is remembered of any of them, and nothing changes: what Go's figure is of."""
    asked = itertools.cycle(f"spec.nodeName=node-{number}" for number in range(1_000))

    def read() -> object:
        return cacher.list(RESOURCE, field_selector=next(asked)).items

    objects = list(cacher.list(RESOURCE))
    buckets = itertools.cycle([objects[number::1_000] for number in range(1_000)])
    return Figure(
        name="list indexed field, 100, each time another",
        value=median_seconds(3_000, read) * 1e6,
        unit="us",
        bound=median_seconds(3_000, lambda: tuple(next(buckets))) * 1e6,
        bound_name="tuple() of a list of as many, each time another",
        target=17,
        absolute=True,
        go=17,
    )


def _after_change(cacher: Cacher[Pod], each: _Listed, by_key: dict[str, Pod]) -> Figure:
    objects = list(each.read(cacher))
    made: Callable[[], object]
    if each.label or each.field:
        what = "look-ups of its keys in a dict"
        made = partial(_looked_up, by_key, list(map(key_of, objects)))
    else:
        what = "tuple() of a list of as many"
        made = partial(tuple, objects)

    def bare() -> object:
        return cacher.current_revision(), made()

    def changed() -> None:
        change(cacher)

    scale = _SCALES[each.unit]
    return Figure(
        name=f"list {each.name}, after a change in it",
        value=median_seconds(ROUNDS, partial(each.read, cacher), before=changed) * scale,
        unit=each.unit,
        bound=median_seconds(ROUNDS, bare, before=changed) * scale,
        bound_name=f"asking the store for its revision, and {what}, after a change too",
        target=each.target * scale,
        absolute=True,
        go=each.go * scale,
    )


def _looked_up(by_key: dict[str, Pod], keys: list[str]) -> object:
    return tuple(map(by_key.__getitem__, keys))


def _exact(cacher: Cacher[Pod]) -> Figure:
    back = 25
    then = ""

    def before() -> None:
        nonlocal then
        then = str(cacher.counters.resource_version)
        for number in range(back):
            change(cacher, number)

    def read() -> object:
        return cacher.list(RESOURCE, resource_version=then, resource_version_match="Exact")

    everything = list(cacher.list(RESOURCE))
    value = median_seconds(ROUNDS, read, before=before)
    bound = median_seconds(ROUNDS, lambda: tuple(everything), before=before)
    return Figure(
        name=f"list all of 100,000, exactly {back} changes ago",
        value=value * 1e3,
        unit="ms",
        bound=bound * 1e3,
        bound_name="tuple() of a list of as many, after changes too",
        target=10,
        absolute=True,
        go=22,
    )


def _after_write_elsewhere(cacher: Cacher[Pod]) -> Figure:
    elsewhere = f"{RESOURCE}/ns-3"
    quiet = median_seconds(ROUNDS, lambda: cacher.list(elsewhere), before=lambda: change(cacher))
    value = median_seconds(
        4 * ROUNDS,
        lambda: cacher.list(elsewhere),
        before=lambda: rewrite(cacher, CHANGED, f"image:{next(_images)}"),
    )
    return Figure(
        name="list namespace, right after a write elsewhere",
        value=value * 1e3,
        unit="ms",
        bound=quiet * 1e3,
        bound_name="the same once the cache has the write",
        target=2,
        absolute=True,
        go=100,
    )


def _pages(cacher: Cacher[Pod]) -> Iterator[Figure]:
    quiet = _walks(cacher, 9)
    with _writing(cacher):
        busy = _walks(cacher, 9)
    yield Figure(
        name=f"all of 100,000 in pages of {PAGE}, {WRITES:,} writes/s",
        value=statistics.median(map(sum, busy)) * 1e3,
        unit="ms",
        bound=statistics.median(map(sum, quiet)) * 1e3,
        bound_name="the same without writes",
    )
    # As many writes between two pages as a second has, when the walk takes one.
    (slow,) = _walks(cacher, 1, between=lambda: _write_some(cacher))
    third = len(slow) // 3
    yield Figure(
        name=f"one of the last such pages, {len(slow) * 5:,} writes meanwhile",
        value=statistics.median(slow[-third:]) * 1e6,
        unit="us",
        bound=statistics.median(slow[1:third]) * 1e6,
        bound_name="one of the first",
        target=1.5,
    )


def _write_some(cacher: Cacher[Pod]) -> None:
    for number in range(4):
        rewrite(cacher, number, f"image:{next(_images)}")
    change(cacher)


def _walks(
    cacher: Cacher[Pod], rounds: int, between: Callable[[], None] = lambda: None
) -> list[list[float]]:
    """How long each page of each walk takes."""
    gc.collect()
    walks = []
    for _ in range(rounds):
        change(cacher)  # so that no walk finds what the one before has left
        token, seen, times = "", 0, []
        while token or not seen:
            start = time.perf_counter()
            page = cacher.list(RESOURCE, limit=PAGE, continue_token=token)
            times.append(time.perf_counter() - start)
            token, seen = page.continue_token, seen + len(page)
            between()
        assert seen == 100_000
        walks.append(times)
    return walks


@contextmanager
def _writing(cacher: Cacher[Pod]) -> Iterator[None]:
    """With another thread that writes ``WRITES`` times a second."""
    stop = threading.Event()

    def write() -> None:
        due = time.monotonic()
        while not stop.wait(max(0.0, due - time.monotonic())):
            number = next(_images)
            rewrite(cacher, number % 5000, f"image:{number}")
            due += 1 / WRITES

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _get(cacher: Cacher[Pod]) -> Figure:
    keys = [key_of(pod(number)) for number in random.Random(1).sample(range(100_000), 10_000)]
    objects = {key: cacher.get(key, resource_version="0") for key in keys}

    def read() -> None:
        for key in keys:
            cacher.get(key, resource_version="0")

    def bare() -> None:
        for key in keys:
            objects.get(key)

    value, bound = median_seconds(15, read), median_seconds(15, bare)
    return Figure(
        name='get, resource version "0", scattered keys',
        value=len(keys) / value,
        unit="/s",
        bound=len(keys) / bound,
        bound_name="look-ups in a dict",
        relation=">=",
        target=400_000,
        absolute=True,
        go=590_000,
    )
