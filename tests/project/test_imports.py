"""Which module may import which, and how light `import revstore` is."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE = ROOT / "core" / "revstore"

#: Layer -> its rooms: packages of the core, and modules beside them. Every room is in exactly one.
LAYERS = {
    "errors": [
        "call_times",
        "closing",
        "deadlines",
        "errors",
        "forks",
        "keys",
        "nesting",
        "onlookers",
        "raising",
        "threads",
    ],
    "values": ["shared_log", "values"],
    "backend": ["arguments", "backend", "backend_tools"],
    "memory": ["memory"],
    "config": ["config", "secret"],
    "hooks": ["hooks"],
    "plugins": ["plugins"],
    "built-in plugins": ["builtin_plugin", "memory_plugin", "metrics_plugin"],
    "objects": [
        "codec",
        "copier",
        "objects",
        "continue_token",
        "paging",
        "plans",
        "preconditions",
        "selectors",
        "transform",
        "versioner",
    ],
    "storage": ["storage"],
    "resource type": ["resource_type"],
    "typed": ["typed"],
    "cacher": ["cacher"],
    "tracing": ["tracing"],
    "watch_selector": ["watch_selector"],
    "aio": ["aio"],
    "compactor": ["compactor"],
    "health": ["health"],
    "kinds": ["kinds"],
    "registry": ["registry"],
    "factory": ["factory"],
    "metrics": ["metrics"],
    "manifests": ["manifests"],
    "operations": ["operations"],
    "cli": ["cli", "__main__"],
    "testing": ["testing"],
    "package": ["__init__"],
}

#: Layer -> what else it may import, inside functions and for type checkers too. cli, testing and
#: the package itself may import every public module.
MAY_IMPORT = {
    "errors": [],
    "values": [],
    "backend": ["errors", "values", "config"],
    "memory": ["errors", "values", "backend"],
    "config": ["errors", "kinds"],
    "hooks": ["backend", "config"],
    "plugins": ["errors", "values", "backend", "config", "hooks"],
    "built-in plugins": [
        "errors",
        "values",
        "backend",
        "config",
        "hooks",
        "memory",
        "objects",
        "metrics",
    ],
    "objects": ["errors", "values"],
    "storage": ["errors", "values", "objects"],
    "resource type": ["errors", "objects", "storage"],
    "typed": ["errors", "values", "backend", "objects", "storage", "resource type"],
    "cacher": ["errors", "values", "objects", "storage", "resource type"],
    "tracing": [
        "errors",
        "backend",
        "config",
        "objects",
        "storage",
        "resource type",
        "typed",
        "cacher",
    ],
    "watch_selector": ["errors", "storage"],
    "aio": [
        "errors",
        "values",
        "objects",
        "storage",
        "resource type",
        "kinds",
        "registry",
        "factory",
        "watch_selector",
    ],
    "compactor": ["errors", "values", "backend"],
    "health": ["errors"],
    "kinds": ["errors"],
    "registry": ["errors", "values", "objects", "storage", "kinds"],
    "factory": [
        "errors",
        "values",
        "backend",
        "config",
        "plugins",
        "objects",
        "storage",
        "resource type",
        "typed",
        "cacher",
        "tracing",
        "compactor",
        "health",
        "kinds",
        "registry",
    ],
    "metrics": [
        "errors",
        "values",
        "backend",
        "config",
        "hooks",
        "storage",
        "cacher",
        "kinds",
        "factory",
    ],
    "manifests": ["errors", "kinds"],
    "operations": [
        "errors",
        "values",
        "backend",
        "objects",
        "storage",
        "resource type",
        "kinds",
        "registry",
        "factory",
        "manifests",
        "plugins",
        "typed",
    ],
}


def module_name(path: Path) -> str:
    parts = path.relative_to(CORE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(CORE.rglob("*.py"))}


def room_of(name: str) -> str:
    """The package of the core that a module is in, or the module itself."""
    return name.partition(".")[0]


def layer_of(name: str) -> list[str]:
    return [layer for layer, rooms in LAYERS.items() if room_of(name) in rooms]


def imports_of(path: Path, package: str = "revstore") -> set[str]:
    """The full names of what a file imports of ``package``, for type checkers too."""
    result = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            result |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            result |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in result if name == package or name.startswith(package + ".")}


def module_of(imported: str) -> str:
    """The module of the core that the full name ``imported`` is, or is in."""
    parts = imported.split(".")[1:]
    while parts and ".".join(parts) not in MODULES:
        parts.pop()
    return ".".join(parts) or "__init__"


def test_every_room_has_one_layer():
    """A new package gets a place in the table above, so that its imports are checked."""
    assert {name: layer_of(name) for name in MODULES if len(layer_of(name)) != 1} == {}


@pytest.mark.parametrize("name", MODULES)
def test_import_direction(name):
    """Each layer knows only the ones below it."""
    (layer,) = layer_of(name)
    wrong = []
    for imported in imports_of(MODULES[name]):
        target = module_of(imported)
        (other,) = layer_of(target)
        if other == layer:
            continue
        if layer in MAY_IMPORT:
            fine = other in MAY_IMPORT[layer]
        else:
            fine = not any(part.startswith("_") for part in imported.split("."))
        if not fine:
            wrong.append(imported)
    assert wrong == []


@pytest.mark.parametrize("name", MODULES)
def test_rooms_are_closed(name):
    """A room uses only the public modules and names of another: what several share is public."""
    private = [
        imported
        for imported in imports_of(MODULES[name])
        if room_of(module_of(imported)) != room_of(name)
        and any(part.startswith("_") for part in imported.split("."))
    ]
    assert private == []


def test_no_circles():
    """Modules can be read one after the other: none imports one that needs it, in any folder of
    core and plugins."""
    packages = [CORE, *(path.parent for path in ROOT.glob("plugins/*/src/*/__init__.py"))]
    for package in packages:
        paths = {
            ".".join((package.name, *path.relative_to(package).with_suffix("").parts)): path
            for path in package.rglob("*.py")
        }
        graph = {
            name: {
                target
                for imported in imports_of(path, package.name)
                for target in (imported, imported.rpartition(".")[0])
                if target in paths and target != name
            }
            for name, path in paths.items()
        }
        try:
            list(TopologicalSorter(graph).static_order())
        except CycleError as error:
            pytest.fail(f"a circle of imports: {' <- '.join(error.args[1])}")


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("plugins/*/src/**/*.py")), ids=lambda path: str(path.relative_to(ROOT))
)
def test_plugins_use_public_names_only(path):
    """A plugin in this repository uses nothing that others may not."""
    private = {
        name for name in imports_of(path) if any(part.startswith("_") for part in name.split("."))
    }
    assert private == set()


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


HEAVY = [
    "sqlalchemy",
    "grpc",
    "h11",
    "click",
    "rich",
    "yaml",
    "prometheus_client",
    "opentelemetry",
    "urllib3",
    "pytest",
    "hypothesis",
    "etcd3",
    "cryptography",
    "nacl",
]


def test_import_is_light():
    """`import revstore` imports no driver, no library of the command line, no metrics library."""
    code = f"import sys, revstore; print(*sorted(set({HEAVY}) & set(sys.modules)))"

    assert run(code).strip() == ""


def test_import_is_fast():
    """`import revstore` takes under 150 ms, best of five."""
    code = "import time; t = time.perf_counter(); import revstore; print(time.perf_counter() - t)"

    assert min(float(run(code)) for _ in range(5)) < 0.150


def test_every_entry_point_is_light():
    """The modules that entry points lead to import no driver."""
    names = [
        "revstore.memory_plugin",
        "revstore.builtin_plugin",
        "revstore.metrics_plugin",
        "revstore_sqlite",
        "revstore_serve",
        "revstore_encryption",
    ]
    for name in names:
        code = f"import sys, {name}; print(*sorted(set({HEAVY}) & set(sys.modules)))"
        assert (name, run(code).strip()) == (name, "")
