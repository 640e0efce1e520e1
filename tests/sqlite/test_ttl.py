"""Expiry across processes, restarts and renewals."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

from revstore.testing._support import collect
from revstore.values import WatchEventType
from revstore_sqlite._backend import SQLiteBackend

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


def test_one_of_many_processes_deletes(open_store: Open) -> None:
    """TTL-1, TTL-6: of several handles that sweep, each key is deleted once, by a revision."""
    backends = [open_store() for _ in range(3)]
    for number in range(20):
        backends[number % 3].put(f"/{number}", b"", expected_revision=0, ttl=1)
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
        backend.put("/a", b"v", expected_revision=0, ttl=1)
        backend.put("/b", b"v", expected_revision=0, ttl=0)
        written = time.time()
    while time.time() < written + 1:
        time.sleep(0.05)  # it is the wall clock that is waited for
    backend = open_store()
    with backend.watch("/", recursive=True, after_revision=3) as watch:
        (event,) = collect(watch, 1)
    assert (event.type, event.kv.key, event.kv.revision) == (WatchEventType.DELETED, "/a", 4)
    assert [kv.key for kv in backend.list("/").kvs] == ["/b"]


def test_a_huge_ttl(open_store: Open) -> None:
    """A ttl beyond what sqlite can count is for ever, not an error."""
    backend = open_store()
    assert backend.put("/a", b"", expected_revision=0, ttl=1 << 70).succeeded
    kv = backend.get("/a").kv
    assert kv is not None
    assert kv.lease > 0
