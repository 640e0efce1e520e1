"""What the benchmarks judge growth by, and what they draw of it."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
from benchmarks import plot
from benchmarks._growth import Growth, Point, rows_of

SIZES = (1_000, 10_000, 100_000, 1_000_000)


def grown(*values: float, at_most: float = 0.0, floor: float = 5e-6) -> Growth:
    """The row of a cost that has these values in seconds at ``SIZES``."""
    points = {
        size: [Point(name="row", value=value, at_most=at_most, why="", floor=floor)]
        for size, value in zip(SIZES, values, strict=False)
    }
    (row,) = rows_of("objects", points)
    return row


@pytest.mark.parametrize(
    ("row", "exponent", "holds"),
    [
        (grown(1e-3, 1e-3, 1e-3, 1e-3), 0, True),
        (grown(1e-3, 1e-2, 1e-1, 1.0), 1, False),
        (grown(1e-3, 1e-2, 1e-1, 1.0, at_most=1), 1, True),
        (grown(1e-3, 1e-1, 10.0, 1000.0, at_most=1), 2, False),
        # One step alone is growth, unless a larger size is quick again.
        (grown(1e-3, 1e-3, 1e-3, 2.8e-3), 0.15, False),
        (grown(1e-3, 1e-3, 1e-2, 1e-3), 0, True),
        # Slow growth adds up.
        (grown(1e-3, 1.9e-3, 3.7e-3, 7e-3), 0.28, False),
        # Noise under the floor is none, and what rises above it counts from there on.
        (grown(1e-7, 4e-6, 1e-9, 0.0), 0, True),
        (grown(1e-7, 1e-6, 5e-6, 5e-5), 1 / 3, False),
        (grown(1e-3), 0, True),
    ],
)
def test_growth_is_judged_by_its_steps_and_as_a_whole(
    row: Growth, exponent: float, holds: bool
) -> None:
    """A row holds if neither a step nor the whole costs much more than the exponent gives."""
    assert row.whole == pytest.approx(exponent, abs=0.01)
    assert row.holds is holds


def test_rows_may_begin_at_a_larger_size() -> None:
    """What is not measured at small sizes is a row of those where it is."""
    point = Point(name="late", value=1.0, at_most=0, why="")
    (row,) = rows_of("objects", {10: [], 1000: [point], 100: [point]})
    assert row.sizes == (100, 1000)


def test_drawings_are_whole_and_their_labels_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every drawing is well-formed, in both themes, and no label hides another, even of equal
    rows; they can be made again from the rows that are kept."""
    monkeypatch.setattr(plot, "FOLDER", tmp_path / "docs" / "benchmarks")
    plot.FOLDER.mkdir(parents=True)
    points = [[size, 1e-3] for size in SIZES]
    rows = [
        {"name": name, "growth_of": "objects", "unit": "s", "points": points}
        for panel in plot.PANELS
        for name in panel.rows
    ]
    compared = [
        {"name": "list", "value": 600.0, "unit": "us", "go": 16_000.0},
        {"name": "get", "value": 1_000.0, "unit": "/s", "go": 2_000.0},
        {"name": "put", "value": 1.0, "unit": "ms", "go": None},
    ]
    results = tmp_path / "results.json"
    results.write_text(json.dumps([*rows, *compared]))

    assert plot.main(results) == 0

    drawn = {path.name: path.read_text() for path in plot.FOLDER.glob("*.svg")}
    assert len(drawn) == 2 * (len(plot.PANELS) + 1)
    for panel in plot.PANELS:
        root = ElementTree.fromstring(drawn[f"{panel.file}-light.svg"])
        heights = sorted(
            float(text.attrib["y"])
            for text in root.iter("{http://www.w3.org/2000/svg}text")
            if (text.text or "").endswith(", 1 ms")
        )
        assert len(heights) == len(panel.rows)
        assert all(below - above >= 18 for above, below in pairwise(heights))
    comparison = drawn["comparison-dark.svg"]
    assert "27x" in comparison
    assert "0.5x" in comparison
    assert "put" not in comparison
    assert plot.main(plot.FOLDER / "results.json") == 0
    assert drawn == {path.name: path.read_text() for path in plot.FOLDER.glob("*.svg")}
