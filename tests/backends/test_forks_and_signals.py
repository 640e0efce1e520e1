"""What writers and watchers saw while their process was forked and interrupted, again and again."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from revstore.backend import Backend
from revstore.config import StorageConfig
from revstore.errors import BackendError, Closed
from revstore.plugins import open_backend
from revstore.testing.backend._forks import Child
from revstore.testing.checks import check_history
from revstore.testing.faults import again_and_again
from revstore.testing.history import Operation, OperationType, Recorder
from revstore.testing.workload import Workload

LONG = int(os.environ.get("REVSTORE_TEST_LONG", "1"))
OPTIONS = "?timeout=5&dial_timeout=1"


class Struck(TimeoutError):
    """What the signal's handler raises."""


@contextlib.contextmanager
def struck_within(seconds: float) -> Iterator[None]:
    """A signal's handler raises ``Struck`` in the block, which ends quietly then."""

    def strike(*_: object) -> None:
        raise Struck

    before = signal.signal(signal.SIGALRM, strike)
    try:
        with contextlib.suppress(Struck):
            signal.setitimer(signal.ITIMER_REAL, seconds)
            yield
            time.sleep(seconds)  # the rest, and not more: a finalizer lets no exception out
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def is_closed(backend: Backend) -> bool:
    """What a child finds of its parent's handle."""
    try:
        backend.status()
    except Closed:
        return True
    return False


@pytest.mark.timeout(3600)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
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
    with open_backend(StorageConfig.from_url(url)) as backend, faults:
        backend.status()
        unknown = 0
        for number in range(LONG):
            seed = fault_seed + number
            # Fewer events than a v2 server remembers, so that no watch is overtaken.
            plan = Workload(prefix=f"/{number}/", seed=seed, writers=3, watchers=2, turns=120)
            mine = Recorder(backend)
            with ThreadPoolExecutor(1) as pool:
                run = pool.submit(plan.run, lambda _: backend)
                fork_and_interrupt(mine, plan)
                history = run.result()
            history.operations += mine.history.operations
            assert check_history(history) == []
            assert sum(1 for each in history.operations if each.succeeded) > 20
            unknown += sum(each.succeeded is None for each in mine.history.operations)
    assert unknown > 0


def fork_and_interrupt(mine: Recorder, plan: Workload) -> None:
    """Write while signals strike, and fork now and then."""
    choose = random.Random(plan.seed)
    for turn in range(30):
        key = f"{plan.prefix}k{choose.randrange(plan.keys)}"
        with struck_within(choose.uniform(1e-4, 0.01)), contextlib.suppress(BackendError):
            for _ in range(10):
                write_recorded(mine, key, choose)
        if turn % 5 == 0:
            assert Child(lambda: is_closed(mine.backend)).result()


def write_recorded(recorder: Recorder, key: str, choose: random.Random) -> None:
    """Write over what is there; an interrupted write is recorded as one of unknown outcome."""
    kv = recorder.get(key).kv
    start, value = time.monotonic(), f"main-{choose.random()}".encode()
    expected = kv.revision if kv else 0
    try:
        recorder.put(key, value, expected_revision=expected)
    except Struck:
        recorder.history.operations.append(
            Operation(
                type=OperationType.PUT,
                key=key,
                start=start,
                value=value,
                expected_revision=expected,
            )
        )
        raise
