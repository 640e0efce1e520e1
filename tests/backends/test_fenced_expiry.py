"""Stores that count the time themselves keep what is due while they are fenced."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from revstore.backend import Backend
from revstore.config import StorageConfig
from revstore.plugins import open_backend
from revstore.testing._support import wait_until


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_nothing_expires_behind_the_fence(kind: str, tmp_path: Path) -> None:
    """A key with a ttl and one with a lease stay until the fence is gone, and then go."""
    config = StorageConfig(type="memory")
    if kind == "sqlite":
        config = StorageConfig.from_url(f"sqlite:///{tmp_path}/store.db")
    with open_backend(config) as backend:
        backend.put("/ttl", b"", expected_revision=0, ttl=1)
        lease = backend.leases(grace=0).grant(1).id
        backend.transaction(lambda seen: seen.put("/lease", b"", lease=lease))
        backend.fence("moving")
        before = backend.status().revision
        due = [remaining(backend, key) for key in ("/ttl", "/lease")]
        wait_until(lambda: sum(remaining(backend, key) for key in ("/ttl", "/lease")) == 0, "due")
        began = time.monotonic()
        wait_until(lambda: time.monotonic() - began > 0.5, "the sweeper has had its turn")
        assert all(left > 0 for left in due)
        assert backend.status().revision == before
        assert backend.count("/").count == 2
        backend.unfence()
        wait_until(lambda: backend.count("/").count == 0, "what is due expires")


def remaining(backend: Backend, key: str) -> float:
    found = backend.remaining_ttl(key)
    assert found is not None
    return found
