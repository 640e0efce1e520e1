"""``BackendTests``, part: compaction."""

from __future__ import annotations

import pytest

from revstore.backend import Backend
from revstore.errors import Compacted, FutureRevision, InvalidArgument, Unsupported
from revstore.testing._support import Keyspace, collect, reads_at
from revstore.testing.backend._base import BackendSuite
from revstore.values import Capability

__all__ = ["CompactionTests"]


class CompactionTests(BackendSuite):
    """The effects of compaction: the history that it removes, and the state that it keeps."""

    def test_unclaimed_compaction(self, backend: Backend, space: Keyspace) -> None:
        """A backend without COMPACTION refuses it."""
        if self.claims(backend, Capability.COMPACTION):
            pytest.skip("claims compaction, which other tests check")
        with pytest.raises(Unsupported):
            backend.compact(space.create("a"))

    @pytest.mark.usefixtures("alone")
    def test_reads_around_the_compacted_revision(self, backend: Backend, space: Keyspace) -> None:
        """Reads below the compacted revision raise Compacted; reads at it and above work
        (LISTRV-10, LIST-20)."""
        self.need(backend, Capability.COMPACTION)
        space.create("a", b"1")
        below = space.create("b", b"1")
        at = space.update("a", b"2")
        space.update("a", b"3")
        last = space.delete("b")
        backend.compact(at)

        assert backend.status().compacted_revision == at
        if self.claims(backend, Capability.HISTORICAL_READS):
            for read in reads_at(backend, space.key("a")):
                with pytest.raises(Compacted) as caught:
                    read(below)
                assert caught.value.compacted == at
            assert space.read("a", at).value == b"2"
            assert space.names(space.list(revision=at).kvs) == ["a", "b"]
            assert backend.count(space.prefix, revision=at).count == 2
            assert space.read("a", last).value == b"3"
        assert space.read("a").value == b"3"
        assert space.names(space.list().kvs) == ["a"]

    @pytest.mark.usefixtures("alone")
    def test_current_values_stay(self, backend: Backend, space: Keyspace) -> None:
        """Compaction up to the current revision changes no key and takes no revision (CMP-6)."""
        self.need(backend, Capability.COMPACTION)
        for number in range(20):
            space.create(f"k{number:02}", b"%d" % number)
        for number in range(0, 20, 2):
            space.update(f"k{number:02}", b"x")
        last = space.delete("k07")
        before = space.list()
        backend.compact(last)

        assert backend.status().revision == last
        assert space.list().kvs == before.kvs
        assert space.list(revision=last).kvs == before.kvs
        again = space.create("k07")
        assert again > last
        assert space.read("k07").create_revision == again

    @pytest.mark.usefixtures("alone")
    def test_bounds(self, backend: Backend, space: Keyspace) -> None:
        """Compaction at or below the compacted revision raises Compacted, above the current one
        FutureRevision. A refused compaction changes nothing (CMP-4)."""
        self.need(backend, Capability.COMPACTION)
        below = space.create("a")
        at = space.create("b")
        last = space.create("c")
        assert backend.status().compacted_revision < below
        for wrong in (0, -1):
            with pytest.raises(InvalidArgument):
                backend.compact(wrong)
        with pytest.raises(FutureRevision):
            backend.compact(last + 1)
        backend.compact(at)
        for revision in (below, at):
            with pytest.raises(Compacted) as caught:
                backend.compact(revision)
            assert caught.value.compacted == at
        assert backend.status().compacted_revision == at
        backend.compact(last)
        assert backend.status().compacted_revision == last

    @pytest.mark.usefixtures("alone")
    def test_watch_below_the_compacted_revision(self, backend: Backend, space: Keyspace) -> None:
        """A watch below the compacted revision opens, and every poll raises Compacted. A watch at
        the compacted revision works (ERR-8)."""
        self.need(backend, Capability.COMPACTION)
        first = space.create("a", b"1")
        at = space.update("a", b"2")
        last = space.update("a", b"3")
        backend.compact(at)
        for after in (first, space.start):
            with space.watch(after=after) as watch:
                for _ in range(2):
                    with pytest.raises(Compacted) as caught:
                        collect(watch, 1)
                    assert caught.value.compacted == at
        with space.watch(after=at) as watch:
            (event,) = collect(watch, 1)

            assert event.kv.revision == last
            assert event.previous is not None
            assert event.previous.value == b"2"

    @pytest.mark.usefixtures("alone")
    def test_watch_that_is_up_to_date_goes_on(self, backend: Backend, space: Keyspace) -> None:
        """A watch that has delivered everything up to the compacted revision is not
        affected (CMP-6)."""
        self.need(backend, Capability.COMPACTION)
        with space.watch() as watch:
            last = space.create("a", b"1")
            collect(watch, 1)
            backend.compact(last)
            updated = space.update("a", b"2")
            (event,) = collect(watch, 1)

        assert event.kv.revision == updated
        assert event.previous is not None
        assert event.previous.value == b"1"

    @pytest.mark.usefixtures("alone")
    def test_watch_overtaken(self, backend: Backend, space: Keyspace) -> None:
        """A watch that compaction overtakes either has its events already or raises Compacted. It
        never skips any silently (ERR-8, WATCH-28)."""
        self.need(backend, Capability.COMPACTION)
        with space.watch() as watch:
            written = [space.create(f"k{number}") for number in range(10)]
            backend.compact(written[-1])
            after = space.create("after")
            try:
                events = collect(watch, len(written) + 1)
            except Compacted:
                return
        assert [event.kv.revision for event in events] == [*written, after]
