"""Watches that fall behind the event log, and how many end at once."""

from __future__ import annotations

import threading
import time

import attrs
import pytest

from revstore.errors import Closed, Expired
from revstore.objects import ObjectMeta
from revstore.storage import EventType
from revstore.testing._support import wait_until


@attrs.frozen(kw_only=True)
class Pod:
    metadata: ObjectMeta
    node_name: str = ""


def pod(name: str, namespace: str = "a", node: str = "", **labels: str) -> Pod:
    return Pod(metadata=ObjectMeta(name=name, namespace=namespace, labels=labels), node_name=node)


def follow(watch, until: str) -> list[tuple[str, str, str]]:
    """Events until that of version ``until``."""
    seen = []
    deadline = time.monotonic() + 30
    while not seen or seen[-1][2] != until:
        events = watch.poll(max(0.0, deadline - time.monotonic()))
        assert events is not None, seen[-3:]
        seen += [(str(e.type), e.object.metadata.name, e.resource_version) for e in events]
    return seen


def test_a_slow_watch_falls_off_and_is_told(open_cache):
    """HIST-5, DISP-1, DISP-2: the log is bounded; a watch that falls behind gets Expired, each time
    it polls, with the version to list from, and delays nobody."""
    cache = open_cache(capacity=100)
    slow, quick = (cache.watch("/pods", resource_version="1") for _ in range(2))
    for number in range(400):
        written = cache.create(f"/pods/a/{number}", pod(str(number)))
        (event,) = quick.poll(5)
        assert event.resource_version == written.metadata.resource_version
    for _ in range(2):
        with pytest.raises(Expired, match="fell behind") as caught:
            slow.poll(5)
        assert int(caught.value.resource_version) >= 300
    with pytest.raises(Expired, match="too old") as caught:
        cache.watch("/pods", resource_version="2").poll(5)
    assert [e[2] for e in follow(cache.watch("/pods", resource_version="395"), "401")] == [
        str(version) for version in range(396, 402)
    ]


def test_closing_ends_ten_thousand_watches(open_cache):
    """BOOK-6: quickly, and without a thread left."""
    before = threading.active_count()
    cache = open_cache()
    cache.wait_ready()
    watches = [cache.watch(f"/pods/ns{number}", resource_version="0") for number in range(10_000)]
    ended = []

    def iterate() -> None:
        ended.extend(watches[0])
        ended.append("end")

    reader = threading.Thread(target=iterate)
    reader.start()
    start = time.perf_counter()
    cache.close()
    assert time.perf_counter() - start < 4
    reader.join(5)
    assert ended == ["end"]
    wait_until(lambda: threading.active_count() <= before, "no thread left")
    for watch in watches:
        with pytest.raises(Closed):
            watch.poll(0)
    with pytest.raises(Closed):
        cache.get("/pods/a/x")


def put(cache, key, new):
    written = cache.guaranteed_update(key, lambda _, __: new, ignore_not_found=True)
    return written.metadata.resource_version


def settle(cache, version):
    cache.list("/pods", resource_version=version, limit=1, resource_version_match="NotOlderThan")


def test_a_quiet_watch_does_not_fall_behind(open_cache):
    """HIST-5: the log drops what concerns others as often as it likes; a watch that nothing
    concerned goes on, whether or not it was polled."""
    cache = open_cache(capacity=100)
    version = put(cache, "/pods/a/1", pod("1"))
    quiet = cache.watch("/pods/b", resource_version=version)
    settle(cache, version)
    assert quiet.poll(0) is None
    never = cache.watch("/pods", resource_version=version, field_selector="nodeName=n1")
    assert never.poll(0) is None
    busy = cache.watch("/pods/a", resource_version=version)
    for number in range(500):
        last = put(cache, "/pods/a/1", pod("1", node=f"x{number}"))
    settle(cache, last)
    put(cache, "/pods/b/1", pod("1", "b", "n1"))
    assert [event.type for event in quiet.poll(10)] == [EventType.ADDED]
    assert [event.type for event in never.poll(10)] == [EventType.ADDED]
    with pytest.raises(Expired, match="fell behind"):
        busy.poll(0)
    assert cache.counters.terminated_watches == 1


def test_the_log_is_held_for_who_replays_slowly(open_cache, monkeypatch):
    """HIST-5, DISP-4: while a watch reads its initial events, age drops nothing from the log; it
    gets through and goes on without a gap."""
    cache = open_cache()
    for number in range(600):
        last = put(cache, f"/pods/a/{number:03}", pod(f"{number:03}"))
    settle(cache, last)
    watch = cache.watch("/pods", resource_version="0")
    assert len(watch.poll(0)) == 500
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 1000)
    for number in range(300):
        last = put(cache, "/pods/b/1", pod("1", "b", str(number)))
    settle(cache, last)
    assert len(watch.poll(0)) == 100
    assert len(watch.poll(0)) == 300
    for _ in range(300):
        last = put(cache, "/pods/b/1", pod("1", "b", f"more {last}"))
    settle(cache, last)
    log = cache._content.generation.log
    assert log.held == 0
