"""The steps of the state machine beyond the contract's first nine methods: transactions of several
keys, leases, and a raised revision."""

from __future__ import annotations

from typing import Any

import attrs
import msgspec
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from revstore.backend import Backend, Leases, Transaction
from revstore.errors import InvalidArgument, LeaseExists, LeaseNotFound
from revstore.testing._plain_model import PlainModel, PlainWrite, plain
from revstore.values import Capability, KeyValue

__all__ = ["StepRules"]

_NAMES = ["a", "ab", "a/b", "b", "é", "😀"]
_steps = st.lists(
    st.tuples(
        st.sampled_from(["put", "put", "put", "delete", "get", "list"]),
        st.sampled_from(_NAMES),
        st.binary(max_size=3),
        st.sampled_from([0, None, 1000, "lease", "lease"]),
        st.integers(0, 3),
    ),
    max_size=6,
)


class _Undone(Exception):
    """Raised by a body that is to change nothing."""


@attrs.define
class _Expected:
    """The view that a body should have."""

    state: dict[str, KeyValue]
    writes: list[PlainWrite] = attrs.field(factory=list)

    def landed(self) -> dict[str, KeyValue]:
        """Return the state as later bodies see it; numbers that are unknown are -1."""
        return {
            key: kv
            if kv.revision
            else msgspec.structs.replace(kv, revision=-1, create_revision=kv.create_revision or -1)
            for key, kv in self.state.items()
        }

    def wrote(self, key: str) -> bool:
        return any(each.key == key for each in self.writes)


class StepRules(RuleBasedStateMachine):
    """Rules for a machine that has the attributes below."""

    backend: Backend
    model: PlainModel
    can: frozenset[Capability]
    prefix: str
    #: Ids from here on are granted: the store may have leases of an earlier machine.
    first_lease: int

    @property
    def leases(self) -> Leases:
        """Those of the backend."""
        return self.backend.leases()

    def lease_id(self, number: int) -> int:
        """Return the id of an existing lease if there is one, else an unknown id."""
        known = sorted(self.model.leases)
        return known[number % len(known)] if known else 77

    @precondition(lambda self: Capability.TRANSACTIONS in self.can)
    @rule(bodies=st.lists(st.tuples(_steps, st.booleans()), min_size=1, max_size=3))
    def transactions(self, bodies: list[tuple[list[Any], bool]]) -> None:
        """Run bodies that read and write; some end with an exception."""
        expected: list[_Expected] = []

        def make(number: int, steps: list[Any], undo: bool) -> Any:
            def body(seen: Transaction) -> int:
                del expected[number:]  # it may be run again
                state = expected[-1].landed() if expected else self.model.now
                expected.append(_Expected(dict(state)))
                for step in steps:
                    self.step(seen, expected[number], *step)
                if undo:
                    expected[number] = _Expected(dict(state))
                    raise _Undone
                return number

            return body

        made = [make(number, *body) for number, body in enumerate(bodies)]
        results = self.backend.transactions(made)

        assert len(results) == len(bodies)
        for number, (result, (_steps, undo)) in enumerate(zip(results, bodies, strict=True)):
            if undo:
                assert isinstance(result, _Undone), result
                continue
            assert not isinstance(result, Exception), result
            assert result.value == number
            assert result.wrote == bool(expected[number].writes)
            if result.wrote:
                assert result.revision > self.model.revision
                self.model.write(expected[number].writes, result.revision)
            else:
                assert result.revision >= self.model.revision

    def step(
        self, seen: Transaction, expected: _Expected, kind: str, name: str, value: bytes, *rest: Any
    ) -> None:
        """Make one call within a body, and compare it with what it should do."""
        ttl, number = rest
        key = self.prefix + name
        before = expected.state.get(key)
        if kind == "get":
            assert _same(seen.get(key), before)
        elif kind == "list":
            prefix = self.prefix + name[0]
            found = seen.list(prefix, limit=number)
            wanted = [kv for at, kv in sorted(expected.state.items()) if at.startswith(prefix)]
            assert len(found) == len(wanted[: number or None])
            assert all(map(_same, found, wanted))
        elif kind == "delete":
            if before is not None and expected.wrote(key):
                with pytest.raises(InvalidArgument):
                    seen.delete(key)
                return
            assert _same(seen.delete(key), before)
            if before is not None:
                del expected.state[key]
                expected.writes.append(PlainWrite(key, None))
        else:
            self.put_step(seen, expected, key, value, ttl, number)

    def put_step(
        self, seen: Transaction, expected: _Expected, key: str, value: bytes, ttl: Any, number: int
    ) -> None:
        lease = self.lease_id(number) if ttl == "lease" else 0
        if ttl == "lease":
            ttl = 0
        if lease and Capability.LEASES not in self.can:
            lease = 0
        if ttl and Capability.TTL not in self.can:
            ttl = 0
        if expected.wrote(key):
            with pytest.raises(InvalidArgument):
                seen.put(key, value, ttl=ttl, lease=lease)
            return
        if lease and lease not in self.model.leases:
            with pytest.raises(LeaseNotFound):
                seen.put(key, value, lease=lease)
            return
        before = expected.state.get(key)
        written = seen.put(key, value, ttl=ttl, lease=lease)
        created = before.create_revision if before else 0
        version = (before.version if before else 0) + 1 if self.model.versions else 0
        assert (written.key, written.value, written.revision) == (key, value, 0)
        assert written.create_revision == created or created == -1 < written.create_revision
        assert written.version == version
        if lease:
            assert written.lease == lease
        expected.state[key] = written
        expected.writes.append(PlainWrite(key, value, ttl, lease))

    @precondition(lambda self: Capability.LEASES in self.can)
    @rule(number=st.integers(1, 4), chosen=st.booleans())
    def grant(self, number: int, chosen: bool) -> None:
        number += self.first_lease
        if not chosen and number in self.model.leases:
            with pytest.raises(LeaseExists):
                self.leases.grant(1000, lease=number)
            return
        granted = self.leases.grant(1000, lease=0 if chosen else number)
        assert granted.ttl >= 1000
        assert chosen or granted.id == number
        assert granted.id not in self.model.leases
        self.model.leases.add(granted.id)

    @precondition(lambda self: Capability.LEASES in self.can)
    @rule(number=st.integers(0, 3))
    def revoke(self, number: int) -> None:
        lease = self.lease_id(number)
        if lease not in self.model.leases:
            with pytest.raises(LeaseNotFound):
                self.leases.revoke(lease)
            return
        keys = self.model.keys_of(lease)
        revision = self.leases.revoke(lease)
        self.model.leases.discard(lease)
        if keys:
            assert revision > self.model.revision
            self.model.write([PlainWrite(key, None) for key in keys], revision)
        else:
            assert revision == self.model.revision

    @precondition(lambda self: Capability.LEASES in self.can)
    @rule(number=st.integers(0, 3))
    def look_at_leases(self, number: int) -> None:
        lease = self.lease_id(number)
        assert set(self.leases.list()) >= self.model.leases
        if lease in self.model.leases:
            self.leases.keep_alive(lease)
            found = self.leases.get(lease, keys=True)
            assert list(found.keys) == self.model.keys_of(lease)

    @precondition(lambda self: Capability.RAISE_REVISION in self.can)
    @rule(more=st.integers(-2, 3))
    def raise_revision(self, more: int) -> None:
        revision = max(1, self.model.revision + more)
        self.backend.raise_revision(revision)
        if revision > self.model.revision:
            self.model.raise_to(revision)


def _same(found: KeyValue | None, wanted: KeyValue | None) -> bool:
    """Return whether they agree; of a lease only its existence is compared, and not for the body's
    own writes."""
    if found is None or wanted is None:
        return found is wanted
    if wanted.revision == -1:
        assert found.revision > 0
        return (found.key, found.value, found.version) == (wanted.key, wanted.value, wanted.version)
    return found == wanted if not wanted.revision else plain(found) == wanted
