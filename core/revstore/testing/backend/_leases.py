"""``BackendTests``, part: leases, and the remaining time of keys."""

from __future__ import annotations

import contextlib
import math
import random
import time
from collections.abc import Callable
from typing import Any

import pytest

from revstore.backend import Backend, Leases, Transaction
from revstore.errors import InvalidArgument, LeaseExists, LeaseNotFound, Unsupported
from revstore.testing._support import Keyspace, collect, poll_until, wait_until
from revstore.testing.backend._base import BackendSuite, OpenBackend
from revstore.values import Capability, WatchEvent, WatchEventType

__all__ = ["LeaseTests"]


def _names_of(space: Keyspace, keys: tuple[str, ...]) -> list[str]:
    """Return the names of the keys in ``space``."""
    return [key.removeprefix(space.prefix) for key in keys]


class LeaseTests(BackendSuite):
    """Leases hold many keys, and end by time or by request. The tests check that none ends too
    early, and wait patiently for an end that is due."""

    @pytest.fixture
    def leases(self, backend: Backend) -> Leases:
        """Return the store's leases; skip the test if it has none."""
        self.need(backend, Capability.LEASES)
        return backend.leases()

    def test_unclaimed_leases(self, backend: Backend) -> None:
        """Without LEASES the calls raise Unsupported."""
        if self.claims(backend, Capability.LEASES):
            assert self.claims(backend, Capability.TRANSACTIONS), "keys are attached by them"
            pytest.skip("claims leases, which other tests check")
        with pytest.raises(Unsupported):
            backend.leases()

    def test_grant(self, backend: Backend, leases: Leases) -> None:
        """A lease has the requested id, or one that the store chooses, and takes no revision."""
        before = backend.status().revision
        chosen = leases.grant(1000)
        named = leases.grant(5000, lease=chosen.id + 1)
        try:
            assert chosen.id != 0
            assert (named.id, named.keys) == (chosen.id + 1, ())
            for granted, asked in ((chosen, 1000), (named, 5000)):
                assert granted.ttl >= asked
                found = leases.get(granted.id)
                assert (found.id, found.ttl) == (granted.id, granted.ttl)
                assert asked - 20 < found.remaining <= granted.ttl
            assert {chosen.id, named.id} <= set(leases.list())
            assert list(leases.list()) == sorted(leases.list())
            with pytest.raises(LeaseExists) as caught:
                leases.grant(5, lease=chosen.id)
            assert caught.value.lease == chosen.id
            assert leases.get(chosen.id).remaining > 900
            if self.ephemeral:
                assert backend.status().revision == before
        finally:
            for lease in (chosen, named):
                leases.revoke(lease.id)
        assert not {chosen.id, named.id} & set(leases.list())

    def test_lease_ids_of_every_size(
        self, backend: Backend, space: Keyspace, leases: Leases
    ) -> None:
        """An id may be any integer of 64 bits but 0; keys with such a lease are read as they were
        written."""
        ids = [
            sign * (random.getrandbits(bits) | 1 << bits)
            for bits in (31, 60, 62)
            for sign in (1, -1)
        ]
        try:
            for lease in ids:
                assert leases.grant(1000, lease=lease).id == lease

            def attach(lease: int) -> Callable[[Transaction], object]:
                return lambda seen: seen.put(space.key(f"{lease}"), b"x", lease=lease)

            def look(key: str) -> Callable[[Transaction], object]:
                return lambda seen: seen.get(key)

            assert all(backend.transaction(attach(lease)).wrote for lease in ids)
            found = {kv.key: kv for kv in space.list().kvs}
            for lease in ids:
                kv = found[space.key(f"{lease}")]
                assert (kv.lease, kv.value, kv.damaged) == (lease, b"x", False)
                assert space.find(f"{lease}") == kv
                assert backend.transaction(look(kv.key)).value == kv
                assert leases.get(lease, keys=True).keys == (kv.key,)
        finally:
            for lease in ids:
                with contextlib.suppress(LeaseNotFound):
                    leases.revoke(lease)

    def test_unknown_leases(self, backend: Backend, space: Keyspace, leases: Leases) -> None:
        """Every call on an unknown lease raises LeaseNotFound; attaching a key to it writes
        nothing."""
        gone = leases.grant(1000).id
        leases.revoke(gone)
        calls: list[Callable[[], object]] = [
            lambda: leases.keep_alive(gone),
            lambda: leases.revoke(gone),
            lambda: leases.get(gone),
            lambda: backend.transaction(lambda seen: seen.put(space.key("a"), b"", lease=gone)),
        ]
        for call in calls:
            with pytest.raises(LeaseNotFound) as caught:
                call()
            assert caught.value.lease == gone
        assert space.find("a") is None

    def test_lease_arguments(self, leases: Leases) -> None:
        """Numbers out of range, and values that are not numbers, are refused by name."""
        wrong: list[tuple[str, Callable[[], object]]] = [
            *(("ttl", lambda ttl=ttl: leases.grant(ttl)) for ttl in (0, -1, 9_000_000_001, 1.5)),
            *(
                ("lease", lambda id_=id_, call=call: call(id_))
                for id_ in (0, 1 << 63, -(1 << 63) - 1, "1", True)
                for call in (leases.get, leases.keep_alive, leases.revoke)
            ),
            ("lease", lambda: leases.grant(5, lease=1 << 63)),
            ("timeout", lambda: leases.list(timeout=math.nan)),
        ]
        for field, call in wrong:
            with pytest.raises(InvalidArgument) as caught:
                call()
            assert caught.value.field == field

    def test_revoke(self, backend: Backend, space: Keyspace, leases: Leases) -> None:
        """Revoking a lease deletes all its keys in one revision, and no other key."""
        lease, other = leases.grant(1000).id, leases.grant(1000).id
        names = [f"k{number}" for number in range(10)]
        self.attach(backend, space, dict.fromkeys(names, lease) | {"other": other})
        space.create("free")
        assert [space.read(name).lease for name in ("k3", "other", "free")] == [lease, other, 0]
        assert _names_of(space, leases.get(lease, keys=True).keys) == names
        assert leases.get(lease).keys == ()
        with space.watch(after=backend.status().revision, progress=False) as watch:
            revision = leases.revoke(lease)
            events = collect(watch, len(names))

        assert {event.kv.revision for event in events} == {revision}
        assert {event.type for event in events} == {WatchEventType.DELETED}
        assert space.names([event.kv for event in events]) == names
        assert space.names(space.list().kvs) == ["free", "other"]
        leases.revoke(other)
        assert space.names(space.list().kvs) == ["free"]

    def test_revoke_without_keys(self, backend: Backend, leases: Leases) -> None:
        """Revoking a lease without keys takes no revision."""
        before = backend.status().revision
        revision = leases.revoke(leases.grant(1000).id)
        assert before <= revision <= backend.status().revision
        if self.ephemeral:
            assert revision == before

    def test_attached_and_detached(self, backend: Backend, space: Keyspace, leases: Leases) -> None:
        """A key belongs to the lease of its last write: ttl None keeps it, 0 and n detach it."""
        lease, other = leases.grant(1000).id, leases.grant(1000).id
        names = ("kept", "plain", "timed", "moved", "deleted", "again", "kept-in-body")
        self.attach(backend, space, dict.fromkeys(names, lease))
        space.update("kept", b"2", ttl=None)
        space.update("plain", b"2")
        space.update("timed", b"2", ttl=1000)
        space.delete("deleted")
        space.delete("again")
        space.create("again", b"2")
        backend.transaction(
            lambda seen: (
                seen.put(space.key("moved"), b"", lease=other),
                seen.put(space.key("kept-in-body"), b"", lease=None),
            )
        )

        assert _names_of(space, leases.get(lease, keys=True).keys) == ["kept", "kept-in-body"]
        assert _names_of(space, leases.get(other, keys=True).keys) == ["moved"]
        assert space.read("kept").lease == lease
        leases.revoke(lease)
        assert space.names(space.list().kvs) == ["again", "moved", "plain", "timed"]
        leases.revoke(other)
        assert space.names(space.list().kvs) == ["again", "plain", "timed"]

    def test_expiry_of_a_lease(self, backend: Backend, space: Keyspace, leases: Leases) -> None:
        """If a lease expires, all its keys are deleted in one revision, not too early, and the
        lease is gone."""
        with space.watch(progress=False) as watch:
            began = time.monotonic()
            lease = leases.grant(1).id
            self.attach(backend, space, {"a": lease, "b": lease})
            events = collect(watch, 4)
            took = time.monotonic() - began

        assert took >= 0.95, "a ttl is a lower bound"
        assert [event.type for event in events[2:]] == [WatchEventType.DELETED] * 2
        assert len({event.kv.revision for event in events[2:]}) == 1
        assert [event.previous for event in events[2:]] == [event.kv for event in events[:2]]
        wait_until(lambda: lease not in leases.list(), "the lease is gone")
        with pytest.raises(LeaseNotFound):
            leases.keep_alive(lease)

    def test_keep_alive(self, backend: Backend, space: Keyspace, leases: Leases) -> None:
        """A lease that is kept alive outlives its TTL, and then lasts for another TTL."""
        lease = leases.grant(2)
        self.attach(backend, space, {"a": lease.id})
        began = time.monotonic()
        with space.watch(after=backend.status().revision, progress=False) as watch:
            last = began
            while time.monotonic() - began < lease.ttl * 1.3:
                last = time.monotonic()
                info = leases.keep_alive(lease.id)
                assert (info.id, info.ttl) == (lease.id, lease.ttl)
                assert lease.ttl - 0.5 < info.remaining <= lease.ttl
                assert watch.poll(0.1) is None
            events = poll_until(watch, lambda _at, found, _mark: bool(found))
        assert events[0].type is WatchEventType.DELETED
        assert time.monotonic() - last >= lease.ttl - 0.05

    def test_one_key_expires_by_its_lease(
        self, backend: Backend, space: Keyspace, leases: Leases
    ) -> None:
        """A key that had a TTL and then got a lease lives as long as the lease."""
        space.create("a", ttl=1)
        space.create("timer", ttl=1)
        lease = leases.grant(1000).id
        self.attach(backend, space, {"a": lease})
        wait_until(lambda: space.find("timer") is None, "the ttl")
        assert space.read("a").lease == lease
        leases.revoke(lease)
        assert space.find("a") is None

    def test_leases_are_one_object(self, backend: Backend, leases: Leases) -> None:
        """``leases`` returns the same object each time, and does not extend any lease."""
        lease = leases.grant(1000).id
        assert backend.leases(grace=1e6) is leases
        assert leases.get(lease).remaining <= 1000 + 1
        leases.revoke(lease)

    def test_leases_survive(
        self,
        backend: Backend,
        space: Keyspace,
        leases: Leases,
        open_backend: OpenBackend | None,
    ) -> None:
        """A lease and its keys survive closing and opening the store. Its holder gets a grace
        period, and its TTL does not start again."""
        self.need(backend, Capability.DURABLE)
        reopen = self.need_second(open_backend)
        began = time.monotonic()
        lease, long = leases.grant(3).id, leases.grant(1000).id
        self.attach(backend, space, {"a": lease, "b": long})
        wait_until(lambda: leases.get(long).remaining < 999, "a second passes")
        backend.close()
        with reopen() as again:
            found = again.leases()
            assert found.get(lease, keys=True).keys == (space.key("a"),)
            assert found.get(long).remaining < 999.5, "its ttl does not start again"
            wait_until(lambda: again.get(space.key("a")).kv is None, "it expires")
            assert time.monotonic() - began >= 2.95
            assert again.get(space.key("b")).kv is not None
            found.revoke(long)

    def test_leases_of_two_handles(
        self,
        backend: Backend,
        space: Keyspace,
        leases: Leases,
        open_backend: OpenBackend | None,
    ) -> None:
        """Each handle sees the leases of the other, and their changes."""
        self.need(backend, Capability.CROSS_PROCESS_WATCH)
        with self.need_second(open_backend)() as second:
            others = second.leases()
            lease = leases.grant(1000).id
            self.attach(second, space, {"a": lease})
            assert others.keep_alive(lease).id == lease
            assert lease in others.list()
            assert leases.get(lease, keys=True).keys == (space.key("a"),)
            found: list[WatchEvent] = []
            with space.watch(after=backend.status().revision, progress=False) as watch:
                revision = others.revoke(lease)
                found = collect(watch, 1)
            assert found[0].kv.revision == revision
            with pytest.raises(LeaseNotFound):
                leases.get(lease)

    def test_remaining_ttl(self, backend: Backend, space: Keyspace) -> None:
        """The remaining TTL is None for a key that does not expire or does not exist; otherwise it
        is the remaining seconds."""
        if not self.claims(backend, Capability.REMAINING_TTL):
            with pytest.raises(Unsupported):
                backend.remaining_ttl(space.key("a"))
            return
        space.create("free")
        for name in ("free", "absent"):
            assert backend.remaining_ttl(space.key(name)) is None
        wanted: dict[str, tuple[float, float]] = {}
        if self.claims(backend, Capability.TTL):
            space.create("timed", ttl=500)
            # A store may let keys that share a time limit live a twentieth longer.
            wanted["timed"] = 500, 525
        if self.claims(backend, Capability.LEASES):
            lease = backend.leases().grant(700)
            self.attach(backend, space, {"leased": lease.id})
            wanted["leased"] = lease.ttl, lease.ttl
        for name, (least, most) in wanted.items():
            left = backend.remaining_ttl(space.key(name))
            assert left is not None
            assert least - 20 < left <= most + 1
            space.delete(name)
            assert backend.remaining_ttl(space.key(name)) is None
        with pytest.raises(InvalidArgument):
            backend.remaining_ttl("")

    def attach(self, backend: Backend, space: Keyspace, names: dict[str, int]) -> Any:
        """Write keys, each attached to a lease, in one transaction."""
        return backend.transaction(
            lambda seen: [
                seen.put(space.key(name), b"1", lease=lease) for name, lease in names.items()
            ]
        )
