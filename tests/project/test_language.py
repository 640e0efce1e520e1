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
# Tests, and notes of earlier versions, still have some of these.
STUMBLES_OF_USERS = re.compile(
    STUMBLES.pattern
    + r"|\bwhom\b|\bone's own\b|\bcomes of\b|\b(?:is|are) told\b|\bstands for\b|\bno failure\b"
    r"|\bas ever\b|\bso too\b|\bheld against\b|\bon the word of\b|\ball the same\b|\bstands in\b"
    r"|\bwhat (?:there is|is there|is asked for|was asked for)\b|\bup to where\b"
    r"|(?<!, )\bwho (?:polls|waits|reads|asks|wants|iterates)\b",
    re.IGNORECASE,
)
PLACES = ["core", "plugins", "examples", "docs", "tests", "benchmarks", "*.md", "Makefile"]


@pytest.mark.parametrize("place", PLACES)
def test_plain_words(place: str) -> None:
    found = []
    stumbles = STUMBLES if place in {"tests", "*.md"} else STUMBLES_OF_USERS
    for path in sorted(ROOT.glob(f"{place}/**/*" if (ROOT / place).is_dir() else place)):
        if path.suffix not in {".py", ".md"} and path.name != "Makefile":
            continue
        if {"build", "_build", ".data"} & set(path.parts) or path == Path(__file__):
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if stumbles.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    assert found == []
