"""The shared log under preemption between any two lines."""

from __future__ import annotations

import contextlib
import itertools
import random
import sys
import threading
import time
from pathlib import Path
from types import CodeType
from typing import Any

import attrs
import pytest

from revstore.cacher import Cacher, CacherConfig, _event_log, _feed
from revstore.errors import CorruptObject, Expired
from revstore.memory import MemoryBackend
from revstore.resource_type import ResourceType
from revstore.shared_log import SharedLog
from revstore.storage import ObjectList
from revstore.testing._support import PATIENCE, run_threads, wait_until
from revstore.testing.cacher._base import INDEXED, SELECTIONS, labelled
from revstore.testing.cacher._history import Ask, History, Selection
from revstore.testing.cacher._replay import Replay
from revstore.testing.preemption import preempted
from revstore.testing.storage._parts import Pod, pod
from revstore.typed import TypedStorage
from revstore.watch_selector import WatchSelector

pytestmark = pytest.mark.slow

# Seconds within which something comes to every watch but those by label.
_WAKE = 5.0
_ASKS = [
    Ask("/pods"),
    Ask("/pods", selection=SELECTIONS[1]),
    Ask("/pods", selection=SELECTIONS[5]),
    Ask("/pods/a"),
    Ask("/pods", selection=Selection(label="never", matches=labelled("never", ""))),
]


def often_in_the_log(code: CodeType) -> float:
    """Every other line of the log, of its readers some."""
    name = Path(code.co_filename).name
    if name.startswith(("_event_log", "shared_log")) or code.co_name == "segment":
        return 0.5
    return 0.03 if Path(code.co_filename).parent.name == "cacher" else 0.0


@pytest.fixture(autouse=True)
def one_revision_at_a_time(monkeypatch):
    """The log grows as often as it can."""
    monkeypatch.setattr(_feed, "_TOGETHER", 1)


@attrs.define(eq=False)
class Followed:
    """What one watch has shown: the version after each answer."""

    ask: Ask
    start: int
    answers: list[tuple[tuple, str]]
    expired: bool = False


def follow(cache, ask: Ask, over: threading.Event, last: list[int]) -> list[Followed]:
    """Follow by watches, from the latest list each time one has fallen behind."""
    found = []
    while True:
        start = cache.list("/pods/none", resource_version="0").resource_version
        each = Followed(ask, int(start), [])
        found.append(each)
        with cache.watch(ask.key, resource_version=start, **ask.options) as watch:
            try:
                while not (over.is_set() and int(watch.resource_version) >= last[0]):
                    began = time.monotonic()
                    events = watch.poll(0.05 if ask.selection.label else _WAKE)
                    assert time.monotonic() - began < _WAKE, "nobody woke the watch"
                    each.answers.append((events or (), watch.resource_version))
                return found
            except Expired:
                each.expired = True


def write(storage, cache, count: int) -> int:
    """Write, never far ahead of the cache; the last revision."""
    chance = random.Random(count)
    for number in range(count):
        name = f"{chance.choice('ab')}/p{number % 5}"
        labels = {"app": chance.choice("xy"), "number": str(number)}
        new = pod(name, chance.choice(["n1", "n2"]), labels=labels)
        storage.guaranteed_update(f"/pods/{name}", lambda *_, new=new: new, ignore_not_found=True)
        if number % 16 == 0:
            wait_until(lambda at=number: cache.counters.events_received >= at, "the cache")
    # Every watch but one sees the last.
    new = pod("a/last", "n1", labels={"app": "x"})
    return int(storage.create("/pods/a/last", new).metadata.resource_version)


def read(cache, over: threading.Event) -> list[tuple[Ask, ObjectList[Pod]]]:
    """Lists of what is there at any moment."""
    found = []
    while not over.is_set():
        for ask in _ASKS:
            found.append((ask, cache.list(ask.key, resource_version="0", **ask.options)))
            over.wait(0.005)
    return found


def run(count: int, seed: int) -> tuple[History, list[Followed], list[Any]]:
    """Write ``count`` times while watches follow and lists are made, switched at any line."""
    with contextlib.ExitStack() as stack:
        backend = stack.enter_context(MemoryBackend())
        storage = TypedStorage(backend, ResourceType(Pod, "/pods"))
        raw = TypedStorage(backend, ResourceType(Pod, "/pods"))
        feed = stack.enter_context(raw.changes("/pods", after=1))
        preemption = stack.enter_context(preempted(seed, often_in_the_log))
        config = CacherConfig(
            storage=storage,
            resource_type=ResourceType(Pod, "/pods"),
            capacity=64,
            indexed_fields=INDEXED,
        )
        cache = stack.enter_context(Cacher(config))
        cache.wait_ready()
        over, last = threading.Event(), [0]

        def work(index: int):
            if index == 1:
                return read(cache, over)
            if index:
                return follow(cache, _ASKS[index % len(_ASKS)], over, last)
            sys.settrace(None)
            try:
                last[0] = write(raw, cache, count)
            finally:
                over.set()
            return []

        _, listed, *followed = run_threads(2 + 2 * len(_ASKS), work)
        history = History(1)
        history.follow(feed, last[0], PATIENCE)
        assert preemption.switches > count
        return history, list(itertools.chain(*followed)), listed


class _Shown:
    """A watch that has been polled."""

    resource_version = ""


def check(history: History, followed: list[Followed], listed: list[Any]) -> None:
    """No answer has a gap or an event twice, and each list is the state of its version."""
    for ask, items in listed:
        assert list(items) == ask.among(history.at(int(items.resource_version)))
    for each in followed:
        replay = Replay(_Shown(), history, each.ask, start=each.start)
        for events, version in each.answers:
            replay.check(events, version)


def test_the_log_has_no_gap_under_preemption():
    """HIST-4, HIST-5, CWATCH-1, CACHE-18: while one thread appends and drops the oldest, watches
    of every kind show each event once, in order, or end with Expired; each is woken for the last;
    and lists show one state."""
    history, followed, listed = run(1500, seed=1)

    check(history, followed, listed)
    finished = [each for each in followed if not each.expired]
    assert len(finished) == 2 * len(_ASKS)
    assert {int(each.answers[-1][1]) for each in finished} == {history.last}


def often_where_callbacks_wait(code: CodeType) -> float:
    """Most lines between a poll's look at the log and the feed's look at the watch."""
    return 0.5 if code.co_name in ("_poll_plain", "publish", "take", "arm") else 0.0


def test_a_watch_polled_only_when_it_is_called_misses_nothing_under_preemption():
    """Each event is the last one that comes before the next is waited for."""
    asks = [Ask("/pods"), Ask("/pods", selection=SELECTIONS[1]), Ask("/pods/a")]
    with MemoryBackend() as backend:
        storage = TypedStorage(backend, ResourceType(Pod, "/pods"))
        config = CacherConfig(
            storage=storage, resource_type=ResourceType(Pod, "/pods"), indexed_fields=INDEXED
        )
        with Cacher(config) as cache, WatchSelector() as selector:
            cache.wait_ready()
            seen, first = [0] * 12, threading.Event()
            watches = [cache.watch(asks[n % 3].key, **asks[n % 3].options) for n in range(12)]
            for number, watch in enumerate(watches):
                selector.add(watch, number)

            def work(index: int) -> None:
                if index == 0:
                    while min(seen) < 400:
                        for watch, number in selector.select(PATIENCE):
                            seen[number] += len(watch.poll(0) or ())
                            first.set()
                    return
                for count in range(400):  # every second one comes while the one before is polled
                    new = pod("a/p", "n1", labels={"app": "x", "count": str(count)})
                    storage.guaranteed_update(
                        "/pods/a/p", lambda *_, new=new: new, ignore_not_found=True
                    )
                    if count % 2:
                        wait_until(
                            lambda n=count: min(seen) > n, "an event that nobody was called for"
                        )
                        first.clear()
                    else:
                        assert first.wait(PATIENCE)

            with preempted(1, often_where_callbacks_wait) as preemption:
                run_threads(2, work)
            assert preemption.switches > 400
            for watch in watches:
                watch.close()
            assert seen == [400] * 12


class TwoFields(_event_log.EventLog):
    """A wrong log: its base and its entries are two fields."""

    @property
    def segment(self):
        base = self._base
        floor = self._floor
        entries = self._entries
        return SharedLog(floor=floor, base=base, items=entries)

    @segment.setter
    def segment(self, segment):
        self._base = segment.base
        self._floor = segment.floor
        self._entries = segment.items


def test_a_wrong_log_is_found(monkeypatch):
    """The test above is worth something: it finds a log of two fields wrong."""
    for name, module in list(sys.modules.items()):
        if name.startswith("revstore.cacher.") and module is not _event_log:
            monkeypatch.setattr(module, "EventLog", TwoFields, raising=False)
    found = []
    for seed in range(60):  # each has a chance of a fifth
        try:
            check(*run(600, seed))
        except (AssertionError, IndexError, ValueError) as error:
            found.append(error)
            break

    assert found, "a log of two fields passes"


def test_a_watch_after_what_the_cache_does_not_show_yet():
    """WATCH-6: a watch that begins with a write that has only just been made, so that the cache
    shows it while the watch is opened, shows what comes after it and not the write itself."""
    with contextlib.ExitStack() as stack:
        backend = stack.enter_context(MemoryBackend())
        storage = TypedStorage(backend, ResourceType(Pod, "/pods"))
        raw = TypedStorage(backend, ResourceType(Pod, "/pods"))
        stack.enter_context(preempted(2, often_in_the_log))
        config = CacherConfig(storage=storage, resource_type=ResourceType(Pod, "/pods"))
        cache = stack.enter_context(Cacher(config))
        cache.wait_ready()
        new = (pod("a", labels={"number": str(number)}) for number in itertools.count())

        def change() -> str:
            obj = raw.guaranteed_update("/pods/a", lambda *_: next(new), ignore_not_found=True)
            return obj.metadata.resource_version

        def work(_index: int) -> None:
            for _ in range(400):
                before = change()
                with cache.watch("/pods", resource_version=before) as watch:
                    after = change()
                    events = watch.poll(PATIENCE)
                    assert events is not None
                    assert events[0].resource_version == after

        run_threads(1, work)


def test_an_object_that_is_readable_now_and_then_is_never_missing():
    """GET-3: a get from memory while the object becomes readable and unreadable gives it, or says
    that it cannot be read, but never that there is none."""
    with contextlib.ExitStack() as stack:
        backend = stack.enter_context(MemoryBackend())
        storage = TypedStorage(backend, ResourceType(Pod, "/pods"))
        storage.create("/pods/a", pod("a"))
        kv = backend.list("").kvs[0]
        names = {"_enter", "get", "put", "remove"}
        stack.enter_context(preempted(1, lambda code: 0.4 * (code.co_name in names)))
        config = CacherConfig(storage=storage, resource_type=ResourceType(Pod, "/pods"))
        cache = stack.enter_context(Cacher(config))
        cache.wait_ready()
        over = threading.Event()

        def write() -> None:
            revision = kv.revision
            for number in range(200):
                value = kv.value if number % 2 else b"{"
                revision = backend.put(kv.key, value, expected_revision=revision).revision
                cache._content.wait_fresh(revision, PATIENCE)

        def work(index: int) -> None:
            try:
                if index == 0:
                    write()
                    return
                while not over.is_set():
                    with contextlib.suppress(CorruptObject):
                        cache.get("/pods/a", resource_version="0")
            finally:
                over.set()

        run_threads(3, work)
