"""What a cache costs by how many watches it serves, with 10,000 objects."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import attrs

from benchmarks._growth import Point, typical, usual
from benchmarks._growth_cache import resident
from benchmarks._growth_data import member
from benchmarks._growth_feed import cache_over, touched
from benchmarks._pods import RESOURCE, Pod
from benchmarks._serving import FeedStorage, Server
from revstore.storage import Watch

__all__ = ["points"]

OBJECTS = 10_000
_WEIGHED = 10_000
_usual = partial(usual, rounds=100, budget=1.5)


@attrs.frozen
class _Asked:
    """Watches of one kind: ``ask`` says how the watch of a single thing is opened."""

    name: str
    at_most: float
    why: str
    ask: Callable[[str], dict[str, Any]]
    own: Callable[[Pod], str]


_INDEXED = "only the watches it may concern are shown it"
_KINDS = (
    _Asked(
        "other nodes (an indexed field)",
        0,
        _INDEXED,
        lambda own: {"field_selector": f"spec.nodeName={own}"},
        lambda obj: obj.spec.node_name,
    ),
    _Asked(
        "other namespaces",
        0,
        _INDEXED,
        lambda own: {"key": f"{RESOURCE}/{own}"},
        lambda obj: obj.metadata.namespace,
    ),
    _Asked(
        "other labels",
        0,
        _INDEXED,
        lambda own: {"label_selector": f"owner={own}"},
        lambda obj: obj.metadata.labels["owner"],
    ),
    _Asked(
        "other names (a field without an index)",
        1,
        "each watch has to be asked",
        lambda own: {"field_selector": f"metadata.name={own}"},
        lambda obj: obj.metadata.name,
    ),
)


def points(count: int) -> Iterator[Point]:
    """All rows at ``count`` watches."""
    for each in _KINDS:
        yield from _others(each, count)
    yield _all_see(count)


def _others(each: _Asked, count: int) -> Iterator[Point]:
    """One watch is concerned by the last of some events, all others by none."""
    concerned = member(0, OBJECTS)
    others = [member(number, OBJECTS) for number in range(1_000, 1_050)]
    others = [obj for obj in others if each.own(obj) != each.own(concerned)]
    numbers = itertools.count()
    storage = FeedStorage(member(number, OBJECTS) for number in range(OBJECTS))
    with cache_over(storage) as cacher:
        version = str(cacher.counters.resource_version)

        def opened(own: str) -> Watch[Pod]:
            asked = {"key": RESOURCE, **each.ask(own)}
            return cacher.watch(resource_version=version, **asked)

        before = resident()
        # The one that is concerned comes last, so that all others have been served before it.
        owns = [*(f"other-{number}" for number in range(1, count)), each.own(concerned)]
        watches = [opened(own) for own in owns]
        more: list[Watch[Pod]] = []
        opening = typical(lambda: more.append(opened(f"more-{len(more)}")), rounds=200)
        for watch in more:
            watch.close()
        with Server(watches) as server:
            after = resident()
            several = 10

            def alone() -> float:
                batches = storage.batches([touched(concerned)])
                return server.arrivals.seconds(1, lambda: storage.push(batches))

            def among() -> float:
                shown = [touched(others[next(numbers) % len(others)]) for _ in range(several)]
                batches = storage.batches([*shown, touched(concerned)])
                return server.arrivals.seconds(1, lambda: storage.push(batches))

            one, with_others = _usual(alone), _usual(among)
    name = f"watches of {each.name}"
    yield Point(
        name=f"{name}: an event that concerns none",
        value=max(0.0, with_others - one) / several,
        at_most=each.at_most,
        why=each.why,
        floor=20e-6,
    )
    yield Point(
        name=f"{name}: write to event",
        value=one,
        at_most=each.at_most,
        why=each.why,
        floor=100e-6,
    )
    yield Point(
        name=f"{name}: open one more",
        value=opening,
        at_most=0,
        why="it begins where the cache is",
        floor=20e-6,
    )
    # What the kinds before have left is used again, and would not count.
    weighed = each is _KINDS[0] and count >= _WEIGHED
    if weighed and before is not None and after is not None:
        yield Point(
            name=f"{name}: memory a watch",
            value=(after - before) / count,
            unit="B",
            at_most=0,
            why="a watch is a place in the log, and a selector",
            floor=1024,  # what it may take; of few, some find room that was free
        )


def _all_see(count: int) -> Point:
    storage = FeedStorage(member(number, OBJECTS) for number in range(OBJECTS))
    with cache_over(storage) as cacher:
        version = str(cacher.counters.resource_version)
        watches = [cacher.watch(RESOURCE, resource_version=version) for _ in range(count)]
        with Server(watches) as server:

            def write() -> float:
                batches = storage.batches([touched(member(0, OBJECTS))])
                return server.arrivals.seconds(count, lambda: storage.push(batches))

            value = _usual(write)
    return Point(
        name="watches of everything: write to the last event",
        value=value,
        at_most=1,
        why="each watch is given the event",
        floor=100e-6,
    )
