"""Exceptions at any line of a typed storage's calls: the next call is as right as ever."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import revstore
from revstore.backend import Backend, BackendWatch
from revstore.errors import Closed, KeyNotFound
from revstore.memory import MemoryBackend
from revstore.storage import Changes, EventType, Watch
from revstore.testing._support import PATIENCE, run_threads
from revstore.testing.interrupts import code_below, interrupt_every_line
from revstore.testing.storage._parts import (
    PODS,
    ForwardingBackend,
    Pod,
    name_of,
    on_node,
    pod,
)
from revstore.typed import TypedStorage

_package = code_below(revstore)
_kit = code_below(revstore.testing)


def where(code: Any) -> bool:
    """All of the core but its tools for tests."""
    return _package(code) and not _kit(code)


Store = TypedStorage[Pod]


class _Noting(ForwardingBackend):
    """Notes the watches that were opened; other calls are the store's own."""

    def __init__(self, inner: Backend) -> None:
        super().__init__(inner)
        self.watches: list[BackendWatch] = []

    def watch(self, key: str, **options: Any) -> BackendWatch:
        self.watches.append(self.inner.watch(key, **options))
        return self.watches[-1]

    def check_closed(self, spot: str) -> None:
        """All watches are closed; they are forgotten."""
        for watch in self.watches:
            with pytest.raises(Closed):
                raise AssertionError(f"{spot}: {watch.poll(0)}")
        self.watches.clear()


@pytest.fixture
def storage() -> Iterator[Store]:
    with MemoryBackend() as backend, TypedStorage(backend, PODS, cache_size=10) as store:
        yield store


def check_free(storage: Store) -> None:
    """No lock is held: another thread writes, watches and asks for progress."""

    def use(_: int) -> None:
        name = next(NAMES)
        storage.create(f"/pods/{name}", pod(name), timeout=PATIENCE)
        storage.watch(f"/pods/{name}").close()
        storage.request_progress()
        storage.compact_revision(timeout=PATIENCE)
        storage.delete(f"/pods/{name}", timeout=PATIENCE)

    run_threads(1, use, PATIENCE)


NAMES = (f"z{number:06}" for number in itertools.count())

READS: dict[str, Callable[[Store], Any]] = {
    "get": lambda s: s.get("/pods/a"),
    "list": lambda s: s.list("/pods"),
    "selected": lambda s: s.list("/pods", field_selector="spec.nodeName=n"),
    "page": lambda s: s.list("/pods", limit=1),
    "exact": lambda s: s.list("/pods", resource_version="3", resource_version_match="Exact"),
    "count": lambda s: s.count("/pods"),
    "stats": lambda s: s.stats(),
}


@pytest.mark.parametrize("kind", READS)
def test_an_interrupted_read(storage: Store, kind: str) -> None:
    """The next read gives what the first would have."""
    read = READS[kind]
    for name in ("a", "b"):
        storage.create(f"/pods/{name}", pod(name, "n"))

    def answer() -> Any:
        found = read(storage)
        return found.items if hasattr(found, "items") else found

    wanted = answer()

    def after(spot: str) -> None:
        assert answer() == wanted, spot
        check_free(storage)

    assert interrupt_every_line(lambda: read(storage), where=where, after=after, visits=1) > 5


def test_interrupted_writes(storage: Store) -> None:
    """Each write was made or not; what is read is what was written last."""
    storage.create("/pods/a", pod("a", "0"))
    turns = itertools.count(1)

    def attempt() -> None:
        turn = str(next(turns))
        storage.guaranteed_update("/pods/a", lambda obj, _: on_node(obj, turn))
        storage.create("/pods/b", pod("b", turn))
        storage.delete("/pods/b")

    def after(spot: str) -> None:
        found = storage.list("/pods").items
        assert [name_of(obj) for obj in found] in (["a"], ["a", "b"]), spot
        assert found[0] == storage.get("/pods/a"), spot
        if len(found) == 2:
            assert storage.delete("/pods/b").spec == found[1].spec, spot
        with pytest.raises(KeyNotFound):
            storage.delete("/pods/b")
        node = f"after {spot}"
        storage.guaranteed_update("/pods/a", lambda obj, _: on_node(obj, node))
        assert storage.get("/pods/a").spec.node_name == node, spot
        check_free(storage)

    assert interrupt_every_line(attempt, where=where, after=after, visits=1) > 50


def test_an_interrupted_opening_or_close_of_watches(storage: Store) -> None:
    """What was not handed out is closed, and what was is closed by the next ``close``."""
    backend = storage._backend = _Noting(storage._backend)
    opened: list[Watch[Pod] | Changes[Pod]] = []
    before = threading.active_count()

    def attempt() -> None:
        for open_one in (
            lambda: storage.watch("/pods"),
            lambda: storage.watch("/pods", send_initial_events=True),
            lambda: storage.changes("/pods"),
            lambda: storage.changes("/pods", after=1),
        ):
            opened.append(open_one())
            opened[-1].poll(0)
            opened[-1].close()

    def after(spot: str) -> None:
        while opened:
            opened.pop().close()
        assert not storage._open_watches, spot
        backend.check_closed(spot)
        check_free(storage)

    assert interrupt_every_line(attempt, where=where, after=after, visits=1) > 50
    assert threading.active_count() <= before


@pytest.mark.parametrize("pages", [1, 10], ids=["paged", "whole"])
def test_an_interrupted_feed_loses_nothing(
    storage: Store, pages: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state comes once, its end as well, and then each change."""
    monkeypatch.setattr("revstore.typed._watch._FEED_PAGE", pages)
    for name in ("a", "b", "c"):
        storage.create(f"/pods/{name}", pod(name))
    seen: list[tuple[bool, str]] = []
    ends: list[int] = []
    feeds: list[Changes[Pod]] = []
    last = 0

    def take() -> None:
        nonlocal last
        batch = feeds[-1].poll(0)
        if batch is None:
            return
        seen.extend((batch.initial, change.key) for change in batch.changes)
        if not batch.initial:
            ends.append(batch.revision)
            last = feeds[-1].revision

    def begin() -> None:
        seen.clear()
        ends.clear()
        feeds.append(storage.changes("/pods"))

    def attempt() -> None:
        while not ends:
            take()
        name = next(NAMES)
        storage.create(f"/pods/{name}", pod(name))
        storage.delete(f"/pods/{name}")
        for _ in range(2):
            take()

    def after(spot: str) -> None:
        target = storage.current_revision()
        storage.request_progress()
        while not ends or last < target:
            take()
        begun = [key for initial, key in seen if initial]
        assert begun == ["/pods/a", "/pods/b", "/pods/c"], spot
        assert len([key for initial, key in seen if not initial]) in (0, 1, 2), spot
        assert [initial for initial, _ in seen] == sorted((i for i, _ in seen), reverse=True), spot
        assert ends == sorted(ends), spot
        listed = {f"/pods/{name_of(obj)}" for obj in storage.list("/pods")}
        for key in listed - set(begun):
            assert (False, key) in seen, spot
            storage.delete(key)
        feeds.pop().close()
        begin()

    begin()
    assert interrupt_every_line(attempt, where=where, after=after, visits=1) > 30


def test_an_interrupted_poll_of_a_feed_loses_no_change(storage: Store) -> None:
    """Each change comes once, in order."""
    seen: list[tuple[EventType, str]] = []
    wanted: list[tuple[EventType, str]] = []
    with storage.changes("/pods", after=storage.current_revision()) as feed:

        def attempt() -> None:
            batch = feed.poll(0)
            seen.extend((change.type, change.key) for change in batch.changes if batch)

        def write() -> None:
            name = next(NAMES)
            storage.create(f"/pods/{name}", pod(name))
            wanted.append((EventType.ADDED, f"/pods/{name}"))

        def after(spot: str) -> None:
            while len(seen) < len(wanted):
                batch = feed.poll(PATIENCE)
                assert batch is not None, spot
                seen.extend((change.type, change.key) for change in batch.changes)
            assert seen == wanted, spot
            write()

        write()
        assert interrupt_every_line(attempt, where=where, after=after) > 10


def test_an_interrupted_close_can_be_repeated() -> None:
    """And then has ended all watches, and called ``on_close`` once."""
    for_each: list[Store] = []
    watches: list[Watch[Pod]] = []
    calls: list[None] = []
    with _Noting(MemoryBackend()) as backend:

        def begin() -> None:
            calls.clear()
            for_each.append(TypedStorage(backend, PODS, on_close=lambda: calls.append(None)))
            watches.append(for_each[-1].watch("/pods"))

        def after(spot: str) -> None:
            for_each[-1].close()
            assert len(calls) == 1, spot
            with pytest.raises(Closed):
                watches[-1].poll(0)
            backend.check_closed(spot)
            begin()

        begin()

        def close() -> None:
            for_each[-1].close()

        assert interrupt_every_line(close, where=where, after=after) > 5
