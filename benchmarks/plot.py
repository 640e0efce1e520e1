"""``python -m benchmarks.plot [RESULTS]``: draw what was measured, into ``docs/benchmarks``.

Reads ``bench-results.json`` unless another file is named. The rows that are drawn are kept beside
the drawings, as ``results.json``, so that they can be drawn again.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import attrs

from benchmarks._growth import with_unit
from benchmarks._svg import DARK, LIGHT, Drawing

__all__ = ["main"]

FOLDER = Path(__file__).parents[1] / "docs" / "benchmarks"

COMPARISON = "The watch cache beside Kubernetes' own, in Go"

Row = dict[str, Any]


@attrs.frozen
class Panel:
    """Rows of growth in one drawing, each with a short label."""

    file: str
    title: str
    rows: dict[str, str]


PANELS = (
    Panel(
        "growth-reads",
        "Reading from the cache",
        {
            "cache: list a label of 100": "list a label of 100",
            "cache: list a namespace of 100": "list a namespace of 100",
            "cache: list a label of all, in a namespace of 100": "a label all have, in a namespace",
            "cache: page of 500, in the middle, after a change": "page of 500, in the middle",
            'cache: get, resource version "0"': "get",
        },
    ),
    Panel(
        "growth-changes",
        "Changing what the cache holds",
        {
            "cache: write to event": "write to event",
            "cache: insert at the front": "insert at the front",
            "cache: delete at the front": "delete at the front",
            "cache: open a watch": "open a watch",
        },
    ),
    Panel(
        "growth-whole",
        "What concerns all objects of the cache",
        {
            "cache: ready, from sqlite": "ready, from sqlite",
            "cache: 10 % deleted in one revision, until shown": "10 % deleted at once",
            'cache: list("0") while 10 % are deleted in one revision': "longest list meanwhile",
            "cache: list all": "list all, after a change",
            "cache: list all, repeated": "list all, repeated",
        },
    ),
    Panel(
        "growth-watches",
        "Watches that wait for something else: what an event costs",
        {
            "watches of everything: write to the last event": "watches of all: until the last",
            "watches of other names (a field without an index): an event that concerns none": (
                "of other names, no index"
            ),
            "watches of other labels: an event that concerns none": "of other labels",
            "watches of other namespaces: an event that concerns none": "of other namespaces",
            "watches of other nodes (an indexed field): an event that concerns none": (
                "of other nodes, indexed"
            ),
        },
    ),
    Panel(
        "growth-sqlite",
        "sqlite without a cache",
        {
            "sqlite: count at an older revision": "count at an older revision",
            "sqlite: the same with how many remain": "page, with how many remain",
            "sqlite: open, get one object, close": "open the store",
            "sqlite: page of 500, in the middle": "page of 500",
            "sqlite: update, synced to disk": "update, synced",
            "sqlite: get": "get",
        },
    ),
)

# Of a growth panel: where its axes begin and end, and how far apart labels are at least.
_LEFT, _RIGHT, _TOP, _BOTTOM, _APART = 70, 478, 70, 374, 19


def growth(drawing: Drawing, panel: Panel, rows: list[Row]) -> None:
    """Draw lines of cost over size, both in powers of ten, and label each at its end."""
    theme = drawing.theme
    sizes = sorted({size for row in rows for size, _ in row["points"]})
    costs = [cost for row in rows for _, cost in row["points"] if cost > 0]
    low = math.floor(math.log10(min(costs)))
    high = max(low + 1, math.ceil(math.log10(max(costs))))
    first, last = math.log10(sizes[0]), math.log10(sizes[-1])

    def x_of(size: float) -> float:
        return _LEFT + (math.log10(size) - first) / (last - first or 1) * (_RIGHT - _LEFT)

    def y_of(cost: float) -> float:
        shown = max(math.log10(cost) if cost > 0 else low, low)
        return _BOTTOM - (shown - low) / (high - low) * (_BOTTOM - _TOP)

    drawing.text(16, 24, panel.title, size=16, bold=True)
    meaning = "along the dotted lines ten times as many cost ten times as much"
    drawing.text(16, 46, meaning, color=theme.faint_text)
    for power in range(low, high + 1):
        cost = 10.0**power
        drawing.line([(_LEFT, y_of(cost)), (_RIGHT, y_of(cost))], theme.grid)
        label = _with_unit(cost * 1.000001, "s")
        drawing.text(_LEFT - 8, y_of(cost), label, anchor="end", color=theme.faint_text, size=12)
    for size in sizes:
        drawing.line([(x_of(size), _TOP), (x_of(size), _BOTTOM)], theme.grid)
        drawing.text(
            x_of(size), _BOTTOM + 16, f"{size:,}", anchor="middle", color=theme.faint_text, size=12
        )
    of = rows[0]["growth_of"]
    drawing.text((_LEFT + _RIGHT) / 2, _BOTTOM + 36, of, anchor="middle", color=theme.faint_text)
    _guide(drawing, sizes, (low, high), x_of, y_of)
    ends = [y_of(row["points"][-1][1]) for row in rows]
    for kind, (row, end, at) in enumerate(zip(rows, ends, _spread(ends), strict=True)):
        color = theme.lines[kind]
        points = [(x_of(size), y_of(cost)) for size, cost in row["points"]]
        drawing.line(points, color, width=2.25)
        for x, y in points:
            drawing.mark(x, y, color, kind)
        drawing.line([(points[-1][0] + 8, end), (_RIGHT + 22, at)], color)
        value = _with_unit(row["points"][-1][1], row["unit"])
        drawing.text(_RIGHT + 28, at, f"{panel.rows[row['name']]}, {value}")


def _guide(
    drawing: Drawing, sizes: list[int], powers: tuple[int, int], x_of: Any, y_of: Any
) -> None:
    """Show what "proportional" looks like: faint lines on which ten times as many cost tenfold."""
    low, high = powers
    decades = math.log10(sizes[-1] / sizes[0])
    for power in range(low - math.floor(decades), high):
        # Decades after the first size at which the line enters and leaves the drawing.
        enters, leaves = max(0, low - power), min(decades, high - power)
        ends = [(sizes[0] * 10**at, 10 ** (power + at)) for at in (enters, leaves)]
        joined = [(x_of(size), y_of(cost)) for size, cost in ends]
        drawing.line(joined, drawing.theme.guide, dashed=True)


def _spread(wanted: list[float]) -> list[float]:
    """Move heights apart, as little as it takes, in the order in which they are."""
    groups: list[list[int]] = []
    for index in sorted(range(len(wanted)), key=wanted.__getitem__):
        groups.append([index])
        while len(groups) > 1 and _top(groups[-1], wanted) < _bottom(groups[-2], wanted):
            last = groups.pop()
            groups[-1] += last
    placed = {
        index: _top(group, wanted) + (place + 0.5) * _APART
        for group in groups
        for place, index in enumerate(group)
    }
    return [placed[index] for index in range(len(wanted))]


def _top(group: list[int], wanted: list[float]) -> float:
    """Where a group of labels begins, around what its members want, within the axes."""
    height = len(group) * _APART
    middle = sum(wanted[index] for index in group) / len(group)
    return max(_TOP - _APART / 2, min(middle - height / 2, _BOTTOM + _APART / 2 - height))


def _bottom(group: list[int], wanted: list[float]) -> float:
    return _top(group, wanted) + len(group) * _APART


def comparison(drawing: Drawing, rows: list[Row]) -> None:
    """Draw how many times as fast, or as small, each figure is as Go's."""
    theme = drawing.theme
    left, right, top, step = 378, 716, 88, 26
    ratios = [_times(row) for row in rows]
    low, high = min(-0.5, math.log10(min(ratios))), max(0.5, math.log10(max(ratios)))

    def x_of(ratio: float) -> float:
        return left + (math.log10(ratio) - low) / (high - low) * (right - left)

    bottom = top + step * len(rows)
    drawing.text(16, 24, COMPARISON, size=16, bold=True)
    meaning = "how many times as fast, or as small: bars to the right are better than Go"
    drawing.text(16, 46, meaning, color=theme.faint_text)
    for power in range(math.ceil(low), math.floor(high) + 1):
        x = x_of(10.0**power)
        drawing.line([(x, top - 6), (x, bottom)], theme.grid)
        mark = f"{10.0**power:,g}x"
        drawing.text(x, top - 16, mark, anchor="middle", color=theme.faint_text, size=12)
    for number, (row, ratio) in enumerate(zip(rows, ratios, strict=True)):
        y = top + (number + 0.5) * step
        drawing.text(left - 14, y, row["name"], anchor="end")
        start, end = sorted((x_of(1), x_of(ratio)))
        drawing.bar(start, y - 7, max(end - start, 1), 14, theme.lines[0 if ratio >= 1 else 1])
        times = f"{ratio:,.0f}x" if ratio >= 10 else f"{ratio:.2g}x"
        drawing.text(right + 68, y, times, bold=True, anchor="end")
        values = f"{_value(row, 'value')}, Go {_value(row, 'go')}"
        drawing.text(right + 82, y, values, color=theme.faint_text, size=12)
    drawing.line([(x_of(1), top - 6), (x_of(1), bottom)], theme.text, width=1.5)


def _times(row: Row) -> float:
    ratio = row["go"] / row["value"]
    return float(1 / ratio if row["unit"].endswith("/s") else ratio)


_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}


def _value(row: Row, name: str) -> str:
    value, unit = row[name], row["unit"]
    if unit in _SECONDS:
        return _with_unit(value * _SECONDS[unit], "s")
    if unit == "B":
        return _with_unit(value, unit)
    return f"{value:,.0f}{unit}" if value >= 100 else f"{value:.3g}{unit.replace('M/', ' M/')}"


def _with_unit(value: float, unit: str) -> str:
    return with_unit(value, unit).replace("us", "µs")


def main(results: Path) -> int:
    """Draw everything there are rows of."""
    rows: list[Row] = json.loads(results.read_text())
    FOLDER.mkdir(exist_ok=True)
    named = {row["name"]: row for row in rows if "growth_of" in row}
    compared = [row for row in rows if row.get("go") is not None]
    for theme in (LIGHT, DARK):
        for panel in PANELS:
            if shown := [named[name] for name in panel.rows if name in named]:
                drawing = Drawing(theme, 790, 426, panel.title)
                growth(drawing, panel, shown)
                _write(drawing, panel.file)
        if compared:
            drawing = Drawing(theme, 980, 88 + 26 * len(compared) + 16, COMPARISON)
            comparison(drawing, compared)
            _write(drawing, "comparison")
    kept = [*named.values(), *compared]
    lines = ",\n".join(map(json.dumps, kept))
    (FOLDER / "results.json").write_text(f"[\n{lines}\n]\n")
    return 0


def _write(drawing: Drawing, name: str) -> None:
    path = FOLDER / f"{name}-{drawing.theme.name}.svg"
    path.write_text(drawing.finished())
    print(f"written: {path.relative_to(FOLDER.parents[1])}")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "bench-results.json")))
