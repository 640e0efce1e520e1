"""The wheels: what is in them, and that each installs without the other being there."""

from __future__ import annotations

import re
import subprocess
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PACKAGES = {
    "revstore": "revstore/",
    "revstore-sqlite": "revstore_sqlite/",
    "revstore-etcd3": "revstore_etcd3/",
    "revstore-etcd2": "revstore_etcd2/",
}
SOURCES = {
    "revstore": ROOT / "core" / "revstore",
    "revstore-sqlite": ROOT / "plugins" / "sqlite" / "src" / "revstore_sqlite",
    "revstore-etcd3": ROOT / "plugins" / "etcd3" / "src" / "revstore_etcd3",
    "revstore-etcd2": ROOT / "plugins" / "etcd2" / "src" / "revstore_etcd2",
}


def metadata(path: Path) -> str:
    with zipfile.ZipFile(path) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        return wheel.read(name).decode()


@pytest.mark.parametrize("name", PACKAGES)
def test_wheel_holds_the_package_and_nothing_else(wheels, name):
    """A wheel has every module of its package, py.typed and the licence, and no stale file."""
    with zipfile.ZipFile(wheels[name]) as wheel:
        files = {each for each in wheel.namelist() if ".dist-info/" not in each}
        rest = {each.rsplit("/", 1)[-1] for each in wheel.namelist() if ".dist-info/" in each}
    source = SOURCES[name]
    wanted = {
        PACKAGES[name] + str(path.relative_to(source))
        for path in source.rglob("*")
        if path.suffix in {".py", ".in"} or path.name == "py.typed"
    }

    assert files == wanted
    assert PACKAGES[name] + "py.typed" in files
    assert {"LICENSE", "entry_points.txt"} <= rest


def test_metadata_of_the_wheels(wheels):
    """The core requires no driver and no library of the command line; the plugin bounds the core;
    the extras that exist are in the metadata (DECISIONS 32)."""
    core = metadata(wheels["revstore"])
    needs = re.findall(r"^Requires-Dist: ([\w-]+)[^;\n]*$", core, re.MULTILINE)

    assert sorted(needs) == ["attrs", "cattrs", "msgspec", "pluggy"]
    extras = ["cli", "testing", "metrics", "sqlite", "etcd3", "etcd2"]
    assert re.findall(r"^Provides-Extra: (.*)$", core, re.MULTILINE) == extras
    plugin = metadata(wheels["revstore-sqlite"])
    assert re.search(r"^Requires-Dist: revstore(<0.2,>=0.1|>=0.1,<0.2)$", plugin, re.MULTILINE)
    for text in (core, plugin):
        assert "License-Expression: Apache-2.0" in text
        assert "Requires-Python: >=3.11" in text


def test_core_installs_alone(core_python):
    """The core alone imports, opens memory, and says how to get its default backend."""
    code = (
        "import revstore\n"
        "from revstore.config import StorageConfig\n"
        "from revstore.errors import BackendNotInstalled\n"
        "from revstore.plugins import open_backend\n"
        "open_backend(StorageConfig.from_url('memory://')).close()\n"
        "try: open_backend(StorageConfig())\n"
        "except BackendNotInstalled as error: print(error)"
    )

    done = run(core_python, "-c", code)

    assert (done.returncode, done.stderr) == (0, "")
    assert "pip install revstore-sqlite" in done.stdout


def test_console_script_without_its_extra(core_python):
    """DECISIONS 32: without the extra `cli`, `revstore` prints the pip line and exits 2."""
    script = str(Path(core_python).with_name("revstore"))

    for command in ([script], [script, "get", "pods"], [core_python, "-m", "revstore"]):
        done = run(*command)
        assert done.returncode == 2
        assert "pip install 'revstore[cli]'" in done.stdout + done.stderr
        assert "Traceback" not in done.stderr


def test_sqlite_installs_by_its_own_name(sqlite_python, tmp_path):
    """Asking for the plugin brings the core, and the default store opens."""
    code = (
        "import sys\n"
        "from revstore.config import StorageConfig\n"
        "from revstore.plugins import open_backend\n"
        "backend = open_backend(StorageConfig.from_url('sqlite:///' + sys.argv[1]))\n"
        "print(backend.put('/a', b'1', expected_revision=0).succeeded)\n"
        "backend.close()"
    )

    done = run(sqlite_python, "-c", code, str(tmp_path / "cluster.db"))

    assert (done.returncode, done.stderr, done.stdout) == (0, "", "True\n")


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
