"""What CONTRIBUTING.md tells a contributor to run, read and change exists."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()


def test_each_task_has_a_section():
    """A contributor finds each task by its heading."""
    headings = set(re.findall(r"^## (.*)$", TEXT, re.MULTILINE))

    assert headings >= {
        "Report a bug",
        "Run one test",
        "Read a failed run",
        "Run the tests on every Python",
        "Release",
    }


def test_targets_exist():
    """Each ``make NAME`` of the page is a target."""
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = re.findall(r"(?:`|^    )make ([a-z][\w-]*)", TEXT, re.MULTILINE)

    assert named
    assert set(named) <= targets


def test_tests_exist():
    """Each file of tests that the page names exists, and so does the function after "::"."""
    named = re.findall(r"\b(tests/[\w/]+\.py)(?:::(\w+))?", TEXT)

    assert named
    for path, function in named:
        assert f"def {function}" in (ROOT / path).read_text(), path


def test_a_release_covers_every_distribution():
    """The section on releases names each file that holds a version."""
    release = TEXT.partition("\n## Release\n")[2].partition("\n## ")[0]
    files = ["setup.cfg", *(str(p.relative_to(ROOT)) for p in ROOT.glob("plugins/*/setup.cfg"))]

    assert [name for name in files if f"`{name}`" not in release] == []


def test_distributions_share_one_version():
    """The distributions are released together, and the tag ``vX.Y.Z`` stands for all of them."""
    versions = {
        re.findall(r"^version = (.+)$", path.read_text(), re.MULTILINE)[0]
        for path in [ROOT / "setup.cfg", *ROOT.glob("plugins/*/setup.cfg")]
    }

    assert len(versions) == 1
