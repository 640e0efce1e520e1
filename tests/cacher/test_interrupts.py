"""Exceptions at any line of a call, as a signal's handler raises them: nothing is lost by them."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

import attrs
import pytest

import revstore.watch_selector
from revstore.cacher import Cacher, CacherConfig
from revstore.copier import DeepCopier
from revstore.memory import MemoryBackend
from revstore.storage import Event, EventType, Watch
from revstore.testing._support import PATIENCE
from revstore.testing.interrupts import code_below, interrupt_every_line
from revstore.testing.storage._parts import PODS, name_of, pod
from revstore.typed import TypedStorage
from revstore.watch_selector import WatchSelector

# The selector's folder is the package's: its file alone is meant.
_below = code_below(Cacher, TypedStorage)


def where(code: Any) -> bool:
    """The code of cache, typed storage and selector."""
    return _below(code) or code.co_filename == revstore.watch_selector.__file__


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
    """Each event is delivered once, in order, and who waits to be told is told of what is left."""
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
        assert not generation._views, spot
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
