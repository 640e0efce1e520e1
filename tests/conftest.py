"""What every test runs under, and wheels of the distributions with environments to try them in."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

# The fixtures that users have.
pytest_plugins = ["revstore.testing.fixtures"]

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _no_configuration_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own REVSTORE_* variables must not steer the tests."""
    for name in list(os.environ):
        if name.startswith("REVSTORE_") and not name.startswith("REVSTORE_TEST_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """A wheel of each distribution, by its name, built from a clean copy of the tree."""
    copy = tmp_path_factory.mktemp("source") / "revstore"
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        copy.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, copy)
    for name in ("core", "plugins"):
        shutil.copytree(ROOT / name, copy / name, ignore=ignore)
    out = tmp_path_factory.mktemp("wheels")
    sources = [copy, *sorted(path.parent for path in copy.glob("plugins/*/setup.cfg"))]
    pip(sys.executable, "wheel", "--no-deps", "--no-build-isolation", "-w", out, *sources)
    return {path.name.split("-")[0].replace("_", "-"): path for path in out.glob("*.whl")}


@pytest.fixture(scope="session")
def core_python(tmp_path_factory: pytest.TempPathFactory, wheels: Mapping[str, Path]) -> str:
    """The interpreter of a clean environment that has the core alone."""
    python = make_environment(tmp_path_factory.mktemp("core-only"))
    pip(python, "install", wheels["revstore"])
    return python


@pytest.fixture(scope="session")
def sqlite_python(tmp_path_factory: pytest.TempPathFactory, wheels: Mapping[str, Path]) -> str:
    """The interpreter of a clean environment where only the sqlite backend was asked for."""
    python = make_environment(tmp_path_factory.mktemp("with-sqlite"))
    pip(python, "install", "--find-links", wheels["revstore"].parent, "revstore-sqlite")
    return python


def make_environment(folder: Path) -> str:
    subprocess.run([sys.executable, "-m", "venv", folder / "env"], check=True, timeout=120)
    return str(folder / "env" / "bin" / "python")


def pip(python: str, *arguments: object) -> None:
    command = [python, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
