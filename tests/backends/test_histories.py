"""Recorded histories of the stores that have transactions and leases."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from revstore.config import StorageConfig
from revstore.memory import MemoryBackend
from revstore.plugins import open_backend
from revstore.testing.checks import check_history
from revstore.testing.workload import Workload


@pytest.mark.parametrize("kind", ["memory", "sqlite", "etcd3"])
def test_transactions_and_leases_among_other_writes(kind, tmp_path, start_etcd, fault_seed):
    """WATCH-15: keys that transactions move and keys that end with their lease are seen whole or
    not at all, by reads, lists and watches, beside writers of single keys."""
    with ExitStack() as stack:
        if kind == "memory":
            handles = [stack.enter_context(MemoryBackend())]
        else:
            url = f"sqlite:///{tmp_path}/store.db?poll_interval=0.01"
            if kind == "etcd3":
                url = f"etcd3://{start_etcd('3.5').address}"
            config = StorageConfig.from_url(url)
            handles = [stack.enter_context(open_backend(config)) for _ in range(2)]
        plan = Workload(prefix="/steps/", seed=fault_seed, turns=120, watchers=2)
        history = plan.run(lambda number: handles[number % len(handles)])
    assert check_history(history) == []
    steps = {each.transaction for each in history.operations if each.succeeded}
    assert any(step.startswith("lease") for step in steps)
    assert len(steps) > 10
