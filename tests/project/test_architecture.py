"""docs/architecture.md names every thread and lock that the code has, and modules that exist."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
LOCKS = {"Condition", "Lock", "RLock", "Semaphore", "BoundedSemaphore", "Barrier"}


def sources() -> Iterator[tuple[str, ast.Module]]:
    """The module name and tree of each file of core and plugins, apart from the tools for tests."""
    for folder in [ROOT / "core", *ROOT.glob("plugins/*/src")]:
        for path in sorted(folder.rglob("*.py")):
            name = ".".join(path.relative_to(folder).with_suffix("").parts)
            if not name.startswith("revstore.testing"):
                yield name.removesuffix(".__init__"), ast.parse(path.read_text(encoding="utf-8"))


def called(node: ast.AST | None) -> str:
    """The last part of the name of what is called, "" for other expressions."""
    if not isinstance(node, ast.Call):
        return ""
    return ast.unparse(node.func).rpartition(".")[2]


def column(title: str, number: int) -> list[str]:
    """What stands in backticks in a column of the tables that begin with the title."""
    return [
        name
        for line in re.findall(rf"^\| {title} \|.*\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
        for row in line.splitlines()
        for name in re.findall(r"`(revstore[^`]*)`", row.split("|")[number])
    ]


def test_every_thread_is_on_the_page():
    """The table has each thread by its name, and the module that starts it."""
    started = {}
    for module, tree in sources():
        for node in ast.walk(tree):
            if called(node) == "start_thread":
                started[ast.literal_eval(node.args[1])] = module
            elif called(node) == "ThreadPoolExecutor":
                (name,) = [each.value for each in node.keywords if "prefix" in each.arg]
                started[ast.literal_eval(name)] = module
            elif called(node) in ("Thread", "Timer") and module != "revstore.threads":
                raise AssertionError(f"{module} starts a thread past revstore.threads")

    assert dict(zip(column("thread", 1), column("thread", 2), strict=True)) == started


def locks_in(module: str, node: ast.AST, owner: str) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            yield from locks_in(module, child, f"{owner}.{child.name}")
            continue
        targets = child.targets if isinstance(child, ast.Assign) else []
        if isinstance(child, ast.AnnAssign):
            targets = [child.target]
        if targets and called(child.value) in LOCKS:
            yield from (f"{owner}.{ast.unparse(each).removeprefix('self.')}" for each in targets)
        yield from locks_in(module, child, owner)


def test_every_lock_is_on_the_page():
    """The tables have each lock that a module or an object has, once."""
    held = {lock for module, tree in sources() for lock in locks_in(module, tree, module)}

    assert sorted(column("lock", 1)) == sorted(held)


def test_every_module_on_the_page_exists():
    """A reader finds what the page names: a module, or something that a module defines."""
    modules = dict(sources())
    named = set(re.findall(r"\brevstore(?:_[a-z0-9]+)?(?:\.\w+)+|\brevstore_[a-z0-9]+", PAGE))
    missing = []
    for name in named - {"revstore.testing"}:
        module, rest = name, set()
        while module not in modules and "." in module:
            module, _, last = module.rpartition(".")
            rest.add(last)
        if module not in modules or not rest <= names_in(modules[module]):
            missing.append(name)

    assert len(named) > 40
    assert missing == []


def names_in(tree: ast.Module) -> set[str]:
    """The classes, functions and attributes of a module."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.Name):
            found.add(node.id)
    return found
