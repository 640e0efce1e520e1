"""How a cost grows with the number of objects: the rows, and the bounds that judge them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import attrs

__all__ = ["Growth", "Point", "growth_table", "rows_of", "typical", "usual"]

# How many times as much as the stated exponent gives a step may cost, and the whole way from the
# first size to the last. That is what a shared machine does to a single figure, and what the
# processor's caches do, which a million objects do not fit in. A step of ten that is linear instead
# of constant is off by ten.
_STEP = 2.5
_WHOLE = 3.0


@attrs.frozen(kw_only=True)
class Point:
    """What one row of growth is at one size: ``value`` in ``unit``, "s" or "B".

    ``at_most``: the exponent that the row's cost may grow with, for the reason ``why``. Costs below
    ``floor`` count as the floor: there they are as good as nothing, or noise. ``bound``: the least
    that it can take, measured beside it, of a row that may grow as fast as that.
    """

    name: str
    value: float
    at_most: float
    why: str
    unit: str = "s"
    floor: float = 5e-6
    bound: float | None = None


@attrs.frozen(kw_only=True)
class Growth:
    """A row: ``values`` in ``unit`` at ``sizes``, which count ``of``, and ``bounds``, if there are
    any; the rest as in ``Point``."""

    name: str
    of: str
    sizes: tuple[int, ...]
    values: tuple[float, ...]
    unit: str
    at_most: float
    why: str
    floor: float
    bounds: tuple[float, ...] = ()

    @property
    def exponents(self) -> tuple[float, ...]:
        """Of each step between two sizes."""
        return tuple(
            self._exponent(first, second) for first, second in pairwise(range(len(self.sizes)))
        )

    @property
    def whole(self) -> float:
        """From the first size to the last; 0 if there is only one."""
        return self._exponent(0, len(self.sizes) - 1)

    @property
    def holds(self) -> bool:
        """Whether it grows no faster than it may. A size that costs more than a larger one has been
        disturbed: that is no growth."""
        least = [min(self.values[at:]) for at in range(len(self.values))]
        last = len(least) - 1
        return self._excess(least, 0, last) <= _WHOLE and all(
            self._excess(least, *step) <= _STEP for step in pairwise(range(len(least)))
        )

    def row(self) -> dict[str, Any]:
        """Return what goes into ``bench-results.json``."""
        return {
            "name": self.name,
            "growth_of": self.of,
            "unit": self.unit,
            "points": [
                [size, float(f"{value:.4g}")]
                for size, value in zip(self.sizes, self.values, strict=True)
            ],
            "exponents": [round(each, 2) for each in self.exponents],
            "exponent": round(self.whole, 2),
            "at_most": self.at_most,
            "holds": self.holds,
            "why": self.why,
            **({"bounds": [float(f"{bound:.4g}") for bound in self.bounds]} if self.bounds else {}),
        }

    def _exponent(self, first: int, second: int) -> float:
        if first == second:
            return 0.0
        times = self._times(self.values, first, second)
        return math.log(times) / math.log(self._step(first, second))

    def _excess(self, values: Sequence[float], first: int, second: int) -> float:
        stated = math.pow(self._step(first, second), self.at_most)
        if self.bounds:
            stated = max(stated, self.bounds[second] / self.bounds[first])
        return self._times(values, first, second) / stated

    def _times(self, values: Sequence[float], first: int, second: int) -> float:
        return max(values[second], self.floor) / max(values[first], self.floor)

    def _step(self, first: int, second: int) -> float:
        return self.sizes[second] / self.sizes[first]


def rows_of(of: str, points: dict[int, list[Point]]) -> list[Growth]:
    """Return the rows of which there are points at sizes, in the order of the first size's."""
    by_name: dict[str, dict[int, Point]] = {}
    for size in sorted(points):
        for point in points[size]:
            by_name.setdefault(point.name, {})[size] = point
    rows = []
    for name, at in by_name.items():
        any_point = next(iter(at.values()))
        rows.append(
            Growth(
                name=name,
                of=of,
                sizes=tuple(at),
                values=tuple(point.value for point in at.values()),
                unit=any_point.unit,
                at_most=any_point.at_most,
                why=any_point.why,
                floor=any_point.floor,
                bounds=tuple(each.bound for each in at.values() if each.bound is not None),
            )
        )
    return rows


def usual(measure: Callable[[], float], *, rounds: int, budget: float) -> float:
    """Return the lower quartile of what ``measure`` returns: what else the machine does only adds.

    There are three to ``rounds`` rounds, as many as ``budget`` seconds allow; fewer than three if
    they take ten times as long.
    """
    found: list[float] = []
    start = time.perf_counter()
    while len(found) < rounds:
        found.append(measure())
        spent = time.perf_counter() - start
        if spent > (budget if len(found) >= 3 else 10 * budget):
            break
    return sorted(found)[len(found) // 4]


def typical(
    work: Callable[[], object],
    *,
    before: Callable[[], object] | None = None,
    rounds: int = 25,
    budget: float = 1.0,
) -> float:
    """Return the usual seconds that ``work`` takes, each time after ``before``. Garbage is not
    collected first: of a million objects that takes longer than most rows."""

    def measure() -> float:
        if before is not None:
            before()
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    return usual(measure, rounds=rounds, budget=budget)


_SCALES = {
    "s": ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")),
    "B": ((1e6, "MB"), (1e3, "KB"), (1.0, "B")),
}


def with_unit(value: float, unit: str) -> str:
    """Return the value with three digits and a unit that suits it."""
    scale, name = next((each for each in _SCALES[unit] if value >= each[0]), _SCALES[unit][-1])
    scaled = value / scale
    return f"{scaled:,.0f} {name}" if scaled >= 100 else f"{scaled:.3g} {name}"


def growth_table(rows: list[Growth]) -> str:
    """Return rows of one kind as text: their values, the exponents of the steps and of the whole,
    and what the whole may be."""
    sizes = sorted({size for row in rows for size in row.sizes})
    lines = [["GROWTH", *(f"{size:,}" for size in sizes), "STEPS", "WHOLE", "AT MOST", ""]]
    for row in rows:
        at = dict(zip(row.sizes, row.values, strict=True))
        cells = [with_unit(at[size], row.unit) if size in at else "" for size in sizes]
        steps = " ".join(f"{step:.2f}" for step in row.exponents)
        verdict = "ok" if row.holds else "TOO FAST"
        lines.append([row.name, *cells, steps, f"{row.whole:.2f}", f"{row.at_most:g}", verdict])
        if row.bounds:
            bounds = [with_unit(bound, row.unit) for bound in row.bounds]
            lines.append(["  at the least", *bounds, *[""] * (len(lines[0]) - len(bounds) - 1)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
