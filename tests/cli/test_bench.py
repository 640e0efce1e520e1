"""``doctor --bench``: what it says of a store, and that it leaves nothing in it."""

from __future__ import annotations

import json
import re
import signal
import time

import pytest

from revstore.cli import _bench
from revstore.cli._bench import Bench, Row
from revstore.errors import Timeout
from revstore.factory import StorageFactory
from revstore.memory import MemoryBackend
from revstore.testing.interrupts import interrupt_by_signal, interrupt_every_line

OWN = "/registry/revstore.bench/"
WRITES = {"put", "write to event"}
ROWS = {"round trip", "encode", "decode", *WRITES, "get", "list page"}
ROWS |= {"cache ready", "cached get", "cached list"}


def test_a_store_on_disk(revstore, pod):
    """Each row has times, the sample is one of the store's objects, and writes have a limit."""
    revstore.apply(pod("a"), pod("b"))
    report = json.loads("\n".join(revstore.out("doctor", "--bench", "-o", "json")))

    rows = {row["name"]: row for row in report["bench"]}
    assert rows.keys() == ROWS | {"disk sync"}
    assert all(0 < row["median"] <= row["slow"] < 5 for row in rows.values())
    assert rows["decode"]["about"].startswith("one of pods, ")
    assert rows["cache ready"]["about"] == "pods, 2 objects"
    assert re.fullmatch(r"Writes are limited by .*: [\d.]+ of [\d.]+ ms\.", report["summary"])
    assert report["store"]["server"].startswith("sqlite ")
    assert revstore.doctor()["objects"] == {"pods": 2}


def test_a_table_and_a_sentence(revstore):
    lines = revstore.out("doctor", "--bench")
    assert lines[0] == "STORE"
    assert [line.split()[0] for line in lines if line.startswith(("BENCH", "put"))] == [
        "BENCH",
        "put",
    ]
    assert lines[-1].startswith("Writes are limited by ")


def test_what_cannot_be_reached(revstore):
    """As without ``--bench``: the store's line says so, and the exit code is 3."""
    done = revstore("doctor", "--bench", "--store", "etcd3://localhost:1/", code=3)
    assert "error" in done.stdout


def test_what_cannot_be_written(revstore, pod):
    """Reads are measured, and writes are not tried again and again."""
    revstore.apply(pod("a"))
    with StorageFactory(revstore.env["REVSTORE_URL"]) as factory:
        bench = Bench(_refusing(factory))
        bench.run()

    assert [row.name for row in bench.rows if row.note] == ["put"]
    assert {row.name for row in bench.rows if row.seconds} == ROWS - WRITES
    assert bench.summary.startswith("Reads are limited by ")


def _refusing(factory):
    """``factory``, whose store refuses writes, as one on a read-only file system does."""
    from revstore.errors import ReadOnly

    def put(*_, **__):
        raise ReadOnly("the file is read-only")

    factory.backend().put = put
    return factory


def medians(**seconds: float) -> list[Row]:
    return [Row(name.replace("_", " "), seconds=(each,)) for name, each in seconds.items()]


@pytest.mark.parametrize(
    ("url", "rows", "sentence"),
    [
        (
            "memory://",
            medians(round_trip=0.001, encode=0.0001, decode=0.0001, put=0.0019, disk_sync=0.0018),
            "Writes are limited by disk sync: 1.8 of 2.1 ms.",
        ),
        (
            "memory://",
            medians(round_trip=0.001, encode=0.003, decode=0.001, put=0.002, disk_sync=0.001),
            "Writes are limited by the codec: 4.0 of 6.0 ms.",
        ),
        (
            "memory://",
            medians(encode=0, decode=0, put=0.002, disk_sync=0.5),
            "Writes are limited by disk sync: 2.0 of 2.0 ms.",
        ),
        (
            "memory://",
            medians(encode=0.0001, decode=0.0001, get=0.0002),
            "Reads are limited by the store itself: 0.200 of 0.300 ms.",
        ),
        ("memory://", [], "Neither writes nor reads could be measured."),
    ],
)
def test_the_sentence(url, rows, sentence):
    with StorageFactory(url) as factory:
        bench = Bench(factory)
        bench.rows = rows
        assert bench.summary == sentence


def keys(factory) -> list[str]:
    return [kv.key for kv in factory.backend().list(OWN, keys_only=True).kvs]


def test_an_interrupt_at_any_line_leaves_nothing():
    with StorageFactory("memory://") as factory:
        factory.backend()

        def check(spot):
            assert (spot, keys(factory)) == (spot, [])
            for _, storage in factory.open_storages():
                storage.close()

        count = interrupt_every_line(
            lambda: Bench(factory, times=2).run(),
            where=lambda code: code.co_filename == _bench.__file__,
            after=check,
            error=KeyboardInterrupt,
        )
    assert count > 100


# A file of Python's own that was just being opened has nobody who could close it.
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.slow
def test_a_signal_at_any_moment_leaves_nothing(tmp_path):
    with StorageFactory(f"sqlite:///{tmp_path}/x.db") as factory:
        factory.backend()
        hits = interrupt_by_signal(
            lambda: Bench(factory, times=5).run(),
            rounds=100,
            seed=15,
            longest=0.05,
            after=lambda: _is_empty(factory),
        )
    assert hits > 20


def _is_empty(factory):
    assert keys(factory) == []


def test_what_a_killed_run_left_is_removed_by_the_next(revstore):
    """And nothing else: a group may have that name."""
    url = revstore.env["REVSTORE_URL"]
    with StorageFactory(url) as factory:
        backend = factory.backend()
        backend.put(f"{OWN}widgets/a", b"{}", expected_revision=0)
        start = backend.status().revision
        with backend.watch(OWN, recursive=True, after_revision=start) as watch:
            run = revstore.start("doctor", "--bench")
            assert watch.poll(20)
            run.interrupt(signal.SIGKILL)
        assert len(keys(factory)) > 1
        assert factory.stored_resources() == (f"{OWN.removeprefix('/registry')}widgets",)

        revstore.out("doctor", "--bench")

        assert keys(factory) == [f"{OWN}widgets/a"]


def test_nobody_sees_its_objects():
    """While it runs, no resource has them."""
    seen = []

    class Looking(MemoryBackend):
        def put(self, *args, **options):
            result = super().put(*args, **options)
            seen.append(factory.stored_resources())
            return result

    with StorageFactory("memory://") as factory:
        factory.backend().__class__ = Looking
        Bench(factory, times=3).run()
    assert set(seen) == {()}


def test_a_store_that_hangs_ends_it(monkeypatch):
    """One deadline ends it all, however many rows are left."""
    monkeypatch.setattr(_bench, "_ALL", 0.2)
    with StorageFactory("memory://") as factory:
        backend = factory.backend()

        def get(key, *, timeout=None, **_):
            time.sleep(0.05)
            return MemoryBackend.get(backend, key, timeout=timeout)

        backend.get = get
        start = time.monotonic()
        with pytest.raises(Timeout):
            Bench(factory).run()
    assert time.monotonic() - start < 5
