"""``WatchTests``, part: the feed that fills a cache."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from revstore.backend import Backend
from revstore.errors import Closed, CorruptObject, Expired, Unsupported
from revstore.objects import with_metadata
from revstore.storage import Change, ChangeBatch, EventType
from revstore.testing._support import PATIENCE, let_block, promptly, run_threads
from revstore.testing.storage._base import Pods, StorageSuite
from revstore.testing.storage._parts import GARBAGE, Pod, name_of
from revstore.testing.watch._support import gather_changes
from revstore.values import Capability

__all__ = ["ChangesTests"]


class ChangesTests(StorageSuite):
    """``Storage.changes``."""

    def test_changes(self, pods: Pods) -> None:
        """A feed delivers whole revisions in order, unfiltered. Each change has its key, its size
        and both objects (WATCH-2, WATCH-10, WATCH-11)."""
        objects = [pods.create("ns/a"), pods.update("ns/a", "n1"), pods.delete("ns/a")]
        with pods.storage.changes(pods.prefix, after=pods.start) as changes:
            assert changes.revision == pods.start
            batches = gather_changes(changes, lambda found: _count(found) >= 3)
            position = changes.revision
        found = [change for batch in batches for change in batch.changes]

        assert [change.type.value for change in found] == ["ADDED", "MODIFIED", "DELETED"]
        assert [change.load() for change in found] == objects
        assert [change.load_previous() for change in found] == [None, *objects[:2]]
        assert [change.key for change in found] == [pods.key("ns/a")] * 3
        assert [str(change.revision) for change in found] == [
            obj.metadata.resource_version for obj in objects
        ]
        assert all(change.size > 0 for change in found[:2])
        assert position == batches[-1].revision
        assert not any(batch.initial for batch in batches)

    def test_changes_resume(self, pods: Pods) -> None:
        """A feed from the revision of another feed goes on where that one stopped (WATCH-2)."""
        written = [pods.create(f"k{number}") for number in range(5)]
        after, seen = pods.start, list[Pod]()
        while len(seen) < 5:
            with pods.storage.changes(pods.prefix, after=after) as changes:
                batches = gather_changes(changes, lambda found: _count(found) >= 1)
                seen += [change.load() for batch in batches for change in batch.changes]
                after = changes.revision
        assert seen == written

    def test_changes_from_the_state(self, pods: Pods) -> None:
        """Without a revision, a feed begins with the state, in initial batches of one revision. The
        first batch that is not initial says that the state is complete; then changes follow
        (WATCH-1, WATCH-28)."""
        names = [f"k{number:02}" for number in range(12)]
        for name in names:
            pods.create(name)
        with pods.storage.changes(pods.prefix) as changes:
            batches = gather_changes(changes, _whole)
            added = pods.create("later")
            live = gather_changes(changes, lambda found: _count(found) >= 1)
        *initial, whole = batches
        state = [change for batch in initial for change in batch.changes]

        assert {batch.revision for batch in initial} == {whole.revision}
        assert [name_of(change.load()) for change in state] == names
        assert {change.type for change in state} == {EventType.ADDED}
        assert {change.load_previous() for change in state} == {None}
        assert whole.changes == ()
        assert [change.load() for change in live[-1].changes] == [added]

    def test_changes_from_an_empty_state(self, pods: Pods) -> None:
        """An empty state is announced as complete too (WATCH-1)."""
        with pods.storage.changes(pods.key("none")) as changes:
            batches = gather_changes(changes, _whole)
            assert _count(batches) == 0
            assert changes.revision >= pods.start

    def test_changes_that_cannot_be_read(self, pods: Pods) -> None:
        """An unreadable change comes like any other and raises only when it is loaded. The feed
        goes on (WATCH-22, WATCH-23)."""
        pods.create("a")
        pods.overwrite("a")
        pods.storage.delete(pods.key("a"), even_if_corrupt=True)
        pods.create("b")
        with pods.storage.changes(pods.prefix, after=pods.start) as changes:
            batches = gather_changes(changes, lambda found: _count(found) >= 4)
        first, bad, gone, last = (change for batch in batches for change in batch.changes)

        assert name_of(first.load()) == "a"
        for change in (bad, gone):
            assert _corrupt(change)
            assert change.key == pods.key("a")
        assert bad.size == len(GARBAGE)
        assert bad.load_previous() == first.load()
        with pytest.raises(CorruptObject):
            gone.load_previous()
        assert name_of(last.load()) == "b"

    def test_changes_from_a_state_that_cannot_be_read(self, pods: Pods) -> None:
        """The same holds for unreadable objects in the state with which a feed begins
        (WATCH-22)."""
        pods.create("a")
        pods.overwrite("b")
        with pods.storage.changes(pods.prefix) as changes:
            batches = gather_changes(changes, lambda found: _count(found) >= 2)
        good, bad = (change for batch in batches for change in batch.changes)
        assert name_of(good.load()) == "a"
        assert _corrupt(bad)

    def test_changes_of_a_deletion(self, pods: Pods) -> None:
        """The object of a deletion is the last one, at the deletion's version (WATCH-11)."""
        created = pods.create("a", "n1")
        deleted = pods.delete("a")
        after = int(created.metadata.resource_version)
        with pods.storage.changes(pods.prefix, after=after) as changes:
            (batch,) = gather_changes(changes, lambda found: _count(found) >= 1)
        (change,) = batch.changes
        assert change.load() == deleted
        assert with_metadata(change.load(), resource_version="") == with_metadata(
            created, resource_version=""
        )

    def test_changes_progress(self, pods: Pods, backend: Backend) -> None:
        """Progress that was requested comes after all changes up to it and covers every write
        acknowledged before. A backend without progress raises Unsupported (WATCH-20)."""
        with pods.storage.changes(pods.key("ns"), after=pods.start) as changes:
            if not self.claims(backend, Capability.PROGRESS):
                with pytest.raises(Unsupported):
                    changes.request_progress()
                return
            for turn in range(5):
                inside = pods.create(f"ns/k{turn}")
                outside = int(pods.create(f"other{turn}").metadata.resource_version)
                changes.request_progress()
                batches = gather_changes(changes, _reaches(outside))
                found = [change.load() for batch in batches for change in batch.changes]
                assert found == [inside]
                assert changes.revision >= outside

    @pytest.mark.usefixtures("alone")
    def test_changes_compacted(self, pods: Pods, backend: Backend) -> None:
        """A feed whose history is compacted raises Expired at every poll (WATCH-8)."""
        self.need(backend, Capability.COMPACTION)
        pods.create("a")
        pods.update("a", "n1")
        backend.compact(pods.storage.current_revision())
        with pods.storage.changes(pods.prefix, after=pods.start) as changes:
            for _ in range(2):
                with pytest.raises(Expired):
                    changes.poll(PATIENCE)

    @pytest.mark.parametrize("by", ["feed", "storage"])
    def test_changes_close(self, pods: Pods, by: str) -> None:
        """``close`` of the feed or of the storage wakes a blocked poll with Closed (WATCH-25)."""
        changes = pods.storage.changes(pods.key("quiet"), after=pods.start)

        def work(index: int) -> None:
            if index:
                let_block()
                (changes if by == "feed" else pods.storage).close()
                return
            with pytest.raises(Closed):
                changes.poll(PATIENCE)

        with promptly():
            run_threads(2, work)
        with pytest.raises(Closed):
            changes.poll(0)
        changes.close()


def _reaches(revision: int) -> Callable[[list[ChangeBatch[Pod]]], bool]:
    return lambda batches: bool(batches) and batches[-1].revision >= revision


def _whole(batches: list[ChangeBatch[Pod]]) -> bool:
    return bool(batches) and not batches[-1].initial


def _count(batches: list[ChangeBatch[Pod]]) -> int:
    return sum(len(batch.changes) for batch in batches)


def _corrupt(change: Change[Pod]) -> bool:
    with pytest.raises(CorruptObject):
        change.load()
    return True
