"""Real stores, which are empty at the beginning of each test."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from revstore.backend import Backend
from revstore.config import StorageConfig
from revstore.errors import LeaseNotFound
from revstore.operations._target import Target
from revstore.plugins import open_backend
from revstore.testing.etcd import EtcdServer
from revstore.testing.fixtures import etcd_binary
from revstore.values import Capability

KINDS = ("memory", "sqlite", "etcd3", "etcd2")


@pytest.fixture(scope="session")
def etcd_of_operations() -> Iterator[EtcdServer]:
    """A server of both APIs."""
    with EtcdServer(etcd_binary(), enable_v2=True) as server:
        yield server.start()


@pytest.fixture
def url_of(request, tmp_path: Path) -> Callable[..., str]:
    """``url_of(kind, name)`` is the URL of an empty store; all of etcd are one."""

    def url_of(kind: str, name: str = "store") -> str:
        if kind == "memory":
            return "memory://"
        if kind == "sqlite":
            return f"sqlite:///{tmp_path}/{name}.db"
        url = f"{kind}://{request.getfixturevalue('etcd_of_operations').address}"
        with open_backend(StorageConfig.from_url(url)) as backend:
            empty(backend)
        return url

    return url_of


@pytest.fixture
def open_store(url_of) -> Iterator[Callable[..., Backend]]:
    """``open_store(kind, name)`` opens an empty store; all are closed afterwards."""
    opened: list[Backend] = []

    def open_store(kind: str, name: str = "store") -> Backend:
        opened.append(open_backend(StorageConfig.from_url(url_of(kind, name))))
        return opened[-1]

    yield open_store
    for backend in opened:
        backend.close()


@pytest.fixture(params=KINDS)
def kind(request) -> str:
    """Each kind of store."""
    return request.param


@pytest.fixture
def store(kind, open_store) -> Backend:
    """An empty store of each kind."""
    return open_store(kind)


def empty(backend: Backend) -> None:
    """Delete everything, even behind a fence, and all leases, which would go on to run out."""
    if Capability.FENCE in backend.capabilities:
        backend.unfence()
    if Capability.LEASES in backend.capabilities:
        leases = backend.leases()
        for lease in leases.list():
            with contextlib.suppress(LeaseNotFound):
                leases.revoke(lease)
    Target(backend).delete([kv.key for kv in backend.list("", keys_only=True).kvs])


_DRIVER = """
import os, sys
from revstore.config import StorageConfig
from revstore.factory import StorageFactory
from revstore.operations import backup, export_objects, open_backup, restore, rewrite
from revstore.plugins import open_backend

def run(what, path, url):
    if what == "rewrite":
        with StorageFactory(StorageConfig.from_toml(path)) as factory:
            rewrite(factory)
    elif what == "export":
        with StorageFactory(url) as factory:
            export_objects(factory, path)
    else:
        with open_backend(StorageConfig.from_url(url)) as store:
            if what == "backup":
                backup(store, path)
            else:
                with open_backup(path) as source:
                    restore(store, source)

for line in sys.stdin:
    what, path, url = line.split()
    child = os.fork()
    if child == 0:
        run(what, path, url)
        os._exit(0)
    print(child, flush=True)
    sys.stdin.readline()  # until then its number stays its own
    print(os.waitpid(child, 0)[1], flush=True)
"""


class Driver:
    """Runs backups, restores, exports and rewrites, each in a process of its own."""

    def __init__(self):
        self._process = subprocess.Popen(
            [sys.executable, "-c", _DRIVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def start(self, what, path, url):
        self._process.stdin.write(f"{what} {path} {url}\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def kill(self, choose, longest, what, path, url):
        """Run it, end it within ``longest`` seconds by kill -9 or Ctrl-C; whether that was before
        its own end."""
        child = self.start(what, path, url)
        threading.Event().wait(choose.uniform(0.0, longest))
        os.kill(child, choose.choice([signal.SIGKILL, signal.SIGINT]))
        return self.end() != 0

    def run(self, what, path, url):
        """Run it to the end; how many seconds that took."""
        began = time.monotonic()
        self.start(what, path, url)
        assert self.end() == 0
        return time.monotonic() - began

    def end(self):
        """The status of the process that was started."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self):
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


@pytest.fixture
def driver():
    driver = Driver()
    yield driver
    driver.close()
