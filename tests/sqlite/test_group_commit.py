"""The writer: commits that are shared, neighbours that are not harmed, deadlines that are kept."""

from __future__ import annotations

import itertools
import subprocess
import threading
import time
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from revstore.backend import Transaction
from revstore.errors import (
    Closed,
    IncompatibleStore,
    NoSpace,
    OutcomeUnknown,
    Timeout,
    ValueTooLarge,
)
from revstore.testing._support import promptly, run_threads, wait_until
from revstore_sqlite._backend import SQLiteBackend
from revstore_sqlite._options import SQLiteOptions

Start = Callable[..., subprocess.Popen[str]]
Open = Callable[..., SQLiteBackend]


def test_a_timeout_writes_nothing(start: Start, open_store: Open) -> None:
    """While another process holds the write lock, a write raises Timeout at its deadline and has
    done nothing, leader or queued; once the lock is free, all goes on."""
    backend = open_store()
    holder = start("hold")
    assert holder.stdout.readline() == "held\n"

    def put(index: int) -> float:
        began = time.monotonic()
        with pytest.raises(Timeout) as caught:
            backend.put(f"/{index}", b"", expected_revision=0, timeout=0.1 + index * 0.05)
        assert type(caught.value) is Timeout
        return time.monotonic() - began

    for index, took in enumerate(run_threads(6, put)):
        assert 0.1 + index * 0.05 <= took < 10
    assert backend.status().revision == 1
    holder.stdin.write("\n")
    holder.stdin.flush()
    assert holder.stdout.readline() == "released\n"
    assert backend.put("/0", b"", expected_revision=0).revision == 2


def test_a_write_waits_for_the_lock(start: Start, open_store: Open) -> None:
    """A write whose deadline is far waits for another process's lock, and reads do not."""
    backend = open_store()
    holder = start("hold")
    assert holder.stdout.readline() == "held\n"
    results = []
    writer = threading.Thread(
        target=lambda: results.append(backend.put("/a", b"", expected_revision=0))
    )
    writer.start()
    assert backend.get("/a", timeout=20).kv is None
    holder.stdin.write("\n")
    holder.stdin.flush()
    writer.join(20)

    assert [result.succeeded for result in results] == [True]


def test_close_wakes_blocked_writes(start: Start, open_store: Open) -> None:
    """close() makes writes that wait for the lock raise Closed, at once."""
    backend = open_store()
    holder = start("hold")
    assert holder.stdout.readline() == "held\n"
    blocked = threading.Semaphore(0)

    def put(index: int) -> None:
        if index == 0:
            for _ in range(4):
                blocked.acquire(timeout=20)
            with promptly():
                backend.close()
            return
        blocked.release()
        with pytest.raises(Closed):
            backend.put(f"/{index}", b"", expected_revision=0)

    run_threads(5, put)


def test_losers_do_not_harm_their_neighbours(open_store: Open) -> None:
    """BASE-1, BASE-3: of 16 threads that write at once, those that lose learn so, those that win
    get consecutive revisions; refused writes take none."""
    backend = open_store()

    def work(index: int) -> list[int]:
        revisions = []
        for number in range(40):
            lost = backend.put("/same", b"", expected_revision=999_999)
            assert not lost.succeeded
            won = backend.put(f"/{index}/{number}", b"v", expected_revision=0)
            assert won.succeeded
            revisions.append(won.revision)
        assert revisions == sorted(revisions)
        return revisions

    found = sorted(chain.from_iterable(run_threads(16, work)))
    assert found == list(range(2, 16 * 40 + 2))


def test_an_operation_that_sqlite_fails_fails_alone(open_store: Open) -> None:
    """In a file that may not grow, large writes raise NoSpace, small ones in the same commits go
    through, and nothing of the large ones is left."""
    backend = open_store()
    raw = backend._writer._link.raw
    (pages,) = raw.execute("PRAGMA page_count").fetchone()
    raw.execute(f"PRAGMA max_page_count={pages + 40}")

    def work(index: int) -> int:
        for number in range(20):
            if index % 4 == 0:
                with pytest.raises(NoSpace):
                    backend.put(f"/large/{index}", b"x" * 1_000_000, expected_revision=0)
            else:
                result = backend.put(f"/small/{index}/{number}", b"x", expected_revision=0)
                assert result.succeeded
        return 0 if index % 4 == 0 else 20

    total = sum(run_threads(8, work))
    assert backend.count("/large").count == 0
    assert backend.count("/small").count == total
    assert backend.status().revision == total + 1


def test_commits_are_shared(open_store: Open) -> None:
    """16 threads need far fewer commits than they have writes."""
    backend = open_store()
    other = open_store()
    commits = []
    finished = threading.Event()

    def observe() -> None:
        seen = 1
        while not finished.is_set():
            revision = other.status().revision
            if revision > seen:
                commits.append(revision - seen)
                seen = revision

    observer = threading.Thread(target=observe)
    observer.start()

    def work(index: int) -> None:
        for number in range(50):
            backend.put(f"/{index}/{number}", b"", expected_revision=0)

    try:
        run_threads(16, work)
        wait_until(lambda: sum(commits) == 800, "all writes were observed")
    finally:
        finished.set()
        observer.join(20)
    assert len(commits) < 500


def test_a_value_over_the_limit(open_store: Open) -> None:
    """ValueTooLarge for what sqlite cannot take, before anything is written."""
    backend = open_store()
    with pytest.raises(ValueTooLarge):
        backend.put("/a", bytes(1_000_000_000), expected_revision=0)
    assert backend.status().revision == 1


def test_a_file_that_was_replaced_takes_no_writes(open_store: Open, path: str, tmp_path) -> None:
    """IncompatibleStore once the file is gone from its path: a write to it would be lost. A
    watch ends with the same error."""
    backend = open_store()
    with backend.watch("", recursive=True, after_revision=1) as watch:
        assert watch.poll(0) is None
        (tmp_path / "store.db").rename(tmp_path / "away.db")

        def refused() -> bool:
            try:
                backend.put("/a", b"", expected_revision=1)
            except OutcomeUnknown:  # the first may find it out only after its commit
                return False
            except IncompatibleStore:
                return True
            return False

        with pytest.raises(IncompatibleStore):
            watch.poll(20)
        wait_until(refused, "writes are refused")


def test_an_interrupted_leader_hands_over(open_store: Open, monkeypatch) -> None:
    """Ctrl-C just as a call is about to write: it leaves, and those that come after it write."""
    backend = open_store()

    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(backend._writer, "_lead", interrupted)
        with pytest.raises(KeyboardInterrupt):
            backend.put("/a", b"", expected_revision=0)

    assert backend.put("/b", b"", expected_revision=0, timeout=10).succeeded
    assert backend.get("/a").kv is None


@pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt])
def test_a_body_that_raises_ends_its_own_call_only(open_store: Open, kind: type) -> None:
    """Who leads a commit runs the bodies of others; what they raise is raised in their calls."""
    backend = open_store()

    def body(transaction: Transaction) -> None:
        transaction.put("/lost", b"")
        raise kind("of the test")

    def work(index: int) -> None:
        for number in range(40):
            if index % 2:
                with pytest.raises(kind, match="of the test"):
                    backend.transaction(body)
            else:
                assert backend.put(f"/{index}/{number}", b"", expected_revision=0).succeeded

    run_threads(6, work)
    assert backend.get("/lost").kv is None
    assert backend.status().revision == 1 + 3 * 40


_STEPS = st.tuples(
    st.sampled_from(["put", "large", "delete", "get", "list", "fail"]), st.integers(0, 5)
)
_BODIES = st.lists(st.lists(_STEPS, max_size=4, unique_by=lambda step: step[1]), max_size=40)


def _body(prefix: str, steps: list[tuple[str, int]]) -> Callable[[Transaction], object]:
    def body(transaction: Transaction) -> object:
        seen: list[object] = []
        for step, number in steps:
            key = f"{prefix}{number}"
            if step in ("put", "large"):
                value = bytes(number) * (1 if step == "put" else 200_000)
                seen.append(transaction.put(key, value))
            elif step == "delete":
                seen.append(transaction.delete(key))
            elif step == "get":
                seen.append(transaction.get(key))
            elif step == "list":
                seen.append(transaction.list(prefix))
            else:
                raise NoSpace("undone")
        return seen

    return body


def test_bodies_of_a_commit_see_those_before_them(tmp_path: Path) -> None:
    """In one commit they return, write and show to watches what they do in a commit each."""
    stores = [
        SQLiteBackend(SQLiteOptions(path=str(tmp_path / name), synchronous="NORMAL"))
        for name in ("together", "alone")
    ]
    numbers = itertools.count()

    @given(_BODIES)
    @settings(max_examples=15)
    def check(wanted: list[list[tuple[str, int]]]) -> None:
        prefix = f"{next(numbers)}/"
        bodies = [_body(prefix, steps) for steps in wanted]
        before = [store.status().revision for store in stores]
        together = stores[0].transactions(bodies)
        alone = [stores[1].transactions([body])[0] for body in bodies]
        assert list(map(repr, together)) == list(map(repr, alone))
        assert stores[0].list(prefix) == stores[1].list(prefix)
        seen = []
        for store, revision in zip(stores, before, strict=True):
            after = store.status().revision
            watch = store.watch(prefix, recursive=True, after_revision=revision)
            watch.request_progress()
            batches = []
            while watch.position < after:
                batches.append(watch.poll())
            watch.close()
            seen.append([batch for batch in batches if batch and batch.events])
        assert seen[0] == seen[1]

    try:
        check()
    finally:
        for store in stores:
            store.close()
