"""Expiry and arguments that break a sentence of the contract."""

from __future__ import annotations

import attrs
import pytest

from revstore.errors import InvalidKey
from revstore.memory import MemoryBackend


class TtlDroppedAtUpdate(MemoryBackend):
    """A ttl counts for a creation only; an update keeps what there is."""

    def put(self, key, value, *, expected_revision, ttl=0, **options):
        ttl = ttl if not expected_revision else None
        return super().put(key, value, expected_revision=expected_revision, ttl=ttl, **options)


class UpdateEndsTheExpiry(MemoryBackend):
    """``ttl=None`` does what ``ttl=0`` does."""

    def put(self, key, value, *, ttl=0, **options):
        return super().put(key, value, ttl=ttl or 0, **options)


class NoExpiry(MemoryBackend):
    """A ttl is taken note of, and nothing expires."""

    def _start_sweeper(self):
        pass


class EarlyExpiry(MemoryBackend):
    """A key expires up to half a second before its time."""

    def __init__(self):
        super().__init__()
        put = self._state.put
        self._state.put = lambda key, value, ttl, clock: put(key, value, ttl, lambda: clock() - 0.5)


class HiddenBeforeItExpires(MemoryBackend):
    """A key whose time has come is hidden, and deleted a moment later."""

    def get(self, key, **options):
        found = super().get(key, **options)
        times = self.__dict__.get("times", {})
        gone = found.kv is not None and self._clock() > times.get(key, 1e300)
        return attrs.evolve(found, kv=None) if gone and not options.get("revision") else found

    def put(self, key, value, *, ttl=0, **options):
        found = super().put(key, value, ttl=ttl and ttl + 1, **options)
        if found.succeeded and ttl:
            self.__dict__.setdefault("times", {})[key] = self._clock() + ttl
        return found


class OldTimer(MemoryBackend):
    """An expiry goes by the key's name, and hits any key that has it then."""

    def put(self, key, value, *, ttl=0, **options):
        found = super().put(key, value, ttl=ttl, **options)
        old = self.__dict__.setdefault("old", {})
        if ttl:
            old[key] = self._state._deadlines[key]
        elif found.succeeded and key in old and not options["expected_revision"]:
            self._state._expire_at(key, old[key])
        return found


# Arguments


class BadStartIsServed(MemoryBackend):
    """A ``start`` that is no key is served."""

    def list(self, prefix, *, start="", **options):
        try:
            return super().list(prefix, start=start, **options)
        except InvalidKey:
            return super().list(prefix, **options)


class BytearrayIsAValue(MemoryBackend):
    def put(self, key, value, **options):
        return super().put(key, bytes(value) if isinstance(value, bytearray) else value, **options)


class CompactsZero(MemoryBackend):
    def compact(self, revision, **options):
        if revision != 0:
            super().compact(revision, **options)


class TimeoutOfCompactIsServed(MemoryBackend):
    """``compact`` does not look at its timeout."""

    def compact(self, revision, *, timeout=None):
        super().compact(revision)


class KeysAreTrimmed(MemoryBackend):
    """A key's trailing blanks and slashes are left out."""

    def put(self, key, value, **options):
        return super().put(key.rstrip(" /") or key, value, **options)


FAULTS = [
    (TtlDroppedAtUpdate, "ttl_none_keeps"),
    (UpdateEndsTheExpiry, "ttl_none_keeps"),
    (NoExpiry, "expiry_in_reads"),
    (EarlyExpiry, "test_expiry"),
    (HiddenBeforeItExpires, "expiry_in_reads"),
    (OldTimer, "deleted_key_does_not_expire"),
    (BadStartIsServed, "invalid_keys"),
    (BytearrayIsAValue, "invalid_arguments"),
    (CompactsZero, "test_bounds"),
    (TimeoutOfCompactIsServed, "timeouts_out_of_range"),
    (KeysAreTrimmed, "keys_need_no_slash"),
]


@pytest.mark.parametrize(
    ("fault", "test"), FAULTS, ids=lambda each: getattr(each, "__name__", each)
)
def test_the_suite_catches_it(assert_caught, fault, test):
    """By the test that is there for it."""
    assert_caught(fault, test)
