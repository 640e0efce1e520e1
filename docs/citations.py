"""Which tests cite which rows of behaviours.md; the page gets a column of them when it is built."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

__all__ = [
    "FAMILIES",
    "ROWS",
    "behaviours",
    "differing_rows",
    "files_of_tests",
    "rows_in",
    "tests_by_row",
]

_ROOT = Path(__file__).parents[1]
_PAGE = _ROOT / "docs" / "behaviours.md"
_DIFFERENCES = _ROOT / "docs" / "differences.md"
_HEAD = "| row | behaviour |\n|---|---|\n"

_ROW = re.compile(r"\b([A-Z]+)-([0-9]+)(?:\s+to\s+(?:\1-)?([0-9]+)\b)?")
_LINE = re.compile(r"^\| ([A-Z]+-[0-9]+) \| (.+) \|$", re.MULTILINE)
_DIFFERENCE = re.compile(r"^\| ([^|]*?) \| .* \|$", re.MULTILINE)

#: What the page says of each row.
ROWS = dict(_LINE.findall(_PAGE.read_text(encoding="utf-8")))
#: What the ids of rows begin with.
FAMILIES = {row.partition("-")[0] for row in ROWS}


def rows_in(text: str) -> Iterator[str]:
    """Yield the rows that a text names, ranges spelt out; words like "UTF-8" are no rows."""
    for family, first, last in _ROW.findall(text):
        if family in FAMILIES:
            for number in range(int(first), int(last or first) + 1):
                yield f"{family}-{number}"


def differing_rows() -> set[str]:
    """Return the rows in the first columns of differences.md."""
    text = _DIFFERENCES.read_text(encoding="utf-8")
    return {row for first in _DIFFERENCE.findall(text) for row in rows_in(first)}


def files_of_tests() -> list[Path]:
    """Return the files that contain tests, the suites for backends included."""
    suites = _ROOT / "core" / "revstore" / "testing"
    return sorted([*(_ROOT / "tests").rglob("*.py"), *suites.rglob("*.py")])


def tests_by_row() -> dict[str, dict[str, list[str]]]:
    """Return, for each row that tests cite, their names by file. A test cites a row in its
    docstring, or as a parameter of its cases."""
    found: dict[str, dict[str, list[str]]] = {}
    for path in files_of_tests():
        name = str(path.relative_to(_ROOT))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                for row in dict.fromkeys(_cited(node)):
                    found.setdefault(row, {}).setdefault(name, []).append(node.name)
    return found


def _cited(test: ast.FunctionDef) -> Iterator[str]:
    yield from rows_in(ast.get_docstring(test) or "")
    for decorator in test.decorator_list:
        for node in ast.walk(decorator):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield from rows_in(node.value) if _ROW.fullmatch(node.value) else ()


def behaviours(page: str) -> str:
    """Return the page with an anchor for each row, and a column of the tests that hold it."""
    tests, differing = tests_by_row(), differing_rows()

    def line(found: re.Match[str]) -> str:
        row, sentence = found[1], found[2]
        held = [
            f"`{file}`: " + ", ".join(f"`{name}`" for name in names)
            for file, names in tests.get(row, {}).items()
        ]
        if row in differing:
            held.insert(0, "[differs](differences.md)")
        return f'| <span id="{row}">{row}</span> | {sentence} | {"; ".join(held)} |'

    head = "| row | behaviour | tests |\n|---|---|---|\n"
    return _LINE.sub(line, page.replace(_HEAD, head))
