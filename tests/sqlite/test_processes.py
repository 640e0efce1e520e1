"""Several processes on one file."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from revstore_sqlite._backend import SQLiteBackend

pytestmark = pytest.mark.slow

Start = Callable[..., subprocess.Popen[str]]
Open = Callable[..., SQLiteBackend]

THREADS, ROUNDS = 16, 20


def test_two_processes_of_16_threads_see_every_event_once_in_order(
    start: Start, open_store: Open
) -> None:
    """BASE-1, WATCH-2, WATCH-11, WATCH-15: watchers in both processes get each of all writes
    once, in revision order without a gap, with the value that it replaced."""
    open_store()
    total = 2 * THREADS * (ROUNDS + 1)
    processes = [start("hammer", name, THREADS, ROUNDS, total) for name in "ab"]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    outputs = release(processes)

    assert outputs[0] == outputs[1]
    rows = [line.split("\t") for line in outputs[0].splitlines()]
    assert [int(row[0]) for row in rows] == list(range(2, total + 2))
    values: dict[str, str] = {}
    for _, kind, key, value, previous in rows:
        assert previous == values.pop(key, "-")
        if kind == "PUT":
            values[key] = value
    assert values == {}


def test_two_processes_count_without_losing_one(start: Start, open_store: Open) -> None:
    """BASE-1: increments by compare-and-put from two processes are all there, and nothing is
    raised on the way, least of all "database is locked"."""
    backend = open_store()
    backend.put("/counter", b"0", expected_revision=0)
    processes = [start("count", 4, 100) for _ in range(2)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    release(processes)

    kv = backend.get("/counter").kv
    assert kv is not None
    assert kv.value == b"800"
    assert kv.version == 801
    assert backend.status().revision == 802


def test_typed_watchers_in_two_processes_see_every_event(start: Start, open_store: Open) -> None:
    """WATCH-2, WATCH-10, WATCH-11, WATCH-15: through typed storage too, feeds in both processes
    tell each of 2 x 16 threads' changes once, in revision order, with the previous object."""
    open_store()
    total = 2 * THREADS * (ROUNDS + 1)
    processes = [start("typed_hammer", name, THREADS, ROUNDS, total) for name in "ab"]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    outputs = release(processes)

    assert outputs[0] == outputs[1]
    rows = [line.split("\t") for line in outputs[0].splitlines()]
    assert [int(row[0]) for row in rows] == list(range(2, total + 2))
    values: dict[str, str] = {}
    for _, kind, key, value, previous in rows:
        assert kind == ("ADDED" if key not in values else kind)
        assert previous == values.pop(key, "-")
        if kind == "DELETED":
            assert value == previous
        else:
            values[key] = value
    assert values == {}


def test_two_processes_update_one_counter(start: Start, open_store: Open) -> None:
    """GU-9: guaranteed_update from two processes loses no increment and surfaces no conflict, no
    lock, no driver error."""
    backend = open_store()
    key = "/registry/pods/a/counter"
    backend.put(key, b'{"count":0,"metadata":{"name":"counter"}}', expected_revision=0)
    processes = [start("typed_count", 4, 100) for _ in range(2)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    release(processes)

    kv = backend.get(key).kv
    assert kv is not None
    assert kv.value == b'{"count":800,"metadata":{"name":"counter"}}'
    assert kv.revision == 802


def test_many_open_a_new_file_at_once(start: Start, open_store: Open) -> None:
    """The switch to WAL and the making of the schema are waited for like writes: of processes
    that open a file which is not there yet, none fails, and all see one store."""
    processes = [start("attempt") for _ in range(6)]
    outputs = [process.communicate(timeout=60) for process in processes]

    assert [(out.split("\n")[0], err) for out, err in outputs] == [("open\tok", "")] * 6
    assert open_store().count("").count == 1


def test_a_mark_covers_the_writes_of_another_backend(open_store: Open) -> None:
    """WATCH-20, CACHE-11: request_progress looks at the file at once, so that the mark covers a
    write that another process has just seen, long before the next poll."""
    ours, other = open_store(poll_interval=10), open_store()
    with ours.watch("/", recursive=True, after_revision=1) as watch:
        for number in range(20):
            revision = other.put(f"/{number}", b"", expected_revision=0).revision
            watch.request_progress()
            event, mark = watch.poll(5), watch.poll(5)

            assert event is not None
            assert event.revision == revision
            assert mark is not None
            assert (mark.revision, mark.events) == (revision, ())


def release(processes: list[subprocess.Popen[str]]) -> list[str]:
    """Let the processes go on together; their output, once they have ended without an error."""
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    outputs = []
    for process in processes:
        out, err = process.communicate(timeout=90)
        assert (process.returncode, err) == (0, "")
        outputs.append(out)
    return outputs
