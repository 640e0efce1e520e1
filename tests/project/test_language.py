"""Words that make sentences hard to read stay out of pages, docstrings, comments and messages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STUMBLES = re.compile(
    r"\banew\b|\bwhoever\b|\bthat which\b|\btells? of\b|\btold of\b|\bas it stands\b"
    r"|\bmend(?:s|ed|ing)?\b",
    re.IGNORECASE,
)


PLACES = ["core", "plugins", "examples", "docs", "tests", "benchmarks", "*.md", "Makefile"]


@pytest.mark.parametrize("place", PLACES)
def test_plain_words(place: str) -> None:
    found = []
    for path in sorted(
        ROOT.glob(place if "." in place or place == "Makefile" else f"{place}/**/*")
    ):
        if path.suffix not in {".py", ".md", ""} or not path.is_file():
            continue
        if {"build", "_build", ".data"} & set(path.parts) or path == Path(__file__):
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if STUMBLES.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    assert found == []
