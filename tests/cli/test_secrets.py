"""A planted password appears in nothing that the command prints, however it goes wrong."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PLANTED = "hunter2-planted"
TOML = f"""
type = "sqlite"
username = "ann"
password = "{PLANTED}"
[options]
path = "x.db"
"""
COMMANDS = [
    ("doctor",),
    ("doctor", "--json"),
    ("get", "pods"),
    ("--debug", "get", "pods"),
    ("plugins", "list", "--json"),
    ("compact",),
]


def run(folder, *arguments: str, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "always", "-m", "revstore", *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, **variables},
        timeout=60,
        check=False,
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_output_shows_a_password(command, tmp_path):
    """Not from a URL, a file or the environment; not when the backend is missing,
    an option unknown, a value wrong, or a server unreachable."""
    toml = tmp_path / "store.toml"
    toml.write_text(TOML)
    toml.chmod(0o600)
    broken = tmp_path / "broken.toml"
    broken.write_text(TOML + "colour = 1\n")
    outputs = [
        run(tmp_path, *command, "--store", f"sqlite:///x.db?password={PLANTED}&username=ann"),
        run(tmp_path, *command, "--store", f"sqlite:///x.db?password={PLANTED}&colour=red"),
        run(tmp_path, *command, "--store", f"nosuch://ann:{PLANTED}@127.0.0.1:1/p"),
        run(tmp_path, *command, "--store", f"etcd3://ann:{PLANTED}@127.0.0.1:1/p?quorum=perhaps"),
        run(tmp_path, *command, "--store", f"//ann:{PLANTED}@127.0.0.1:x/"),
        run(tmp_path, *command, "--config", str(toml)),
        run(tmp_path, *command, "--config", str(broken)),
        run(tmp_path, *command, REVSTORE_PASSWORD=PLANTED, REVSTORE_TYPE="sqlite"),
        run(tmp_path, *command, REVSTORE_URL=f"memory://?password={PLANTED}"),
    ]
    assert [output for output in outputs if PLANTED in output] == []
    assert all(outputs)
