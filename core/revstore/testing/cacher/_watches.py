"""``CacherTests``, part: watches."""

from __future__ import annotations

import functools
import random
import threading
from collections.abc import Callable
from typing import Any

import pytest

from revstore.errors import Expired
from revstore.storage import Event, Watch
from revstore.testing._support import PATIENCE, run_threads, wait_until
from revstore.testing.cacher._base import SELECTIONS, CachedPods, CacherSuite, OpenCache, Scribe
from revstore.testing.cacher._history import Ask, History
from revstore.testing.cacher._replay import Replay
from revstore.testing.storage._base import Pods
from revstore.testing.storage._parts import Pod, pod
from revstore.values import Capability

__all__ = ["CachedWatchTests"]


class CachedWatchTests(CacherSuite):
    """The events of a cache's watch, replayed, give the store's state at the watch's version."""

    def test_cached_watches_replay_the_store(self, cached: CachedPods, scribe: Scribe) -> None:
        """Watches of every scope, selector and start, opened at any time, show every event once and
        in order (WATCH-1 to WATCH-10, CWATCH-1, CWATCH-2, CWATCH-6, CWATCH-7)."""
        starts: tuple[tuple[str, dict[str, Any]], ...] = (
            ("", {}),
            ("0", {}),
            ("", {"send_initial_events": False}),
            ("now", {}),
            ("first", {}),
            ("first", {"send_initial_events": True, "allow_bookmarks": True}),
            ("now", {"send_initial_events": True}),
        )
        asks = [Ask(cached.prefix, selection=each) for each in SELECTIONS]
        asks += [Ask(cached.key("a")), Ask(cached.key("b"), selection=SELECTIONS[1])]
        asks += [Ask(cached.key("a/p1"), recursive=False), Ask(cached.key("none"))]
        replays, chance = [], random.Random(0)
        for round_, (version, options) in enumerate(starts):
            scribe.scribble(6, seed=round_)
            now = str(cached.settle())
            named = {"now": now, "first": str(scribe.history.start)}
            # Each twice: watches of one scope and selection share the computed events.
            for ask in (*asks, *asks):
                at = named.get(version, version)
                replays.append(self.replay(cached, scribe.history, ask, at, **options))
            for _ in range(6):
                scribe.scribble(2, seed=scribe.history.last)
                cached.settle()
                for replay in chance.sample(replays, len(replays) // 6):
                    replay.take(0)
        last = int(scribe.put("c/last"))
        for replay in replays:
            replay.drain(last, PATIENCE)
            assert replay.ended is None
            replay.close()

    def test_cached_watch_from_the_future(self, cached: CachedPods, scribe: Scribe) -> None:
        """A watch from a version of the future shows what comes after that version (WATCH-6)."""
        now = int(scribe.put("a/p0"))
        replay = self.replay(cached, scribe.history, Ask(cached.prefix), str(now + 3))
        for number in range(8):  # each one is a write, so that the store gets there
            scribe.put("a/p0", f"n{number}")
            replay.take(0)
        assert scribe.history.last >= now + 8
        replay.drain(scribe.history.last, PATIENCE)
        replay.close()

    def test_cached_watches_can_be_resumed(self, cached: CachedPods, scribe: Scribe) -> None:
        """A watch from another watch's version goes on where that one stopped, also through another
        cache or without one (WATCH-2)."""
        ask = Ask(cached.prefix, selection=SELECTIONS[1])
        replay = self.replay(cached, scribe.history, ask, "")
        replay.drain(cached.settle(), PATIENCE)
        for turn in range(12):
            scribe.scribble(8, seed=turn)
            replay.take(0)
            before = replay.cursor
            replay.close()
            storage = cached.feed if turn % 3 == 2 else cached.storage
            replay.watch = storage.watch(ask.key, resource_version=str(before), **ask.options)
        replay.drain(scribe.history.last, PATIENCE)
        replay.close()

    def test_cut_feed_loses_nothing(self, cached: CachedPods, elsewhere: Pods) -> None:
        """A feed that breaks repeatedly under load reconnects. Watches go on, and show every event
        once and in order (CACHE-7)."""
        start = cached.settle()
        asks = [Ask(cached.prefix, selection=each) for each in (*SELECTIONS[:3], SELECTIONS[5])]
        watches = [
            cached.storage.watch(ask.key, resource_version=str(start), **ask.options)
            for ask in asks
        ]
        feed = cached.feed.inner.changes(cached.prefix, after=start)
        over = threading.Event()

        def work(index: int) -> None:
            if index:
                turn = 0
                while not over.wait(0.001):
                    _churn(elsewhere if index % 2 else cached, index, 5, turn)
                    turn += 1
                return
            try:
                for _ in range(15):
                    _cut(cached)
            finally:
                over.set()

        run_threads(3, work)
        last = int(elsewhere.create("c/last").metadata.resource_version)
        history = History(start)
        with feed:
            history.follow(feed, last, PATIENCE)
        for watch, ask in zip(watches, asks, strict=True):
            replay = Replay(watch, history, ask)
            replay.drain(last, PATIENCE)
            assert replay.ended is None
            replay.close()
        assert cached.list().items == elsewhere.list().items

    def test_refill_ends_watches(self, cached: CachedPods, scribe: Scribe, alone: None) -> None:
        """If history was compacted while the feed was broken, nothing is made up: watches show the
        events that the cache had, then end with Expired. A new list and watch go on (CACHE-6)."""
        self.need(cached.backend, Capability.COMPACTION)
        scribe.scribble(20)
        cached.settle()
        asks = [Ask(cached.prefix, selection=each) for each in SELECTIONS]
        start = str(scribe.history.start)
        old = [
            self.replay(cached, scribe.history, ask, start, allow_bookmarks=bookmarks)
            for ask in asks
            for bookmarks in (False, True)
        ]
        scribe.scribble(20, seed=1)
        held = cached.settle()
        cached.feed.hold()
        scribe.scribble(20, seed=2)
        cached.backend.compact(scribe.history.last)
        cached.feed.cut()
        cached.feed.release()
        cached.settle()
        if cached.cache.counters.initializations == 1:
            pytest.skip("the open backend still remembers what its store has compacted")
        for replay in old:
            wait_until(functools.partial(_has_ended, replay), "an end")
            assert replay.cursor is not None
            assert replay.cursor >= held, "what had come was not shown"
            with pytest.raises(Expired):
                replay.watch.poll(0)
        for ask in asks:
            listed = cached.list(**ask.selection.options)
            assert list(listed) == ask.among(scribe.history.now)
            replay = self.replay(cached, scribe.history, ask, listed.resource_version)
            last = int(scribe.put("a/more"))
            replay.drain(last, PATIENCE)
            replay.close()
            scribe.drop("a/more")

    def test_lagging_watch_is_told(self, open_cache: OpenCache, elsewhere: Pods) -> None:
        """A watch that falls behind the cache's log ends with Expired, at each poll, and delays
        nobody. A watch within the capacity loses nothing (HIST-1, HIST-4, HIST-5, DISP-3, OLD-32).
        """
        cached = open_cache(capacity=20)
        start = cached.settle()
        slow, selecting, near = (
            cached.storage.watch(cached.prefix, resource_version=str(start), **each.options)
            for each in (SELECTIONS[0], SELECTIONS[6], SELECTIONS[0])
        )
        feed = cached.feed.inner.changes(cached.prefix, after=start)
        history = History(start)
        replay = Replay(near, history, Ask(cached.prefix))
        for turn in range(25):
            run_threads(4, functools.partial(_churn, elsewhere, turns=4, turn=turn))
            last = int(elsewhere.create(f"c/{turn}").metadata.resource_version)
            history.follow(feed, last, PATIENCE)
            replay.drain(last, PATIENCE)
            assert replay.ended is None, f"{replay.ended} within the capacity"
        feed.close()
        for watch in (slow, selecting):
            for _ in range(2):
                with pytest.raises(Expired) as caught:
                    _exhaust(watch)
                assert int(caught.value.resource_version or start) >= start
        with pytest.raises(Expired):
            cached.storage.watch(cached.prefix, resource_version=str(start + 1)).poll(PATIENCE)
        replay.close()

    def test_one_thread_serves_many_watches(self, cached: CachedPods, elsewhere: Pods) -> None:
        """The callback of ``on_readable`` runs for every event: one poll that does not wait, for
        each callback, misses nothing (CWATCH-5, CWATCH-6)."""
        start = cached.settle()
        scopes = [Ask(cached.key(f"ns{number}")) for number in range(20)]
        asks = [Ask(cached.prefix, selection=each) for each in SELECTIONS] + scopes
        watches = [
            cached.storage.watch(ask.key, resource_version=str(start), **ask.options)
            for ask in asks
        ]
        told = threading.Condition()
        readable: set[int] = set()

        def tell(number: int) -> None:
            with told:
                readable.add(number)
                told.notify()

        for number, watch in enumerate(watches):
            watch.on_readable(functools.partial(tell, number))
        feed = cached.feed.inner.changes(cached.prefix, after=start)
        writers = [threading.Thread(target=_roam, args=(elsewhere, index)) for index in range(2)]
        for writer in writers:
            writer.start()
        answers: list[list[tuple[tuple[Event[Pod], ...], str]]] = [[] for _ in watches]
        counts = [0] * len(watches)

        def serve_until(done: Callable[[], bool]) -> None:
            while not done():
                with told:
                    assert told.wait_for(lambda: bool(readable), PATIENCE), "no callback came"
                    ready = sorted(readable)
                    readable.clear()
                for number in ready:
                    events = watches[number].poll(0) or ()
                    counts[number] += len(events)
                    answers[number].append((events, watches[number].resource_version))

        serve_until(lambda: counts[0] >= len(writers) * _ROAMS)
        for writer in writers:
            writer.join(PATIENCE)
        last = int(elsewhere.create("c/last").metadata.resource_version)
        history = History(start)
        with feed:
            history.follow(feed, last, PATIENCE)
        want = [len(history.events(ask, start, last)) for ask in asks]
        serve_until(lambda: counts == want)
        for watch, ask, answered in zip(watches, asks, answers, strict=True):
            watch.on_readable(None)
            replay = Replay(watch, history, ask, start=start)
            for events, version in answered:
                replay.check(events, version)
            replay.close()


_ROAMS = 150


def _roam(pods: Pods, index: int) -> None:
    """Write Pods in many namespaces, and change their nodes and labels."""
    chance = random.Random(index)
    for number in range(_ROAMS):
        name = f"ns{chance.randrange(20)}/{index}-{number % 7}"
        _put(pods, name, str(number), chance)


def _churn(pods: Pods, index: int, turns: int, turn: int = 0) -> None:
    """Write ``turns`` times: Pods are created, changed and deleted."""
    chance = random.Random(index)
    for number in range(turns):
        name = f"a/{index}-{number % 3}"
        if number % 5 == 4:
            pods.delete(name)
        else:
            _put(pods, name, f"{turn}-{number}", chance)


def _put(pods: Pods, name: str, turn: str, chance: random.Random) -> None:
    labels = {label: chance.choice("xy") for label in ("app", "tier") if chance.random() < 0.6}
    new = pod(name, chance.choice(["", "n1", "n2"]), labels={"turn": turn, **labels})
    pods.storage.guaranteed_update(pods.key(name), lambda *_: new, ignore_not_found=True)


def _cut(cached: CachedPods) -> None:
    """Cut the feed, and wait until the next one has raised the cache's revision."""

    def revision() -> int:
        return int(cached.list("none", resource_version="0").resource_version)

    cached.feed.cut()
    opened, before = cached.feed.opened, revision()
    wait_until(lambda: cached.feed.opened > opened and revision() > before, "a new feed")


def _exhaust(watch: Watch[Pod]) -> None:
    while watch.poll(PATIENCE):
        pass


def _has_ended(replay: Replay) -> bool:
    replay.take(0.01)
    return replay.ended is not None
