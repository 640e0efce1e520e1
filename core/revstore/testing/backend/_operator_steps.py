"""``BackendTests``, part: the steps for operators: raising the revision, and the fence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from revstore.backend import Backend
from revstore.errors import Compacted, InvalidArgument, ReadOnly, Unsupported
from revstore.testing._support import Keyspace, collect, collect_to_mark, wait_until
from revstore.testing.backend._base import BackendSuite, OpenBackend
from revstore.values import Capability, WatchEventType

__all__ = ["OperatorStepTests"]


class OperatorStepTests(BackendSuite):
    """The operations on a store that restores and migrations need."""

    def test_raised_revision(self, backend: Backend, space: Keyspace, alone: None) -> None:
        """Later writes are above the raised revision. The state stays, and so do the events that
        watches have yet to deliver."""
        if not self.claims(backend, Capability.RAISE_REVISION):
            with pytest.raises(Unsupported):
                backend.raise_revision(5)
            return
        first = space.create("a", b"1")
        with space.watch() as watch:
            to = first + 5000
            backend.raise_revision(to)
            assert backend.status().revision == to
            backend.raise_revision(first)
            assert backend.status().revision == to, "it does not go back"
            if self.claims(backend, Capability.HISTORICAL_READS):
                for revision in (first, first + 1, to):
                    assert space.read("a", revision).revision == first
            assert [event.kv.revision for event in collect(watch, 1)] == [first]
            second = space.update("a", b"2")
            assert second > to
            assert [event.kv.revision for event in collect(watch, 1)] == [second]
        with space.watch() as watch:
            assert [event.kv.revision for event in collect(watch, 2)] == [first, second]
        if self.claims(backend, Capability.COMPACTION):
            backend.compact(to)
            with space.watch(after=first) as watch, pytest.raises(Compacted):
                collect(watch, 1)

    def test_raised_by_another_handle(
        self, backend: Backend, space: Keyspace, alone: None, open_backend: OpenBackend | None
    ) -> None:
        """A watch of another handle goes on across the gap."""
        self.need(backend, Capability.RAISE_REVISION)
        self.need(backend, Capability.CROSS_PROCESS_WATCH)
        with self.need_second(open_backend)() as second, space.watch() as watch:
            space.create("a")
            collect(watch, 1)
            to = backend.status().revision + 20_000
            second.raise_revision(to)
            watch.request_progress()
            assert collect_to_mark(watch, to) == []
            assert space.create("b") > to
            collect(watch, 1)

    def test_raised_beyond_the_range(self, backend: Backend) -> None:
        """Numbers out of the range are refused by name."""
        self.need(backend, Capability.RAISE_REVISION)
        before = backend.status().revision
        for wrong in (0, -1, 1 << 43, 1.5, True):
            with pytest.raises(InvalidArgument) as caught:
                backend.raise_revision(wrong)  # type: ignore[arg-type]
            assert caught.value.field == "revision"
        assert backend.status().revision == before

    def test_fence(self, backend: Backend, space: Keyspace, alone: None) -> None:
        """While the store is fenced, no write of any kind succeeds, but reads and watches work.
        Nothing changes but what a server of its own lets expire. Afterwards writes work again."""
        if not self.claims(backend, Capability.FENCE):
            with pytest.raises(Unsupported):
                backend.fence("why")
            with pytest.raises(Unsupported):
                backend.unfence()
            return
        first = space.create("a", b"1")
        space.create("dying", ttl=1) if self.claims(backend, Capability.TTL) else None
        kept = len(space.list().kvs)
        writes = self.writes(backend, space, first)
        backend.fence("first")
        backend.fence("moving to another store")
        before = backend.status().revision
        for write in writes:
            with pytest.raises(ReadOnly) as caught:
                write()
            assert "moving to another store" in str(caught.value)
        with space.watch(progress=False) as watch:
            collect(watch, kept)
            batch = watch.poll(1.2)
        if batch is None:
            assert backend.status().revision == before
        else:
            (event,) = batch.events
            assert (event.type, event.kv.key) == (WatchEventType.DELETED, space.key("dying")), (
                "nothing but what is due expires, if the store's server counts the time"
            )
        assert space.read("a").revision == first
        if self.claims(backend, Capability.TRANSACTIONS):
            read = backend.transaction(lambda seen: seen.get(space.key("a")))
            assert read.value == space.read("a")
        if self.claims(backend, Capability.COMPACTION):
            backend.compact(first)
        backend.unfence()
        backend.unfence()
        assert space.update("a", b"2") > before
        wait_until(lambda: space.find("dying") is None, "what was to expire expires")

    def test_fence_holds_everybody(
        self, backend: Backend, space: Keyspace, alone: None, open_backend: OpenBackend | None
    ) -> None:
        """A fence also refuses writes of other handles, including those opened later."""
        self.need(backend, Capability.FENCE)
        self.need(backend, Capability.CROSS_PROCESS_WATCH)
        reopen = self.need_second(open_backend)
        with reopen() as second:
            second.put(space.key("a"), b"", expected_revision=0)
            backend.fence("for all")
            with pytest.raises(ReadOnly, match="for all"):
                second.put(space.key("b"), b"", expected_revision=0)
        with reopen() as third:
            with pytest.raises(ReadOnly, match="for all"):
                third.put(space.key("b"), b"", expected_revision=0)
            third.unfence()
        assert space.create("b") > space.read("a").revision

    def test_fence_reasons(self, backend: Backend, space: Keyspace) -> None:
        """A fence must have a reason."""
        self.need(backend, Capability.FENCE)
        for wrong in ("", None, 5, "\ud800"):
            with pytest.raises(InvalidArgument) as caught:
                backend.fence(wrong)  # type: ignore[arg-type]
            assert caught.value.field == "reason"
        space.create("a")

    def writes(self, backend: Backend, space: Keyspace, revision: int) -> list[Callable[[], Any]]:
        """Return a write of each kind; ``revision`` is that of the key "a"."""
        key = space.key("a")
        writes: list[Callable[[], Any]] = [
            lambda: backend.put(key, b"x", expected_revision=revision),
            lambda: backend.put(key, b"x", expected_revision=0),
            lambda: backend.put(space.key("new"), b"x", expected_revision=0),
            lambda: backend.delete(key, expected_revision=revision),
        ]
        if self.claims(backend, Capability.TRANSACTIONS):
            writes += [
                lambda: backend.transaction(lambda seen: seen.put(key, b"x")),
                lambda: backend.transaction(lambda seen: seen.delete(key)),
            ]
        if self.claims(backend, Capability.LEASES):
            leases = backend.leases()
            lease = leases.grant(1000).id
            writes += [
                lambda: leases.grant(1000),
                lambda: leases.keep_alive(lease),
                lambda: leases.revoke(lease),
            ]
        return writes
