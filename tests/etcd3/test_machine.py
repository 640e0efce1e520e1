"""The backend beside a plain model of it."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from revstore.backend import Backend
from revstore.config import StorageConfig
from revstore.plugins import open_backend
from revstore.testing.etcd import EtcdServer
from revstore.testing.model import backend_machine

LONG = int(os.environ.get("REVSTORE_TEST_LONG", "1"))


@pytest.fixture
def server(new_server) -> Iterator[EtcdServer]:
    """A server of its own: the model knows every revision."""
    return new_server


@pytest.mark.timeout(60 * LONG + 60)
def test_machine(server):
    """BASE-1 to BASE-6, WATCH-2, WATCH-12: reads at any revision, writes, compaction and watches in
    any order are those of the model."""
    url = f"etcd3://{server.address}"

    def opened() -> Backend:
        backend = open_backend(StorageConfig.from_url(url))
        # So that it begins above what an earlier run has compacted, which a new handle cannot know.
        backend.put(f"/begin-{uuid.uuid4().hex}", b"", expected_revision=0)
        return backend

    run_state_machine_as_test(
        backend_machine(opened),
        settings=settings(max_examples=8 * LONG, stateful_step_count=30, deadline=None),
    )
