"""The wheels and source archives: what is in them, and that each wheel installs, alone and with the
others. `make dist` runs these over what it has built."""

from __future__ import annotations

import re
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest
from packaging.metadata import Metadata

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]

PACKAGES = {
    "revstore": "revstore/",
    "revstore-sqlite": "revstore_sqlite/",
    "revstore-etcd3": "revstore_etcd3/",
    "revstore-etcd2": "revstore_etcd2/",
    "revstore-serve": "revstore_serve/",
    "revstore-encryption": "revstore_encryption/",
}
SOURCES = {
    "revstore": ROOT / "core" / "revstore",
    "revstore-sqlite": ROOT / "plugins" / "sqlite" / "src" / "revstore_sqlite",
    "revstore-etcd3": ROOT / "plugins" / "etcd3" / "src" / "revstore_etcd3",
    "revstore-etcd2": ROOT / "plugins" / "etcd2" / "src" / "revstore_etcd2",
    "revstore-serve": ROOT / "plugins" / "serve" / "src" / "revstore_serve",
    "revstore-encryption": ROOT / "plugins" / "encryption" / "src" / "revstore_encryption",
}


def package_files(source: Path) -> list[Path]:
    """What a distribution has of the package in the folder ``source``."""
    kinds = {".py", ".in", ".typed"}
    return [path for path in source.rglob("*") if path.suffix in kinds]


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
    wanted = {PACKAGES[name] + str(path.relative_to(source)) for path in package_files(source)}

    assert files == wanted
    assert PACKAGES[name] + "py.typed" in files
    assert {"LICENSE", "entry_points.txt"} <= rest


@pytest.mark.parametrize("name", PACKAGES)
def test_source_archive_holds_what_the_wheel_needs(distributions, name):
    """A source archive has the package, the licence, and no tests or folder of another
    distribution."""
    (path,) = distributions.glob(f"{name.replace('-', '_')}-[0-9]*.tar.gz")
    with tarfile.open(path) as archive:
        files = {each.name.partition("/")[2] for each in archive.getmembers() if each.isfile()}
    source = SOURCES[name]
    home = ROOT if name == "revstore" else source.parents[1]
    folder = str(source.relative_to(home))
    ours = {each for each in files if each.startswith(folder + "/")}
    rest = {each for each in files - ours if ".egg-info/" not in each}

    assert ours == {f"{folder}/{each.relative_to(source)}" for each in package_files(source)}
    assert rest - {"MANIFEST.in"} == {
        *("LICENSE", "PKG-INFO", "README.md", "pyproject.toml", "setup.cfg")
    }


@pytest.mark.parametrize("name", PACKAGES)
def test_metadata_is_valid(wheels, name):
    """An index would accept the metadata: every field is known and well-formed, and the
    description is the README of the distribution."""
    found = Metadata.from_email(metadata(wheels[name]), validate=True)
    home = ROOT if name == "revstore" else SOURCES[name].parents[1]

    assert found.name == name
    assert found.description_content_type == "text/markdown"
    assert found.description is not None
    assert found.description.strip() == (home / "README.md").read_text().strip()


def test_all_install_together(all_python):
    """All distributions, the core with its extras, go into one clean environment, where each
    backend is found."""
    shown = run(all_python, "-m", "revstore", "plugins", "list")

    assert (shown.returncode, shown.stderr) == (0, "")
    assert {"memory", "sqlite", "etcd3", "etcd2"} <= set(shown.stdout.split())


def test_metadata_of_the_wheels(wheels):
    """The core requires no driver and no library of the command line; the plugin bounds the core;
    the extras that exist are in the metadata."""
    core = metadata(wheels["revstore"])
    needs = re.findall(r"^Requires-Dist: ([\w-]+)[^;\n]*$", core, re.MULTILINE)

    assert sorted(needs) == ["attrs", "msgspec", "pluggy"]
    extras = ["cli", "testing", "zstd", "metrics", "tracing", "sqlite", "etcd3", "etcd2"]
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
    """Without the extra `cli`, `revstore` prints the pip line and exits 2."""
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
