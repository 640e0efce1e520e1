"""A feed that is cut a thousand times while many write: nobody notices."""

from __future__ import annotations

import logging
import random
import threading

import pytest

from revstore.cacher import Cacher, CacherConfig
from revstore.memory import MemoryBackend
from revstore.resource_type import ResourceType
from revstore.testing._support import run_threads, wait_until
from revstore.testing.cacher._base import INDEXED, SELECTIONS, CachedPods
from revstore.testing.cacher._feed import ControlledStorage
from revstore.testing.cacher._history import Ask, History
from revstore.testing.cacher._replay import Replay
from revstore.testing.storage._base import Pods
from revstore.testing.storage._parts import Pod, pod
from revstore.typed import TypedStorage

pytestmark = pytest.mark.slow

_CUTS = 1000
_WRITERS = 3


@pytest.fixture
def backend():
    with MemoryBackend() as backend:
        yield backend


@pytest.fixture
def raw(backend):
    with TypedStorage(backend, ResourceType(Pod, "/pods")) as storage:
        yield Pods(storage, backend, "/pods")


@pytest.fixture
def cached(backend, monkeypatch):
    # It reports each cut.
    monkeypatch.setattr(logging.getLogger("revstore.cacher"), "disabled", True)
    # Only the first retry is quick: a feed that cannot connect again is seen to back off.
    monkeypatch.setattr("revstore.cacher._feed._FIRST_RETRY", 0.001)
    feed = ControlledStorage(TypedStorage(backend, ResourceType(Pod, "/pods")))
    config = CacherConfig(
        storage=feed, resource_type=ResourceType(Pod, "/pods"), indexed_fields=INDEXED
    )
    with Cacher(config) as cache:
        cache.wait_ready()
        yield CachedPods(cache, feed, backend, "/pods")


def write(pods: Pods, index: int, over: threading.Event) -> None:
    """Pods of one's own that come and go and change node, labels, or nothing that counts."""
    chance, names = random.Random(index), [f"{space}/{index}" for space in ("a", "ab", "b")]
    there: set[str] = set()
    number = 0
    while not over.wait(0.004):
        name = chance.choice(names)
        if name in there and chance.random() < 0.2:
            pods.delete(name)
            there.discard(name)
            continue
        labels = {label: chance.choice("xy") for label in ("app", "tier") if chance.random() < 0.6}
        labels["number"] = str(number)
        new = pod(name, chance.choice(["", "n1", "n2"]), labels=labels)
        pods.storage.guaranteed_update(
            pods.key(name), lambda *_, new=new: new, ignore_not_found=True
        )
        there.add(name)
        number += 1


def cut(cached: CachedPods) -> None:
    """Cut the feed a thousand times: at once when it is there, or after it has brought something;
    from either side."""
    chance = random.Random(0)
    feed, cache = cached.feed, cached.cache
    for _ in range(_CUTS):
        opened, received = feed.opened, cache.counters.events_received
        if chance.random() < 0.5:
            feed.cut()
        else:
            cache._feed.cut()
        wait_until(lambda opened=opened: feed.opened > opened, "a new feed")
        if chance.random() < 0.8:
            wait_until(
                lambda received=received: cache.counters.events_received > received, "an event"
            )


def follow(cached: CachedPods, ask: Ask, over: threading.Event, *, late: bool, slow: bool):
    """All answers of a watch, each with its version; then those of one that goes on from there."""
    chance = random.Random(ask.key)
    if late:
        wait_until(lambda: cached.cache.counters.events_received > 100, "some events")
    answers = []
    watch = cached.storage.watch(ask.key, resource_version="" if late else "1", **ask.options)
    while not over.is_set():
        if slow:
            over.wait(0.05)
        answers.append((watch.poll(0.1) or (), watch.resource_version))
        if late and chance.random() < 0.05 and watch.resource_version:
            watch.close()
            watch = cached.storage.watch(ask.key, resource_version=answers[-1][1], **ask.options)
    return watch, answers


def test_a_thousand_cuts(cached, raw):
    """CACHE-7, CWATCH-1: however often the feed is cut while objects come, go, and
    begin and cease to match, no watch loses an event, sees one twice or out of order, or ends;
    quick ones and slow ones, from the beginning and late, resumed and not. Nor is the cache ever
    refilled."""
    asks = [Ask("/pods", selection=each) for each in SELECTIONS] + [
        Ask("/pods/a"),
        Ask("/pods/ab", selection=SELECTIONS[1]),
        Ask("/pods/b/0", recursive=False),
    ]
    feed = raw.storage.changes("/pods", after=1)
    over, written = threading.Event(), threading.Event()

    def work(index: int):
        if index == 0:
            try:
                cut(cached)
            finally:
                over.set()
        elif index <= _WRITERS:
            write(raw if index % 2 else cached, index, over)
        else:
            number = index - 1 - _WRITERS
            late, slow = number % 2 == 1, number % 3 == 2
            return follow(cached, asks[number % len(asks)], written, late=late, slow=slow)
        if index == 1:
            wait_until(over.is_set, "the last cut")
            written.set()
        return None

    watchers = 2 * len(asks)
    results = run_threads(1 + _WRITERS + watchers, work)[1 + _WRITERS :]
    last = int(raw.create("c/last").metadata.resource_version)
    history = History(1)
    with feed:
        history.follow(feed, last, 20)
    assert len(history.changes) > _CUTS
    for number, (watch, answers) in enumerate(results):
        late = number % 2 == 1
        replay = Replay(
            watch, history, asks[number % len(asks)], minimum=1 if late else None, start=1
        )
        for events, version in answers:
            replay.check(events, version)
        replay.drain(last, 20)
        assert replay.ended is None
        replay.close()
    counters = cached.cache.counters
    assert counters.initializations == 1
    assert counters.initialization_errors >= _CUTS * 0.9
    assert cached.list() == raw.list()
