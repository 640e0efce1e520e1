"""Exceptions of signal handlers, at every line of every call: nothing is left in a transaction,
nobody waits for somebody who left, no event is lost."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable

import pytest

from revstore.errors import OutcomeUnknown
from revstore.testing._support import run_threads, wait_until
from revstore.testing.backend._forks import Child
from revstore.testing.interrupts import (
    Interrupted,
    code_below,
    interrupt_by_signal,
    interrupt_every_line,
)
from revstore.values import WatchEventType
from revstore_sqlite._backend import SQLiteBackend

Open = Callable[..., SQLiteBackend]

#: What handlers raise: Ctrl-C and the like, and a timeout, which is an OSError without a number.
ERRORS = pytest.mark.parametrize("error", [Interrupted, TimeoutError])

#: The lines of the plugin alone.
PLUGIN = code_below(SQLiteBackend)


def fill(backend: SQLiteBackend, count: int = 20) -> None:
    for number in range(count):
        assert backend.put(f"/{number}", b"v", expected_revision=0).succeeded


def check_reads(backend: SQLiteBackend, other: SQLiteBackend) -> Callable[[str], None]:
    """A check that reads and writes go on: by this handle at once, and by another one, which would
    wait for a transaction that was left open; and that every read sees the latest write."""

    def check(spot: str) -> None:
        for writer in (backend, other):
            revision = writer.put(f"/check/{spot}", b"", expected_revision=0, timeout=5).revision
            assert revision, spot
            found = writer.get(f"/check/{spot}").kv
            assert found is not None
            writer.delete(f"/check/{spot}", expected_revision=found.revision, timeout=5)
            for _ in range(len(backend._reader._idle) + 1):
                assert backend.status().revision == other.status().revision, spot
        for link in list(backend._reader._idle):
            assert not link.raw.in_transaction, spot

    return check


@pytest.mark.parametrize(
    "call",
    [
        lambda backend: backend.get("/1"),
        lambda backend: backend.get("/1", revision=5),
        lambda backend: backend.list("/", limit=5, remaining=True),
        lambda backend: backend.list("/", revision=5),
        lambda backend: backend.count("/"),
        lambda backend: backend.status(),
        lambda backend: backend.size(),
    ],
    ids=["get", "get-at", "list", "list-at", "count", "status", "size"],
)
@pytest.mark.parametrize("pooled", [True, False])
@ERRORS
def test_an_interrupted_read_leaves_nothing(
    open_store: Open,
    call: Callable[[SQLiteBackend], object],
    pooled: bool,
    error: type[BaseException],
) -> None:
    """A read that is interrupted at any line, with a pooled connection or a new one, gives back no
    connection in a transaction: later reads see every write."""
    backend, other = open_store(), open_store()
    fill(backend)

    def attempt() -> None:
        if not pooled:
            backend._reader._drain()
        backend._store.check_at = 0.0  # the files are looked at
        call(backend)

    check = check_reads(backend, other)
    assert interrupt_every_line(attempt, where=PLUGIN, after=check, error=error) > 10


def test_a_fork_after_interrupted_reads(open_store: Open) -> None:
    """A connection that an exception keeps alive is in nobody's use: a fork does not wait for it,
    and the child can open the store; nor does a close."""
    backend = open_store()
    fill(backend)
    kept: list[BaseException] = []

    def attempt() -> None:
        if len(kept) % 2:
            backend._reader._drain()
        try:
            backend.list("/", revision=5)
        except BaseException as error:
            kept.append(error)
            raise

    def fork(spot: str) -> None:
        def work() -> int:
            with open_store() as mine:
                return mine.put(f"/{spot}", b"", expected_revision=0).revision

        began = time.monotonic()
        assert Child(work).result() == backend.status().revision, spot
        assert time.monotonic() - began < 4, f"{spot}: the fork waited"

    assert interrupt_every_line(attempt, where=PLUGIN, after=fork) > 10
    with backend._reader._changed:
        assert not backend._reader._in_use()  # what close waits for
    backend.close()


@ERRORS
def test_an_interrupted_write_leaves_nothing(open_store: Open, error: type[BaseException]) -> None:
    """A write that is interrupted at any line is done or not done; its transaction is not left
    open, and the next write of any handle goes through at once."""
    backend, other = open_store(), open_store()
    watch = backend.watch("/", recursive=True, after_revision=1)
    turn = iter(range(1_000_000))

    def attempt() -> None:
        number = next(turn)
        assert backend.put(f"/{number}", b"v", expected_revision=0, ttl=1000).succeeded
        assert backend.delete("/absent", expected_revision=1).succeeded is False

    check = check_reads(backend, other)
    began = time.monotonic()
    count = interrupt_every_line(attempt, where=PLUGIN, after=check, error=error)
    assert count > 50
    assert time.monotonic() - began < 60
    check_watch(backend, watch)


def check_watch(backend: SQLiteBackend, watch: object) -> None:
    """The watch from revision 1 delivers every revision once, in order."""
    last = backend.status().revision
    revisions = []
    while not revisions or revisions[-1] < last:
        batch = watch.poll(20)  # type: ignore[attr-defined]
        assert batch is not None, f"{revisions[-1:]} of {last}"
        if batch.events:
            revisions.append(batch.revision)
    assert revisions == list(range(2, last + 1))


def test_writers_who_wait_for_an_interrupted_leader(open_store: Open) -> None:
    """While the thread that commits is interrupted at every line, other threads write: each of
    their writes is done, or OutcomeUnknown, in no more time than its own deadline; what was done
    is there and nothing is written that was called not done."""
    backend = open_store()
    stop = threading.Event()
    outcomes: list[dict[str, bool]] = [{} for _ in range(3)]
    failed: list[BaseException] = []

    def write(index: int) -> None:
        number = 0
        try:
            while not stop.is_set():
                key = f"/{index}/{number}"
                with contextlib.suppress(OutcomeUnknown):
                    outcomes[index][key] = backend.put(
                        key, b"", expected_revision=0, timeout=20
                    ).succeeded
                number += 1
        except BaseException as error:  # noqa: BLE001 - told below
            failed.append(error)

    threads = [threading.Thread(target=write, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    turn = iter(range(1_000_000))
    try:
        interrupt_every_line(
            lambda: backend.put(f"/main/{next(turn)}", b"", expected_revision=0, timeout=20),
            where=PLUGIN,
        )
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
    assert failed == []
    assert not any(thread.is_alive() for thread in threads)
    keys = {kv.key for kv in backend.list("/").kvs}
    for found in outcomes:
        assert found
        assert all(found.values())
        assert set(found) <= keys


def test_a_waiting_writer_that_is_interrupted(open_store: Open) -> None:
    """Callers that wait for another's commit may leave at any moment; the others go on."""
    backend = open_store()
    turn = iter(range(1_000_000))
    stop = threading.Event()

    def write(index: int) -> None:
        while not stop.is_set():
            with contextlib.suppress(OutcomeUnknown):  # its leader was interrupted in the commit
                assert backend.put(f"/{index}/{next(turn)}", b"", expected_revision=0).succeeded

    helper = threading.Thread(target=run_threads, args=(4, write))
    helper.start()
    try:
        hits = interrupt_by_signal(
            lambda: [
                backend.put(f"/main/{next(turn)}", b"", expected_revision=0) for _ in range(20)
            ],
            rounds=200,
            seed=1,
            longest=0.01,
        )
    finally:
        stop.set()
        helper.join(30)
    assert hits > 20
    assert not helper.is_alive()
    assert backend.put("/last", b"", expected_revision=0, timeout=10).succeeded
    revisions = sorted(kv.revision for kv in backend.list("/").kvs)
    assert revisions == list(range(2, len(revisions) + 2))


def test_signals_in_reads(open_store: Open) -> None:
    """Real signals at random moments of lists and gets: reads stay fresh, none hangs."""
    backend, other = open_store(), open_store()
    for number in range(500):
        backend.put(f"/{number}", b"x" * 500, expected_revision=0)
    revision = 501

    def attempt() -> None:
        for _ in range(20):
            backend.list("/")
            backend.get("/7")

    def after() -> None:
        nonlocal revision
        revision = other.put("/news", b"", expected_revision=revision * (revision > 501)).revision
        for _ in range(3):
            assert backend.list("/", limit=1).revision == revision

    assert interrupt_by_signal(attempt, rounds=150, seed=2, longest=0.02, after=after) > 50


def test_ctrl_c_in_a_long_statement(open_store: Open) -> None:
    """A handler's exception comes out of a read that is deep inside sqlite, where only the look at
    its deadline runs Python; it is not swallowed, nor called a timeout."""
    backend = open_store()
    endless = (
        "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT count(*) FROM r"
    )

    def attempt() -> None:
        backend._reader.run(lambda raw: raw.execute(endless).fetchone(), 30)

    began = time.monotonic()
    assert interrupt_by_signal(attempt, rounds=20, seed=3, longest=0.05) == 20
    assert time.monotonic() - began < 20
    assert backend.status().revision == 1


def test_an_interrupted_poll_loses_no_event(open_store: Open) -> None:
    """A poll that is interrupted at any line leaves its batch to the next one: every event comes,
    in order and once, from the log and from memory; so does a mark that was asked for."""
    backend = open_store()
    with backend.watch("/", recursive=True, after_revision=1) as watch:
        seen: list[int] = []
        marks = 0

        def attempt() -> None:
            nonlocal marks
            batch = watch.poll(5)
            assert batch is not None
            if batch.events:
                seen.append(batch.revision)
            else:
                marks += 1

        def after(spot: str) -> None:
            before = watch.position
            write = backend.put(f"/{spot}/{len(seen)}/{marks}", b"", expected_revision=0)
            watch.request_progress()
            attempt()
            assert watch.position > before, spot
            while watch.position < write.revision:
                attempt()

        for _ in range(2):
            backend.put(f"/first/{_}", b"", expected_revision=0)
        interrupt_every_line(
            lambda: (attempt(), watch.request_progress(), attempt()), where=PLUGIN, after=after
        )
        while watch.position < backend.status().revision:
            attempt()
        assert seen == list(range(2, backend.status().revision + 1))
        assert marks > 0


def test_an_interrupted_open_or_close(open_store: Open, path: str) -> None:
    """Opening and closing may be interrupted at any line: no thread stays, a second close ends
    what the first began, and the files are left as after any close."""
    before = threading.active_count()
    backends: list[SQLiteBackend] = []

    def attempt() -> None:
        backend = open_store()
        backends.append(backend)
        backend.put("/a", b"", expected_revision=backend.get("/a").revision * 0)
        backend.close()

    def after(spot: str) -> None:
        for backend in backends:
            backend.close()
        backends.clear()
        wait_until(lambda: threading.active_count() <= before, f"no thread is left: {spot}")

    assert interrupt_every_line(attempt, where=PLUGIN, after=after, visits=1) > 50
    with open_store() as backend:
        assert backend.put("/b", b"", expected_revision=0).succeeded


def test_ctrl_c_in_a_watch(open_store: Open) -> None:
    """SIGINT ends a poll without end at once, and the watch goes on with what comes next."""
    backend = open_store()
    with backend.watch("/", recursive=True, after_revision=1) as watch:
        main = threading.main_thread().ident
        timer = threading.Timer(0.2, signal.pthread_kill, [main, signal.SIGINT])
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            timer.start()
            with pytest.raises(KeyboardInterrupt):
                watch.poll()
        finally:
            timer.join()
            signal.signal(signal.SIGINT, before)
        backend.put("/a", b"", expected_revision=0)
        batch = watch.poll(10)
        assert batch is not None
        assert batch.events[0].type is WatchEventType.PUT
