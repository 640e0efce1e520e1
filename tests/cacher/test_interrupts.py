"""Exceptions at any line of a call, as a signal's handler raises them: nothing is lost by them."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from typing import Any

import attrs
import pytest

import revstore.watch_selector
from revstore.cacher import Cacher, CacherConfig
from revstore.copier import DeepCopier
from revstore.errors import Closed, InternalError
from revstore.memory import MemoryBackend
from revstore.storage import Event, EventType, Watch
from revstore.testing._support import PATIENCE, run_threads, wait_until
from revstore.testing.interrupts import code_below, interrupt_every_line
from revstore.testing.storage._parts import PODS, name_of, pod
from revstore.typed import TypedStorage
from revstore.watch_selector import WatchSelector

# The selector's folder is the package's: its file alone is meant.
_below = code_below(Cacher, TypedStorage)


# Locks that are written in Python are not safe from interrupts.
_FILES = {revstore.watch_selector.__file__, threading.__file__}


def where(code: Any) -> bool:
    """The code of cache, typed storage and selector, and of the locks that they wait for."""
    return _below(code) or code.co_filename in _FILES


def drain(watch: Watch[Any], count: int) -> list[Event[Any]]:
    """The next ``count`` events."""
    found: list[Event[Any]] = []
    end = time.monotonic() + PATIENCE
    while len(found) < count and time.monotonic() < end:
        found += watch.poll(max(0.0, end - time.monotonic())) or ()
    return found


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "selected": {"field_selector": "spec.nodeName!=none"},
    "timed": {"timeout": 600.0, "allow_bookmarks": True},
    "tolerant": {"even_if_corrupt": True},
}


@pytest.mark.parametrize("told", [False, True], ids=["polled", "told"])
@pytest.mark.parametrize("kind", [*OPTIONS, "copied", "raw"])
def test_an_interrupted_poll_loses_nothing(
    open_parts: Callable[..., Any], kind: str, told: bool
) -> None:
    """Each event is delivered once, in order, and a callback that waits is called for what is
    left."""
    resource_type = attrs.evolve(PODS, copier=DeepCopier()) if kind == "copied" else PODS
    parts = open_parts(MemoryBackend(), resource_type)
    version = parts.settle()
    storage = parts.store if kind == "raw" else parts.cache
    names = (f"n{number}" for number in itertools.count())
    wanted: list[str] = []
    seen: list[str] = []
    calls: list[None] = []
    told = told and kind != "raw"
    with storage.watch("/pods", resource_version=version, **OPTIONS.get(kind, {})) as watch:
        if told:
            watch.on_readable(lambda: calls.append(None))

        def attempt() -> None:
            found = watch.poll(0)
            seen.extend(name_of(event.object) for event in found or ())

        def write() -> None:
            wanted.append(next(names))
            new = parts.put(wanted[-1])
            parts.cache.get(f"/pods/{wanted[-1]}", resource_version=new)

        def after(spot: str) -> None:
            if told:
                assert calls, spot
                calls.clear()
            left = len(wanted) - len(seen)
            seen.extend(name_of(event.object) for event in drain(watch, left))
            assert seen == wanted, spot
            calls.clear()
            write()

        write()
        assert interrupt_every_line(attempt, where=where, after=after) > 5


@pytest.mark.parametrize("kind", ["cached", "copied", "raw"])
def test_interrupted_initial_events_go_on(open_parts: Callable[..., Any], kind: str) -> None:
    """Nothing of the state is lost or comes twice, and the bookmark that ends it comes."""
    resource_type = attrs.evolve(PODS, copier=DeepCopier()) if kind == "copied" else PODS
    parts = open_parts(MemoryBackend(), resource_type)
    for name in ("a", "b", "c"):
        parts.put(name)
    parts.settle()
    storage = parts.store if kind == "raw" else parts.cache
    seen: list[Event[Any]] = []
    watches: list[Watch[Any]] = []

    def begin() -> None:
        seen.clear()
        watches.append(storage.watch("/pods", send_initial_events=True, allow_bookmarks=True))

    def attempt() -> None:
        found = watches[-1].poll(0)
        seen.extend(found or ())

    def after(spot: str) -> None:
        seen.extend(drain(watches[-1], 4 - len(seen)))
        names = [name_of(event.object) for event in seen]
        assert names == ["a", "b", "c", ""], spot
        assert seen[-1].initial_events_end
        watches[-1].close()
        begin()

    begin()
    assert interrupt_every_line(attempt, where=where, after=after) > 10
    if kind != "raw":
        watches[-1].close()
        generation = parts.cache._content.generation
        assert (generation.watches, generation.log.held) == (0, 0)


def test_a_copier_that_fails_does_not_end_the_initial_events() -> None:
    """The rest comes once it works again."""

    class Copier(DeepCopier):
        failures = 0

        def copy(self, obj: Any) -> Any:
            if self.failures and name_of(obj) == "b":
                self.failures -= 1
                raise MemoryError
            return super().copy(obj)

    copier = Copier()
    kind = attrs.evolve(PODS, copier=copier)
    with MemoryBackend() as backend:
        store = TypedStorage(backend, kind)
        with Cacher(CacherConfig(storage=store, resource_type=kind)) as cache:
            for name in ("a", "b", "c"):
                cache.create(f"/pods/{name}", pod(name))
            with cache.watch("/pods", send_initial_events=True, allow_bookmarks=True) as watch:
                copier.failures = 2
                for _ in range(2):
                    with pytest.raises(MemoryError):
                        watch.poll(0)
                assert watch.resource_version == ""
                events = drain(watch, 4)
    assert [name_of(event.object) for event in events] == ["a", "b", "c", ""]
    assert events[-1].type is EventType.BOOKMARK


def test_an_interrupted_opening_leaves_nothing_behind(open_parts: Callable[..., Any]) -> None:
    """Neither a watch that is counted, nor a log that is held for it."""
    parts = open_parts(MemoryBackend())
    parts.put("a")
    parts.settle()
    generation = parts.cache._content.generation
    opened: list[Watch[Any]] = []

    def attempt() -> None:
        opened.append(
            parts.cache.watch("/pods/x", field_selector="spec.nodeName=n", send_initial_events=True)
        )

    def after(spot: str) -> None:
        for watch in opened:
            watch.close()
        assert (generation.watches, generation.log.held) == (0, 0), spot
        opened.clear()

    assert interrupt_every_line(attempt, where=where, after=after) > 10
    after("the last")


def test_an_interrupted_close_can_be_repeated(open_parts: Callable[..., Any]) -> None:
    """And then has done all that it does."""
    parts = open_parts(MemoryBackend())
    version = parts.settle()
    generation = parts.cache._content.generation
    told: list[None] = []
    watches: list[Watch[Any]] = []

    def begin() -> None:
        watches.append(parts.cache.watch("/pods/x", resource_version=version, timeout=600))
        watches[-1].on_readable(lambda: told.append(None))

    def after(spot: str) -> None:
        watches[-1].close()
        assert told, spot
        assert generation.watches == 0, spot
        assert not generation._scopes, spot
        told.clear()
        begin()

    def close() -> None:
        watches[-1].close()

    begin()
    assert interrupt_every_line(close, where=where, after=after) > 5


def test_an_interrupted_select_loses_no_watch(open_parts: Callable[..., Any]) -> None:
    """The next one returns what it would have."""
    parts = open_parts(MemoryBackend())
    version = parts.settle()
    with WatchSelector() as selector, parts.cache.watch("/pods", resource_version=version) as watch:
        selector.add(watch)
        names = (f"n{number}" for number in itertools.count())

        def attempt() -> None:
            found = selector.select(PATIENCE)
            assert [each for each, _ in found] == [watch]
            watch.poll(0)

        def write() -> None:
            name = next(names)
            parts.cache.get(f"/pods/{name}", resource_version=parts.put(name))

        def after(spot: str) -> None:
            ((found, _),) = selector.select(PATIENCE)
            assert found is watch, spot
            while watch.poll(0):
                pass
            write()

        write()

        def only_selector(code: Any) -> bool:
            return bool(code.co_filename == revstore.watch_selector.__file__)

        assert interrupt_every_line(attempt, where=only_selector, after=after) > 5


def check_free(parts: Any, spot: str) -> None:
    """No lock is held, and no turn is taken: the feed and other threads go on."""

    def use(_: int) -> None:
        cache = parts.cache
        version = parts.put("z", node=spot)
        assert cache.get("/pods/z", resource_version=version).spec.node_name == spot
        for options in ({}, {"limit": 1}, {"resource_version": version, "limit": 1}):
            assert cache.list("/pods", timeout=PATIENCE, **options).items, spot
        cache.watch("/pods/z", timeout=PATIENCE).close()

    run_threads(6, use, PATIENCE)
    fallbacks = parts.cache._fallbacks
    assert (fallbacks._waiting, fallbacks._running) == ({}, set()), spot
    # The feed's thread may hold one for a moment, as it wakes it.
    waiting = parts.cache._content._freshness._waiting
    wait_until(lambda: not list(waiting), f"nobody waits after {spot}")


READS: dict[str, Callable[[Any, str], Any]] = {
    "get": lambda s, _: s.get("/pods/a"),
    "get fresh": lambda s, now: s.get("/pods/a", resource_version=now),
    "list": lambda s, _: s.list("/pods"),
    "list selected": lambda s, _: s.list("/pods", field_selector="spec.nodeName=n"),
    "list fresh": lambda s, now: s.list("/pods", resource_version=now),
    "list any": lambda s, _: s.list("/pods", resource_version="0"),
    "exact": lambda s, now: s.list(
        "/pods", resource_version=now, resource_version_match="Exact", limit=2
    ),
    "page": lambda s, _: s.list("/pods", limit=1),
    "from the store": lambda s, _: s.list("/pods", resource_version="2", limit=1),
    "ready": lambda s, _: s.wait_ready(PATIENCE),
}


class Released:
    """A block whose code alone is interrupted, and in the middle of which the feed goes on."""

    def __init__(self, parts: Any) -> None:
        self._parts = parts
        self._over = threading.Event()
        self.inside = False

    def where(self, code: Any) -> bool:
        return self.inside and where(code)

    def __enter__(self) -> None:
        self._over.clear()
        threading.Thread(target=self._release).start()
        self.inside = True

    def __exit__(self, *_: object) -> None:
        self.inside = False
        assert self._over.wait(PATIENCE)

    def _release(self) -> None:
        time.sleep(0.002)  # most of what may be waited for is waited for by then
        self._parts.feed.release()
        self._over.set()


@pytest.mark.parametrize("kind", READS)
def test_an_interrupted_read(open_parts: Callable[..., Any], kind: str) -> None:
    """The next one gives what is there, in every thread; one that waits for the cache too."""
    read = READS[kind]
    parts = open_parts(MemoryBackend())
    for name in ("a", "b"):
        parts.put(name, "n")
    parts.settle()
    block = Released(parts)
    written = itertools.count()

    def attempt() -> None:
        parts.feed.hold()
        now = parts.put("a", f"{next(written)}")
        with block:
            read(parts.cache, now)

    def after(spot: str) -> None:
        now = parts.put("a", spot)
        found = read(parts.cache, now)
        if kind.startswith("get"):
            assert found.spec.node_name == spot
        elif kind in {"list", "list fresh", "exact", "page"}:
            assert found.items[0].spec.node_name == spot
        check_free(parts, spot)

    assert interrupt_every_line(attempt, where=block.where, after=after, visits=1) > 3


@pytest.mark.parametrize("kind", ["list", "watch", "ready"])
def test_an_interrupt_while_the_cache_is_filled(
    open_parts: Callable[..., Any], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits for the cache may leave at any moment: it is filled all the same, and the next call
    is answered."""
    monkeypatch.setattr("revstore.cacher._feed._FIRST_RETRY", 0.001)
    parts = open_parts(MemoryBackend())
    now = parts.put("a")
    parts.settle()
    block = Released(parts)

    def cacher_alone(code: Any) -> bool:
        return block.where(code) and "typed" not in code.co_filename

    def call() -> None:
        if kind == "watch":
            with parts.cache.watch("/pods", send_initial_events=True) as watch:
                watch.poll(0)
        else:
            READS[kind](parts.cache, now)

    def attempt() -> None:
        parts.feed.hold()
        parts.cache._content.feed.cut(InternalError("the test has the cache filled again"))
        wait_until(lambda: parts.cache._content.generation is None, "the cache is refilled")
        with block:
            call()

    def after(spot: str) -> None:
        run_threads(2, lambda _: call(), PATIENCE)
        check_free(parts, spot)

    assert interrupt_every_line(attempt, where=cacher_alone, after=after, visits=1) > 5


def test_an_interrupted_close_of_a_cache_can_be_repeated() -> None:
    """And then has ended its watches, its feed and its storage."""
    opened: list[tuple[Cacher[Any], Watch[Any], list[None]]] = []
    before = threading.active_count()
    with MemoryBackend() as backend:

        def begin() -> None:
            calls: list[None] = []
            store = TypedStorage(backend, PODS, on_close=lambda: calls.append(None))
            cache = Cacher(CacherConfig(storage=store, resource_type=PODS))
            cache.wait_ready()
            opened.append((cache, cache.watch("/pods"), calls))

        def attempt() -> None:
            opened[-1][0].close()

        def after(spot: str) -> None:
            cache, watch, calls = opened.pop()
            run_threads(1, lambda _: cache.close(), PATIENCE)
            assert len(calls) == 1, spot
            with pytest.raises(Closed):
                watch.poll(0)
            wait_until(lambda: threading.active_count() <= before, f"no thread is left: {spot}")
            begin()

        begin()
        assert interrupt_every_line(attempt, where=where, after=after, visits=1) > 20
