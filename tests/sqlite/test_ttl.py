"""Expiry across processes, restarts and renewals."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

import pytest

from revstore.testing._support import collect
from revstore.testing.clock import FakeClock
from revstore.values import WatchEventType
from revstore_sqlite._backend import SQLiteBackend

pytestmark = pytest.mark.slow

Start = Callable[..., subprocess.Popen[str]]
Open = Callable[..., SQLiteBackend]


def test_keys_of_a_dead_process_expire(start: Start, open_store: Open) -> None:
    """TTL-1: a key expires although the process that wrote it was killed; not before its ttl is
    over, and the watch gets DELETED with what it held."""
    backend = open_store()
    with backend.watch("/", recursive=True, after_revision=1) as watch:
        began = time.time()
        writer = start("put", "/short", 1)
        assert writer.stdout.readline() == "2\n"
        writer.kill()
        created, deleted = collect(watch, 2)

    assert time.time() - began >= 1
    assert created.kv.lease == 1
    assert (deleted.type, deleted.previous) == (WatchEventType.DELETED, created.kv)
    assert backend.get("/short").kv is None


def test_one_of_many_processes_deletes(open_store: Open, fake_clock: FakeClock) -> None:
    """TTL-1, TTL-6: of several handles that sweep, each key is deleted once, by a revision."""
    backends = [open_store(clock=fake_clock) for _ in range(3)]
    for number in range(20):
        backends[number % 3].put(f"/{number}", b"", expected_revision=0, ttl=1)
    fake_clock.advance(2)
    with backends[0].watch("/", recursive=True, after_revision=21) as watch:
        events = collect(watch, 20)

    assert {event.type for event in events} == {WatchEventType.DELETED}
    assert len({event.kv.key for event in events}) == 20
    assert [event.kv.revision for event in events] == list(range(22, 42))
    assert backends[0].status().revision == 41


def test_keys_expire_after_reopening(open_store: Open) -> None:
    """TTL-1: the expiry is in the file: a key whose time came while the store was closed is
    deleted, by a revision, when it is open again."""
    with open_store() as backend:
        backend.put("/b", b"v", expected_revision=0, ttl=0)
        backend.put("/a", b"v", expected_revision=0, ttl=1)
        written = time.time()
    while time.time() < written + 1:
        time.sleep(0.05)  # it is the wall clock that is waited for
    backend = open_store()
    with backend.watch("/", recursive=True, after_revision=3) as watch:
        (event,) = collect(watch, 1)
    assert (event.type, event.kv.key, event.kv.revision) == (WatchEventType.DELETED, "/a", 4)
    assert [kv.key for kv in backend.list("/").kvs] == ["/b"]


def test_a_huge_ttl(open_store: Open) -> None:
    """The longest ttl there is fits into what sqlite can count."""
    backend = open_store()
    assert backend.put("/a", b"", expected_revision=0, ttl=(1 << 32) - 1).succeeded
    kv = backend.get("/a").kv
    assert kv is not None
    assert kv.lease > 0


def test_the_clock_is_set_forward(open_store: Open, fake_clock: FakeClock) -> None:
    """TTL-1: expiry moves with the machine's clock. What is over by the new time goes soon, what is
    not stays, and a key written after the jump has its whole ttl."""
    backend = open_store(clock=fake_clock)
    backend.put("/short", b"", expected_revision=0, ttl=60)
    backend.put("/long", b"", expected_revision=0, ttl=7200)
    with backend.watch("/", recursive=True, after_revision=3, progress=False) as watch:
        fake_clock.advance(59.999)
        assert watch.poll(1.2) is None  # longer than the pause between two looks
        fake_clock.jump(3600)
        (event,) = collect(watch, 1)
        assert (event.type, event.kv.key) == (WatchEventType.DELETED, "/short")
        backend.put("/new", b"", expected_revision=0, ttl=1)
        collect(watch, 1)
        fake_clock.advance(1)
        assert watch.poll(1.2) is None
        fake_clock.advance(0.002)
        assert collect(watch, 1)[0].kv.key == "/new"
    assert [kv.key for kv in backend.list("/").kvs] == ["/long"]


def test_the_clock_is_set_back(open_store: Open, fake_clock: FakeClock) -> None:
    """TTL-1: a key stays for as long as the clock was set back, and then goes, not never; what is
    written meanwhile, or renewed, has its whole ttl by the new clock. A jump to and fro in between
    changes nothing."""
    backend = open_store(clock=fake_clock)
    backend.put("/old", b"", expected_revision=0, ttl=60)
    renewed = backend.put("/renewed", b"", expected_revision=0, ttl=60)
    with backend.watch("/", recursive=True, after_revision=3, progress=False) as watch:
        fake_clock.jump(-3600)
        backend.put("/new", b"", expected_revision=0, ttl=60)
        backend.put("/renewed", b"", expected_revision=renewed.revision, ttl=61)
        collect(watch, 2)
        fake_clock.advance(60)
        fake_clock.jump(-30)
        fake_clock.jump(30)
        assert watch.poll(1.2) is None
        fake_clock.advance(0.002)
        assert collect(watch, 1)[0].kv.key == "/new"
        fake_clock.advance(1)
        assert collect(watch, 1)[0].kv.key == "/renewed"
        assert watch.poll(1.2) is None
        fake_clock.advance(3599)
        assert collect(watch, 1)[0].kv.key == "/old"
    assert backend.list("/").kvs == ()


def test_another_process_has_another_clock(open_store: Open) -> None:
    """TTL-1: the first whose clock has passed a key's time deletes it, once, for all."""
    ahead, behind = FakeClock(2000.0), FakeClock(1000.0)
    one, other = open_store(clock=behind), open_store(clock=ahead)
    one.put("/a", b"", expected_revision=0, ttl=500)  # until 1500 by the clock of who wrote it
    with one.watch("/", recursive=True, after_revision=2, progress=False) as watch:
        assert collect(watch, 1)[0].type is WatchEventType.DELETED
        other.put("/b", b"", expected_revision=0, ttl=500)
        collect(watch, 1)
        behind.advance(1400)
        assert watch.poll(1.2) is None
        behind.advance(101)
        assert collect(watch, 1)[0].kv.key == "/b"
    assert one.status().revision == 5
