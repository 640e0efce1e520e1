"""``BackendTests``, part: numbers at the edges of their ranges, and values that are no numbers."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable
from typing import Any

import pytest

from revstore.backend import Backend
from revstore.errors import FutureRevision, InvalidArgument, Unsupported
from revstore.testing._support import Keyspace
from revstore.testing.backend._base import BackendSuite
from revstore.values import Capability

__all__ = ["NumberTests"]

_MOST = (1 << 63) - 1
_TTL_MOST = (1 << 32) - 1
#: No number of any range.
_NONE: list[Any] = [-1, -_MOST - 2, _MOST + 1, 1 << 64, 10**5000, True, 1.0, math.nan, "1", b"1"]
_NO_SECONDS: list[Any] = [math.nan, "1", True, 1j]
#: In the range and above every revision, around the sizes at which stores and drivers change.
_FUTURE = [n + d for n in (1 << 42, 1 << 43, 1 << 53, _MOST - 1) for d in (-1, 0, 1)]

#: Argument -> the calls that take it, with ``value`` in it.
_CALLS: dict[str, list[Callable[[Backend, str, Any], object]]] = {
    "revision": [
        lambda backend, key, value: backend.get(key, revision=value),
        lambda backend, key, value: backend.list(key, revision=value),
        lambda backend, key, value: backend.count(key, revision=value),
        lambda backend, key, value: backend.compact(value),
    ],
    "after_revision": [
        lambda backend, key, value: backend.watch(key, recursive=True, after_revision=value)
    ],
    "expected_revision": [
        lambda backend, key, value: backend.put(key, b"", expected_revision=value),
        lambda backend, key, value: backend.delete(key, expected_revision=value),
    ],
    "limit": [lambda backend, key, value: backend.list(key, limit=value)],
    "ttl": [lambda backend, key, value: backend.put(key, b"", expected_revision=0, ttl=value)],
}

#: Every call that takes a timeout.
_TIMED: list[Callable[[Backend, str, Any], object]] = [
    lambda backend, key, value: backend.status(timeout=value),
    lambda backend, key, value: backend.get(key, timeout=value),
    lambda backend, key, value: backend.list(key, timeout=value),
    lambda backend, key, value: backend.count(key, timeout=value),
    lambda backend, key, value: backend.put(key, b"", expected_revision=_MOST, timeout=value),
    lambda backend, key, value: backend.delete(key, expected_revision=_MOST, timeout=value),
    lambda backend, key, value: backend.size(timeout=value),
    lambda backend, key, value: _compact(backend, value),
]


def _compact(backend: Backend, timeout: Any) -> None:
    with contextlib.suppress(FutureRevision):
        backend.compact(_MOST, timeout=timeout)


class NumberTests(BackendSuite):
    """Every backend accepts each number, or refuses it with the same error."""

    @pytest.mark.parametrize("name", _CALLS)
    def test_numbers_out_of_range(self, backend: Backend, space: Keyspace, name: str) -> None:
        """Numbers beyond the range, and values that are not whole numbers, are refused by name, and
        nothing is written."""
        before = backend.status().revision
        for value in [*_NONE, *([_TTL_MOST + 1, _MOST] if name == "ttl" else ())]:
            for call in _CALLS[name]:
                with pytest.raises(InvalidArgument) as caught:
                    call(backend, space.key("a"), value)
                assert caught.value.field == name
        assert backend.list(space.prefix).kvs == ()
        if self.ephemeral:
            assert backend.status().revision == before

    def test_revisions_of_the_future(self, backend: Backend, space: Keyspace) -> None:
        """A revision that the store has not reached is FutureRevision, up to the largest of 63
        bits. A write that expects it loses, and a watch from it waits."""
        key = space.key("a")
        kept = space.create("a", b"1")
        read, count, page, compact = _CALLS["revision"]
        for revision in _FUTURE:
            for call in (read, count, page):
                with pytest.raises(FutureRevision) as caught:
                    call(backend, key, revision)
                assert caught.value.wanted == revision
            kind = FutureRevision if Capability.COMPACTION in backend.capabilities else Unsupported
            with pytest.raises(kind):
                compact(backend, key, revision)
            assert not backend.put(key, b"2", expected_revision=revision).succeeded
            assert not backend.delete(key, expected_revision=revision).succeeded
            with backend.watch(key, recursive=True, after_revision=revision) as watch:
                assert watch.poll(0.01) is None
                assert watch.position == revision
        assert space.read("a").revision == kept

    def test_limits_above_every_count(self, backend: Backend, space: Keyspace) -> None:
        """A limit that no list reaches lists everything."""
        space.create("a", b"1")
        for limit in (1, *_FUTURE):
            listed = backend.list(space.prefix, limit=limit, remaining=True)
            assert ([kv.value for kv in listed.kvs], listed.more) == ([b"1"], False)
            assert listed.remaining == 0

    def test_the_longest_ttl(self, backend: Backend, space: Keyspace) -> None:
        """4,294,967,295 seconds are stored, or Unsupported; the key does not expire at once."""
        key = space.key("a")
        if Capability.TTL not in backend.capabilities:
            with pytest.raises(Unsupported):
                backend.put(key, b"1", expected_revision=0, ttl=_TTL_MOST)
            return
        assert backend.put(key, b"1", expected_revision=0, ttl=_TTL_MOST).succeeded
        assert space.read("a").lease != 0

    @pytest.mark.parametrize("call", range(len(_TIMED)))
    def test_timeouts_out_of_range(self, backend: Backend, space: Keyspace, call: int) -> None:
        """Infinity and any large number of seconds mean no limit; NaN and values that are not
        numbers are refused by name."""
        if _TIMED[call] is _TIMED[-1]:
            self.need(backend, Capability.COMPACTION)
        if _TIMED[call] is _TIMED[-2] and backend.size() is None:
            pytest.skip("does not tell its size")
        for timeout in (math.inf, 1e300, 10**400, 1 << 63, threading.TIMEOUT_MAX):
            _TIMED[call](backend, space.key("a"), timeout)
        for value in _NO_SECONDS:
            with pytest.raises(InvalidArgument) as caught:
                _TIMED[call](backend, space.key("a"), value)
            assert caught.value.field == "timeout"

    def test_timeouts_of_poll(self, backend: Backend, space: Keyspace) -> None:
        """A poll with infinity waits until there is something; with a negative number it does not
        wait. NaN and values that are not numbers are refused by name, and the watch goes on."""
        with backend.watch(space.prefix, recursive=True, after_revision=space.start) as watch:
            for value in _NO_SECONDS:
                with pytest.raises(InvalidArgument) as caught:
                    watch.poll(value)
                assert caught.value.field == "timeout"
            for timeout in (-1.0, -math.inf, 0):
                batch = watch.poll(timeout)
                assert batch is None or not batch.events
            written = space.create("a", b"1")
            for timeout in (math.inf, 1e300):
                while (batch := watch.poll(timeout)) is None or not batch.events:
                    pass
                assert batch.revision == written
                written = space.update("a", b"2")
