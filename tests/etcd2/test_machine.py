"""The backend beside a plain model of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from revstore.config import StorageConfig
from revstore.plugins import open_backend
from revstore.testing.etcd import EtcdServer
from revstore.testing.model import backend_machine


@pytest.fixture
def server(new_server) -> Iterator[EtcdServer]:
    """A server of its own: the model knows every revision."""
    return new_server


def test_machine(server):
    """BASE-1 to BASE-6, WATCH-2, WATCH-12: reads, writes and watches in any order are those of the
    model; keys below keys are refused (OLD-19)."""
    url = f"etcd2://{server.address}"

    run_state_machine_as_test(
        backend_machine(lambda: open_backend(StorageConfig.from_url(url))),
        settings=settings(max_examples=25, stateful_step_count=30, deadline=None),
    )
