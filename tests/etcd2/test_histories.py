"""What writers and watchers saw while a server was killed, halted, or cut off, again and again, and
their process forked and was interrupted by signals."""

from __future__ import annotations

import os
import signal

import pytest

from revstore.testing.checks import check_history
from revstore.testing.faults import again_and_again
from revstore.testing.proxy import FaultyProxy
from revstore.testing.strikes import run_under_strikes
from revstore.testing.workload import Workload

LONG = int(os.environ.get("REVSTORE_TEST_LONG", "1"))
OPTIONS = "?timeout=5&dial_timeout=1&idle_timeout=1"


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("fault", ["killed", "halted", "cut off", "silent"])
def test_histories_under_faults(new_server, opened, fault_seed, fault):
    """WATCH-15, DURABLE: what was recorded is linearizable, no acknowledged write is
    lost, no outcome is guessed, and every watch has every event once and in order."""
    with FaultyProxy(new_server.address) as proxy:
        faults = {
            "killed": (new_server.kill, new_server.start),
            "halted": (
                lambda: new_server.signal(signal.SIGSTOP),
                lambda: new_server.signal(signal.SIGCONT),
            ),
            "cut off": (proxy.cut, proxy.restore),
            "silent": (proxy.halt, proxy.restore),
        }
        backend = opened(proxy.address, OPTIONS)
        backend.status()
        for round_ in range(LONG):
            # Fewer events than a v2 server remembers, so that no watch is overtaken.
            seed = fault_seed + round_
            plan = Workload(prefix=f"/{round_}/", seed=seed, writers=4, watchers=3, turns=150)
            with again_and_again(*faults[fault], seed=seed) as done:
                strikes = run_under_strikes(plan, backend, lambda: opened(proxy.address, OPTIONS))
            assert check_history(strikes.history) == []
            assert sum(1 for each in strikes.history.operations if each.succeeded) > 20
            assert strikes.children
            assert strikes.interrupts
            assert done.count, "no fault came"
