"""What ``revstore plugins new`` writes is a third party's distribution that works without a
change."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from revstore.cli._skeleton import files_of

ROOT = Path(__file__).parents[2]
PATIENCE = 200


def run(*command, code=0, cwd=None):
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        cwd=cwd,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_example_is_the_skeleton():
    """``examples/revstore-tiny`` is what the command writes, file by file."""
    folder = ROOT / "examples" / "revstore-tiny"
    tracked = run("git", "ls-files", "--others", "--cached", "--exclude-standard", ".", cwd=folder)
    assert sorted(tracked.split()) == sorted(path for path, _ in files_of("tiny"))
    for path, text in files_of("tiny"):
        assert (folder / path).read_text() == text, path


def test_the_page_is_the_skeleton():
    """``docs/write-a-backend.md`` shows the same files, README apart, in pieces, so the test of the
    skeleton is one of the page's backend too."""
    page = (ROOT / "docs" / "write-a-backend.md").read_text()
    block = re.compile(r"^<!-- file: (\S+) -->\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    shown: dict[str, str] = {}
    for path, text in block.findall(page):
        shown[path] = f"{shown[path]}\n{text}" if path in shown else text
    assert shown == {path: text for path, text in files_of("tiny") if path != "README.md"}


# Each command has a limit of its own.
@pytest.mark.timeout(4 * PATIENCE)
def test_a_new_backend_lives_and_goes(wheels, tmp_path):
    """From nothing: written, built as a wheel, installed in a clean environment, found, its suite
    passed, used, taken off; then its absence is explained."""
    run(sys.executable, "-m", "revstore", "plugins", "new", "acme", cwd=tmp_path)
    source = tmp_path / "revstore-acme"
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path, source]
    run(*pip, *build)
    (wheel,) = tmp_path.glob("revstore_acme-*.whl")
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "env")
    python = tmp_path / "env" / "bin" / "python"
    pip += ["--python", python]
    run(*pip, "install", "--no-compile", f"{wheels['revstore']}[cli,testing]", wheel)
    revstore = [python, "-m", "revstore"]

    assert "acme" in run(*revstore, "plugins", "check", "acme", cwd=tmp_path)
    suite = ["-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", source / "tests"]
    assert " passed" in run(python, *suite, cwd=tmp_path)
    some = ["conformance", "acme://", "--json", "--histories", "1", "--only", "create or update"]
    report = json.loads(run(*revstore, *some, cwd=tmp_path))
    assert report["passed"]
    assert "No resources" in run(*revstore, "--store", "acme://", "get", "pods", cwd=tmp_path)
    run(*pip, "uninstall", "--yes", "revstore-acme")
    told = run(*revstore, "--store", "acme://", "get", "pods", code=2, cwd=tmp_path)
    assert "acme" in told
    assert "memory" in told


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("sqlite", "built-in backend"),
        ("Redis", "lowercase letters"),
        ("my-store", "lowercase letters"),
        ("../x", "lowercase letters"),
        ("", "lowercase letters"),
    ],
)
def test_bad_names(tmp_path, name, why):
    """One line, nothing written."""
    told = run(sys.executable, "-m", "revstore", "plugins", "new", name, code=1, cwd=tmp_path)
    assert why in told
    assert len(told.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(tmp_path):
    """A folder that is there stays as it is."""
    (tmp_path / "mine").mkdir()
    command = ["-m", "revstore", "plugins", "new", "acme", "--directory", "mine"]
    assert "exists already" in run(sys.executable, *command, code=1, cwd=tmp_path)
    assert not list((tmp_path / "mine").iterdir())
