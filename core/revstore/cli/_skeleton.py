"""The skeleton of a third party's backend: a distribution that already works."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

from revstore.backend import BackendInfo
from revstore.cli._failures import Failed

__all__ = ["files_of", "write_plugin"]

# The names of the files in the package, and in the distribution.
_FILES = {
    "README.md.in": "README.md",
    "pyproject.toml.in": "pyproject.toml",
    "setup.cfg.in": "setup.cfg",
    "init.py.in": "src/revstore_tiny/__init__.py",
    "store.py.in": "src/revstore_tiny/_store.py",
    "test_conformance.py.in": "tests/test_conformance.py",
}
_NAME = re.compile(r"[a-z][a-z0-9]{0,30}")


def files_of(name: str) -> Iterator[tuple[str, str]]:
    """Yield the paths and texts of the distribution revstore-NAME."""
    for source, path in _FILES.items():
        text = resources.files("revstore.cli").joinpath("skeleton", source).read_text("utf-8")
        yield _renamed(path, name), _renamed(text, name)


def write_plugin(name: str, folder: Path) -> list[Path]:
    """Write the distribution into ``folder``, which must not exist; return the files.

    It fails if the name cannot be that of a backend, or belongs to this project.
    """
    if not _NAME.fullmatch(name):
        raise Failed(
            "a backend name consists of lowercase letters and digits, such as 'redis2', not "
            f"{name!r}"
        )
    if name in BackendInfo.RESERVED:
        raise Failed(f"{name!r} is a built-in backend; choose another name")
    if folder.exists():
        raise Failed(f"{folder} exists already; choose another with --directory")
    written = []
    for relative, text in files_of(name):
        path = folder / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        written.append(path)
    return written


def _renamed(text: str, name: str) -> str:
    return text.replace("tiny", name).replace("Tiny", name.capitalize())
