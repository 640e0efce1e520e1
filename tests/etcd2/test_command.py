"""The command line over etcd v2, as a user has it."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_the_demo_starts_a_server():
    """`make demo STORE=etcd2`, run as the Makefile does: on a server of its own, which is gone
    afterwards."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "demo.py")],
        env={**os.environ, "STORE": "etcd2"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[watch] DELETED" in done.stdout
    url = re.search(r"REVSTORE_URL=etcd2://([0-9.]+):(\d+)", done.stdout)
    assert url is not None, done.stdout
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((url[1], int(url[2])), 5).close()
