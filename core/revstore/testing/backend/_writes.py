"""``BackendTests``, part: put, delete, optimistic concurrency, revisions, keys and values."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import cast

import pytest

from revstore.backend import Backend
from revstore.errors import InvalidArgument, InvalidKey, Unsupported
from revstore.testing._support import Keyspace, collect, reads_at, run_threads
from revstore.testing.backend._base import BackendSuite
from revstore.values import Capability, PutResult

__all__ = ["WriteTests"]

_BAD_KEYS = ["", "\0", "/a\0b", "/a\0", "\ud800", "/a/\udfff"]


class WriteTests(BackendSuite):
    """The effects of writes, one at a time and many at once."""

    def test_create_then_get(self, backend: Backend, space: Keyspace) -> None:
        """A created key has its value and numbers as written (CREATE-1, BASE-1)."""
        result = backend.put(space.key("a"), b"1", expected_revision=0)
        found = backend.get(space.key("a"))

        assert result.succeeded
        assert result.current is None
        assert result.revision > space.start
        assert found.revision >= result.revision
        assert found.kv is not None
        assert (found.kv.key, found.kv.value) == (space.key("a"), b"1")
        assert found.kv.revision == found.kv.create_revision == result.revision
        assert found.kv.lease == 0

    def test_create_of_existing_key_loses(self, backend: Backend, space: Keyspace) -> None:
        """A put that expects 0 on an existing key writes nothing and returns the key (CREATE-3)."""
        space.create("a", b"1")
        before = space.read("a")
        result = backend.put(space.key("a"), b"1", expected_revision=0)

        assert not result.succeeded
        assert result.current == before
        assert before.revision <= result.revision <= backend.status().revision
        assert space.read("a") == before

    def test_update_with_right_revision(self, backend: Backend, space: Keyspace) -> None:
        """The right revision overwrites the key; the creation's revision stays (GU-1)."""
        created = space.create("a", b"1")
        result = backend.put(space.key("a"), b"2", expected_revision=created)
        kv = space.read("a")

        assert result.succeeded
        assert result.current is None
        assert result.revision > created
        assert (kv.value, kv.revision, kv.create_revision) == (b"2", result.revision, created)

    def test_update_with_wrong_revision_loses(self, backend: Backend, space: Keyspace) -> None:
        """Revisions older or newer than the key's both lose, and return the current key (GU-9)."""
        first = space.create("a", b"1")
        second = space.update("a", b"2")
        before = space.read("a")
        for wrong in (first, second + 1, second + 1000):
            result = backend.put(space.key("a"), b"3", expected_revision=wrong)

            assert not result.succeeded
            assert result.current == before
            assert before.revision <= result.revision <= backend.status().revision
        assert space.read("a") == before

    def test_update_of_absent_key_loses(self, backend: Backend, space: Keyspace) -> None:
        """A put that expects a revision of a missing key writes nothing (GU-10)."""
        created = space.create("gone")
        gone = space.delete("gone")
        for name in ("never", "gone"):
            result = backend.put(space.key(name), b"x", expected_revision=created)

            assert not result.succeeded
            assert result.current is None
            assert gone <= result.revision <= backend.status().revision
            assert space.find(name) is None

    def test_equal_value_is_written(self, space: Keyspace) -> None:
        """The backend does not compare bytes: an equal value takes a new revision."""
        first = space.create("a", b"same")
        second = space.update("a", b"same")

        assert second > first
        assert space.read("a").revision == second

    def test_delete_with_right_revision(self, backend: Backend, space: Keyspace) -> None:
        """A deletion has its own revision and returns what was removed (DEL-1, DEL-2)."""
        space.create("a", b"1")
        before = space.read("a")
        result = backend.delete(space.key("a"), expected_revision=before.revision)

        assert result.succeeded
        assert result.revision > before.revision
        assert result.kv == before
        assert space.find("a") is None

    def test_delete_with_wrong_revision_loses(self, backend: Backend, space: Keyspace) -> None:
        """A stale revision deletes nothing and returns the current key (DEL-5)."""
        first = space.create("a", b"1")
        space.update("a", b"2")
        before = space.read("a")
        result = backend.delete(space.key("a"), expected_revision=first)

        assert not result.succeeded
        assert result.kv == before
        assert before.revision <= result.revision <= backend.status().revision
        assert space.read("a") == before

    def test_delete_of_absent_key_loses(self, backend: Backend, space: Keyspace) -> None:
        """Deleting a missing key loses without a KeyValue, and takes no revision (DEL-1,
        BASE-3)."""
        created = space.create("a")
        deleted = space.delete("a")
        result = backend.delete(space.key("a"), expected_revision=created)

        assert not result.succeeded
        assert result.kv is None
        assert deleted <= result.revision <= backend.status().revision

    def test_delete_needs_a_revision(self, backend: Backend, space: Keyspace) -> None:
        """A deletion cannot expect zero or less (DEL-10)."""
        space.create("a")
        for wrong in (0, -1):
            with pytest.raises(InvalidArgument):
                backend.delete(space.key("a"), expected_revision=wrong)
        assert space.find("a") is not None

    def test_create_again_after_delete(self, space: Keyspace) -> None:
        """A key that is created again starts with new numbers (WATCH-12)."""
        space.create("a", b"1")
        space.update("a", b"2")
        space.delete("a")
        again = space.create("a", b"3")
        kv = space.read("a")

        assert kv.revision == kv.create_revision == again
        assert kv.value == b"3"

    def test_versions(self, backend: Backend, space: Keyspace) -> None:
        """With VERSIONS, version counts the writes since creation; without, it is 0 (CMP-2)."""
        seen = []
        space.create("a")
        seen.append(space.read("a").version)
        space.update("a", b"2")
        space.update("a", b"3")
        seen.append(space.list("a").kvs[0].version)
        space.delete("a")
        space.create("a")
        seen.append(space.read("a").version)

        assert seen == ([1, 3, 1] if self.claims(backend, Capability.VERSIONS) else [0, 0, 0])

    def test_empty_store_is_at_revision_one(self, backend: Backend, space: Keyspace) -> None:
        """A new store of a backend that promises this is at revision 1, and its first write takes 2
        (BASE-2)."""
        if not self.starts_at_one:
            assert space.start > 0
            return
        assert space.start == 1
        assert backend.list("").revision == 1
        assert space.create("a") == 2

    def test_revisions_rise_over_the_whole_store(self, backend: Backend, space: Keyspace) -> None:
        """One counter serves all keys, and each write takes a greater number (BASE-1, BASE-4)."""
        taken = [space.start, space.create("a"), space.create("b"), space.update("a", b"2")]
        taken += [space.delete("b"), space.create("c")]

        assert taken == sorted(set(taken))
        assert backend.status().revision >= taken[-1]
        assert space.list("a").revision >= taken[-1]

    def test_refused_writes_and_reads_take_no_revision(
        self, backend: Backend, space: Keyspace
    ) -> None:
        """Only a write that succeeds moves the revision (BASE-3)."""
        if not self.ephemeral:
            pytest.skip("others may write to this store")
        revision = space.create("a")
        for _ in range(5):
            space.find("a")
            space.find("b")
            space.list()
            backend.count(space.prefix)
        backend.put(space.key("a"), b"x", expected_revision=0)
        backend.put(space.key("b"), b"x", expected_revision=revision)
        backend.delete(space.key("a"), expected_revision=revision + 7)

        assert backend.status().revision == revision

    def test_values_come_back_as_written(self, backend: Backend, space: Keyspace) -> None:
        """Any bytes are a value: none, all 256, not UTF-8, large (CREATE-1, OLD-5)."""
        large = bytes(range(256)) * (self.large_value // 256)
        values = {"empty": b"", "nul": b"\0", "binary": bytes(range(256)), "bad": b"\xff\xfe\xc0"}
        values["large"] = large
        for name, value in values.items():
            space.create(name, value)

        assert {name: space.read(name).value for name in values} == values
        listed = {kv.key.removeprefix(space.prefix): kv.value for kv in space.list().kvs}
        assert listed == values

    @pytest.mark.parametrize("key", _BAD_KEYS, ids=ascii)
    def test_invalid_keys(self, backend: Backend, space: Keyspace, key: str) -> None:
        """Empty keys, NUL and surrogates are refused by every method (KEY-1, KEY-6)."""
        calls: list[Callable[[], object]] = [
            lambda: backend.get(key),
            lambda: backend.put(key, b"", expected_revision=0),
            lambda: backend.put(key, b"", expected_revision=5),
            lambda: backend.delete(key, expected_revision=5),
            lambda: backend.watch(key, recursive=False, after_revision=0),
        ]
        if key:  # as a prefix, "" means all keys
            calls += [
                lambda: backend.list(key),
                lambda: backend.count(key),
                lambda: backend.watch(key, recursive=True, after_revision=0),
            ]
        if key.removesuffix("\0") == key or key == "\0":  # a start may end in one
            calls += [lambda: backend.list("", start=key, limit=1)] if key else []
        for call in calls:
            with pytest.raises(InvalidKey):
                call()

    def test_invalid_arguments(self, backend: Backend, space: Keyspace) -> None:
        """Numbers below zero and values that are not bytes are refused, and nothing is written."""
        key = space.key("a")
        calls: dict[str, list[Callable[[], object]]] = {
            "revision": [partial(read, -1) for read in reads_at(backend, key)],
            "limit": [lambda: backend.list(key, limit=-1)],
            "expected_revision": [lambda: backend.put(key, b"", expected_revision=-1)],
            "ttl": [lambda: backend.put(key, b"", expected_revision=0, ttl=-1)],
            "value": [
                partial(backend.put, key, cast("bytes", value), expected_revision=0)
                for value in ("text", None, bytearray(b"1"), memoryview(b"1"))
            ],
            "after_revision": [lambda: backend.watch(key, recursive=True, after_revision=-1)],
        }
        for field, refused in calls.items():
            for call in refused:
                with pytest.raises(InvalidArgument) as caught:
                    call()
                assert caught.value.field == field
        assert space.find("a") is None

    def test_long_keys(self, backend: Backend, space: Keyspace) -> None:
        """Keys of 1,024 bytes are stored; a longer one is too, or raises InvalidKey."""
        name = "k" * (self.large_key - len(space.prefix))
        created = space.create(name)
        assert space.names(space.list().kvs) == [name]
        with space.watch() as watch:
            assert collect(watch, 1)[0].kv.revision == created
        space.delete(name)
        beyond = "k" * (1 << 16)
        try:
            space.create(beyond)
        except InvalidKey:
            return
        assert space.names(space.list().kvs) == [beyond]
        space.delete(beyond)

    def test_keys_need_no_slash_and_may_be_odd(self, backend: Backend, space: Keyspace) -> None:
        """A backend knows no segments: keys may have dots, spaces, percent signs and any script
        (KEY-2)."""
        names = [
            ".",
            "..",
            "a//b",
            "e/",
            "/",
            " ",
            "%00",
            "ü/🎉",
            "_hidden",
            "a?b#c",
            "\t\n",
            "'\"",
        ]
        for name in names:
            space.create(name, name.encode())

        assert space.names(space.list().kvs) == sorted(names)
        assert all(space.read(name).value == name.encode() for name in names)
        for name in names:
            space.delete(name)
        assert backend.count(space.prefix).count == 0

    def test_one_create_wins(self, backend: Backend, space: Keyspace) -> None:
        """Of many creates of one key at once exactly one succeeds (CREATE-3)."""
        for turn in range(10):
            create = partial(_create_number, backend, space.key(f"k{turn}"))
            results = run_threads(8, create)
            winners = [index for index, result in enumerate(results) if result.succeeded]

            assert len(winners) == 1
            winner = results[winners[0]]
            stored = space.read(f"k{turn}")
            assert (stored.value, stored.revision) == (b"%d" % winners[0], winner.revision)
            assert all(r.current == stored for r in results if not r.succeeded)

    def test_nested_keys(self, backend: Backend, space: Keyspace) -> None:
        """A key can exist together with keys below it. Without NESTED_KEYS the second of them is
        refused, and nothing is written (OLD-19)."""
        space.create("a", b"1")
        space.create("c/d", b"2")
        if not self.claims(backend, Capability.NESTED_KEYS):
            for name in ("a/b", "a/b/c", "c"):
                with pytest.raises(Unsupported):
                    space.create(name)
                assert space.find(name) is None
            assert space.names(space.list().kvs) == ["a", "c/d"]
            space.delete("a")
            space.delete("c/d")
        space.create("a/b", b"3")
        space.create("c", b"4")
        shown = {name: space.read(name).value for name in space.names(space.list().kvs)}
        both = {"a": b"1", "a/b": b"3", "c": b"4", "c/d": b"2"}
        nested = self.claims(backend, Capability.NESTED_KEYS)
        assert shown == (both if nested else {"a/b": b"3", "c": b"4"})
        if nested:
            space.delete("a")
            assert space.read("a/b").value == b"3"

    def test_counter_loses_no_increment(self, backend: Backend, space: Keyspace) -> None:
        """Threads that add to one key by compare-and-put lose no increment (GU-9, GU-11)."""
        threads, each = 8, 25
        space.create("counter", b"0")
        key = space.key("counter")

        def add(_index: int) -> None:
            done = 0
            current = backend.get(key).kv
            while done < each:
                assert current is not None
                value = b"%d" % (int(current.value) + 1)
                result = backend.put(key, value, expected_revision=current.revision)
                done += result.succeeded
                current = backend.get(key).kv if result.succeeded else result.current

        run_threads(threads, add)

        assert space.read("counter").value == b"%d" % (threads * each)

    def test_revisions_rise_in_commit_order(self, backend: Backend, space: Keyspace) -> None:
        """Concurrent writes take distinct revisions, and a write that began after another was
        acknowledged has the greater one (BASE-1)."""

        def write(index: int) -> list[int]:
            taken = []
            for turn in range(30):
                seen = backend.status().revision
                revision = space.create(f"{index}-{turn}")
                assert revision > seen
                taken.append(revision)
            return taken

        taken = run_threads(4, write)
        everything = [revision for each in taken for revision in each]

        assert len(set(everything)) == len(everything)
        assert all(each == sorted(each) for each in taken)
        assert sorted(everything) == sorted(kv.revision for kv in space.list().kvs)


def _create_number(backend: Backend, key: str, number: int) -> PutResult:
    return backend.put(key, b"%d" % number, expected_revision=0)
