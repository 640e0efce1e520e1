"""The growth and cutting of the event log."""

from __future__ import annotations

import time

import pytest

from revstore.errors import (
    Expired,
)
from revstore.memory import MemoryBackend
from revstore.resource_type import ResourceType
from revstore.testing.storage._parts import Pod, pod
from revstore.typed import TypedStorage


def test_the_log_grows_and_shrinks(open_parts, monkeypatch):
    """HIST-1, HIST-2: events of the window are all kept, however many; older ones go when others
    come, but for about a hundred."""
    parts = open_parts()
    for number in range(1000):
        parts.put("a/1", f"n{number}")
    parts.settle()
    assert parts.cache.counters.log_length == 1000
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 80)
    for number in range(300):
        parts.put("a/1", f"m{number}")
    last = parts.settle()
    assert 300 <= parts.cache.counters.log_length <= 600
    monkeypatch.setattr(time, "monotonic", lambda: now + 1000)
    for number in range(200):
        parts.put("a/1", f"n{number}")
    parts.settle()
    assert 200 <= parts.cache.counters.log_length <= 400
    with parts.cache.watch("/pods", resource_version=last) as watch:
        seen = 0
        while seen < 200:
            seen += len(watch.poll(0))
        assert seen == 200


def test_the_oldest_version_that_can_be_watched(open_parts):
    """HIST-4, OLD-30, CACHE-3: of a cache that was filled at R, R and what comes after; what is
    older is Expired, and stays so."""
    backend = MemoryBackend()
    store = TypedStorage(backend, ResourceType(Pod, "/pods"))
    for number in range(3):
        store.create(f"/pods/a/{number}", pod(f"a/{number}"))
    parts = open_parts(backend)
    filled = int(parts.cache.list("/pods", resource_version="0").resource_version)
    assert filled == 4
    with (
        parts.cache.watch("/pods", resource_version=str(filled)) as at,
        parts.cache.watch("/pods", resource_version=str(filled + 1)) as after,
        parts.cache.watch("/pods", resource_version=str(filled - 1)) as before,
    ):
        for _ in range(2):
            with pytest.raises(Expired, match=f"version {filled - 1} is too old.*{filled}"):
                before.poll(5)
        parts.put("a/0", "n1")
        parts.put("a/1", "n1")
        parts.settle()
        assert [event.resource_version for event in at.poll(20)] == [
            str(filled + 1),
            str(filled + 2),
        ]
        assert [event.resource_version for event in after.poll(20)] == [str(filled + 2)]
