"""Stores that are wiped, full, damaged, silent or shared with others, and break a sentence of the
contract then."""

from __future__ import annotations

import contextlib
import threading
import time

import attrs
import msgspec
import pytest

from revstore.errors import ReadOnly, Timeout
from revstore.memory import MemoryBackend
from revstore.testing import _support
from revstore.testing.backend._conditions import ConditionTests
from revstore.values import Capability


class Owned(MemoryBackend):
    """A right backend, whose owner can bring about all that the suite asks for."""

    default = 0.2

    def __init__(self):
        super().__init__()
        self.damaged, self.foreign, self.met = {}, [], 0
        self.full = False
        self.flows = threading.Event()
        self.flows.set()

    @contextlib.contextmanager
    def refusing(self):
        self.full = True
        yield
        self.full = False

    @contextlib.contextmanager
    def stalled(self):
        self.flows.clear()
        yield
        self.flows.set()

    def damage(self, key):
        self.damaged[key] = super().get(key).kv.revision

    def add_foreign(self, prefix):
        self.foreign.append(prefix.encode() + b"\xff")

    def status(self, **options):
        self.wait(**options)
        return attrs.evolve(super().status(), foreign_keys=self.met)

    def get(self, key, **options):
        self.wait(**options)
        found = super().get(key, **options)
        return attrs.evolve(found, kv=self.marked(found.kv))

    def list(self, prefix, **options):
        self.wait(**options)
        found = super().list(prefix, **options)
        self.met = len(self.foreign)
        return attrs.evolve(found, kvs=tuple(map(self.marked, found.kvs)))

    def count(self, prefix, **options):
        self.wait(**options)
        return super().count(prefix, **options)

    def put(self, key, value, **options):
        self.wait(**options)
        self.refuse(key, value)
        found = super().put(key, value, **options)
        return attrs.evolve(found, current=self.marked(found.current))

    def delete(self, key, **options):
        self.wait(**options)
        return super().delete(key, **options)

    def refuse(self, _key, _value):
        if self.full:
            raise ReadOnly("it is full")

    def marked(self, kv):
        damaged = kv is not None and self.damaged.get(kv.key) == kv.revision
        return msgspec.structs.replace(kv, damaged=True) if damaged else kv

    def wait(self, timeout=None, **_):
        if not self.flows.wait(self.default if timeout is None else timeout):
            raise Timeout("it is stalled")


class WipedAndTheSame(Owned):
    """The identity is that of the place, not of the data."""

    def status(self, **options):
        return attrs.evolve(super().status(**options), store_id="here")


class NoLimitByDefault(Owned):
    """A call without a timeout waits for ever."""

    default = 3600.0


class RefusedAndWritten(Owned):
    """A write that is refused is there."""

    def refuse(self, key, value):
        if self.full:
            found = MemoryBackend.get(self, key).kv
            MemoryBackend.put(self, key, value, expected_revision=found.revision if found else 0)
        super().refuse(key, value)


class RefusedAndCounted(Owned):
    """A write that is refused takes a revision."""

    def refuse(self, key, value):
        if self.full:
            MemoryBackend.put(self, f"/x{time.monotonic_ns()}", b"", expected_revision=0)
        super().refuse(key, value)


class DamageUnseen(Owned):
    """A value that was damaged is given as it is."""

    def marked(self, kv):
        return kv


class DamageInGetOnly(Owned):
    """A list does not look at checksums."""

    def list(self, prefix, **options):
        return MemoryBackend.list(self, prefix, **options)


class DamageOfAll(Owned):
    """One damaged value taints the keys beside it."""

    def marked(self, kv):
        return msgspec.structs.replace(kv, damaged=True) if kv and self.damaged else kv


class DamageForEver(Owned):
    """A key stays damaged when it is written again."""

    def marked(self, kv):
        damaged = kv is not None and kv.key in self.damaged
        return msgspec.structs.replace(kv, damaged=True) if damaged else kv


class DamageFromTheStart(Owned):
    """Values are damaged that nobody has damaged."""

    def marked(self, kv):
        return msgspec.structs.replace(kv, damaged=True) if kv else kv


class ForeignUncounted(Owned):
    def status(self, **options):
        return attrs.evolve(super().status(**options), foreign_keys=0)


class ForeignShown(Owned):
    """A list shows keys that are no texts, as best it can."""

    def list(self, prefix, **options):
        found = super().list(prefix, **options)
        more = [
            msgspec.structs.replace(found.kvs[0], key=key.decode("latin-1")) for key in self.foreign
        ]
        return attrs.evolve(found, kvs=(*found.kvs, *more))


class ForeignFromNowhere(Owned):
    """Foreign keys are counted where none are."""

    def status(self, **options):
        return attrs.evolve(super().status(**options), foreign_keys=1)


class MoreThanDeclared(Owned):
    """It has a capability that its plugin does not declare."""

    declared = frozenset(Capability) - {Capability.TTL}


def attempt(fault, test):
    """One test of the suite on a backend, with all fixtures that it has."""
    suite = ConditionTests()
    suite.starts_at_one = True
    declared = getattr(fault, "declared", frozenset(Capability))
    with fault() as backend:
        space = _support.Keyspace(backend, "/t/")
        ours = {
            "test_store_id_after_a_wipe": lambda run: run(backend, fault),
            "test_default_timeout": lambda run: run(
                backend, space, backend.stalled, lambda: contextlib.nullcontext(backend)
            ),
            "test_refused_writes_change_nothing": lambda run: run(backend, space, backend.refusing),
            "test_damaged_values": lambda run: run(backend, space, backend.damage),
            "test_foreign_keys": lambda run: run(backend, space, backend.add_foreign),
            "test_foreign_keys without any": lambda run: run(backend, space, None),
            "test_damaged_values without any": lambda run: run(backend, space, None),
            "test_declared_capabilities": lambda run: run(backend, declared),
        }
        ours[test](getattr(suite, test.partition(" ")[0]))


FAULTS = [
    (WipedAndTheSame, "test_store_id_after_a_wipe"),
    (NoLimitByDefault, "test_default_timeout"),
    (RefusedAndWritten, "test_refused_writes_change_nothing"),
    (RefusedAndCounted, "test_refused_writes_change_nothing"),
    (DamageUnseen, "test_damaged_values"),
    (DamageInGetOnly, "test_damaged_values"),
    (DamageOfAll, "test_damaged_values"),
    (DamageForEver, "test_damaged_values"),
    (DamageFromTheStart, "test_damaged_values without any"),
    (ForeignUncounted, "test_foreign_keys"),
    (ForeignShown, "test_foreign_keys"),
    (ForeignFromNowhere, "test_foreign_keys without any"),
    (MoreThanDeclared, "test_declared_capabilities"),
]


@pytest.mark.parametrize("test", sorted({test for _, test in FAULTS}))
def test_a_right_backend_passes(test):
    """No false alarm."""
    attempt(Owned, test)


@pytest.mark.parametrize(
    ("fault", "test"), FAULTS, ids=lambda each: getattr(each, "__name__", each)
)
def test_the_suite_catches_it(monkeypatch, fault, test):
    """By the test that is there for it."""
    monkeypatch.setattr("revstore.testing.backend._conditions.HANGS", 0.5)
    with pytest.raises(AssertionError):
        attempt(fault, test)
