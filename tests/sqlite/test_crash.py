"""kill -9 at any moment loses no acknowledged write and leaves a file that opens."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import closing

import pytest

from revstore.testing._support import collect, wait_until
from revstore.values import WatchEventType
from revstore_sqlite._backend import SQLiteBackend

pytestmark = pytest.mark.slow

Start = Callable[..., subprocess.Popen[str]]
Open = Callable[..., SQLiteBackend]

# A thousand with REVSTORE_TEST_LONG=50; then the whole history is read after each fiftieth only.
LONG = int(os.environ.get("REVSTORE_TEST_LONG", "1"))
ROUNDS = 20 * LONG if LONG > 1 else 8


@pytest.mark.timeout(36000)
def test_acknowledged_writes_survive_kills(start: Start, open_store: Open, fault_seed: int) -> None:
    """DURABLE, BASE-1: two processes with four writers each are killed, not at the same moment;
    after each of many such rounds the file opens, every write that was acknowledged is there, and
    no revision is used twice."""
    dice = random.Random(fault_seed)
    known: dict[int, tuple[str, str, str]] = {}
    for number in range(ROUNDS):
        processes = [start("write", f"{fault_seed}-{number}-{each}") for each in "ab"]
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            time.sleep(dice.uniform(0, 0.1))  # the moment of the kill; nothing is waited for
            process.kill()
        for process in processes:
            output = process.stdout.read()  # from the buffer that readline filled
            process.wait()
            # What stands behind the last line's end was cut off and acknowledges nothing.
            for line in output.split("\n")[:-1]:
                kind, revision, key, value = line.split("\t")
                assert int(revision) not in known, "a revision was used twice"
                known[int(revision)] = (kind, key, value)
        with open_store() as backend:
            if number % LONG == 0 or number == ROUNDS - 1:
                check(backend, known)
            last = backend.put(f"/round/{number}", b"-", expected_revision=0).revision
            assert last > max(known, default=1)
            known[last] = ("put", f"/round/{number}", "-")
    assert len(known) > 5 * ROUNDS


def test_acknowledged_writes_survive_kills_of_forked_processes(
    start: Start, open_store: Open, fault_seed: int
) -> None:
    """DURABLE, BASE-1: the same with processes that fork children while a thread writes, and whose
    main thread is interrupted by signals in its reads: the children write too, and parent and
    children are killed at one moment."""
    dice = random.Random(fault_seed)
    known: dict[int, tuple[str, str, str]] = {}
    for number in range(5 * LONG):
        processes = [
            start("forked_write", f"{fault_seed}-{number}-{each}", start_new_session=True)
            for each in "ab"
        ]
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        time.sleep(dice.uniform(0.1, 0.5))  # the moment of the kill; nothing is waited for
        for process in processes:
            os.killpg(process.pid, signal.SIGKILL)
        for process in processes:
            # From the buffer that readline filled, which communicate would skip.
            output, errors = process.stdout.read(), process.stderr.read()
            process.wait()
            assert errors == ""
            for line in output.split("\n")[:-1]:
                kind, revision, key, value = line.split("\t")
                assert int(revision) not in known, "a revision was used twice"
                known[int(revision)] = (kind, key, value)
        with open_store() as backend:
            check(backend, known)
    assert {key[:3] for _, key, _ in known.values()} == {"/p/", "/c/"}


def test_steps_of_many_keys_are_whole_after_kills(
    start: Start, open_store: Open, fault_seed: int
) -> None:
    """DURABLE: transactions of many keys, and the ends of leases with many keys, are there whole or
    not at all, those that were acknowledged are there, and a lease is there with its keys."""
    dice = random.Random(fault_seed)
    count = 50
    for number in range(4 * LONG):
        processes = {
            f"{number}{each}": start("write_steps", f"{number}{each}", count) for each in "ab"
        }
        for process in processes.values():
            assert process.stdout.readline() == "ready\n"
        time.sleep(dice.uniform(0, 0.1))  # the moment of the kill; nothing is waited for
        for process in processes.values():
            process.kill()
        # From the buffer that readline filled.
        outputs = {name: process.stdout.read() for name, process in processes.items()}
        for process in processes.values():
            process.wait()
        with open_store() as backend:
            for name, output in outputs.items():
                told = [line.split("\t") for line in output.split("\n")[:-1]]
                check_steps(backend, f"/{name}/", count, [(kind, int(it)) for kind, it in told])


def check_steps(
    backend: SQLiteBackend, prefix: str, count: int, told: list[tuple[str, int]]
) -> None:
    """What is there is the last that was told, or what was under way then."""
    leased = backend.list(f"{prefix}leased/").kvs
    plain = [kv for kv in backend.list(prefix).kvs if kv not in leased]
    wrote = [number for kind, number in told if kind == "wrote"]
    if plain or wrote:
        assert len(plain) == count
        assert len({(kv.revision, kv.value) for kv in plain}) == 1
        assert int(plain[0].value) - (wrote[-1] if wrote else -1) in (0, 1)
    last = told[-1][0] if told else ""
    assert len(leased) in {"wrote": (0, count), "leased": (count, 0)}.get(last, (0,))
    leases = backend.leases()
    if leased:
        (lease,) = {kv.lease for kv in leased}
        assert len(leases.get(lease, keys=True).keys) == count
        leases.revoke(lease)
        assert backend.count(f"{prefix}leased/").count == 0
    ended = {lease for kind, lease in told if kind == "ended"}
    assert not ended & set(leases.list())


def check(backend: SQLiteBackend, known: dict[int, tuple[str, str, str]]) -> None:
    """Everything known is in the history, and the state is what the history leads to."""
    state: dict[str, bytes] = {}
    revision = backend.status().revision
    with backend.watch("", recursive=True, after_revision=1) as watch:
        events = {event.kv.revision: event for event in collect(watch, revision - 1)}
    assert sorted(events) == list(range(2, revision + 1))
    for at, (kind, key, value) in known.items():
        event = events[at]
        assert (event.type, event.kv.key) == (
            WatchEventType.PUT if kind == "put" else WatchEventType.DELETED,
            key,
        )
        assert kind == "deleted" or event.kv.value == value.encode()
    for event in events.values():
        state.pop(event.kv.key, None)
        if event.type is WatchEventType.PUT:
            state[event.kv.key] = event.kv.value
    assert {kv.key: kv.value for kv in backend.list("").kvs} == state


def test_kill_during_compaction(start: Start, open_store: Open, path: str, fault_seed: int) -> None:
    """CMP-6: a compaction that is killed leaves a consistent store: state and history from the
    compacted revision on are whole, and what it had not deleted yet goes later."""
    with open_store(synchronous="NORMAL") as backend:
        fill(backend)
        state = {kv.key: kv for kv in backend.list("").kvs}
    dice = random.Random(fault_seed)
    for _ in range(6):
        process = start("compact")
        assert process.stdout.readline() == "ready\n"
        time.sleep(dice.uniform(0, 0.01))  # the moment of the kill; nothing is waited for
        process.kill()
        process.communicate()
        with open_store() as backend:
            assert {kv.key: kv for kv in backend.list("").kvs} == state
            replay(backend, state)
    backend = open_store()
    start("compact").communicate(timeout=60)
    assert backend.status().compacted_revision == backend.status().revision
    with closing(sqlite3.connect(path)) as connection:
        rows = lambda: connection.execute("SELECT count(*) FROM log").fetchone()[0]  # noqa: E731
        wait_until(lambda: rows() == len(state), "only current values are left in the log")
    assert {kv.key: kv for kv in backend.list("").kvs} == state


def fill(backend: SQLiteBackend) -> None:
    """3,000 creates, updates and deletions of 40 keys."""
    revisions: dict[str, int] = {}
    for number in range(3000):
        key = f"/{number * 7 % 40}"
        if number % 11 == 0 and key in revisions:
            backend.delete(key, expected_revision=revisions.pop(key))
        else:
            result = backend.put(key, f"{number}".encode(), expected_revision=revisions.get(key, 0))
            revisions[key] = result.revision


def replay(backend: SQLiteBackend, state: dict) -> None:
    """The state at the compacted revision and the events since lead to the state now."""
    status = backend.status()
    at = max(status.compacted_revision, 1)
    replayed = {kv.key: kv for kv in backend.list("", revision=at).kvs}
    assert backend.count("", revision=at).count == len(replayed)
    with backend.watch("", recursive=True, after_revision=at) as watch:
        for event in collect(watch, status.revision - at):
            assert event.previous == replayed.pop(event.kv.key, None)
            if event.type is WatchEventType.PUT:
                replayed[event.kv.key] = event.kv
    assert replayed == state
