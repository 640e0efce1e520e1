"""docs/behaviours.md says what each row means that code and tests cite, and tests hold each row."""

from __future__ import annotations

import ast
import importlib.util
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_spec = importlib.util.spec_from_file_location("citations", ROOT / "docs" / "citations.py")
citations = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(citations)

#: Where people read: sources, tests, pages, settings.
_READ = ["*.py", "*.md", "*.toml", "*.cfg", "Makefile"]
_PAGE = re.compile(r"(?<![\w/])(?:docs/)?[A-Za-z-]+\.md\b")
_ELSEWHERE = re.compile(
    r"\b[A-Z]{5,} [0-9]+[a-z]?\b|\b[Ss]ection [A-Z]\b|\b[A-Z]\.[0-9]+[:,)]|\b[Ii]ssue [0-9]+"
    r"|\b[Rr]uling\b"
)
_PLACES = ["core", "plugins", "tests", "benchmarks", "examples", "docs"]


def texts() -> list[tuple[str, str]]:
    """The name and text of each file of the project."""
    paths = [path for pattern in _READ for path in ROOT.glob(pattern)]
    for place in _PLACES:
        paths += [path for pattern in _READ for path in (ROOT / place).rglob(pattern)]
    return [
        (str(path.relative_to(ROOT)), path.read_text(encoding="utf-8"))
        for path in sorted({*paths} - {Path(__file__)})
        if not {"build", "_build", "__pycache__", ".data"} & {*path.parts}
    ]


def test_what_is_cited_is_on_the_page():
    """A reader who meets the id of a row can look it up."""
    unknown = {
        (name, row)
        for name, text in texts()
        for row in citations.rows_in(text)
        if row not in citations.ROWS
    }

    assert unknown == set()


def test_each_row_is_held_by_a_test_or_differs():
    """No behaviour is claimed without a test, and none of the original's forgotten in silence."""
    held = {*citations.tests_by_row(), *citations.differing_rows()}

    assert [row for row in citations.ROWS if row not in held] == []


def words(source: str) -> Iterator[str]:
    """The comments and docstrings of a Python file."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.string
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""


def test_nothing_else_is_cited():
    """Numbered rulings, sections, issues, and pages that are not in the repository lead a reader
    nowhere: a comment gives the reason itself."""
    cited = []
    for name, text in texts():
        # To parse a file takes far longer than to see that it has nothing of the kind anywhere.
        if name.endswith(".py") and (_ELSEWHERE.search(text) or _PAGE.search(text)):
            for each in words(text):
                cited += [(name, found) for found in _ELSEWHERE.findall(each)]
                cited += [
                    (name, page)
                    for page in _PAGE.findall(each)
                    if not (ROOT / page).exists() and not (ROOT / "docs" / page).exists()
                ]

    assert cited == []


def test_the_rows():
    """No family has a gap, no row comes twice, and each has one sentence that ends."""
    page = (ROOT / "docs" / "behaviours.md").read_text()
    rows = re.findall(r"^\| ([A-Z]+-[0-9]+) \|", page, re.MULTILINE)

    assert rows == [*citations.ROWS]
    for family in citations.FAMILIES:
        numbers = [int(row.partition("-")[2]) for row in rows if row.startswith(family + "-")]
        assert numbers == [*range(1, len(numbers) + 1)], family
    assert [row for row, text in citations.ROWS.items() if not re.fullmatch(r"[^|]+\.", text)] == []


def test_the_built_page():
    """The built page names the tests of a row, and has a link where revstore differs."""
    page = citations.behaviours((ROOT / "docs" / "behaviours.md").read_text())
    lines = dict(
        re.findall(r'^\| <span id="(.+?)">.*?</span> \| .* \| (.*) \|$', page, re.MULTILINE)
    )

    assert lines.keys() == citations.ROWS.keys()
    assert "`tests/test_continue_token.py`: `test_tokens_come_back`" in lines["LIST-16"]
    assert lines["ERR-10"] == "[differs](differences.md)"
    assert page.count("| row | behaviour | tests |") > 10
    assert "| row | behaviour |\n" not in page


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
    assert list(citations.rows_in(text)) == rows
