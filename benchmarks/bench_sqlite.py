"""The sqlite backend against bare ``sqlite3``, SQLAlchemy Core and the codec alone."""

from __future__ import annotations

import itertools
import sqlite3
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Self

from sqlalchemy import bindparam, column, create_engine, select, table

from benchmarks._figures import Figure
from benchmarks._measure import in_threads, in_turns, seconds
from benchmarks._pods import RESOURCE, Pod, key_of, pod
from revstore import StorageConfig
from revstore.backend import Backend
from revstore.codec import json_codec
from revstore.plugins import open_backend
from revstore.resource_type import ResourceType
from revstore.typed import TypedStorage

__all__ = ["figures"]

VALUE = b"x" * 1000
THREADS = 16
CREATES = 1_500
MANY = 12_000
OBJECTS = 100_000


def open_store(path: Path) -> Backend:
    """The backend, as users open it."""
    return open_backend(StorageConfig.from_url(f"sqlite:///{path}"))


def figures() -> Iterator[Figure]:
    """All figures of this part."""
    # Beside the checkout, not in a temporary folder that may be memory: durability must cost.
    with tempfile.TemporaryDirectory(prefix="bench-", dir=".") as name:
        folder = Path(name)
        yield from _creates(folder)
        yield from _get(folder)
        yield from _list(folder)
        yield from _history(folder)
        yield from _watch(folder)


def _creates(folder: Path) -> Iterator[Figure]:
    numbers = itertools.count()
    with open_store(folder / "creates.db") as backend, _Bare(folder / "bare.db") as bare:

        def create(count: int) -> None:
            for _ in range(count):
                result = backend.put(_key(next(numbers)), VALUE, expected_revision=0)
                assert result.succeeded

        def one_thread() -> float:
            return CREATES / seconds(lambda: create(CREATES))

        def bare_one_thread() -> float:
            return CREATES / seconds(lambda: bare.create(CREATES))

        def many_threads() -> float:
            return MANY / seconds(lambda: in_threads(THREADS, lambda _: create(MANY // THREADS)))

        one, bound, many = in_turns(5, one_thread, bare_one_thread, many_threads)
    yield Figure(
        name="create, 1 thread",
        value=1e6 / one,
        unit="us",
        bound=1e6 / bound,
        bound_name="bare sqlite3, the same two tables and durability",
        relation="<=",
        target=2.5,
    )
    yield Figure(
        name="create, 16 threads",
        value=many,
        unit="/s",
        bound=one,
        bound_name="1 thread at the same durability",
        relation=">=",
        target=3,
    )


def _key(number: int) -> str:
    return f"/registry/pods/default/pod-{number:08d}"


class _Bare:
    """The least that can be done for a create: two tables, one durable commit."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._revision = 1
        for statement in (
            "PRAGMA journal_mode = WAL",
            "PRAGMA synchronous = FULL",
            "CREATE TABLE state (key TEXT PRIMARY KEY, revision INTEGER NOT NULL) WITHOUT ROWID",
            "CREATE TABLE log (revision INTEGER PRIMARY KEY, key TEXT NOT NULL, value BLOB)",
            "CREATE INDEX log_key ON log (key)",
        ):
            self._connection.execute(statement)

    def create(self, count: int) -> None:
        execute = self._connection.execute
        for _ in range(count):
            self._revision += 1
            key = _key(self._revision)
            execute("BEGIN IMMEDIATE")
            assert execute("SELECT revision FROM state WHERE key = ?", (key,)).fetchone() is None
            execute("INSERT INTO log VALUES (?, ?, ?)", (self._revision, key, VALUE))
            execute("INSERT INTO state VALUES (?, ?)", (key, self._revision))
            execute("COMMIT")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()


def _get(folder: Path) -> Iterator[Figure]:
    path, count = folder / "creates.db", 5_000
    state = table("state", column("key"), column("revision"))
    log = table("log", column("revision"), column("value"))
    statement = (
        select(state.c.revision, log.c.value)
        .select_from(state.join(log, log.c.revision == state.c.revision))
        .where(state.c.key == bindparam("key"))
    )
    engine = create_engine(f"sqlite:///{path}")
    with open_store(path) as backend, engine.connect() as connection:

        def ours() -> float:
            return seconds(lambda: [backend.get(_key(number)) for number in range(count)])

        def core() -> float:
            def read() -> None:
                for number in range(count):
                    connection.execute(statement, {"key": _key(number)}).one()

            return seconds(read)

        value, bound = in_turns(7, ours, core)
    engine.dispose()
    yield Figure(
        name="get",
        value=value / count * 1e6,
        unit="us",
        bound=bound / count * 1e6,
        bound_name="a cached SQLAlchemy Core statement on a held connection",
        relation="<=",
        target=1.3,
    )


def _list(folder: Path) -> Iterator[Figure]:
    codec = json_codec(Pod)
    with open_store(folder / "list.db") as backend:
        storage = TypedStorage(backend, ResourceType(Pod, RESOURCE))

        def fill(index: int) -> None:
            for number in range(index, OBJECTS, THREADS):
                obj = pod(number)
                storage.create(key_of(obj), obj)

        in_threads(THREADS, fill)
        values = [kv.value for kv in backend.list("/registry/pods/").kvs]
        size = sum(map(len, values)) // len(values)

        def ours() -> float:
            return seconds(lambda: storage.list(RESOURCE))

        def codec_alone() -> float:
            return seconds(lambda: [codec.decode(value) for value in values])

        value, bound = in_turns(5, ours, codec_alone)
    label = f"list of {OBJECTS:,} x {size} B"
    yield Figure(
        name=f"{label}, rate",
        value=OBJECTS / value,
        unit="/s",
        bound=OBJECTS / bound,
        bound_name="the codec alone",
        relation=">=",
        target=0.5,
    )
    yield Figure(
        name=f"{label}, time",
        value=value,
        unit="s",
        relation="<=",
        target=2.0,
        absolute=True,
    )


def _history(folder: Path) -> Iterator[Figure]:
    count, rewrites = 5_000, 20
    with open_store(folder / "short.db") as short, open_store(folder / "long.db") as long:
        for backend, rounds in ((short, 1), (long, rewrites + 1)):

            def write(index: int, backend: Backend = backend, rounds: int = rounds) -> None:
                for number in range(index, count, THREADS):
                    revision = 0
                    for _ in range(rounds):
                        result = backend.put(_key(number), VALUE, expected_revision=revision)
                        assert result.succeeded
                        revision = result.revision

            in_threads(THREADS, write)

        def list_short() -> float:
            return seconds(lambda: short.list("/"))

        def list_long() -> float:
            return seconds(lambda: long.list("/"))

        value, bound = in_turns(9, list_long, list_short)
    yield Figure(
        name=f"list of {count:,}, {rewrites} old revisions each",
        value=value * 1e3,
        unit="ms",
        bound=bound * 1e3,
        bound_name="the same list without old revisions",
        relation="<=",
        # Not 1: the live values lie further apart. A list that scanned the log would be at 21.
        target=1.5,
    )


def _watch(folder: Path) -> Iterator[Figure]:
    events = 400
    with open_store(folder / "watch.db") as backend:
        storage = TypedStorage(backend, ResourceType(Pod, RESOURCE))
        received: dict[str, float] = {}
        arrived = threading.Event()

        def follow() -> None:
            with closing(storage.watch(RESOURCE, resource_version="1")) as watch:
                for event in watch:
                    received[event.resource_version] = time.perf_counter()
                    arrived.set()
                    if len(received) == events:
                        return

        reader = threading.Thread(target=follow)
        reader.start()
        waits = []
        for number in range(events):
            obj = pod(number)
            arrived.clear()
            start = time.perf_counter()
            stored = storage.create(key_of(obj), obj)
            assert arrived.wait(10)
            waits.append(received[stored.metadata.resource_version] - start)
        reader.join(10)
    yield Figure(
        name="create to event, same process, median",
        value=statistics.median(waits) * 1e3,
        unit="ms",
        relation="<=",
        target=2.0,
        absolute=True,
    )
