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


@pytest.mark.parametrize("place", ["core", "plugins", "examples", "docs"])
def test_plain_words(place: str) -> None:
    found = []
    for path in sorted((ROOT / place).rglob("*")):
        if path.suffix not in {".py", ".md"} or "build" in path.parts:
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if STUMBLES.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    assert found == []
