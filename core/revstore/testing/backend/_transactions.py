"""``BackendTests``, part: transactions of several keys."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

from revstore.backend import Backend, Transaction
from revstore.errors import Closed, InvalidArgument, InvalidKey, TransactionTooLarge, Unsupported
from revstore.testing._support import Keyspace, collect, collect_to_mark, run_threads
from revstore.testing.backend._base import BackendSuite
from revstore.testing.interrupts import Interrupted, code_below, interrupt_every_line
from revstore.values import Capability, WatchEventType

__all__ = ["TransactionTests"]


class _Undo(Exception):
    """An error that a body raises itself."""


class TransactionTests(BackendSuite):
    """Bodies read and write in one atomic step."""

    @pytest.fixture
    def txn(self, backend: Backend, space: Keyspace) -> Keyspace:
        """Return the keyspace; skip the test if the backend has no transactions."""
        self.need(backend, Capability.TRANSACTIONS)
        return space

    def test_unclaimed_transactions(self, backend: Backend, space: Keyspace) -> None:
        """Without TRANSACTIONS both calls raise Unsupported, and no body runs."""
        if self.claims(backend, Capability.TRANSACTIONS):
            pytest.skip("claims transactions, which other tests check")
        ran: list[Transaction] = []
        with pytest.raises(Unsupported):
            backend.transaction(ran.append)
        with pytest.raises(Unsupported):
            backend.transactions([])
        assert ran == []

    def test_one_revision(self, backend: Backend, txn: Keyspace) -> None:
        """All writes of a body have one revision, and reach a watch as one batch with the previous
        values."""
        txn.create("b", b"old")
        txn.create("c", b"old")
        before = {name: txn.read(name) for name in "bc"}

        def body(seen: Transaction) -> str:
            seen.put(txn.key("a"), b"1")
            seen.put(txn.key("b"), b"2")
            seen.delete(txn.key("c"))
            return "done"

        with txn.watch(after=before["c"].revision) as watch:
            result = backend.transaction(body)
            events = collect(watch, 3)

        assert (result.value, result.wrote) == ("done", True)
        assert result.revision > before["c"].revision
        assert {event.kv.revision for event in events} == {result.revision}
        assert txn.names([event.kv for event in events]) == ["a", "b", "c"]
        assert [event.previous for event in events] == [None, before["b"], before["c"]]
        assert [event.type for event in events] == [
            WatchEventType.PUT,
            WatchEventType.PUT,
            WatchEventType.DELETED,
        ]
        assert [event.kv for event in events[:2]] == [txn.read("a"), txn.read("b")]
        assert txn.read("a").create_revision == result.revision
        assert txn.read("b").create_revision == before["b"].create_revision
        assert txn.find("c") is None
        assert backend.status().revision >= result.revision
        if self.claims(backend, Capability.HISTORICAL_READS):
            old = txn.list(revision=result.revision - 1)
            assert [kv.value for kv in old.kvs] == [b"old", b"old"]

    def test_history_of_a_revision_of_many_keys(self, backend: Backend, txn: Keyspace) -> None:
        """A watch from history delivers a revision of many keys as a whole, whether it watches a
        prefix or one key."""
        first, second = (
            backend.transaction(
                lambda seen, value=value: [  # type: ignore[misc]
                    seen.put(txn.key(f"{folder}/{number}"), value)
                    for folder in "ab"
                    for number in range(20)
                ]
            ).revision
            for value in (b"1", b"2")
        )
        scopes: list[tuple[str, bool, int]] = [("", True, 40), ("b/", True, 20), ("b/7", False, 1)]
        for name, recursive, count in scopes:
            with txn.watch(name, recursive=recursive) as watch:
                found = collect(watch, 2 * count)
                assert [event.kv.revision for event in found] == [first] * count + [second] * count
            with txn.watch(name, recursive=recursive, after=first) as watch:
                assert len(collect(watch, count)) == count

    def test_own_writes_are_read(self, backend: Backend, txn: Keyspace) -> None:
        """Reads in a body show the store plus the body's own writes."""
        for name in ("b", "d", "f"):
            txn.create(name, name.encode())

        def body(seen: Transaction) -> None:
            put = seen.put(txn.key("c"), b"new")
            assert (put.key, put.value, put.revision, put.create_revision) == (
                txn.key("c"),
                b"new",
                0,
                0,
            )
            assert seen.get(txn.key("c")) == put
            removed = seen.delete(txn.key("d"))
            assert removed is not None
            assert removed.value == b"d"
            assert seen.get(txn.key("d")) is None
            assert seen.delete(txn.key("d")) is None
            assert seen.delete(txn.key("never")) is None
            changed = seen.put(txn.key("f"), b"new")
            assert changed.create_revision > 0
            for options, expected in [
                ({}, "bcf"),
                ({"limit": 2}, "bc"),
                ({"start": txn.key("c")}, "cf"),
                ({"start": txn.key("c") + "\0"}, "f"),
                ({"limit": 1, "keys_only": True}, "b"),
            ]:
                kvs = seen.list(txn.prefix, **options)  # type: ignore[arg-type]
                assert "".join(txn.names(kvs)) == expected
            assert [kv.value for kv in seen.list(txn.prefix, keys_only=True)] == [b""] * 3
            assert [kv.value for kv in seen.list(txn.key("f"))] == [b"new"]

        backend.transaction(body)

        assert txn.names(txn.list().kvs) == ["b", "c", "f"]
        if self.claims(backend, Capability.VERSIONS):
            assert [kv.version for kv in txn.list().kvs] == [1, 1, 2]

    def test_reads_take_no_revision(self, backend: Backend, txn: Keyspace) -> None:
        """A body that writes nothing takes no revision, and returns the one at which it read."""
        created = txn.create("a", b"1")
        result = backend.transaction(lambda seen: (seen.revision, seen.get(txn.key("a"))))

        assert not result.wrote
        assert created <= result.revision <= backend.status().revision
        assert created <= result.value[0] <= result.revision
        assert result.value[1] == txn.read("a")
        if self.ephemeral:
            assert backend.status().revision == created

    def test_a_body_that_raises(self, backend: Backend, txn: Keyspace) -> None:
        """A body's exception undoes its writes and is its result. The other bodies are written."""

        def torn(seen: Transaction) -> None:
            seen.put(txn.key("torn"), b"")
            raise _Undo

        def put(name: str) -> Any:
            return lambda seen: seen.put(txn.key(name), b"") and len(seen.list(txn.prefix))

        first, failed, last = backend.transactions([put("a"), torn, put("b")])

        assert isinstance(failed, _Undo)
        assert not isinstance(first, Exception)
        assert not isinstance(last, Exception)
        assert (first.value, last.value) == (1, 2), "each sees what those before it wrote"
        assert first.revision < last.revision
        assert txn.names(txn.list().kvs) == ["a", "b"]
        with pytest.raises(_Undo):
            backend.transaction(torn)
        assert txn.find("torn") is None
        assert backend.transactions([]) == []

    def test_a_key_is_written_once(self, backend: Backend, txn: Keyspace) -> None:
        """A second write of a key in a body is refused by name. It undoes the body unless the body
        catches the error."""
        txn.create("there")

        def twice(*steps: Any) -> Any:
            def body(seen: Transaction) -> None:
                for step in steps:
                    step(seen)

            return body

        def put(seen: Transaction) -> None:
            seen.put(txn.key("there"), b"2")

        def delete(seen: Transaction) -> None:
            seen.delete(txn.key("there"))

        before = txn.read("there")
        for steps in [(put, put), (put, delete), (delete, put)]:
            with pytest.raises(InvalidArgument) as caught:
                backend.transaction(twice(*steps))
            assert (caught.value.field, caught.value.key) == ("key", txn.key("there"))
        assert txn.read("there") == before

    def test_arguments_in_a_body(self, backend: Backend, txn: Keyspace) -> None:
        """A body's methods refuse the same arguments as the methods of the backend."""
        key = txn.key("a")
        wrong: list[tuple[str, Any]] = [
            ("key", lambda seen: seen.get("")),
            ("key", lambda seen: seen.put("a\0b", b"")),
            ("key", lambda seen: seen.delete("\ud800")),
            ("key", lambda seen: seen.list("a\0")),
            ("limit", lambda seen: seen.list("", limit=-1)),
            ("value", lambda seen: seen.put(key, "text")),
            ("ttl", lambda seen: seen.put(key, b"", ttl=-1)),
            ("lease", lambda seen: seen.put(key, b"", lease=1.5)),
            ("lease", lambda seen: seen.put(key, b"", lease=1 << 63)),
            ("lease", lambda seen: seen.put(key, b"", ttl=1, lease=1)),
            ("lease", lambda seen: seen.put(key, b"", ttl=None, lease=1)),
            ("lease", lambda seen: seen.put(key, b"", ttl=1, lease=None)),
        ]
        for field, body in wrong:
            with pytest.raises(InvalidArgument) as caught:
                backend.transaction(body)
            assert caught.value.field == field
            assert isinstance(caught.value, InvalidKey) == (field == "key")
        wrong_bodies: list[Any] = [None]
        with pytest.raises(InvalidArgument):
            backend.transactions(wrong_bodies)
        assert txn.find("a") is None

    def test_a_transaction_ends_with_its_body(self, backend: Backend, txn: Keyspace) -> None:
        """A transaction cannot be used after its body has returned."""
        kept: list[Transaction] = []
        backend.transaction(kept.append)
        for seen in kept:
            for call in (
                lambda seen=seen: seen.get(txn.key("a")),
                lambda seen=seen: seen.list(txn.prefix),
                lambda seen=seen: seen.put(txn.key("a"), b""),
                lambda seen=seen: seen.delete(txn.key("a")),
            ):
                with pytest.raises(Closed):
                    call()  # type: ignore[no-untyped-call]
        assert txn.find("a") is None

    def test_expiry_in_a_body(self, backend: Backend, txn: Keyspace) -> None:
        """A ttl in a body is that of ``put``: None keeps it, 0 removes it."""
        if not self.claims(backend, Capability.TTL):
            with pytest.raises(Unsupported):
                backend.transaction(lambda seen: seen.put(txn.key("a"), b"", ttl=1))
            return
        txn.create("kept", ttl=1000)
        txn.create("removed", ttl=1000)

        def body(seen: Transaction) -> None:
            seen.put(txn.key("given"), b"", ttl=1)
            seen.put(txn.key("kept"), b"", ttl=None)
            seen.put(txn.key("removed"), b"")

        with txn.watch(progress=False) as watch:
            revision = backend.transaction(body).revision
            leases = {kv.key.removeprefix(txn.prefix): kv.lease != 0 for kv in txn.list().kvs}
            last = collect(watch, 6)[-1]
        assert leases == {"given": True, "kept": True, "removed": False}
        assert (last.type, last.kv.key) == (WatchEventType.DELETED, txn.key("given"))
        assert last.kv.revision > revision

    def test_two_counters_move_as_one(self, backend: Backend, txn: Keyspace) -> None:
        """Bodies in many threads lose no update, and no reader ever sees half of a body."""
        names = ["left", "right"]
        for name in names:
            txn.create(name, b"0")
        each, threads = 20, 4

        def move(seen: Transaction) -> tuple[bytes, ...]:
            found = tuple(kv.value for kv in map(seen.get, map(txn.key, names)) if kv)
            for name, value in zip(names, found, strict=True):
                seen.put(txn.key(name), b"%d" % (int(value) + 1))
            return found

        def work(index: int) -> None:
            for _ in range(each):
                if index == threads:
                    seen = [kv.value for kv in txn.list().kvs]
                    assert len(set(seen)) == 1, "a reader sees whole bodies"
                    continue
                left, right = backend.transaction(move).value
                assert left == right, "a body sees whole bodies"

        with txn.watch(after=txn.read("right").revision) as watch:
            run_threads(threads + 1, work)
            watch.request_progress()
            events = collect_to_mark(watch, txn.read("left").revision)
        assert [kv.value for kv in txn.list().kvs] == [b"%d" % (each * threads)] * 2
        by_revision: dict[int, list[bytes]] = {}
        for event in events:
            by_revision.setdefault(event.kv.revision, []).append(event.kv.value)
        assert list(by_revision.values()) == [
            [b"%d" % number] * 2 for number in range(1, each * threads + 1)
        ]

    def test_many_keys_in_a_transaction(self, backend: Backend, txn: Keyspace) -> None:
        """A body of many keys is written as a whole, or refused as a whole with
        TransactionTooLarge."""
        names = [f"k{number:05}" for number in range(self.many_keys)]
        try:
            result = backend.transaction(
                lambda seen: [seen.put(txn.key(name), b"") for name in names]
            )
        except TransactionTooLarge:
            assert txn.list().kvs == ()
            return
        kvs = txn.list().kvs
        assert txn.names(kvs) == names
        assert {kv.revision for kv in kvs} == {result.revision}

    @pytest.mark.parametrize("error", [Interrupted, TimeoutError])
    def test_interrupted_bodies(
        self, backend: Backend, txn: Keyspace, error: Callable[[], BaseException]
    ) -> None:
        """A signal's handler may raise at any line. Its exception is raised from the call, and
        either all keys of the body are written or none."""
        names = ["a", "b", "c"]

        def attempt() -> None:
            value = b"%d" % backend.status().revision
            backend.transaction(lambda seen: [seen.put(txn.key(name), value) for name in names])

        def check(spot: str) -> None:
            kvs = txn.list().kvs
            assert len(kvs) in {0, 3}, spot
            assert len({(kv.value, kv.revision) for kv in kvs}) <= 1, spot

        code = code_below(sys.modules[type(backend).__module__])
        interrupt_every_line(attempt, where=code, after=check, error=error)
