"""Watches: the shared tail in memory, and falling back from it to the file."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from revstore.errors import Closed, Compacted
from revstore.testing._support import collect, collect_to_mark, run_threads, wait_until
from revstore.values import WatchBatch
from revstore_sqlite._backend import SQLiteBackend
from revstore_sqlite._reader import _range_end as range_end

Open = Callable[..., SQLiteBackend]


def fill(backend: SQLiteBackend, count: int, prefix: str = "/") -> list[int]:
    """Create keys from several threads; their revisions."""

    def work(index: int) -> list[int]:
        return [
            backend.put(f"{prefix}{index}/{number}", b"v", expected_revision=0).revision
            for number in range(count // 8)
        ]

    return sorted(sum(run_threads(8, work), start=[]))  # noqa: RUF017 - eight short lists


def test_a_watch_that_falls_off_the_tail_loses_nothing(open_store: Open) -> None:
    """WATCH-2, WATCH-15, WATCH-26: a watch that does not poll while more is written than the tail
    holds gets all of it from the file, in order; one that polls is not held up meanwhile."""
    backend = open_store(synchronous="NORMAL")
    with (
        backend.watch("/", recursive=True, after_revision=1) as slow,
        backend.watch("/", recursive=True, after_revision=1) as quick,
    ):
        assert slow.poll(0) is None
        seen: list[int] = []
        reader = threading.Thread(target=lambda: seen.extend(revisions(quick, 9600)))
        reader.start()
        fill(backend, 9600)
        reader.join(60)

        assert seen == list(range(2, 9602))
        assert revisions(slow, 9600) == seen


def revisions(watch, count: int) -> list[int]:
    return [event.kv.revision for event in collect(watch, count)]


def test_another_process_far_ahead(open_store: Open) -> None:
    """WATCH-2: when another process has written more than the tail can hold before it was
    looked at, everything comes from the file, and a mark only after it."""
    ours = open_store(poll_interval=10, synchronous="NORMAL")
    other = open_store(synchronous="NORMAL")
    with ours.watch("/", recursive=True, after_revision=1) as watch:
        assert watch.poll(0) is None
        fill(other, 9600)
        watch.request_progress()
        events = collect_to_mark(watch, 9601)
    assert [event.kv.revision for event in events] == list(range(2, 9602))


def test_writes_of_two_backends_interleave(open_store: Open) -> None:
    """WATCH-15: own writes, known at once, wait for those of others that came before them."""
    backends = [open_store(), open_store()]
    with (
        backends[0].watch("/", recursive=True, after_revision=1) as first,
        backends[1].watch("/", recursive=True, after_revision=1) as second,
    ):

        def work(index: int) -> None:
            for number in range(100):
                backends[index % 2].put(f"/{index}/{number}", b"", expected_revision=0)

        run_threads(8, work)
        assert revisions(first, 800) == revisions(second, 800) == list(range(2, 802))


def test_many_watches_each_get_their_own(open_store: Open) -> None:
    """WATCH-9: watches of single keys and of prefixes get their events and no others, although
    all read from one tail, and the quiet ones cost and miss nothing."""
    backend = open_store(synchronous="NORMAL")
    single = [backend.watch(f"/{n}", recursive=False, after_revision=1) for n in range(100)]
    quiet = backend.watch("/x", recursive=True, after_revision=1)
    for watch in [*single, quiet]:
        assert watch.poll(0) is None
    for round_ in range(3):
        for number in range(100):
            previous = backend.get(f"/{number}").kv
            backend.put(
                f"/{number}",
                str(round_).encode(),
                expected_revision=previous.revision if previous else 0,
            )
    fill(backend, 4000, "/y/")
    last = backend.put("/x", b"", expected_revision=0).revision
    for number, watch in enumerate(single):
        events = collect(watch, 3)
        assert [event.kv.key for event in events] == [f"/{number}"] * 3
        assert [event.kv.value for event in events] == [b"0", b"1", b"2"]
    assert revisions(quiet, 1) == [last]


def test_large_values_come_in_pages(open_store: Open) -> None:
    """WATCH-2, WATCH-11: history that does not fit into one page is complete all the same."""
    backend = open_store(synchronous="NORMAL")
    revision = 0
    for number in range(24):
        value = bytes([number]) * 1_000_000
        revision = backend.put("/a", value, expected_revision=revision).revision
    with backend.watch("", recursive=True, after_revision=1) as watch:
        events = collect(watch, 24)
    assert [event.kv.value[0] for event in events] == list(range(24))
    assert [event.previous and event.previous.value[0] for event in events] == [None, *range(23)]


def test_compaction_by_another_process(open_store: Open) -> None:
    """WATCH-8, CMP-6: a watch whose undelivered events another process compacted away raises
    Compacted; one that had nothing more to come goes on."""
    ours, other = open_store(poll_interval=10), open_store()
    done = ours.watch("/", recursive=True, after_revision=1)
    for number in range(5):
        other.put(f"/{number}", b"", expected_revision=0)
    done.request_progress()
    assert len(collect_to_mark(done, 6)) == 5
    behind = ours.watch("/", recursive=True, after_revision=3)
    other.compact(6)
    with pytest.raises(Compacted) as caught:
        behind.poll(20)
    assert caught.value.compacted == 6
    ours.put("/new", b"", expected_revision=0)
    assert revisions(done, 1) == [7]


def test_close_ends_all_threads(open_store: Open) -> None:
    """close() wakes every poll with Closed and leaves no thread behind."""
    before = threading.active_count()
    backend = open_store(poll_interval=10)
    watches = [backend.watch("/", recursive=True, after_revision=1) for _ in range(4)]
    ready = threading.Semaphore(0)

    def work(index: int) -> None:
        if index == 4:
            for _ in watches:
                ready.acquire(timeout=20)
            backend.close()
            return
        assert watches[index].poll(0) is None
        ready.release()
        with pytest.raises(Closed):
            watches[index].poll(60)

    run_threads(5, work)
    wait_until(lambda: threading.active_count() <= before, "the threads end")


@pytest.mark.parametrize(
    ("prefix", "end"),
    [
        ("", b""),
        ("/a", "/b"),
        ("/a\ud7ff", "/a\ue000"),
        ("/a\U0010ffff", "/b"),
        ("\U0010ffff\U0010ffff", b""),
        ("é", "ê"),
    ],
)
def test_range_end(prefix: str, end: str | bytes) -> None:
    """BASE-6: the bound above a prefix, also where a last character has no successor."""
    assert range_end(prefix) == end


def test_prefixes_at_the_end_of_unicode(open_store: Open) -> None:
    """BASE-6: prefixes that end with the last code points list what they should."""
    backend = open_store()
    keys = ["/a\ud7ff", "/a\ud7ffz", "/a\ue000", "/a\U0010ffff", "/a\U0010ffff\U0010ffff", "/b"]
    for key in [*keys, "\U0010ffff!"]:
        backend.put(key, b"", expected_revision=0)

    def listed(prefix: str) -> list[str]:
        return [kv.key for kv in backend.list(prefix).kvs]

    assert listed("/a\ud7ff") == keys[:2]
    assert listed("/a\U0010ffff") == keys[3:5]
    assert listed("\U0010ffff") == ["\U0010ffff!"]
    assert backend.count("", revision=5).count == 4


def test_no_room_for_a_thread(open_store: Open, watch_without_threads) -> None:
    """WATCH-7: told by who asks for the watch; with room again there are watches again."""
    watch_without_threads(open_store())


def test_a_mark_waits_for_the_store(open_store: Open) -> None:
    """WATCH-6, WATCH-20: a mark that was asked of a watch from the future comes when the store is
    there, not before, and wakes the poll."""
    backend = open_store()
    with backend.watch("/quiet", recursive=True, after_revision=3, progress=False) as watch:
        watch.request_progress()
        assert watch.poll(0) is None
        marks: list[object] = []
        polling = threading.Thread(target=lambda: marks.append(watch.poll(20)))
        polling.start()
        for number in range(2):
            backend.put(f"/{number}", b"", expected_revision=0)
        polling.join(20)

    assert marks == [WatchBatch(3)]
