"""Broken, duplicate, incompatible and intruding plugins, installed with pip in a clean virtual
environment, and looked up by another process."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import zipfile
from contextlib import contextmanager

import pytest

pytestmark = pytest.mark.slow

BACKEND = """
from revstore.backend import BackendInfo
from revstore.hooks import hookimpl

@hookimpl
def revstore_backend():
    return BackendInfo(name={name!r}, api_version={api!r}, capabilities=frozenset(),
                       description="for tests", factory=opened)

def opened(config, options):
    from revstore.memory import MemoryBackend
    return MemoryBackend()
"""


def backend(name="mine", api=(1, 0)):
    return BACKEND.format(name=name, api=api)


#: Prints what opening a backend gives, and how it is listed.
PROBE = """
import json, sys
from revstore.config import StorageConfig
from revstore.errors import PluginError
from revstore.plugins import list_backends, open_backend

try:
    open_backend(StorageConfig(type=sys.argv[1])).close()
    answer = ["opened", ""]
except PluginError as error:
    answer = [type(error).__name__, str(error)]
rows = [[row.name, row.distribution, row.status, row.reason] for row in list_backends()]
print(json.dumps([*answer, rows]))
"""


@contextmanager
def installed(python, folder, *plugins):
    """Install distributions, each (distribution, entry point name, code), and take them off."""
    paths = [build(folder, *plugin) for plugin in plugins]
    pip(python, "install", "--no-index", "--no-deps", *paths)
    try:
        yield
    finally:
        pip(python, "uninstall", "--yes", *[dist for dist, _, _ in plugins])


def build(folder, dist, name, code):
    """A wheel with one module and one entry point."""
    module = dist.replace("-", "_")
    info = f"{module}-0.3.dist-info"
    files = {
        f"{module}.py": textwrap.dedent(code),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {dist}\nVersion: 0.3\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[revstore.backends]\n{name} = {module}\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{each},,\n" for each in [*files, f"{info}/RECORD"])
    path = folder / f"{module}-0.3-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for each, text in files.items():
            wheel.writestr(each, text)
    return str(path)


def pip(python, *arguments):
    command = [sys.executable, "-m", "pip", "--python", python, "--quiet"]
    command += ["--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def probe(python, name, **environ):
    """(error class or "opened", its text, {distribution: (status, reason)})."""
    done = subprocess.run(
        [python, "-W", "error", "-c", PROBE, name],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environ,
    )
    assert (done.returncode, done.stderr) == (0, "")
    outcome, text, rows = json.loads(done.stdout)
    return outcome, text, {dist: (status, reason) for _, dist, status, reason in rows}


BROKEN = {
    "raises at import": ("raise RuntimeError('boom')", "RuntimeError: boom"),
    "lacks its driver": ("import no_such_driver", "No module named 'no_such_driver'"),
    "has no marker": (backend().replace("@hookimpl", ""), "is @hookimpl of revstore.hooks on it?"),
    "mistypes a hook": (
        backend() + "@hookimpl\ndef revstore_bakend(): pass",
        "unknown hook 'revstore_bakend'",
    ),
}


@pytest.mark.parametrize("how", BROKEN)
def test_broken_plugin(core_python, tmp_path, how):
    """A broken plugin is named with its version and cause when it is chosen, is listed as broken,
    and does no harm to others."""
    code, reason = BROKEN[how]
    with installed(core_python, tmp_path, ("acme-store", "mine", code)):
        outcome, text, rows = probe(core_python, "mine")
        other, _, _ = probe(core_python, "memory")

    assert outcome == "BackendBroken"
    assert "acme-store 0.3" in text
    assert reason in text
    assert rows["acme-store"][0] == "broken"
    assert rows["revstore"][0] == "ok"
    assert other == "opened"


def test_duplicate_plugins(core_python, tmp_path):
    """Two distributions that claim one name are both named; one switched off, the other works."""
    plugins = [(dist, "mine", backend()) for dist in ("acme-one", "acme-two")]
    with installed(core_python, tmp_path, *plugins):
        outcome, text, rows = probe(core_python, "mine")
        one, _, _ = probe(core_python, "mine", REVSTORE_DISABLE_PLUGINS="acme-two")

    assert outcome == "BackendConflict"
    assert "acme-one 0.3" in text
    assert "acme-two 0.3" in text
    assert (rows["acme-one"][0], rows["acme-two"][0]) == ("conflict", "conflict")
    assert one == "opened"


def test_incompatible_plugin(core_python, tmp_path):
    """A plugin for a later contract is refused with both versions and what to upgrade."""
    with installed(core_python, tmp_path, ("acme-store", "mine", backend(api=(2, 0)))):
        outcome, text, rows = probe(core_python, "mine")

    assert outcome == "BackendIncompatible"
    assert "2.0" in text
    assert "upgrade revstore" in text
    assert rows["acme-store"][0] == "incompatible"


def test_absent_plugin(core_python):
    """The pip line for names of this project, the closest name for others, never both."""
    sqlite = probe(core_python, "sqlite")
    typo = probe(core_python, "etcd33")

    assert sqlite[0] == typo[0] == "BackendNotInstalled"
    assert "pip install revstore-sqlite" in sqlite[1]
    assert "did you mean 'etcd3'" in typo[1]
    assert "pip install" not in typo[1]


def test_working_plugin_and_switches(core_python, tmp_path):
    """A third party's plugin opens after pip install alone, and the variables switch it off."""
    with installed(core_python, tmp_path, ("acme-store", "mine", backend())):
        outcome, _, _ = probe(core_python, "mine")
        blocked, text, rows = probe(core_python, "mine", REVSTORE_PLUGINS="")

    assert outcome == "opened"
    assert blocked == "BackendNotInstalled"
    assert "REVSTORE_PLUGINS" in text
    assert rows["acme-store"][0] == "blocked"
    assert probe(core_python, "mine")[0] == "BackendNotInstalled"


def test_intruder_on_a_reserved_name(core_python, sqlite_python, tmp_path):
    """Another distribution that claims sqlite is named and never run, whether the
    real one is installed or not."""
    marker = tmp_path / "ran"
    intruder = f"open({str(marker)!r}, 'w').close()\n" + backend("sqlite")
    for python in (core_python, sqlite_python):
        with installed(python, tmp_path, ("fast-sqlite", "sqlite", intruder)):
            outcome, text, rows = probe(python, "sqlite")

        assert outcome == "BackendConflict"
        assert "fast-sqlite 0.3" in text
        assert "reserved" in text
        assert rows["fast-sqlite"][0] == "conflict"
        assert not marker.exists()
