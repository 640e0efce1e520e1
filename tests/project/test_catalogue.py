"""Every row of the catalogue of behaviours is shown by a test, or is on the page of differences.

``catalogue_rows.txt`` has the rows. A test cites those that it shows in its docstring, one by one
or as "DELEG-1 to DELEG-8", and may besides name one as a parameter of its cases. The page's tables
name in their first column the rows that they are about.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
SUITES = ROOT / "core" / "revstore" / "testing"
DIFFERENCES = ROOT / "docs" / "differences.md"
ROWS = dict(
    line.split()
    for line in (TESTS / "catalogue_rows.txt").read_text().splitlines()
    if not line.startswith("#")
)
FAMILIES = {row.partition("-")[0] for row in ROWS}


_ROW = re.compile(r"\b([A-Z]+)-([0-9]+)(?:\s+to\s+(?:\1-)?([0-9]+)\b)?")
_TABLE_ROW = re.compile(r"^\| ([^|]*?) \| .* \|$", re.MULTILINE)


def rows_in(text: str) -> Iterator[str]:
    """The rows that a text names, ranges spelt out; words like "UTF-8" are none."""
    for family, first, last in _ROW.findall(text):
        if family in FAMILIES:
            for number in range(int(first), int(last or first) + 1):
                yield f"{family}-{number}"


def citations(source: str) -> Iterator[str]:
    """The rows that the docstrings of tests cite, and those that stand by themselves as a value."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield from rows_in(ast.get_docstring(node) or "")
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            alone = _ROW.fullmatch(node.value)
            yield from rows_in(node.value) if alone else ()


@pytest.fixture(scope="module")
def cited() -> dict[str, set[str]]:
    """In which files each row is cited."""
    found: dict[str, set[str]] = {}
    for path in [*TESTS.rglob("*.py"), *SUITES.rglob("*.py")]:
        if path != Path(__file__):
            for row in citations(path.read_text(encoding="utf-8")):
                found.setdefault(row, set()).add(str(path.relative_to(ROOT)))
    return found


@pytest.fixture(scope="module")
def differing() -> set[str]:
    """The rows on the page of differences."""
    text = DIFFERENCES.read_text(encoding="utf-8")
    return {row for first in _TABLE_ROW.findall(text) for row in rows_in(first)}


def test_every_row_is_shown_or_differs(cited, differing):
    """Nothing of the original is forgotten in silence."""
    missing = [row for row in ROWS if row not in {*cited, *differing}]
    assert not missing, f"neither cited by a test nor in {DIFFERENCES.name}"


def test_what_is_cited_is_there(cited, differing):
    """A slip in a citation would hide a row, and send readers nowhere."""
    unknown = {row: files for row, files in cited.items() if row not in ROWS}
    assert not unknown
    assert not differing - ROWS.keys()


def test_the_list_of_rows():
    """Each row has one tag; none is listed twice, and no family has a gap."""
    lines = (TESTS / "catalogue_rows.txt").read_text().splitlines()
    assert len(lines) - sum(line.startswith("#") for line in lines) == len(ROWS)
    assert set(ROWS.values()) <= set("CEKFVO")
    for family in FAMILIES:
        numbers = [int(row.partition("-")[2]) for row in ROWS if row.partition("-")[0] == family]
        assert sorted(numbers) == list(range(1, len(numbers) + 1)), family


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("GET-1: the latest.", ["GET-1"]),
        ("UTF-8, GET-1/GET-3", ["GET-1", "GET-3"]),
        ("(DELEG-1 to DELEG-3)", ["DELEG-1", "DELEG-2", "DELEG-3"]),
        ("DELEG-9\nto 11.", ["DELEG-9", "DELEG-10", "DELEG-11"]),
        ("GET-1 to LIST-3", ["GET-1", "LIST-3"]),
    ],
)
def test_how_rows_are_cited(text, rows):
    """Ranges are spelt out, over line ends too; other words with a number are no rows."""
    assert list(rows_in(text)) == rows
