"""What writers and watchers saw while their process was forked and interrupted, again and again."""

from __future__ import annotations

import contextlib
import os

import pytest

from revstore.config import StorageConfig
from revstore.plugins import open_backend
from revstore.testing.checks import check_history
from revstore.testing.faults import again_and_again
from revstore.testing.strikes import run_under_strikes
from revstore.testing.workload import Workload

LONG = int(os.environ.get("REVSTORE_TEST_LONG", "1"))
OPTIONS = "?timeout=5&dial_timeout=1"


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", ["sqlite", "etcd3", "etcd2"])
def test_histories_with_forks_and_signals(kind, tmp_path, start_etcd, fault_seed):
    """WATCH-15: children are forked and the main thread's writes are interrupted, while the server,
    if there is one, is killed and starts again. What was recorded is linearizable, and every watch
    has every event once and in order."""
    url, faults = f"sqlite:///{tmp_path}/store.db", contextlib.nullcontext()
    if kind != "sqlite":
        server = start_etcd("3.5", enable_v2=kind == "etcd2")
        url = f"{kind}://{server.address}{OPTIONS}"
        faults = again_and_again(server.kill, server.start, seed=fault_seed)
    config = StorageConfig.from_url(url)
    with open_backend(config) as backend, faults:
        backend.status()
        for number in range(LONG):
            seed = fault_seed + number
            # Fewer events than a v2 server remembers, so that no watch is overtaken.
            plan = Workload(prefix=f"/{number}/", seed=seed, writers=3, watchers=2, turns=120)
            strikes = run_under_strikes(plan, backend, lambda: open_backend(config))
            assert check_history(strikes.history) == []
            assert sum(1 for each in strikes.history.operations if each.succeeded) > 20
            assert strikes.children
            assert strikes.interrupts
