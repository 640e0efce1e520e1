"""What users may import: each module's __all__, and types that reach them."""

from __future__ import annotations

import ast
import importlib
import typing
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = [
    ROOT / "core" / "revstore",
    *sorted(path.parent for path in ROOT.glob("plugins/*/src/*/__init__.py")),
]


def modules():
    result = []
    for package in PACKAGES:
        for path in sorted(package.rglob("*.py")):
            parts = (package.name, *path.relative_to(package).with_suffix("").parts)
            if parts[-1] == "__init__":
                parts = parts[:-1]
            if not any(part.startswith("_") for part in parts):
                result.append(pytest.param(".".join(parts), path, id=".".join(parts)))
    return result


def defined(path: Path) -> set[str]:
    """The names without underscore that a module's top level defines, not those it imports."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return {name for name in names if not name.startswith("_")}


def order(name: str) -> tuple[int, str]:
    """Constants, then classes, then the rest, each by name, as ruff sorts."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


@pytest.mark.parametrize(("name", "path"), modules())
def test_all_is_sorted_and_exact(name, path):
    """__all__ is sorted, names what is there, and misses no public name that is defined."""
    module = importlib.import_module(name)
    public = module.__all__
    forgotten = {
        each
        for each in defined(path) - set(public)
        if not isinstance(getattr(module, each), typing.TypeVar)
    }

    assert list(public) == sorted(set(public), key=order)
    assert [each for each in public if not hasattr(module, each)] == []
    assert forgotten == set()


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_types_are_shipped(package):
    """py.typed tells type checkers that annotations count."""
    assert (package / "py.typed").is_file()


@pytest.mark.parametrize(("name", "path"), modules())
def test_public_names_have_docstrings(name, path):
    """Every module, public class and function says what it is."""
    tree = ast.parse(path.read_text())
    nodes = [
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
    ]

    assert ast.get_docstring(tree) or path.stat().st_size == 0
    assert [node.name for node in nodes if not ast.get_docstring(node)] == []
