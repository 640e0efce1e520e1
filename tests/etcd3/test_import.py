"""A client library that cannot be imported."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# What etcd3 0.12.0 raises with protobuf 4 and later.
OLD = """\
raise TypeError('''Descriptors cannot be created directly.
If this call came from a _pb2.py file, your generated code is out of date and must be \
regenerated with protoc >= 3.19.0.
If you cannot immediately regenerate your protos, some other possible workarounds are:
 1. Downgrade the protobuf package to 3.20.x or lower.''')
"""
FIX = "try: pip uninstall -y etcd3; pip install --force-reinstall python3-etcd3"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (OLD, "Descriptors cannot be created directly."),
        ("raise ImportError('no protobuf')", "no protobuf"),
        ("", "No module named 'etcd3.etcdrpc'"),
    ],
    ids=["older", "broken", "another"],
)
def test_the_error_says_the_fix(tmp_path, source, reason):
    """Where the older distribution, or another, is in the way, the command ends with one
    line that says why and how to repair it."""
    (tmp_path / "etcd3").mkdir()
    (tmp_path / "etcd3" / "__init__.py").write_text(source)

    def revstore(*words):
        return subprocess.run(
            [sys.executable, "-m", "revstore", "--store", "etcd3://127.0.0.1:1", *words],
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    done = revstore("get", "pods")
    assert done.returncode == 2, done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    assert "backend 'etcd3' from revstore-etcd3" in line
    assert reason in line
    assert line.endswith(FIX)
    assert FIX in revstore("doctor").stdout
    assert revstore("plugins", "list").returncode == 0, "others are still listed"
