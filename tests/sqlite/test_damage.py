"""Files that were damaged or made to harm: what is wrong with a key is a result of that key, what
is wrong with the store is said when it is opened, and nothing hangs."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest

from revstore.errors import (
    BackendError,
    CorruptObject,
    CorruptObjects,
    CorruptStore,
    FutureRevision,
    IncompatibleStore,
    InvalidArgument,
    StorageError,
    Timeout,
)
from revstore.factory import open_storage
from revstore.testing._support import wait_until
from revstore.values import KeyValue, WatchEventType
from revstore_sqlite._backend import SQLiteBackend

Open = Callable[..., SQLiteBackend]

MARK = b"<the-value-of-b>"


def change(path: str, *statements: str) -> None:
    """Change the file as another program may, in spite of its rules."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA ignore_check_constraints=ON")
        for statement in statements:
            connection.execute(statement)


def fill(backend: SQLiteBackend) -> None:
    for key in "abc":
        value = MARK if key == "b" else b"fine"
        assert backend.put(f"/{key}", value, expected_revision=0).succeeded


def flip(path: str, offset: int, bit: int) -> None:
    content = bytearray(Path(path).read_bytes())
    content[offset] ^= 1 << bit
    Path(path).write_bytes(content)


def test_every_flipped_bit_of_a_value_is_found(open_store: Open, path: str) -> None:
    """A value with a flipped bit is marked as damaged, by get, list, count, history, watch and a
    lost compare; the keys beside it are as they were."""
    with open_store() as backend:
        fill(backend)
    start = Path(path).read_bytes().index(MARK)
    for offset in range(start, start + len(MARK)):
        for bit in range(8):
            flip(path, offset, bit)
            with open_store() as backend:
                found = backend.get("/b").kv
                assert found is not None
                assert found.damaged
            flip(path, offset, bit)
    flip(path, start, 0)
    with open_store() as backend:
        check_damage_of_b(backend)


def check_damage_of_b(backend: SQLiteBackend) -> None:
    """Every read says that /b is damaged, and that /a and /c are not."""
    states = [
        backend.list("/").kvs,
        backend.list("/", revision=4).kvs,
        tuple(
            kv for key in "abc" for kv in [backend.get(f"/{key}", revision=4).kv] if kv is not None
        ),
    ]
    for state in states:
        assert [(kv.key, kv.damaged) for kv in state] == [
            ("/a", False),
            ("/b", True),
            ("/c", False),
        ]
    assert backend.count("/").count == 3
    assert len(backend.list("/", keys_only=True).kvs) == 3
    lost = backend.put("/b", b"", expected_revision=0)
    assert lost.current is not None
    assert lost.current.damaged
    with backend.watch("/", recursive=True, after_revision=1) as watch:
        events = [event for batch in iter(lambda: watch.poll(0), None) for event in batch.events]
        assert [event.kv.damaged for event in events] == [False, True, False]
        gone = backend.delete("/b", expected_revision=lost.current.revision)
        assert gone.succeeded
        assert gone.kv is not None
        assert gone.kv.damaged
        batch = watch.poll(20)
        assert batch is not None
        (event,) = batch.events
        assert event.type is WatchEventType.DELETED
        assert event.previous is not None
        assert event.previous.damaged
    assert backend.get("/b").kv is None


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE log SET value = NULL WHERE key = '/b'",
        "UPDATE log SET value = 'text' WHERE key = '/b'",
        "UPDATE log SET value = 7 WHERE key = '/b'",
        "UPDATE log SET value = 7.5 WHERE key = '/b'",
        "UPDATE log SET checksum = checksum + 1 WHERE key = '/b'",
        "UPDATE log SET checksum = 'text' WHERE key = '/b'",
        "UPDATE log SET checksum = x'00' WHERE key = '/b'",
        "UPDATE log SET checksum = 9223372036854775807 WHERE key = '/b'",
    ],
)
def test_a_value_of_a_wrong_kind(open_store: Open, path: str, statement: str) -> None:
    """A value or checksum of another type, or none at all, is damage of that key alone."""
    with open_store() as backend:
        fill(backend)
    change(path, statement)
    check_damage_of_b(open_store())


@pytest.mark.parametrize("column", ["entry", "create_revision", "version", "lease"])
@pytest.mark.parametrize(
    "wrong", ["'text'", "x'00ff'", "1.5", "-1", "9223372036854775807", "1e300"]
)
def test_numbers_of_a_key_that_are_none(
    open_store: Open, path: str, column: str, wrong: str
) -> None:
    """A number of another type, negative or out of range is damage of that key: what comes back
    is a KeyValue with integers, never an error of the driver; the neighbours are as they were."""
    with open_store() as backend:
        fill(backend)
        was = backend.get("/b").kv
    change(path, f"UPDATE state SET {column} = {wrong} WHERE key = '/b'")
    backend = open_store()
    found = backend.list("/").kvs
    assert [kv.damaged for kv in found] == [False, found[1] != was, False]
    kv = backend.get("/b").kv
    assert kv == found[1]
    for number in (kv.revision, kv.create_revision, kv.version, kv.lease):
        assert type(number) is int
    for call in (
        lambda: backend.put("/b", b"", expected_revision=kv.revision),
        lambda: backend.put("/b", b"", expected_revision=0, ttl=None),
        lambda: backend.delete("/b", expected_revision=3),
    ):
        with suppress(StorageError):
            call()
    assert backend.put("/c", b"new", expected_revision=4).succeeded


def test_a_pointer_to_nothing(open_store: Open, path: str) -> None:
    """A key whose write is not in the log, and an event whose predecessor is not, are damaged,
    not absent and not without a value."""
    with open_store() as backend:
        fill(backend)
        backend.put("/b", b"second", expected_revision=3)
        backend.put("/b", b"third", expected_revision=5)
    change(path, "DELETE FROM log WHERE id >> 20 IN (5, 6)", "UPDATE log SET previous = 99 << 20")
    backend = open_store()
    assert backend.get("/b").kv == KeyValue("/b", b"", 6, 3, 3, 0, damaged=True)
    assert [kv.damaged for kv in backend.list("/").kvs] == [False, True, False]
    with backend.watch("/c", recursive=False, after_revision=1) as watch:
        batch = watch.poll(20)
        assert batch is not None
        assert batch.events[0].previous == KeyValue("/c", b"", 99, damaged=True)
    assert backend.delete("/b", expected_revision=6).succeeded


@pytest.mark.parametrize("cached", [False, True])
def test_typed_storage_names_the_damaged_object(path: str, cached: bool) -> None:
    """Storage raises CorruptObject for the damaged key, lists go on around it, the cache too, and
    an unsafe deletion removes it."""
    url = f"sqlite:///{path}?poll_interval=10ms"
    with open_storage(url, dict, resource="pods") as storage:
        for name in "abc":
            storage.create(f"/pods/{name}", {"metadata": {"name": name}, "data": "as-written"})
    change(path, "UPDATE log SET value = replace(value, 'as-w', 'as-W') WHERE key LIKE '%/b'")
    change(path, "UPDATE log SET value = CAST(value AS BLOB)")

    with open_storage(url, dict, resource="pods", cached=cached) as storage:
        with pytest.raises(CorruptObject, match="checksum"):
            storage.get("/pods/b")
        assert storage.get("/pods/a")["data"] == "as-written"
        with pytest.raises((CorruptObject, CorruptObjects)) as caught:
            storage.list("/pods")
        assert "/pods/b" in str(caught.value)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER t AFTER INSERT ON log BEGIN DELETE FROM state; END",
        "CREATE TRIGGER t BEFORE UPDATE ON meta BEGIN SELECT 1; END",
        "CREATE VIEW v AS SELECT 1",
        "CREATE UNIQUE INDEX i ON log (key, version)",
        "CREATE INDEX i ON state (abs(version))",
        "ALTER TABLE log ADD COLUMN more",
        "DROP INDEX log_key; CREATE INDEX log_key ON log (value)",
        (
            "DROP TABLE meta; CREATE VIEW meta AS WITH RECURSIVE r(id) AS"
            " (SELECT 1 UNION ALL SELECT id + 1 FROM r) SELECT id, 'x' AS store_id,"
            " count(*) AS revision, 0 AS compacted, 0 AS swept FROM r"
        ),
    ],
)
def test_what_others_put_into_the_schema(open_store: Open, path: str, statement: str) -> None:
    """A store with a trigger, a view or an index of others, or with a changed table, is refused
    when it is opened, by name, and at once: none of it is run."""
    with open_store() as backend:
        fill(backend)
    change(path, *statement.split("; ") if "TRIGGER" not in statement else [statement])
    began = time.monotonic()
    with pytest.raises(IncompatibleStore, match=r"store\.db"):
        open_store()
    assert time.monotonic() - began < 10


def test_tables_of_others_do_no_harm(open_store: Open, path: str) -> None:
    """Tables of others, and what ANALYZE leaves, are no reason to refuse a store."""
    with open_store() as backend:
        fill(backend)
    change(path, "CREATE TABLE notes (x)", "CREATE INDEX notes_x ON notes (x)", "ANALYZE")
    assert open_store().count("/").count == 3


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE meta SET revision = 'text'",
        "UPDATE meta SET revision = 9223372036854775807",
        "UPDATE meta SET revision = -1",
        "UPDATE meta SET revision = 1.5",
        "UPDATE meta SET compacted = 99",
        "UPDATE meta SET swept = x'00'",
        "UPDATE meta SET store_id = x'00'",
        "DELETE FROM meta",
    ],
)
def test_counters_that_cannot_be(open_store: Open, path: str, statement: str) -> None:
    """CorruptStore, of opening and of every call of a store that is open."""
    backend = open_store()
    fill(backend)
    change(path, statement)
    with pytest.raises(CorruptStore, match="counters"):
        backend.status()
    with pytest.raises(CorruptStore):
        backend.put("/d", b"", expected_revision=0)
    with pytest.raises(CorruptStore):
        backend.list("/")
    with pytest.raises(CorruptStore):
        open_store()


def test_a_revision_that_is_there_already(open_store: Open, path: str) -> None:
    """Counters that were turned back are CorruptStore when they would overwrite history."""
    backend = open_store()
    fill(backend)
    change(path, "UPDATE meta SET revision = 2")
    with pytest.raises(CorruptStore):
        backend.put("/d", b"", expected_revision=0)


def test_the_last_revision(open_store: Open, path: str) -> None:
    """A store whose revisions are used up refuses writes, and answers reads."""
    change_to = (1 << 43) - 2
    backend = open_store()
    fill(backend)
    change(path, f"UPDATE meta SET revision = {change_to}")
    assert backend.put("/d", b"", expected_revision=0).revision == change_to + 1
    with pytest.raises(BackendError, match="used up"):
        backend.put("/e", b"", expected_revision=0)
    assert backend.count("/").count == 4


@pytest.mark.parametrize("wrong", ["'text'", "x'00'", "-1e999", "1e999", "-9223372036854775808"])
def test_expiry_goes_on_beside_nonsense(open_store: Open, path: str, wrong: str) -> None:
    """A key with an expiry time that is none does not end the expiry of others."""
    with open_store() as backend:
        fill(backend)
    change(path, f"UPDATE state SET expires_at = {wrong} WHERE key = '/b'")
    backend = open_store()
    backend.put("/t", b"", expected_revision=0, ttl=1)
    wait_until(lambda: backend.get("/t").kv is None, "the other key expires")
    assert backend.get("/a").kv is not None


def test_keys_that_are_no_text(open_store: Open, path: str) -> None:
    """Rows whose key is no text are not shown, and do not end expiry either."""
    with open_store() as backend:
        fill(backend)
    change(path, "UPDATE state SET key = CAST(key AS BLOB), expires_at = 1 WHERE key = '/b'")
    backend = open_store()
    assert [kv.key for kv in backend.list("").kvs] == ["/a", "/c"]
    backend.put("/t", b"", expected_revision=0, ttl=1)
    wait_until(lambda: backend.get("/t").kv is None, "the other key expires")


def test_a_key_that_is_not_utf8(open_store: Open, path: str) -> None:
    """CorruptStore, no error of the driver."""
    with open_store() as backend:
        fill(backend)
    change(path, "UPDATE state SET key = CAST(x'2fff' AS TEXT) WHERE key = '/b'")
    with pytest.raises(CorruptStore):
        open_store().list("")


def test_a_statement_without_end_is_cut_off(open_store: Open, path: str) -> None:
    """Whatever a file makes sqlite do, a call ends at its deadline: here a view that was put in
    place of a table while the store is open."""
    backend = open_store()
    fill(backend)
    change(
        path,
        "ALTER TABLE meta RENAME TO away",
        "CREATE VIEW meta AS WITH RECURSIVE r(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM r)"
        " SELECT id, 'x' AS store_id, count(*) AS revision, 0 AS compacted, 0 AS swept,"
        " NULL AS fence FROM r",
    )
    for call in (
        lambda: backend.status(timeout=0.2),
        lambda: backend.get("/a", timeout=0.2),
        lambda: backend.list("/", timeout=0.2),
        lambda: backend.put("/d", b"", expected_revision=0, timeout=0.2),
    ):
        began = time.monotonic()
        with pytest.raises(Timeout):
            call()
        assert time.monotonic() - began < 5


def test_random_damage_gives_no_wrong_value(open_store: Open, path: str, fault_seed: int) -> None:
    """Of 150 files with some flipped bits, every call gives what was written, or marks the key as
    damaged, or raises an error of the contract; none hangs."""
    dice = random.Random(fault_seed)
    with open_store() as backend:
        for number in range(60):
            backend.put(f"/{number}", f"{number:04}".encode() * 50, expected_revision=0)
    sound = Path(path).read_bytes()
    for _ in range(150):
        content = bytearray(sound)
        for _ in range(dice.choice([1, 1, 2, 8])):
            content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
        Path(path).write_bytes(content)
        try:
            with open_store() as backend:
                for kv in backend.list("/", timeout=5).kvs:
                    right = f"{int(kv.key[1:]):04}".encode() * 50 if kv.key[1:].isdigit() else b""
                    assert kv.damaged or kv.value == right
                backend.put("/new", b"", expected_revision=0, timeout=5)
        except StorageError:
            pass


@pytest.mark.parametrize("number", [(1 << 43), (1 << 63) - 1, 1 << 63, 1 << 64, 10**30])
def test_numbers_beyond_every_revision(open_store: Open, number: int) -> None:
    """Revisions that no store reaches are FutureRevision, refused, or lose a compare; none is an
    error of the driver."""
    backend = open_store()
    fill(backend)
    for call in (
        lambda: backend.get("/a", revision=number),
        lambda: backend.list("/", revision=number),
        lambda: backend.count("/", revision=number),
        lambda: backend.compact(number),
    ):
        with pytest.raises((FutureRevision, InvalidArgument)):
            call()
    with suppress(FutureRevision, InvalidArgument):
        assert not backend.put("/a", b"", expected_revision=number).succeeded
    with suppress(FutureRevision, InvalidArgument):
        assert not backend.delete("/a", expected_revision=number).succeeded
    with (
        suppress(FutureRevision, InvalidArgument),
        backend.watch("/", recursive=True, after_revision=number) as w,
    ):
        assert w.poll(0) is None
    assert len(backend.list("/", limit=(1 << 63) - 1).kvs) == 3


def test_a_clock_that_fails(open_store: Open) -> None:
    """Expiry goes on after the clock raised, and a write with a ttl raises the clock's own error
    and leaves the store usable."""
    failing = True

    def clock() -> float:
        if failing:
            raise ZeroDivisionError("no clock")
        return time.time()

    backend = open_store(clock=clock)
    with pytest.raises(ZeroDivisionError):
        backend.put("/t", b"", expected_revision=0, ttl=1)
    failing = False
    assert backend.put("/t", b"", expected_revision=0, ttl=1).succeeded
    wait_until(lambda: backend.get("/t").kv is None, "the key expires")
