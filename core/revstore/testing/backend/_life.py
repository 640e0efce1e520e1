"""``BackendTests``, part: expiry, close, fork, several handles on one store."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from revstore.backend import Backend
from revstore.errors import (
    Closed,
    FutureRevision,
    OutcomeUnknown,
    Timeout,
    Unreachable,
    Unsupported,
)
from revstore.testing._support import (
    PATIENCE,
    Keyspace,
    collect,
    let_block,
    poll_until,
    run_threads,
    wait_until,
)
from revstore.testing.backend._base import BackendSuite, OpenBackend, Stall, every_call
from revstore.testing.preemption import lines_of, preempted
from revstore.testing.seeds import SEED
from revstore.values import Capability, WatchEventType

__all__ = ["LifeTests", "TtlTests"]

#: Seconds after which a call that should have ended, by deadline or ``close``, counts as hanging.
HANGS = 5.0


class TtlTests(BackendSuite):
    """The expiry of keys. The tests check that no key expires too early, and wait long for keys
    that are due."""

    def test_expiry(self, backend: Backend, space: Keyspace) -> None:
        """A key with a TTL is deleted by the store, not too early, at a revision of its own.
        Watches see the deletion with the last content (TTL-1, CREATE-5)."""
        self.need(backend, Capability.TTL)
        with space.watch(progress=False) as watch:
            began = time.monotonic()
            created = space.create("a", b"1", ttl=1)
            kv = space.read("a")
            put, deleted = collect(watch, 2)
            took = time.monotonic() - began

        assert kv.lease != 0
        assert took >= 0.95, "a ttl is a lower bound"
        assert put.kv == kv
        assert deleted.type is WatchEventType.DELETED
        assert deleted.previous == kv
        assert deleted.kv.revision > created
        assert space.find("a") is None
        assert backend.status().revision >= deleted.kv.revision

    def test_expiry_in_reads(self, backend: Backend, space: Keyspace) -> None:
        """Even if nobody watches, the key disappears from lists and counts, and can be created
        again."""
        self.need(backend, Capability.TTL)
        space.create("a", b"1", ttl=1)
        created = space.create("b", b"1")
        wait_until(lambda: space.find("a") is None, "the key expires")

        assert space.names(space.list().kvs) == ["b"]
        assert backend.count(space.prefix).count == 1
        assert backend.status().revision > created
        again = space.create("a", b"2")
        assert space.read("a").create_revision == again
        assert space.read("a").lease == 0

    def test_ttl_none_keeps_zero_removes_more_restarts(
        self, backend: Backend, space: Keyspace
    ) -> None:
        """An update with TTL None keeps the expiry, 0 removes it, n restarts it (GU-12, OLD-12)."""
        self.need(backend, Capability.TTL)
        for name in ("kept", "removed", "restarted", "given"):
            space.create(name, b"1", ttl=0 if name == "given" else 2)
        space.create("plain", b"1")
        began = time.monotonic()
        space.update("kept", b"2", ttl=None)
        space.update("removed", b"2", ttl=0)
        space.update("restarted", b"2", ttl=4)
        space.update("given", b"2", ttl=1)
        space.update("plain", b"2", ttl=None)
        leases = {kv.key.removeprefix(space.prefix): kv.lease != 0 for kv in space.list().kvs}
        wait_until(lambda: space.find("kept") is None, "the kept expiry")
        wait_until(lambda: space.find("given") is None, "the given expiry")
        wait_until(lambda: space.find("restarted") is None, "the restarted expiry")
        took = time.monotonic() - began

        expiring = {"kept": True, "removed": False, "restarted": True, "given": True}
        assert leases == {**expiring, "plain": False}
        assert took >= 3.95
        assert space.names(space.list().kvs) == ["plain", "removed"]

    def test_keys_that_expire_together(self, backend: Backend, space: Keyspace) -> None:
        """Each of many keys expires once, and revisions are complete (TTL-6)."""
        self.need(backend, Capability.TTL)
        names = {f"k{number}" for number in range(20)}
        with space.watch() as watch:
            for name in names:
                space.create(name, b"1", ttl=1)
            events = collect(watch, 40)
        deleted = [event for event in events if event.type is WatchEventType.DELETED]

        assert sorted(space.names([event.kv for event in deleted])) == sorted(names)
        assert space.list().kvs == ()

    def test_deleted_key_does_not_expire(self, backend: Backend, space: Keyspace) -> None:
        """An expiry belongs to the key for which it was set, not to a later key of the same
        name."""
        self.need(backend, Capability.TTL)
        space.create("a", b"1", ttl=1)
        space.delete("a")
        space.create("a", b"2")
        space.create("timer", b"1", ttl=2)
        wait_until(lambda: space.find("timer") is None, "the later expiry")

        assert space.read("a").value == b"2"

    def test_unclaimed_ttl(self, backend: Backend, space: Keyspace) -> None:
        """Without TTL a ttl is refused and nothing is written; 0 and None work."""
        if self.claims(backend, Capability.TTL):
            pytest.skip("claims ttl, which other tests check")
        with pytest.raises(Unsupported):
            backend.put(space.key("a"), b"1", expected_revision=0, ttl=1)
        assert space.find("a") is None
        space.create("a", b"1", ttl=None)
        space.update("a", b"2", ttl=0)


class LifeTests(BackendSuite):
    """Status, ``close``, fork, and several handles on one store."""

    def test_status(self, backend: Backend, space: Keyspace) -> None:
        """The status identifies the store and follows its writes (GET-9)."""
        first = backend.status()
        written = space.create("a")
        second = backend.status()

        assert first.store_id
        assert first.server
        assert second.store_id == first.store_id
        assert first.revision <= written <= second.revision
        assert 0 <= first.compacted_revision <= first.revision

    def test_size(self, backend: Backend, space: Keyspace) -> None:
        """A store that knows its size reports at least the size of its values (STAT-5)."""
        if backend.size(timeout=PATIENCE) is None:
            pytest.skip("does not tell its size")
        space.create("a", bytes(100_000))
        wait_until(lambda: (backend.size() or 0) >= 100_000, "the store has grown")

    def test_capabilities(self, backend: Backend) -> None:
        """Capabilities are a fixed set, available even after close."""
        before = backend.capabilities
        backend.close()

        assert isinstance(before, frozenset)
        assert backend.capabilities == before <= frozenset(Capability)

    def test_timeouts(self, backend: Backend, space: Keyspace) -> None:
        """Every call that may take time takes a timeout, and ends within a generous one."""
        put = backend.put(space.key("a"), b"1", expected_revision=0, timeout=PATIENCE)

        assert put.succeeded
        assert backend.get(space.key("a"), timeout=PATIENCE).kv is not None
        assert len(backend.list(space.prefix, timeout=PATIENCE).kvs) == 1
        assert backend.count(space.prefix, timeout=PATIENCE).count == 1
        assert backend.status(timeout=PATIENCE).revision >= put.revision
        deleted = backend.delete(space.key("a"), expected_revision=put.revision, timeout=PATIENCE)
        assert deleted.succeeded
        if self.ephemeral and self.claims(backend, Capability.COMPACTION):
            backend.compact(deleted.revision, timeout=PATIENCE)

    def test_deadlines(self, backend: Backend, space: Keyspace, stall: Stall | None) -> None:
        """While the store does not answer, calls end at their deadline with an error that says so,
        and a poll returns nothing. Opening a watch and requesting progress do not wait. Afterwards
        everything works again."""
        if stall is None:
            pytest.skip("needs the fixture `stall`")
        created = space.create("a", b"1")
        calls: list[Callable[[], object]] = [
            lambda: backend.get(space.key("a"), timeout=0.5),
            lambda: backend.list(space.prefix, timeout=0.5),
            lambda: backend.count(space.prefix, timeout=0.5),
            lambda: backend.status(timeout=0.5),
            lambda: backend.put(space.key("b"), b"", expected_revision=0, timeout=0.5),
            lambda: backend.delete(space.key("a"), expected_revision=created, timeout=0.5),
            lambda: watch.poll(0.5),
            lambda: space.watch().close(),
        ]
        if self.claims(backend, Capability.PROGRESS):
            calls.append(lambda: watch.request_progress())  # noqa: PLW0108 - there is none yet
        if self.claims(backend, Capability.COMPACTION):
            calls.append(lambda: backend.compact(1 << 60, timeout=0.5))
        if backend.size() is not None:
            calls.append(lambda: backend.size(timeout=0.5))
        with space.watch(after=created) as watch:
            with stall():
                # In threads: a call that never ends is reported, and the test goes on.
                late = run_threads(len(calls), lambda index: _is_late(calls[index]), HANGS)
            assert any(late), "the store did answer"
            wait_until(lambda: _answers(backend), "the store answers again")

            last = space.create("c")
            assert poll_until(watch, lambda at, _found, _mark: at >= last)[-1].kv.revision == last

    def test_closed_backend(self, backend: Backend) -> None:
        """After close, which may be repeated, every call raises Closed."""
        calls = every_call(backend)
        with backend as same:
            assert same is backend
        backend.close()
        for call in calls:
            with pytest.raises(Closed):
                call()

    def test_close_with_calls_under_way(self, backend: Backend, space: Keyspace) -> None:
        """Calls that run during ``close`` finish or raise Closed and no other error. None hangs."""

        def work(index: int) -> None:
            if index == 0:
                wait_until(lambda: backend.count(space.prefix).count > 20, "some writes")
                backend.close()
                return
            with pytest.raises(Closed):
                use(index)

        def use(index: int) -> None:
            for turn in range(1_000_000):
                backend.put(space.key(f"{index}-{turn}"), b"", expected_revision=0)
                backend.get(space.key("x"))
                backend.list(space.prefix, limit=5)

        run_threads(4, work)

    def test_close_of_a_stalled_store(
        self, backend: Backend, space: Keyspace, stall: Stall | None
    ) -> None:
        """A handle closes within two seconds even if its store does not answer. A call and a poll
        that wait for it then raise Closed; a write may raise OutcomeUnknown."""
        if stall is None:
            pytest.skip("needs the fixture `stall`")
        watch = space.watch(progress=False)
        waiting: list[Callable[[], object]] = [
            lambda: watch.poll(PATIENCE),
            lambda: backend.put(space.key("a"), b"", expected_revision=0, timeout=PATIENCE),
        ]

        def work(index: int) -> None:
            if index == len(waiting):
                let_block()
                backend.close()
                return
            with pytest.raises((Closed, OutcomeUnknown) if index else Closed):
                waiting[index]()

        with stall():
            began = time.monotonic()
            run_threads(len(waiting) + 1, work, patience=HANGS)
            assert time.monotonic() - began < 4

    def test_close_while_watches_begin(
        self, backend: Backend, space: Keyspace, open_backend: OpenBackend | None
    ) -> None:
        """A handle may be closed at any moment, even while other threads, switched at every line,
        open and close its first watches. These calls work or raise Closed."""
        before = set(threading.enumerate())

        def work(index: int) -> None:
            if index == 0:
                handle.close()
                return
            try:
                for _ in range(3):
                    with handle.watch(
                        space.prefix, recursive=True, after_revision=space.start
                    ) as watch:
                        watch.poll(0)
            except Closed:
                return

        for turn in range(20 if open_backend else 1):
            handle = open_backend() if open_backend else backend
            with preempted(SEED + turn, lines_of(type(handle), 0.1)):
                run_threads(3, work)
        if open_backend is not None:
            wait_until(lambda: set(threading.enumerate()) <= before, "the threads end")

    def test_unclaimed_durability(self, backend: Backend) -> None:
        """A skip reports that the store is not durable, since there is no call to refuse."""
        for capability in (Capability.DURABLE, Capability.CROSS_PROCESS_WATCH):
            self.need(backend, capability)

    def test_durable(
        self, backend: Backend, space: Keyspace, open_backend: OpenBackend | None
    ) -> None:
        """Acknowledged writes survive closing and opening again, with their revisions. No revision
        is used twice (BASE-1)."""
        self.need(backend, Capability.DURABLE)
        reopen = self.need_second(open_backend)
        space.create("a", b"1")
        space.update("a", b"2")
        last = space.create("b", b"1")
        last = max(last, space.delete("b"))
        status, kvs = backend.status(), space.list().kvs
        backend.close()
        with reopen() as again:
            later = Keyspace(again, space.prefix)

            assert again.status().store_id == status.store_id
            assert later.start >= last
            assert later.list().kvs == kvs
            assert later.create("c") > last
            with later.watch(after=space.start) as watch:
                assert len(collect(watch, 5)) == 5

    def test_two_handles(
        self, backend: Backend, space: Keyspace, open_backend: OpenBackend | None
    ) -> None:
        """Two handles on one store see each other's writes at once in reads, soon in watches, and
        in one order."""
        if open_backend is None:
            pytest.skip("the store cannot be opened twice")
        with open_backend() as second:
            other = Keyspace(second, space.prefix)
            assert second.status().store_id == backend.status().store_id
            with space.watch() as here, other.watch(after=space.start) as there:
                revisions = []
                for number in range(5):
                    revisions += [space.create(f"a{number}"), other.create(f"b{number}")]
                    assert other.read(f"a{number}").revision == revisions[-2]
                    assert space.read(f"b{number}").revision == revisions[-1]
                if self.claims(backend, Capability.CROSS_PROCESS_WATCH):
                    for watch in (here, there):
                        found = [event.kv.revision for event in collect(watch, 10)]
                        assert found == revisions

    def test_two_handles_progress(
        self, backend: Backend, space: Keyspace, open_backend: OpenBackend | None
    ) -> None:
        """A mark covers every write of another handle that was acknowledged before the request."""
        self.need(backend, Capability.CROSS_PROCESS_WATCH)
        self.need(backend, Capability.PROGRESS)
        with self.need_second(open_backend)() as second, space.watch() as watch:
            other = Keyspace(second, space.prefix)
            for turn in range(10):
                written = other.create(f"k{turn}")
                watch.request_progress()
                found: list[int] = []
                deadline = time.monotonic() + PATIENCE
                while watch.position < written:
                    assert time.monotonic() < deadline
                    batch = watch.poll(PATIENCE)
                    assert batch is not None
                    found += [event.kv.revision for event in batch.events]
                assert found == [written]


def _is_late(call: Callable[[], object]) -> bool:
    """Return whether ``call`` ended because its deadline passed."""
    try:
        call()
    except (Timeout, OutcomeUnknown, Unreachable):
        return True
    except FutureRevision:
        pass
    return False


def _answers(backend: Backend) -> bool:
    try:
        backend.status(timeout=1)
    except (Timeout, Unreachable):
        return False
    return True
