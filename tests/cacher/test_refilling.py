"""A cache that is filled again while calls and connections are under way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from revstore.cacher import Cacher
from revstore.cacher._freshness import _Waiter
from revstore.errors import (
    InternalError,
)
from revstore.storage import Changes, EventType, Storage
from revstore.testing._support import PATIENCE, wait_until
from revstore.testing.cacher._feed import ControlledStorage

Cache = Cacher[dict[str, Any]]


Open = Callable[..., Cache]


def put(cache: Cache, name: str, **labels: str) -> str:
    made = cache.create(f"/pods/{name}", {"metadata": {"name": name, "labels": labels}})
    return str(made["metadata"]["resourceVersion"])


class _FilledAnew(ControlledStorage):
    """Has the cache refilled while it asks for the revision."""

    cache: Cache | None = None

    def current_revision(self, **options: Any) -> int:
        revision = self.inner.current_revision(**options)
        if self.cache is not None:
            content, self.cache = self.cache._content, None
            before = content.generation
            content.feed.cut(InternalError("the test refills the cache"))
            wait_until(lambda: content.generation is not before, "another generation, or none")
        return revision


def test_a_watch_waits_until_the_cache_is_filled_anew(open_dict_cache: Open) -> None:
    """One that is opened just when that begins is as any that is opened meanwhile. (CACHE-8)"""
    storages: list[_FilledAnew] = []

    def wrapped(storage: Storage[Any]) -> Storage[Any]:
        storages.append(_FilledAnew(storage))
        return storages[0]

    cache = open_dict_cache(wrapped=wrapped)
    storages[0].cache = cache
    with cache.watch("/pods", send_initial_events=False, timeout=20) as watch:
        put(cache, "a")
        (event,) = watch.poll(20) or ()
        assert event.type is EventType.ADDED


class _SlowToConnect(ControlledStorage):
    """Its feeds are opened, but not handed out before ``go`` is set."""

    def __init__(self, inner: Storage[Any]) -> None:
        super().__init__(inner)
        self.go = threading.Event()
        self.go.set()

    def changes(
        self, key: str, *, after: int | None = None, timeout: float | None = None
    ) -> Changes[Any]:
        feed = super().changes(key, after=after, timeout=timeout)
        self.go.wait(PATIENCE)
        return feed


@pytest.mark.parametrize("opening", [True, False], ids=["opening", "pausing"])
def test_a_new_state_is_read_also_if_there_is_no_connection(
    open_dict_cache: Open, opening: bool
) -> None:
    """A check that finds the cache wrong while its feed reconnects, or pauses before, does not wait
    for the next break. (CACHE-21)"""
    storages: list[_SlowToConnect] = []

    def wrapped(storage: Storage[Any]) -> Storage[Any]:
        storages.append(_SlowToConnect(storage))
        return storages[0]

    cache = open_dict_cache(wrapped=wrapped)
    feed, opened = storages[0], storages[0].opened
    feed.go.clear()
    feed.cut()
    wait_until(lambda: cache.counters.initialization_errors == 1, "the break")
    if opening:
        wait_until(lambda: feed.opened > opened, "a new feed")
    cache._feed.cut(InternalError("the test refills the cache"))
    feed.go.set()
    wait_until(lambda: cache.counters.initializations == 2, "a new state")


class _CountsWaits(_Waiter):
    waits = 0

    def wait(self, timeout: float | None = None) -> bool:
        self.waits += 1
        return super().wait(timeout)


def test_a_wait_that_is_thrown_back_sleeps(open_dict_cache: Open) -> None:
    """A call that was woken, but finds the cache being refilled, waits on without burning time.
    (CACHE-10)"""
    cache = open_dict_cache()
    woken = _CountsWaits(1000)
    woken.set()
    assert not cache._content._freshness._wait(
        woken, cache._feed.request_progress, end=time.monotonic() + 0.4
    )
    assert woken.waits <= 6
