"""``WatchTests``, part: where a watch begins."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from revstore.backend import Backend
from revstore.errors import (
    Expired,
    InvalidArgument,
    InvalidKey,
    InvalidResourceVersion,
    InvalidSelector,
    TooLargeResourceVersion,
)
from revstore.storage import EventType
from revstore.testing.storage._base import FAR, Pods, StorageSuite
from revstore.testing.storage._parts import Pod
from revstore.testing.watch._support import gather, gather_until, short
from revstore.values import Capability

__all__ = ["StartTests"]


class StartTests(StorageSuite):
    """The beginning of a watch."""

    @pytest.mark.parametrize("version", ["", "0"])
    def test_watch_from_nothing(self, pods: Pods, version: str) -> None:
        """Without a version a watch begins with all objects, in key order and at their own
        versions; then changes follow (WATCH-1)."""
        second = pods.create("b", "n1")
        first = pods.create("a")
        pods.create("gone")
        pods.delete("gone")
        with pods.watch(resource_version=version) as watch:
            initial = gather(watch, 2)
            third = pods.create("c")
            deleted = pods.delete("a")
            live = gather(watch, 2)

        assert [event.type for event in initial] == [EventType.ADDED] * 2
        assert [event.object for event in initial] == [first, second]
        assert short(live) == [("ADDED", "c", ""), ("DELETED", "a", "")]
        assert [event.object for event in live] == [third, deleted]

    @pytest.mark.usefixtures("alone")
    def test_watch_from_nothing_after_compaction(self, pods: Pods, backend: Backend) -> None:
        """Compacted history does not matter to a watch that begins with the state (WATCH-1)."""
        self.need(backend, Capability.COMPACTION)
        pods.create("a")
        pods.update("a", "n1")
        backend.compact(pods.storage.current_revision())
        with pods.watch(resource_version="") as watch:
            assert short(gather(watch, 1)) == [("ADDED", "a", "n1")]

    def test_watch_from_a_version(self, pods: Pods) -> None:
        """With a version a watch shows all changes after it, and none before (WATCH-2)."""
        objects = [pods.create("a"), pods.update("a", "n1"), pods.create("b"), pods.delete("a")]
        versions = [str(pods.start), *(obj.metadata.resource_version for obj in objects)]
        kinds = [EventType.ADDED, EventType.MODIFIED, EventType.ADDED, EventType.DELETED]
        for index, version in enumerate(versions[:-1]):
            with pods.watch(resource_version=version) as watch:
                assert watch.resource_version == version
                events = gather(watch, 4 - index)
            assert [event.object for event in events] == objects[index:]
            assert [event.type for event in events] == kinds[index:]

    def test_watch_resumes(self, pods: Pods) -> None:
        """A watch from the version of another watch, or of the last event, neither misses nor
        repeats anything (WATCH-2)."""
        written = [pods.create(f"k{number}") for number in range(6)]
        version, seen = str(pods.start), list[Pod]()
        while len(seen) < 6:
            with pods.watch(resource_version=version) as watch:
                events = gather_until(watch, bool)
                seen += [event.object for event in events]
                version = watch.resource_version
                assert int(version) >= int(events[-1].resource_version)
        assert seen == written
        with pods.watch(resource_version=written[3].metadata.resource_version) as watch:
            assert [event.object for event in gather(watch, 2)] == written[4:]

    @pytest.mark.parametrize("version", ["", "0", "start", "now"])
    def test_watch_with_initial_events(self, pods: Pods, version: str) -> None:
        """With ``send_initial_events`` the state comes as ADDED, whatever the version; then changes
        follow (WATCH-3, WATCH-21)."""
        objects = [pods.create("a"), pods.create("b")]
        numbers = {"start": str(pods.start), "now": objects[-1].metadata.resource_version}
        with pods.watch(
            resource_version=numbers.get(version, version), send_initial_events=True
        ) as watch:
            events = gather(watch, 2)
            pods.update("a", "n1")
            live = gather(watch, 1)

        assert [event.object for event in events] == objects
        assert short(events) == [("ADDED", "a", ""), ("ADDED", "b", "")]
        assert short(live) == [("MODIFIED", "a", "n1")]

    def test_watch_without_initial_events(self, pods: Pods) -> None:
        """With ``send_initial_events=False`` and no version, a watch begins at its opening, not at
        its first poll. With a version it begins after that (WATCH-4)."""
        pods.create("a")
        now = str(pods.storage.current_revision())
        watches = [
            pods.watch(resource_version=version, send_initial_events=False)
            for version in ("", "0", now)
        ]
        history = pods.watch(send_initial_events=False)
        pods.update("a", "n1")
        for watch in watches:
            assert short(gather(watch, 1)) == [("MODIFIED", "a", "n1")]
            watch.close()
        assert short(gather(history, 2)) == [("ADDED", "a", ""), ("MODIFIED", "a", "n1")]
        history.close()

    def test_watch_whole_history(self, pods: Pods, alone: None) -> None:
        """A watch from version 1 shows the whole history of a store that was never compacted
        (WATCH-4)."""
        pods.create("a")
        pods.delete("a")
        with pods.watch(resource_version="1", send_initial_events=False) as watch:
            assert short(gather(watch, 2)) == [("ADDED", "a", ""), ("DELETED", "a", "")]

    def test_watch_bad_arguments(self, pods: Pods) -> None:
        """``watch`` itself, not its first poll, refuses bad keys, versions and selectors
        (WATCH-5)."""
        bad: list[tuple[type[InvalidArgument], Callable[[], object]]] = [
            (InvalidKey, lambda: pods.storage.watch("")),
            (InvalidKey, lambda: pods.storage.watch("/elsewhere/a")),
            (InvalidKey, lambda: pods.watch("a/../b")),
            (InvalidResourceVersion, lambda: pods.watch(resource_version="x")),
            (InvalidSelector, lambda: pods.watch(label_selector="a in")),
            (InvalidSelector, lambda: pods.watch(field_selector="a")),
        ]
        for error, call in bad:
            with pytest.raises(error):
                call()

    def test_watch_future_version(self, pods: Pods) -> None:
        """A watch from a version of the future opens, and shows what comes after that version
        (WATCH-6)."""
        future = pods.start + 3
        with pods.watch(resource_version=str(future)) as watch:
            assert watch.poll(0) is None
            assert watch.resource_version == str(future)
            written = [pods.create(f"k{number}") for number in range(8)]
            later = [each for each in written if int(each.metadata.resource_version) > future]
            assert [event.object for event in gather(watch, len(later))] == later

    def test_watch_future_version_with_initial_events(self, pods: Pods) -> None:
        """A watch that begins with the state of a version of the future opens, and its polls raise
        TooLargeResourceVersion (WATCH-7)."""
        wanted = pods.start + FAR
        with pods.watch(resource_version=str(wanted), send_initial_events=True) as watch:
            for _ in range(2):
                with pytest.raises(TooLargeResourceVersion) as caught:
                    watch.poll(20)
                assert caught.value.wanted == wanted
                assert caught.value.current >= pods.start
                assert 1 <= caught.value.retry_after <= 3

    @pytest.mark.usefixtures("alone")
    def test_watch_compacted_version(self, pods: Pods, backend: Backend) -> None:
        """A watch from a compacted version opens, and every poll and iteration raises Expired.
        After a new list, a watch from its version goes on (WATCH-8, ERR-8)."""
        self.need(backend, Capability.COMPACTION)
        first = pods.create("a").metadata.resource_version
        pods.update("a", "n1")
        pods.create("b")
        backend.compact(pods.storage.current_revision())
        with pods.watch(resource_version=first) as watch:
            for _ in range(2):
                with pytest.raises(Expired, match="too old") as caught:
                    watch.poll(20)
            with pytest.raises(Expired):
                next(iter(watch))
        version = caught.value.resource_version
        assert version == "" or int(version) > int(first)
        listed = pods.list()
        with pods.watch(resource_version=listed.resource_version) as watch:
            pods.create("c")
            assert short(gather(watch, 1)) == [("ADDED", "c", "")]

    def test_watch_initial_state_is_one(self, pods: Pods) -> None:
        """The initial state is that of one moment, although it is read in pages. Objects written
        meanwhile come after it, live and once (WATCH-28)."""
        names = [f"k{number:03}" for number in range(520)]
        pods.create_many(names)
        with pods.watch(resource_version="0") as watch:
            events = list(watch.poll(20) or ())
            pods.delete(names[-1])
            pods.create("a")
            pods.update(names[0], "n1")
            late = gather(watch, len(names) + 3 - len(events))
        events += late

        assert short(events[:-3]) == [("ADDED", name, "") for name in names]
        assert short(events[-3:]) == [
            ("DELETED", names[-1], ""),
            ("ADDED", "a", ""),
            ("MODIFIED", names[0], "n1"),
        ]

    @pytest.mark.usefixtures("compactable")
    def test_watch_initial_state_is_compacted_away(self, pods: Pods, backend: Backend) -> None:
        """If the rest of the initial state is compacted while it is read, the watch ends with
        Expired. If nothing is left to read, it goes on (WATCH-28)."""
        names = [f"k{number:03}" for number in range(520)]
        pods.create_many(names)
        with pods.watch(resource_version="0") as watch:
            events = list(watch.poll(20) or ())
            pods.create("a")
            backend.compact(pods.storage.current_revision())
            if watch.resource_version:
                gather(watch, len(names) + 1 - len(events))
                return
            for _ in range(2):
                with pytest.raises(Expired):
                    watch.poll(20)

    def test_watch_version_while_initial_events_are_outstanding(self, pods: Pods) -> None:
        """Until all initial events are delivered, a watch's version is "" (WATCH-29)."""
        pods.create("a")
        with pods.watch(resource_version="") as watch:
            assert watch.resource_version == ""
            gather(watch, 1)
            assert int(watch.resource_version) > pods.start
        with pods.watch("none", resource_version="") as watch:
            assert watch.poll(0) is None
            assert int(watch.resource_version) > pods.start
