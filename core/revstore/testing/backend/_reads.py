"""``BackendTests``, part: get, list and count, now and in the past."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import pytest

from revstore.backend import Backend
from revstore.errors import FutureRevision, Unsupported
from revstore.testing._support import PATIENCE, Keyspace, collect, reads_at, run_threads
from revstore.testing.backend._base import BackendSuite, OpenBackend
from revstore.values import Capability

__all__ = ["ReadTests"]

_ODD_ORDER = ["a", "a-b", "a/x", "a/x/y", "a0", "b", "z", "é", "ﬀ", "😀", "😀a"]


class ReadTests(BackendSuite):
    """The results of reads, now and at older revisions."""

    def test_get_of_absent_key(self, backend: Backend, space: Keyspace) -> None:
        """A missing key is None, with the store's revision (GET-3)."""
        created = space.create("ab")
        result = backend.get(space.key("a"))

        assert result.kv is None
        assert result.revision >= created

    def test_list_of_nothing(self, backend: Backend, space: Keyspace) -> None:
        """A list that finds nothing is empty and has a revision (LIST-2, BASE-2)."""
        result = backend.list(space.prefix, remaining=True)

        assert result.kvs == ()
        assert result.revision >= space.start > 0
        assert (result.more, result.remaining) == (False, 0)

    def test_list_equals_gets(self, space: Keyspace) -> None:
        """A list has the same KeyValues as single reads, complete and in one answer (LIST-5)."""
        for name in ("b", "a", "c/d"):
            space.create(name, name.encode())
        space.update("a", b"new")
        result = space.list()

        assert list(result.kvs) == [space.read(name) for name in ("a", "b", "c/d")]
        assert result.more is False
        assert result.remaining is None
        assert result.revision >= max(kv.revision for kv in result.kvs)

    def test_byte_order(self, backend: Backend, space: Keyspace) -> None:
        """Keys are in the order of their UTF-8 bytes, whatever the separators (BASE-6)."""
        stored = self.storable(backend, _ODD_ORDER[::-1])
        for name in stored:
            space.create(name)

        assert space.names(space.list().kvs) == stored[::-1]
        below = [name for name in ("a", "a-b", "a/x", "a/x/y", "a0") if name in stored]
        assert space.names(space.list("a").kvs) == below

    def test_prefix_is_a_plain_string(self, backend: Backend, space: Keyspace) -> None:
        """A prefix is not a path: "/a" matches "/ab" and the key "/a" itself (KEY-4, KEY-5)."""
        names = ("a/b", "a", "ab", "b", "%", "_", "A", "😀", "😁", "\U0010ffff", "\U0010ffffx")
        stored = self.storable(backend, names)
        for name in stored:
            space.create(name)
        prefixes = {
            "a": ["a", "a/b", "ab"],
            "a/": ["a/b"],
            "a/b": ["a/b"],
            "a/bc": [],
            "%": ["%"],
            "_": ["_"],
            "A": ["A"],
            "😀": ["😀"],
            "\U0010ffff": ["\U0010ffff", "\U0010ffffx"],
        }
        for prefix, matching in prefixes.items():
            expected = [name for name in matching if name in stored]
            assert space.names(space.list(prefix).kvs) == expected
            assert backend.count(space.key(prefix)).count == len(expected)

    def test_empty_prefix_is_everything(self, backend: Backend, space: Keyspace) -> None:
        """The prefix "" matches all keys of the store."""
        before = backend.count("").count
        space.create("a")
        space.create("b")
        keys = [kv.key for kv in backend.list("", keys_only=True).kvs]

        assert keys == sorted(keys)
        assert {space.key("a"), space.key("b")} <= set(keys)
        if self.ephemeral:
            assert backend.count("").count == before + 2 == len(keys)

    def test_start(self, space: Keyspace) -> None:
        """``start`` is a lower bound on whole keys and may be outside the prefix (LIST-16)."""
        for name in ("a", "b/1", "b/2", "b/3", "c"):
            space.create(name)
        cases = {
            "": ["b/1", "b/2", "b/3"],
            "a": ["b/1", "b/2", "b/3"],
            "b/2": ["b/2", "b/3"],
            "b/2\0": ["b/3"],
            "b/25": ["b/3"],
            "b/3\0": [],
            "c": [],
        }
        for start, expected in cases.items():
            assert space.names(space.list("b/", start=start).kvs) == expected

    def test_limit_and_remaining(self, space: Keyspace) -> None:
        """A limit cuts the list. The answer says that more keys follow, and counts them on request
        (LIST-8, LIST-9)."""
        names = [f"k{number}" for number in range(5)]
        for name in names:
            space.create(name)
        if not _pages(space):
            pytest.skip("this backend does not page")
        for limit in range(1, 8):
            for start in range(5):
                result = space.list(limit=limit, start=names[start], remaining=True)
                left = max(0, 5 - start - limit)

                assert space.names(result.kvs) == names[start : start + limit]
                assert (result.more, result.remaining) == (left > 0, left)
                assert space.list(limit=limit, start=names[start]).more is (left > 0)

    def test_limit_never_loses(self, space: Keyspace) -> None:
        """A reader that goes on while ``more`` is true finds all keys, even if the backend does not
        page (LIST-8, FIX-2)."""
        names = [f"k{number:02}" for number in range(17)]
        for name in names:
            space.create(name)
        found: list[str] = []
        start = ""
        while True:
            page = space.list(limit=4, start=start)
            found += space.names(page.kvs)
            if not page.more or len(found) > len(names):
                break
            start = found[-1] + "\0"

        assert found == names

    def test_keys_only(self, backend: Backend, space: Keyspace) -> None:
        """``keys_only`` leaves out values and nothing else, such as expiry."""
        space.create("a", b"1")
        space.create("b", b"2", ttl=0)
        space.update("b", b"3")
        space.create("c", b"4", ttl=3600 if self.claims(backend, Capability.TTL) else 0)
        bare, full = space.list(keys_only=True).kvs, space.list().kvs

        assert [kv.value for kv in full] == [b"1", b"3", b"4"]
        assert bare == tuple(msgspec.structs.replace(kv, value=b"") for kv in full)
        if self.claims(backend, Capability.HISTORICAL_READS):
            revision = backend.status().revision
            space.update("c", b"5")
            assert space.list(keys_only=True, revision=revision).kvs == bare

    def test_count(self, backend: Backend, space: Keyspace) -> None:
        """Count follows creates and deletes, not updates (STAT-1)."""
        space.create("a/1")
        space.create("a/2")
        space.create("ab")
        space.update("a/1", b"x")
        space.delete("a/2")
        result = backend.count(space.key("a/"))

        assert result.count == 1
        assert result.revision >= space.read("ab").revision

    def test_reads_show_acknowledged_writes(self, backend: Backend, space: Keyspace) -> None:
        """A read that begins after a write was acknowledged shows it, in any thread (LIST-20)."""
        space.create("a", b"0")

        def follow(index: int) -> None:
            name = f"t{index}"
            for turn in range(20):
                value = b"%d" % turn
                written = space.create(name, value) if not turn else space.update(name, value)
                found = backend.get(space.key(name))

                assert found.kv is not None
                assert (found.kv.value, found.kv.revision) == (value, written)
                assert found.revision >= written
                assert [kv.value for kv in space.list(name).kvs] == [value]

        run_threads(4, follow)

    def test_reads_show_what_others_were_told(
        self, backend: Backend, space: Keyspace, open_backend: OpenBackend | None
    ) -> None:
        """Once a write is acknowledged, every later read of another handle shows it, if there can
        be one: status, get, list and count, and the revision in their answers (LIST-20, GET-9)."""
        revision = space.create("a", b"0")
        with contextlib.ExitStack() as stack:
            # In a thread of its own: a backend may remember what each has written.
            asking = stack.enter_context(ThreadPoolExecutor(1))
            handle = stack.enter_context(open_backend()) if open_backend else backend
            for turn in range(1, 61):
                revision = backend.put(
                    space.key("a"), b"%d" % turn, expected_revision=revision
                ).revision
                for told in asking.submit(_told, handle, space).result(PATIENCE):
                    assert told >= revision, f"turn {turn}: {told} was reported after {revision}"

    def test_a_long_list_is_whole(self, backend: Backend, space: Keyspace) -> None:
        """A list without a limit has all keys, however many and however large. A list with a limit
        says that more follow. The same holds for count, pages, and a watch that begins before the
        keys (LIST-5, LIST-8, STAT-1)."""
        total = self.many_keys
        names = [f"{number:06}" for number in range(total)]
        value = b"x" * 600

        def create(index: int) -> None:
            for name in names[index::16]:
                space.create(name, value)

        run_threads(16, create, patience=10 * PATIENCE)
        whole, bare = space.list(), space.list(keys_only=True)

        assert space.names(whole.kvs) == space.names(bare.kvs) == names
        assert {len(kv.value) for kv in whole.kvs} == {len(value)}
        assert (whole.more, bare.more) == (False, False)
        assert backend.count(space.prefix).count == total
        for limit in (total - 1, total, total + 1):
            page = space.list(limit=limit)
            assert page.more is (len(page.kvs) < total)
            assert len(page.kvs) in (min(limit, total), total)
        found: list[str] = []
        page = space.list(limit=1000)
        while page.more and len(found) < total:
            found += space.names(page.kvs)
            page = space.list(limit=1000, start=found[-1] + "\0")
        assert found + space.names(page.kvs) == names
        if self.claims(backend, Capability.HISTORICAL_READS):
            assert space.list(revision=whole.revision).kvs == whole.kvs
            with space.watch() as watch:
                events = collect(watch, total)
            assert sorted(event.kv.key for event in events) == [space.key(name) for name in names]

    def test_reads_that_may_lag(self, backend: Backend, space: Keyspace) -> None:
        """``linearizable=False`` is never an error; without LOCAL_READS it does not lag (OLD-2)."""
        space.create("a", b"0")
        for turn in range(5):
            kv = backend.get(space.key("a"), linearizable=False).kv
            kvs = space.list(linearizable=False).kvs
            if not self.claims(backend, Capability.LOCAL_READS):
                assert kv == space.read("a")
                assert kvs == (kv,)
            space.update("a", b"%d" % turn)

    def test_list_is_one_state(self, backend: Backend, space: Keyspace) -> None:
        """A list shows one moment: of keys written in turn, none is more than one round ahead of
        another (CACHE-18, BASE-4)."""
        names = [f"k{number}" for number in range(8)]
        for name in names:
            space.create(name, b"0")

        def work(index: int) -> None:
            for turn in range(1, 25):
                if index == 0:
                    for name in names:
                        space.update(name, b"%d" % turn)
                    continue
                listed = space.list()
                values = [int(kv.value) for kv in listed.kvs]

                assert values == sorted(values, reverse=True)
                assert values[0] - values[-1] <= 1
                assert max(kv.revision for kv in listed.kvs) <= listed.revision

        run_threads(3, work)

    # History

    def test_reads_of_the_past(self, backend: Backend, space: Keyspace) -> None:
        """get, list and count at every revision show the state as it was (LISTRV-8, LIST-4)."""
        self.need(backend, Capability.HISTORICAL_READS)
        states: dict[int, dict[str, bytes]] = {space.start: {}}
        steps: list[tuple[Callable[..., int], tuple[Any, ...]]] = [
            (space.create, ("a", b"1")),
            (space.create, ("b", b"1")),
            (space.update, ("a", b"2")),
            (space.delete, ("b",)),
            (space.create, ("ab", b"1")),
            (space.create, ("b", b"2")),
            (space.delete, ("a",)),
            (space.update, ("b", b"3")),
        ]
        state: dict[str, bytes] = {}
        for step, args in steps:
            revision = step(*args)
            state = {**state}
            if step == space.delete:
                del state[args[0]]
            else:
                state[args[0]] = args[1]
            states[revision] = state

        for revision, expected in states.items():
            listed = space.list(revision=revision)
            found = {kv.key.removeprefix(space.prefix): kv.value for kv in listed.kvs}
            assert found == expected
            assert space.names(listed.kvs) == sorted(expected)
            assert listed.revision == revision
            counted = backend.count(space.prefix, revision=revision)
            assert (counted.revision, counted.count) == (revision, len(expected))
            for name in ("a", "ab", "b"):
                kv = space.find(name, revision)
                assert (kv.value if kv else None) == expected.get(name)

    def test_numbers_of_the_past(self, backend: Backend, space: Keyspace) -> None:
        """An old KeyValue equals what a read returned at the time (LIST-4)."""
        self.need(backend, Capability.HISTORICAL_READS)
        space.create("a", b"1")
        seen = [space.read("a")]
        for value in (b"2", b"3"):
            space.update("a", value)
            seen.append(space.read("a"))
        space.delete("a")

        assert [space.read("a", kv.revision) for kv in seen] == seen
        assert [space.list(revision=kv.revision).kvs for kv in seen] == [(kv,) for kv in seen]
        assert backend.get(space.key("a"), revision=seen[0].revision).revision > seen[-1].revision

    def test_pages_of_the_past(self, backend: Backend, space: Keyspace) -> None:
        """Pages pinned to one revision show that state, whatever is written meanwhile (FIX-2)."""
        self.need(backend, Capability.HISTORICAL_READS)
        names = [f"k{number:02}" for number in range(10)]
        for name in names:
            revision = space.create(name)
        found: list[str] = []
        start, left = "", []
        while True:
            space.create(f"k{len(found):02}x")
            space.create(f"k{len(found):02}y")
            if len(found) < 9:
                space.delete(names[len(found) + 1])
            page = space.list(start=start, limit=3, revision=revision, remaining=True)
            found += space.names(page.kvs)
            left.append(page.remaining)
            if not page.more or len(found) > len(names):
                break
            start = found[-1] + "\0"

        assert found == names
        if len(left) > 1:
            assert left == [7, 4, 1, 0]

    def test_future_revision(self, backend: Backend, space: Keyspace) -> None:
        """A read above the store's revision names both revisions (LISTRV-9, GET-2)."""
        revision = space.create("a")
        near = [revision + 1] if self.ephemeral else []
        for wanted in (*near, revision + 1_000_000):
            for read in reads_at(backend, space.key("a")):
                with pytest.raises(FutureRevision) as caught:
                    read(wanted)
                assert caught.value.wanted == wanted
                assert revision <= caught.value.current < wanted

    def test_past_without_history(self, backend: Backend, space: Keyspace) -> None:
        """A backend that does not claim HISTORICAL_READS raises Unsupported for a past revision,
        and reads at the current one."""
        if self.claims(backend, Capability.HISTORICAL_READS):
            pytest.skip("claims historical-reads, which other tests check")
        revision = space.create("a")
        current = space.create("b")
        for read in reads_at(backend, space.key("a")):
            with pytest.raises(Unsupported):
                read(revision)
            if self.ephemeral:
                assert read(current).revision == current


def _told(handle: Backend, space: Keyspace) -> list[int]:
    """Return the store's revision as each kind of read reports it, and that of the key "a"."""
    key = space.key("a")
    found, listed = handle.get(key), handle.list(space.prefix)
    assert found.kv is not None
    return [
        handle.status().revision,
        found.revision,
        found.kv.revision,
        listed.revision,
        listed.kvs[0].revision,
        handle.count(space.prefix).revision,
    ]


def _pages(space: Keyspace) -> bool:
    """Return whether the backend respects limits. It need not, but then its lists are complete."""
    page, whole = space.list(limit=1), space.list()
    if page.kvs == whole.kvs:
        assert page.more is False
        return False
    assert len(page.kvs) == 1
    return True
