"""Recorded histories through endpoints whose processes are killed and whose connections break. The
clients are etcd3 backends, which write with transactions and leases too."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import attrs
import pytest
from tests.serve.processes import Served

from revstore.backend import Backend
from revstore.config import StorageConfig
from revstore.plugins import open_backend
from revstore.testing.checks import check_history
from revstore.testing.faults import again_and_again
from revstore.testing.history import History
from revstore.testing.proxy import FaultyProxy
from revstore.testing.workload import Workload

pytestmark = pytest.mark.slow

LONG = int(os.environ.get("REVSTORE_TEST_LONG", "1"))
#: So that clients notice soon that an endpoint is gone.
OPTIONS = "?keepalive_time=5&keepalive_timeout=1&dial_timeout=1&timeout=5"


@contextmanager
def clients_of(addresses: Sequence[str]) -> Iterator[list[Backend]]:
    with ExitStack() as stack:
        yield [
            stack.enter_context(open_backend(StorageConfig.from_url(f"etcd3://{each}{OPTIONS}")))
            for each in addresses
        ]


def run_until(
    count: int,
    plan: Workload,
    addresses: Sequence[str],
    fault: Callable[[], object],
    heal: Callable[[], object],
) -> History:
    """Run a plan until so many faults came and went."""
    healed = 0

    def heal_and_count() -> None:
        nonlocal healed
        heal()
        healed += 1
        if healed == count:
            plan.stop.set()

    with (
        clients_of(addresses) as clients,
        again_and_again(
            fault, heal_and_count, seed=plan.seed, apart=(0.5, 2.0), lasting=(0.0, 0.5)
        ),
    ):
        return plan.run(lambda number: clients[number % len(clients)])


def check(history: History) -> None:
    assert check_history(history) == []
    written = [each for each in history.operations if each.succeeded]
    assert len(written) > 20
    assert len({each.transaction for each in written}) > 2
    assert any(each.transaction.startswith("lease") for each in written)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("servers", [1, 2])
def test_processes_that_are_killed(servers, tmp_path, fault_seed):
    """WATCH-15: kill -9 of one of the processes that serve a file, again and again: the clients'
    history is linearizable, no revision is used twice, and watches miss nothing."""
    url = f"sqlite:///{tmp_path}/served.db?poll_interval=0.01"
    with ExitStack() as stack:
        served = [stack.enter_context(Served(url)) for _ in range(servers)]
        for number in range(LONG):
            plan = Workload(prefix=f"/{number}/", seed=fault_seed + number, turns=10**6, pause=0.01)
            turn = iter(range(10**6))
            down: list[Served] = []

            def kill(turn=turn, down=down) -> None:
                down.append(served[next(turn) % servers])
                down[-1].kill()

            def start(down=down) -> None:
                down.pop().start()

            check(run_until(3, plan, [each.address for each in served], kill, start))


@attrs.frozen
class Network:
    """The proxies between clients and endpoints, which break at once."""

    proxies: Sequence[FaultyProxy]
    fault: str

    def disturb(self) -> None:
        for proxy in self.proxies:
            getattr(proxy, self.fault)()

    def restore(self) -> None:
        for proxy in self.proxies:
            proxy.restore()


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("fault", ["cut", "halt"])
def test_a_network_that_breaks(fault, tmp_path, fault_seed):
    """WATCH-15: the same while connections are reset, or silent, between the clients and two
    processes that serve one file."""
    url = f"sqlite:///{tmp_path}/served.db?poll_interval=0.01"
    with ExitStack() as stack:
        served = [stack.enter_context(Served(url)) for _ in range(2)]
        proxies = [stack.enter_context(FaultyProxy(each.address)) for each in served]
        network = Network(proxies, fault)
        for number in range(LONG):
            plan = Workload(prefix=f"/{number}/", seed=fault_seed + number, turns=10**6, pause=0.01)
            addresses = [each.address for each in proxies]
            check(run_until(6, plan, addresses, network.disturb, network.restore))
