"""What a cache says of bad arguments, how long its calls last, and how its watches end."""

from __future__ import annotations

import math
import queue
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from revstore.cacher import Cacher, CacherConfig
from revstore.errors import (
    Closed,
    Expired,
    InternalError,
    InvalidContinueToken,
    InvalidKey,
    InvalidResourceVersion,
    InvalidSelector,
    Timeout,
    TooLargeResourceVersion,
)
from revstore.memory import MemoryBackend
from revstore.resource_type import ResourceType
from revstore.storage import Changes, EventType, ObjectList, Storage
from revstore.testing._support import PATIENCE, wait_until
from revstore.testing.cacher._feed import ControlledStorage
from revstore.typed import TypedStorage

Cache = Cacher[dict[str, Any]]
Open = Callable[..., Cache]


@pytest.fixture
def open_cache() -> Iterator[Open]:
    with ExitStack() as stack:

        def open_cache(
            wrapped: Callable[[Storage[Any]], Storage[Any]] = lambda storage: storage,
            **options: Any,
        ) -> Cache:
            backend = stack.enter_context(MemoryBackend())
            storage = wrapped(TypedStorage(backend, ResourceType(dict, "/pods")))
            config = CacherConfig(
                storage=storage, resource_type=ResourceType(dict, "/pods"), **options
            )
            cache = stack.enter_context(Cacher(config))
            cache.wait_ready()
            return cache

        yield open_cache


def put(cache: Cache, name: str, **labels: str) -> str:
    made = cache.create(f"/pods/{name}", {"metadata": {"name": name, "labels": labels}})
    return str(made["metadata"]["resourceVersion"])


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (lambda c: c.get("/pods/a", resource_version="x"), InvalidResourceVersion),
        (lambda c: c.list("/pods/a", resource_version="x"), InvalidResourceVersion),
        (lambda c: c.list("/pods/a", label_selector="a in"), InvalidSelector),
        (lambda c: c.list("/pods/a", continue_token="x"), InvalidContinueToken),
        (lambda c: c.list("/pods/a", resource_version="99", timeout=0.1), TooLargeResourceVersion),
        (lambda c: c.watch("/pods/a", resource_version="x"), InvalidResourceVersion),
        (lambda c: c.watch("/pods/a", field_selector="a"), InvalidSelector),
        (lambda c: c.watch("/pods/a", resource_version="1").poll(0), Expired),
        (lambda c: c.list("/pods/a", timeout=0), Timeout),
        (lambda c: c.get("/pods/a", timeout=0), Timeout),
    ],
)
def test_errors_name_the_key(
    open_cache: Open, call: Callable[[Cache], object], kind: type[Exception]
) -> None:
    """The key of the call, as without a cache. (KEY-11, LISTRV-12)"""
    cache = open_cache(wrapped=_with_a_past)
    with pytest.raises(kind) as raised:
        call(cache)
    assert raised.value.key == "/pods/a"  # type: ignore[attr-defined]


def _with_a_past(storage: Storage[Any]) -> Storage[Any]:
    """Something has happened before the cache begins."""
    storage.create("/pods/x", {"metadata": {"name": "x"}})
    return storage


@pytest.mark.parametrize("key", ["/pods/a\0", "/pods/\ud800", "/pods//a", "/pods/a/../b"])
def test_bad_keys_are_refused_from_memory_too(open_cache: Open, key: str) -> None:
    """They are no absent objects. (KEY-2, KEY-6)"""
    cache = open_cache()
    for call in (
        lambda: cache.get(key, resource_version="0"),
        lambda: cache.list(key, resource_version="0"),
        lambda: cache.watch(key),
    ):
        with pytest.raises(InvalidKey):
            call()


def test_keys_of_any_script_are_found(open_cache: Open) -> None:
    """What is text is a key."""
    cache = open_cache()
    version = put(cache, "größe")
    assert cache.get("/pods/größe", resource_version=version)["metadata"]["name"] == "größe"


@pytest.mark.parametrize("timeout", [math.inf, 1e12])
def test_any_number_is_a_timeout(open_cache: Open, timeout: float) -> None:
    """Without end is a number too, and ``close`` ends such a wait as any other."""
    cache = open_cache()
    version = put(cache, "a")
    assert len(cache.list("/pods", timeout=timeout)) == 1
    for options in ({}, {"timeout": timeout}):
        with cache.watch("/pods", resource_version=version, **options) as watch:
            closing = threading.Timer(0.1, watch.close)
            closing.start()
            with pytest.raises(Closed):
                watch.poll(timeout)
            closing.join()


class _Ahead(ControlledStorage):
    """Says that it is far ahead of its feed."""

    def __init__(self, inner: Storage[Any]) -> None:
        super().__init__(inner)
        self.given: list[float] = []

    def current_revision(self, **options: Any) -> int:
        return self.inner.current_revision(**options) + 1000

    def list(self, key: str, **options: Any) -> ObjectList[Any]:
        self.given.append(options["timeout"])
        return self.inner.list(key, **options)


def test_a_timeout_is_of_the_whole_call(open_cache: Open) -> None:
    """A list that waits in vain for the cache leaves the store what is left of its time, and that
    is something. (CACHE-13)"""
    ahead: list[_Ahead] = []

    def wrapped(storage: Storage[Any]) -> Storage[Any]:
        ahead.append(_Ahead(storage))
        return ahead[0]

    cache = open_cache(wrapped=wrapped)
    assert len(cache.list("/pods", timeout=4)) == 0
    (given,) = ahead[0].given
    assert 0 < given <= 2


def test_a_comparison_ends_in_time(open_cache: Open) -> None:
    """``check_consistency`` reads nothing once its time is over. (CACHE-22)"""
    cache = open_cache()
    with pytest.raises(Timeout):
        cache.check_consistency(timeout=0)
    assert cache.check_consistency(timeout=20).consistent


class _FilledAnew(ControlledStorage):
    """Has the cache filled anew while it asks for the revision."""

    cache: Cache | None = None

    def current_revision(self, **options: Any) -> int:
        revision = self.inner.current_revision(**options)
        if self.cache is not None:
            content, self.cache = self.cache._content, None
            before = content.generation
            content.feed.cut(InternalError("the test fills the cache anew"))
            wait_until(lambda: content.generation is not before, "another generation, or none")
        return revision


def test_a_watch_waits_until_the_cache_is_filled_anew(open_cache: Open) -> None:
    """One that is opened just when that begins is as any that is opened meanwhile. (CACHE-8)"""
    storages: list[_FilledAnew] = []

    def wrapped(storage: Storage[Any]) -> Storage[Any]:
        storages.append(_FilledAnew(storage))
        return storages[0]

    cache = open_cache(wrapped=wrapped)
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

    def changes(self, key: str, *, after: int | None = None) -> Changes[Any]:
        feed = super().changes(key, after=after)
        self.go.wait(PATIENCE)
        return feed


@pytest.mark.parametrize("opening", [True, False], ids=["opening", "pausing"])
def test_a_new_state_is_read_also_if_there_is_no_connection(
    open_cache: Open, opening: bool
) -> None:
    """Whoever finds the cache wrong while its feed connects anew, or pauses before, does not wait
    for the next break. (CACHE-21)"""
    storages: list[_SlowToConnect] = []

    def wrapped(storage: Storage[Any]) -> Storage[Any]:
        storages.append(_SlowToConnect(storage))
        return storages[0]

    cache = open_cache(wrapped=wrapped)
    feed, opened = storages[0], storages[0].opened
    feed.go.clear()
    feed.cut()
    wait_until(lambda: cache.counters.initialization_errors == 1, "the break")
    if opening:
        wait_until(lambda: feed.opened > opened, "a new feed")
    cache._feed.cut(InternalError("the test fills the cache anew"))
    feed.go.set()
    wait_until(lambda: cache.counters.initializations == 2, "a new state")


class _CountsWaits(threading.Event):
    waits = 0

    def wait(self, timeout: float | None = None) -> bool:
        self.waits += 1
        return super().wait(timeout)


def test_a_wait_that_is_thrown_back_sleeps(open_cache: Open) -> None:
    """Who was woken, but finds the cache being filled anew, waits on without burning time.
    (CACHE-10)"""
    cache = open_cache()
    woken = _CountsWaits()
    woken.set()
    assert not cache._content._freshness._wait(
        1000, woken, cache._feed.request_progress, end=time.monotonic() + 0.4
    )
    assert woken.waits <= 6


def test_each_watch_raises_an_error_of_its_own(open_cache: Open) -> None:
    """All watches end for one reason; neither they nor later polls share the traceback.
    (HIST-5, CACHE-6)"""
    cache = open_cache()
    version = put(cache, "a")
    watches = [cache.watch("/pods", resource_version=version) for _ in range(3)]
    cache._feed.cut(InternalError("the test fills the cache anew"))
    errors, depths = [], []
    for watch in watches:
        for timeout in (20, 0, 0):
            with pytest.raises(Expired) as raised:
                watch.poll(timeout)
            assert raised.value.key == "/pods"
            errors.append(raised.value)
            if not timeout:
                depths.append(len(traceback.extract_tb(raised.value.__traceback__)))
    assert len(set(map(id, errors))) == len(errors)
    assert len(set(depths)) == 1


def test_a_watch_of_the_future_needs_no_past(open_cache: Open) -> None:
    """What the log drops before the watch's version is not missed. (WATCH-6, HIST-4)"""
    cache = open_cache(capacity=100)
    start = cache.current_revision() + 200
    with cache.watch("/pods", resource_version=str(start)) as watch:
        for at in range(250):
            version = put(cache, str(at))
        cache.get("/pods/0", resource_version=version)
        assert cache._content.generation is not None
        assert cache._content.generation.log.segment.base > 0
        events = watch.poll(20) or ()
        assert [int(event.resource_version) for event in events] == list(
            range(start + 1, start + 51)
        )


def test_progress_that_is_left_behind_is_told(open_cache: Open) -> None:
    """A poll that leaves a bookmark for the next one asks for that. (WATCH-19, BOOK-3)"""
    cache = open_cache()
    start = put(cache, "first")
    told: queue.SimpleQueue[None] = queue.SimpleQueue()
    with cache.watch(
        "/pods", resource_version=start, label_selector="shown", progress_notify=True
    ) as watch:
        shown = put(cache, "a", shown="yes")
        hidden = put(cache, "b")
        cache.get("/pods/b", resource_version=hidden)
        watch.on_readable(lambda: told.put(None))
        seen = []
        while not seen or seen[-1].type is not EventType.BOOKMARK:
            told.get(timeout=20)
            seen += watch.poll(0) or ()
    assert [event.resource_version for event in seen] == [shown, hidden]
