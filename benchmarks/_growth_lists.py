"""What lists of a cache cost by how many objects it holds."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import attrs

from benchmarks._growth import Point, typical
from benchmarks._growth_data import GROUP
from benchmarks._growth_feed import Cached, namespace_of
from benchmarks._pods import RESOURCE, Pod

__all__ = ["lists"]

_SHARED = f"{RESOURCE}/shared"


@attrs.frozen
class _Listed:
    """A list by ten selectors in turn, each right after a change of an object in it: ``number``
    (turn, of how many objects) names one of the objects that ``ask`` lists."""

    name: str
    at_most: float
    why: str
    number: Callable[[int, int], int]
    ask: Callable[[Pod], dict[str, Any]]
    floor: float = 5e-6
    #: Whether a copy of the answer is measured beside it: many objects do not fit into the
    #: processor's caches, and each is touched once.
    copied: bool = False

    def point(self, cached: Cached) -> Point:
        turns = itertools.cycle(range(10))
        objects = [cached.member(self.number(turn, cached.count)) for turn in range(10)]
        asked = [{"key": RESOURCE, **self.ask(obj)} for obj in objects]
        turn = 0

        def before() -> None:
            nonlocal turn
            turn = next(turns)
            cached.storage.change(cached.cacher, objects[turn])

        def read() -> None:
            assert cached.cacher.list(**asked[turn]).items

        value, bound = typical(read, before=before), None
        if self.copied:
            found = [*cached.cacher.list(**asked[turn]).items]
            bound = typical(lambda: tuple(found), before=before)
        return Point(
            name=f"cache: list {self.name}",
            value=value,
            bound=bound,
            at_most=self.at_most,
            why=self.why,
            floor=self.floor,
        )


_RETURNED = "it costs what it returns"

_LISTS = (
    _Listed("all", 1, _RETURNED, lambda turn, _: turn, lambda _: {}, copied=True),
    _Listed(
        f"a namespace of {GROUP}",
        0,
        _RETURNED,
        lambda turn, _: 2 * (turn % 5),
        lambda obj: {"key": namespace_of(obj)},
    ),
    _Listed(
        f"a label of {GROUP}",
        0,
        _RETURNED,
        lambda turn, _: GROUP * turn,
        lambda obj: {"label_selector": f"owner={obj.metadata.labels['owner']}"},
        floor=GROUP * 1e-6,  # they lie apart: each look-up may miss the processor's caches
    ),
    _Listed(
        "a label of 1 %",
        1,
        _RETURNED,
        lambda turn, _: turn,
        lambda obj: {"label_selector": f"app={obj.metadata.labels['app']}"},
        copied=True,
    ),
    _Listed(
        f"a label of all, in a namespace of {GROUP}",
        0,
        _RETURNED,
        lambda turn, _: 2 * (turn % 5),
        lambda obj: {"key": namespace_of(obj), "label_selector": "tier=web"},
    ),
    _Listed(
        f"a label of 1 %, in a namespace of {GROUP}",
        0,
        _RETURNED + ": one object",
        lambda turn, _: 2 * turn,
        lambda obj: {
            "key": namespace_of(obj),
            "label_selector": f"app={obj.metadata.labels['app']}",
        },
    ),
    _Listed(
        "a label of 5 %, in a namespace of half",
        0,
        _RETURNED + ": ten objects",
        lambda turn, count: 2 * (count // 200) * turn + 1,
        lambda obj: {"key": _SHARED, "label_selector": f"team={obj.metadata.labels['team']}"},
    ),
    _Listed(
        f"an indexed field of {GROUP}",
        0,
        _RETURNED,
        lambda turn, _: GROUP * turn,
        lambda obj: {"field_selector": f"spec.nodeName={obj.spec.node_name}"},
    ),
)


def lists(cached: Cached) -> Iterator[Point]:
    """Return the rows of lists."""
    for each in _LISTS:
        yield each.point(cached)
    yield Point(
        name="cache: list all, repeated",
        value=typical(lambda: cached.cacher.list(RESOURCE)),
        at_most=0,
        why="the answer is remembered",
        floor=20e-6,
    )
