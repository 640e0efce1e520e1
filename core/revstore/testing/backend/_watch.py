"""``BackendTests``, part: watches, their order, progress and end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import pytest

from revstore.backend import Backend, BackendWatch
from revstore.errors import Closed, Compacted, Unsupported
from revstore.testing._support import (
    PATIENCE,
    Keyspace,
    collect,
    collect_to_mark,
    let_block,
    poll_until,
    promptly,
    run_threads,
)
from revstore.testing.backend._base import BackendSuite
from revstore.values import Capability, KeyValue, WatchEvent, WatchEventType

__all__ = ["BackendWatchTests"]

_Short = tuple[WatchEventType, str, bytes, bytes | None]


def _short(space: Keyspace, events: list[WatchEvent]) -> list[_Short]:
    return [
        (
            event.type,
            event.kv.key.removeprefix(space.prefix),
            event.kv.value,
            event.previous.value if event.previous else None,
        )
        for event in events
    ]


PUT, DELETED = WatchEventType.PUT, WatchEventType.DELETED


class BackendWatchTests(BackendSuite):
    """The batches that watches deliver."""

    def test_watch_history_then_live(self, space: Keyspace) -> None:
        """A watch begins with the events after its revision, then goes on live (WATCH-2)."""
        space.create("a", b"1")
        space.update("a", b"2")
        with space.watch() as watch:
            past = collect(watch, 2)
            space.create("b", b"1")
            space.delete("a")
            live = collect(watch, 2)

        assert _short(space, past + live) == [
            (PUT, "a", b"1", None),
            (PUT, "a", b"2", b"1"),
            (PUT, "b", b"1", None),
            (DELETED, "a", b"", b"2"),
        ]

    def test_watch_events_carry_whole_key_values(self, space: Keyspace) -> None:
        """``kv`` and ``previous`` equal what a read at that moment returned, and the numbers show a
        creation (WATCH-10)."""
        space.create("a", b"1")
        first = space.read("a")
        space.update("a", b"2")
        second = space.read("a")
        deleted = space.delete("a")
        with space.watch() as watch:
            events = collect(watch, 3)

        assert [event.kv for event in events[:2]] == [first, second]
        assert [event.previous for event in events] == [None, first, second]
        assert events[2].kv == KeyValue(space.key("a"), b"", deleted)
        created = [event.kv.create_revision == event.kv.revision for event in events[:2]]
        assert created == [True, False]

    def test_watch_start_revision(self, space: Keyspace) -> None:
        """A watch delivers exactly the events above ``after_revision`` (WATCH-2)."""
        revisions = [space.create(f"k{number}") for number in range(5)]
        for index, after in enumerate(revisions[:-1]):
            with space.watch(after=after) as watch:
                assert watch.position == after
                found = [event.kv.revision for event in collect(watch, 4 - index)]
                assert found == revisions[index + 1 :]

    def test_watch_all_history(self, backend: Backend, space: Keyspace) -> None:
        """``after_revision`` 0 means all history (WATCH-4)."""
        if not self.ephemeral:
            pytest.skip("the history of a store that others use may be compacted")
        created = space.create("a")
        with backend.watch(space.prefix, recursive=True, after_revision=0) as watch:
            assert [event.kv.revision for event in collect(watch, 1)] == [created]

    def test_watch_future_revision(self, space: Keyspace) -> None:
        """A watch after a future revision opens, and begins once the store has passed it
        (WATCH-6)."""
        first = space.create("a")
        with space.watch(after=first + 3) as watch:
            assert watch.poll(0) is None
            revisions = [space.create(f"k{number}") for number in range(8)]
            expected = [revision for revision in revisions if revision > first + 3]
            found = [event.kv.revision for event in collect(watch, len(expected))]

        assert found == expected

    def test_watch_exact_key(self, backend: Backend, space: Keyspace) -> None:
        """A watch that is not recursive sees only its key, no sibling and no child (WATCH-12)."""
        with space.watch("a", recursive=False) as watch:
            _, *others = self.storable(backend, ("a", "a/b", "ab", "b"))
            for name in others:
                space.create(name)
            space.create("a", b"1")
            for name in self.storable(backend, ("a", "a/c"))[1:]:
                space.create(name)
            space.delete("a")
            space.create("a", b"2")
            events = collect(watch, 3)

        assert _short(space, events) == [
            (PUT, "a", b"1", None),
            (DELETED, "a", b"", b"1"),
            (PUT, "a", b"2", None),
        ]

    def test_watch_recursive_is_a_plain_prefix(self, backend: Backend, space: Keyspace) -> None:
        """If recursive, a watch sees every key that starts with its own (KEY-4)."""
        with space.watch("a") as watch:
            stored = self.storable(backend, ("b", "a/b", "a", "A", "ab", "b/a", "a😀"))
            for name in stored:
                space.create(name)
            expected = [name for name in stored if name[0] == "a"]
            events = collect(watch, len(expected))

        assert [event[1] for event in _short(space, events)] == expected

    def test_watch_empty_prefix(self, backend: Backend, space: Keyspace) -> None:
        """A recursive watch of "" sees the whole store."""
        with backend.watch("", recursive=True, after_revision=space.start) as watch:
            created = space.create("a")
            poll_until(watch, lambda _at, found, _m: created in {e.kv.revision for e in found})

    def test_watch_position_resumes(self, space: Keyspace) -> None:
        """A new watch from the position of another one neither misses nor repeats anything
        (WATCH-2)."""
        revisions = [space.create(f"k{number}") for number in range(6)]
        found: list[int] = []
        position = space.start
        while len(found) < 6:
            with space.watch(after=position) as watch:
                found += [event.kv.revision for event in collect(watch, 1)]
                position = watch.position

        assert found == revisions
        assert position == revisions[-1]

    def test_watch_poll_zero_does_not_wait(self, space: Keyspace) -> None:
        """``poll(0)``, and a poll whose time passes, return None, neither early nor much too late.
        The watch goes on."""
        with space.watch(progress=False) as watch:

            def work(_index: int) -> None:
                assert watch.poll(0) is None
                began = time.monotonic()
                assert watch.poll(0.1) is None
                assert time.monotonic() - began > 0.09
                space.create("a")
                collect(watch, 1)
                assert watch.poll(0) is None

            run_threads(1, work, patience=PATIENCE / 4)

    def test_watch_without_progress(self, space: Keyspace) -> None:
        """With ``progress=False`` a watch delivers no mark without a request, whatever happens to
        other keys."""
        with space.watch("a", progress=False) as watch:
            for turn in range(5):
                space.create(f"b{turn}")
                assert watch.poll(0.01) is None
            space.create("a")
            batch = watch.poll(PATIENCE)

        assert batch is not None
        assert space.names([event.kv for event in batch.events]) == ["a"]

    def test_watch_waiting_poll_is_woken_by_a_write(self, space: Keyspace) -> None:
        """A blocked poll returns because of a write, not because of its timeout (WATCH-9)."""
        with space.watch(progress=False) as watch:

            def work(index: int) -> int:
                if index:
                    return collect(watch, 1)[0].kv.revision
                let_block()
                return space.create("a")

            with promptly():
                written, seen = run_threads(2, work)

        assert written == seen

    def test_watch_idle_watches_do_not_disturb(self, space: Keyspace) -> None:
        """Watches that nobody polls slow down neither writers nor other watches, and have all
        events when they are polled (WATCH-26, WATCH-24)."""
        idle = [space.watch() for _ in range(20)]
        with space.watch() as watch:
            revisions = [space.create(f"k{number}") for number in range(30)]
            found = [event.kv.revision for event in collect(watch, 30)]
        late = [[event.kv.revision for event in collect(each, 30)] for each in idle]
        for each in idle:
            each.close()

        assert found == revisions
        assert late == [revisions] * 20

    def test_watch_far_behind(self, space: Keyspace) -> None:
        """A watch that is more writes behind than the store may remember has every event or raises
        Compacted. It never skips any silently (ERR-8, WATCH-28)."""
        early = space.watch(progress=False)

        def write(index: int) -> list[int]:
            taken = [space.create(f"{index}")]
            for turn in range(150):
                put = space.backend.put(
                    space.key(f"{index}"), b"%d" % turn, expected_revision=taken[-1]
                )
                taken.append(put.revision)
            return taken

        revisions = sorted(revision for taken in run_threads(8, write) for revision in taken)
        revisions.append(space.create("end"))
        for watch in (early, space.watch(progress=False)):
            with watch, contextlib.suppress(Compacted):
                events = poll_until(watch, lambda at, _found, _mark: at >= revisions[-1])
                assert [event.kv.revision for event in events] == revisions

    def test_watch_iteration(self, space: Keyspace) -> None:
        """Iteration yields batches and ends when the watch is closed."""
        space.create("a")
        space.create("b")
        found = []
        with space.watch(progress=False) as watch:
            for batch in watch:
                found += [event.kv.key for event in batch.events]
                if len(found) == 2:
                    watch.close()

        assert found == [space.key("a"), space.key("b")]

    # Progress

    def test_watch_progress_mark(self, backend: Backend, space: Keyspace) -> None:
        """A requested mark comes after all events and covers every acknowledged write, even to keys
        that the watch does not cover (CACHE-11, WATCH-20)."""
        self.need(backend, Capability.PROGRESS)
        for progress in (True, False):
            with space.watch("a", progress=progress, after=backend.status().revision) as watch:
                for turn in range(10):
                    inside = space.create(f"a{progress}{turn}")
                    outside = space.create(f"b{progress}{turn}")
                    watch.request_progress()
                    events = collect_to_mark(watch, outside)

                    assert [event.kv.revision for event in events] == [inside]
                    assert watch.position >= outside

    def test_watch_progress_wakes_a_waiting_poll(self, backend: Backend, space: Keyspace) -> None:
        """``request_progress`` works from any thread while another one is in ``poll``."""
        self.need(backend, Capability.PROGRESS)
        with space.watch("quiet", progress=False) as watch:

            def work(index: int) -> None:
                if index:
                    collect_to_mark(watch, space.start)
                else:
                    let_block()
                    watch.request_progress()

            with promptly():
                run_threads(2, work)

    def test_watch_progress_under_load(self, backend: Backend, space: Keyspace) -> None:
        """No mark runs ahead of events while several threads write (CACHE-14)."""
        self.need(backend, Capability.PROGRESS)
        seen: set[int] = set()
        with space.watch() as watch:

            def work(index: int) -> list[int]:
                if index:
                    return [space.create(f"{index}-{turn}") for turn in range(40)]
                for turn in range(20):
                    mine = space.create(f"mine{turn}")
                    watch.request_progress()
                    seen.update(event.kv.revision for event in collect_to_mark(watch, mine))
                    listed = {kv.revision for kv in space.list().kvs}
                    missed = {r for r in listed if r <= watch.position} - seen
                    assert not missed, f"marked {watch.position} before delivering {missed}"
                return []

            run_threads(4, work)

    def test_watch_progress_in_the_future(self, backend: Backend, space: Keyspace) -> None:
        """A watch that begins in the future gets a mark once the store is there, not before. Its
        position does not fall (WATCH-20)."""
        self.need(backend, Capability.PROGRESS)
        ahead = backend.status().revision + 3
        with space.watch(after=ahead) as watch:
            watch.request_progress()
            batch = watch.poll(0.1)
            # Others may write meanwhile.
            assert batch is None or ahead <= batch.revision <= backend.status().revision
            assert watch.position >= ahead
            written = [space.create(f"k{number}") for number in range(5)]
            watch.request_progress()
            events = collect_to_mark(watch, written[-1])

        expected = [revision for revision in written if revision > ahead]
        assert [event.kv.revision for event in events] == expected

    def test_watch_unclaimed_progress(self, backend: Backend, space: Keyspace) -> None:
        """Without PROGRESS a request for it is refused."""
        if self.claims(backend, Capability.PROGRESS):
            pytest.skip("claims progress, which other tests check")
        with space.watch() as watch, pytest.raises(Unsupported):
            watch.request_progress()

    # Ends

    def test_watch_close_ends_the_watch(self, backend: Backend, space: Keyspace) -> None:
        """After close a poll raises Closed, whether events are pending or not; other watches go on
        (WATCH-24, WATCH-25)."""
        watch, other = space.watch(), space.watch()
        space.create("a")
        watch.close()
        watch.close()
        for timeout in (0, None, 1):
            with pytest.raises(Closed):
                watch.poll(timeout)
        assert list(watch) == []
        collect(other, 1)
        other.close()
        assert backend.get(space.key("a")).kv is not None

    def test_watch_close_wakes_a_poll(self, space: Keyspace) -> None:
        """A blocked poll raises Closed when another thread closes the watch (WATCH-25)."""
        watch = space.watch("quiet", progress=False)
        _closed_while_polling(watch.close, watch)

    def test_watch_backend_close_wakes_polls(self, backend: Backend, space: Keyspace) -> None:
        """Closing the backend ends all its watches, even those whose poll is blocked."""
        watches = [space.watch("quiet", progress=False) for _ in range(3)]
        _closed_while_polling(backend.close, *watches)
        for watch in watches:
            with pytest.raises(Closed):
                watch.poll(0)
            watch.close()


def _closed_while_polling(close: Callable[[], None], *watches: BackendWatch) -> None:
    """Poll in one thread for each watch, close from another thread, and expect ``Closed``
    everywhere."""

    def work(index: int) -> None:
        if index == len(watches):
            let_block()
            close()
            return
        with pytest.raises(Closed):
            watches[index].poll(PATIENCE)

    with promptly():
        run_threads(len(watches) + 1, work)
