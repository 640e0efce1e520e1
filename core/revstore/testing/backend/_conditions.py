"""``BackendTests``, part: stores in conditions that only their owners can produce."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest

from revstore.backend import Backend
from revstore.errors import NoSpace, OutcomeUnknown, ReadOnly, Timeout, Unreachable
from revstore.testing._support import Keyspace, collect, run_threads, wait_until
from revstore.testing.backend._base import BackendSuite, OpenBackend, Stall
from revstore.testing.backend._life import HANGS
from revstore.values import Capability

__all__ = ["ConditionTests"]


class ConditionTests(BackendSuite):
    """Stores that were wiped, do not answer, are full, are damaged or hold foreign keys. Each
    condition needs a fixture that produces it. Without the fixture, the tests check that the
    condition does not occur."""

    @pytest.fixture
    def wiped(self, backend: Backend) -> OpenBackend | None:
        """Override this where a store can be wiped. Return a function that closes ``backend``,
        deletes all stored data, and opens the store again in the same place."""
        return None

    @pytest.fixture
    def open_hasty(self, backend: Backend) -> OpenBackend | None:
        """Override this where ``stall`` is overridden and the backend's own default for ``timeout``
        can be set. Return a function that opens one more handle with a default of a second or less.
        """
        return None

    @pytest.fixture
    def refusal(self, backend: Backend) -> Stall | None:
        """Override this where a store can be made full or read-only. Within ``with refusal():`` it
        refuses writes. By default the store is fenced, if it can be."""
        if not (self.ephemeral and self.claims(backend, Capability.FENCE)):
            return None

        @contextlib.contextmanager
        def fenced() -> Iterator[None]:
            backend.fence("for a test")
            yield
            backend.unfence()

        return fenced

    @pytest.fixture
    def damage(self, backend: Backend) -> Callable[[str], object] | None:
        """Override this where values have checksums. Return a function that damages the value of a
        key in the store without the backend."""
        return None

    @pytest.fixture
    def add_foreign(self, backend: Backend) -> Callable[[str], object] | None:
        """Override this where other clients can store keys that are not UTF-8. Return a function
        that stores one below a prefix without the backend."""
        return None

    @pytest.fixture
    def declared(self) -> frozenset[Capability] | None:
        """Override this with the capabilities in the plugin's ``BackendInfo``, the most that a
        store of it may have."""
        return None

    def test_store_id_after_a_wipe(self, backend: Backend, wiped: OpenBackend | None) -> None:
        """A store that was wiped has another identity, and none of the old data."""
        if wiped is None:
            pytest.skip("needs the fixture `wiped`")
        before = backend.status().store_id
        backend.put("/kept", b"", expected_revision=0)
        with wiped() as again:
            assert again.status().store_id != before
            assert again.get("/kept").kv is None

    def test_default_timeout(
        self,
        backend: Backend,
        space: Keyspace,
        stall: Stall | None,
        open_hasty: OpenBackend | None,
    ) -> None:
        """A call without a timeout ends by the backend's default timeout, which is finite."""
        if stall is None or open_hasty is None:
            pytest.skip("needs the fixtures `stall` and `open_hasty`")
        with open_hasty() as hasty:
            calls: list[Callable[[], object]] = [
                lambda: hasty.get(space.key("a")),
                lambda: hasty.list(space.prefix),
                lambda: hasty.count(space.prefix),
                hasty.status,
                lambda: hasty.put(space.key("a"), b"", expected_revision=0),
                lambda: hasty.delete(space.key("a"), expected_revision=1),
            ]
            hasty.status()

            def work(index: int) -> bool:
                try:
                    calls[index]()
                except (Timeout, OutcomeUnknown, Unreachable):
                    return True
                return False

            with stall():
                late = run_threads(len(calls), work, HANGS)
            assert any(late), "the store did answer"
        wait_until(lambda: backend.status().revision > 0, "the store answers again")

    def test_refused_writes_change_nothing(
        self, backend: Backend, space: Keyspace, refusal: Stall | None
    ) -> None:
        """A write that raises NoSpace or ReadOnly stores nothing, shows in no watch, and takes no
        revision. Reads go on, and writes go on once the store accepts them again."""
        if refusal is None:
            pytest.skip("needs the fixture `refusal`")
        first = space.create("a", b"1")
        with space.watch(progress=False) as watch:
            collect(watch, 1)
            with refusal():
                before = backend.status().revision
                writes: list[Callable[[], object]] = [
                    lambda: backend.put(space.key("a"), b"2", expected_revision=first),
                    lambda: backend.put(space.key("b"), b"2", expected_revision=0),
                ]
                for write in writes:
                    with pytest.raises((NoSpace, ReadOnly)):
                        write()
                    assert [(kv.value, kv.revision) for kv in space.list().kvs] == [(b"1", first)]
                if self.ephemeral:
                    assert backend.status().revision == before
            second = space.update("a", b"3")
            assert [event.kv.revision for event in collect(watch, 1)] == [second]

    def test_damaged_values(
        self, backend: Backend, space: Keyspace, damage: Callable[[str], object] | None
    ) -> None:
        """Every read marks a value that does not fit its checksum, and no other value. The value
        can be overwritten and deleted."""
        revisions = {name: space.create(name, b"a value of some length") for name in "abc"}
        assert not any(kv.damaged for kv in space.list().kvs)
        if damage is None:
            return
        damage(space.key("b"))
        assert [kv.damaged for kv in space.list().kvs] == [False, True, False]
        assert [space.read(name).damaged for name in "abc"] == [False, True, False]
        lost = backend.put(space.key("b"), b"", expected_revision=0).current
        assert lost is not None
        assert lost.damaged
        updated = backend.put(space.key("b"), b"2", expected_revision=revisions["b"])
        assert updated.succeeded
        kv = space.read("b")
        assert (kv.value, kv.damaged) == (b"2", False)
        damage(space.key("b"))
        assert backend.delete(space.key("b"), expected_revision=updated.revision).succeeded
        assert space.names(space.list().kvs) == ["a", "c"]

    def test_foreign_keys(
        self, backend: Backend, space: Keyspace, add_foreign: Callable[[str], object] | None
    ) -> None:
        """Lists and watches leave out keys that are not UTF-8, and go on. The status counts them
        once they were met; a store without them counts none."""
        space.create("a")
        space.list()
        if add_foreign is None:
            if self.starts_at_one:
                assert backend.status().foreign_keys == 0
            return
        with space.watch(progress=False) as watch:
            add_foreign(space.prefix)
            last = space.create("b")
            assert [event.kv.key for event in collect(watch, 2)] == [space.key("a"), space.key("b")]
            assert watch.position == last
        assert space.names(space.list().kvs) == ["a", "b"]
        assert backend.status().foreign_keys >= 1

    def test_declared_capabilities(
        self, backend: Backend, declared: frozenset[Capability] | None
    ) -> None:
        """An open store has no capability that its plugin does not declare."""
        if declared is None:
            pytest.skip("needs the fixture `declared`")
        assert backend.capabilities <= declared
