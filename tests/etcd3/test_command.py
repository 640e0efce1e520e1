"""The command line over etcd, as a user has it."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from revstore.cli._bench import Bench
from revstore.factory import StorageFactory

ROOT = Path(__file__).parents[2]


def test_the_demo_over_etcd(new_server):
    """`make demo STORE=etcd3`: what works on sqlite works here."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "demo.py"), f"etcd3://{new_server.address}"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[watch] DELETED" in done.stdout


def test_the_demo_starts_a_server():
    """`make demo STORE=etcd3`, run as the Makefile does: on a server of its own, which is gone
    afterwards."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "demo.py")],
        env={**os.environ, "STORE": "etcd3"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[watch] DELETED" in done.stdout
    url = re.search(r"REVSTORE_URL=etcd3://([0-9.]+):(\d+)", done.stdout)
    assert url is not None, done.stdout
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((url[1], int(url[2])), 5).close()


def test_doctor_tells_of_each_member(new_server):
    """Version, leader, size and revision; a member that is away is a failed check, in one line, and
    a cluster that is away exits with 3, soon."""
    url = f"etcd3://{new_server.address}?dial_timeout=0.5"

    def revstore(*words, code):
        done = subprocess.run(
            [sys.executable, "-m", "revstore", *words],
            env={**os.environ, "REVSTORE_URL": url},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    report = json.loads(revstore("doctor", "--json", code=0).stdout)
    assert report["store"]["server"].startswith("etcd 3.")
    (member,) = [check for check in report["checks"] if new_server.address in check["name"]]
    assert member["result"] == "ok"
    assert "leader" in member["detail"]
    new_server.stop()
    (line,) = revstore("get", "pods", code=3).stderr.splitlines()
    assert new_server.address in line


def test_bench(new_server):
    """The network and the server are told apart, and nothing is left."""
    with StorageFactory(f"etcd3://{new_server.address}") as factory:
        bench = Bench(factory)
        bench.run()
        assert factory.backend().count("/").count == 0
    assert [row.name for row in bench.rows if row.note] == []
    assert {"round trip", "put", "write to event", "cache ready"} <= {r.name for r in bench.rows}
    assert bench.summary.startswith(
        ("Writes are limited by the server, its disk included:", "Writes are limited by the net")
    )
