"""What a cache and what stands beside it do once they are over: closed, or left by a fork."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import attrs
import pytest

from revstore.cacher import Cacher, CacherConfig
from revstore.compactor import Compactor
from revstore.errors import Closed, InvalidArgument, StorageError
from revstore.health import HealthCheck
from revstore.memory import MemoryBackend
from revstore.registry import Registry
from revstore.storage import EventType
from revstore.testing._support import PATIENCE, promptly, wait_until
from revstore.testing.storage._parts import PODS, pod
from revstore.typed import TypedStorage
from revstore.watch_selector import WatchSelector

Calls = dict[str, Callable[[], Any]]


def calls_of(parts: Any) -> Calls:
    """Every way to ask a cache."""
    cache = parts.cache
    registry = Registry[Any](cache, resource_prefix="/pods", namespaced=False)
    return {
        "get": lambda: cache.get("/pods/a"),
        "get at 0": lambda: cache.get("/pods/a", resource_version="0"),
        "get of nothing": lambda: cache.get(
            "/pods/none", resource_version="0", ignore_not_found=True
        ),
        "list": lambda: cache.list("/pods"),
        "list at 0": lambda: cache.list("/pods", resource_version="0"),
        "watch": lambda: cache.watch("/pods"),
        "ready": cache.ready,
        "wait_ready": cache.wait_ready,
        "count": lambda: cache.count("/pods"),
        "current_revision": cache.current_revision,
        "check": cache.check_consistency,
        "registry get": lambda: registry.get("a", resource_version="0"),
        "registry list": registry.list,
        "store": lambda: parts.store.get("/pods/a"),
    }


def refused(calls: Calls) -> list[str]:
    """The names of those that do not raise ``Closed``, and what they do."""
    wrong = []
    for name, call in calls.items():
        try:
            wrong.append(f"{name}: {call()!r}")
        except Closed:
            continue
        except StorageError as error:
            wrong.append(f"{name}: {error!r}")
    return wrong


def in_child(work: Callable[[], list[str]]) -> str:
    """What ``work`` finds wrong in the child of a fork."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        text = "the child raised"
        try:
            text = "\n".join(work())
        except BaseException as error:  # noqa: BLE001 - told to the parent
            text = repr(error)
        finally:
            os.write(writer, text.encode()[:4000])
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as found:
        text = found.read()
    os.waitpid(pid, 0)
    return text


def test_everything_is_closed_in_the_child_of_a_fork(open_parts: Callable[..., Any]) -> None:
    """Calls and open watches raise Closed there at once, whatever threads of the parent held; the
    parent goes on, and what is opened again in the child works."""
    parts = open_parts(MemoryBackend())
    parts.put("a")
    version = parts.settle()
    cached = [parts.cache.watch("/pods", resource_version=version) for _ in range(2)]
    raw = [parts.store.watch("/pods", resource_version=version) for _ in range(2)]
    selector, other = WatchSelector(), WatchSelector()
    selector.add(cached[0])
    health = HealthCheck(lambda: None)
    compactor = Compactor(parts.backend, interval=0)
    calls = calls_of(parts)
    for at, watch in enumerate([*cached, *raw]):
        calls[f"poll {at}"] = lambda watch=watch: watch.poll(0)  # type: ignore[misc]
        calls[f"waiting poll {at}"] = lambda watch=watch: watch.poll(PATIENCE)  # type: ignore[misc]
    calls |= {
        "select": lambda: selector.select(PATIENCE),
        "add": lambda: other.add(cached[1]),
        "health": health.check,
        "compactor": compactor.run_once,
    }

    def work() -> list[str]:
        wrong = refused(calls)
        for each in (*cached, *raw, selector, health, compactor, parts.cache, parts.store):
            each.close()
        with MemoryBackend() as backend, open_parts(backend).cache as reopened:
            reopened.list("/pods")
        return wrong

    held = [parts.cache._content._lock, parts.cache._content.generation._lock, selector._lock]
    for lock in held:
        lock.acquire()
    done = threading.Event()
    try:
        # The fork is made by a thread that holds none of them.
        results: list[str] = []
        forks = threading.Thread(target=lambda: (results.append(in_child(work)), done.set()))
        forks.start()
        assert done.wait(PATIENCE)
    finally:
        for lock in held:
            lock.release()
    assert results == [""]
    new = parts.put("b")
    (event,) = cached[1].poll(PATIENCE) or ()
    assert (event.type, event.resource_version) == (EventType.ADDED, new)
    for each in (*cached, *raw, selector, other):
        each.close()


def test_nothing_is_answered_after_close(open_parts: Callable[..., Any]) -> None:
    """Not from memory either."""
    parts = open_parts(MemoryBackend())
    parts.put("a")
    parts.settle()
    parts.cache.close()
    with promptly():
        assert refused(calls_of(parts)) == []


def test_a_backend_that_is_closed_beneath_is_the_end(open_parts: Callable[..., Any]) -> None:
    """Calls and watches raise Closed promptly, instead of waiting for a cache that will never be
    filled."""
    parts = open_parts(MemoryBackend())
    version = parts.put("a")
    parts.settle()
    watch = parts.cache.watch("/pods", resource_version=version)
    parts.backend.close()
    with promptly():
        with pytest.raises(Closed):
            watch.poll(PATIENCE)
        wait_until(lambda: parts.cache._content.ended != "", "the feed's end")
        assert refused(calls_of(parts)) == []


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, MemoryError])
def test_no_callback_ends_the_feed(
    open_parts: Callable[..., Any], kind: type[BaseException]
) -> None:
    """Whatever ``on_readable`` is given raises: others are told, and the cache goes on."""
    parts = open_parts(MemoryBackend())
    version = parts.settle()
    told = threading.Event()

    def bad() -> None:
        raise kind

    with (
        parts.cache.watch("/pods", resource_version=version) as one,
        parts.cache.watch("/pods", resource_version=version) as two,
    ):
        one.on_readable(bad)
        two.on_readable(told.set)
        for name in ("a", "b"):
            new = parts.put(name)
            assert parts.cache.get(f"/pods/{name}", resource_version=new, timeout=PATIENCE)
        assert told.wait(PATIENCE)
        one.on_readable(None)


@pytest.mark.parametrize("what", ["labels", "fields", "decode"])
def test_no_users_function_ends_the_feed(what: str) -> None:
    """Nor do functions for labels and fields, or a codec, whatever they raise."""

    class Codec:
        def encode(self, obj: Any) -> bytes:
            return PODS.codec.encode(obj)

        def decode(self, data: bytes) -> Any:
            if what == "decode" and b'"bad"' in data:
                raise SystemExit("the codec")
            return PODS.codec.decode(data)

    def exits(*_: Any) -> Any:
        raise SystemExit("the function")

    options = {} if what == "decode" else {what: exits}
    kind = attrs.evolve(PODS, codec=Codec(), **options)

    with MemoryBackend() as backend:
        config = CacherConfig(
            storage=TypedStorage(backend, kind),
            resource_type=kind,
            indexed_fields=("spec.nodeName",),
        )
        with Cacher(config) as cache:
            cache.wait_ready()
            backend.put("/registry/pods/bad", kind.codec.encode(pod("bad")), expected_revision=0)
            good = cache.create("/pods/good", pod("good"))
            version = good.metadata.resource_version
            found = cache.get("/pods/good", resource_version=version, timeout=PATIENCE)
            assert found == good
            assert cache.counters.initializations == 1


def test_closed_watches_leave_no_timer(open_parts: Callable[..., Any]) -> None:
    """However long they were to run. (BOOK-5)"""
    parts = open_parts(MemoryBackend())
    version = parts.settle()
    for number in range(5000):
        limit = float("inf") if number % 2 else 3600.0
        with parts.cache.watch("/pods", resource_version=version, timeout=limit) as watch:
            watch.on_readable(lambda: None)
    generation = parts.cache._content.generation
    assert len(generation._timers) <= 200
    assert generation.watches == 0


@pytest.mark.parametrize("kind", ["cached", "raw", "selector", "watch", "raw watch"])
def test_what_is_no_number_is_no_timeout(open_parts: Callable[..., Any], kind: str) -> None:
    """NaN is refused; infinity means no timeout."""
    parts = open_parts(MemoryBackend())
    parts.put("a")
    watches = {"cached": parts.cache.watch("/pods"), "raw": parts.store.watch("/pods")}
    if kind in watches:
        with pytest.raises(InvalidArgument):
            watches[kind].poll(float("nan"))
        assert watches[kind].poll(float("inf"))
    elif kind == "selector":
        with WatchSelector() as selector:
            selector.add(watches["cached"])
            with pytest.raises(InvalidArgument):
                selector.select(float("nan"))
            assert selector.select(float("inf"))
    else:
        storage = parts.cache if kind == "watch" else parts.store
        with pytest.raises(InvalidArgument):
            storage.watch("/pods", timeout=float("nan"))
        with storage.watch("/pods", timeout=float("inf")) as watch:
            assert watch.poll(PATIENCE)


def test_a_watch_is_not_stolen_from_a_selector(open_parts: Callable[..., Any]) -> None:
    """A second one refuses it, until the first has let it go."""
    parts = open_parts(MemoryBackend())
    with WatchSelector() as one, WatchSelector() as two, parts.cache.watch("/pods") as watch:
        one.add(watch)
        with pytest.raises(InvalidArgument):
            two.add(watch)
        parts.put("a")
        ((found, _),) = one.select(PATIENCE)
        assert found is watch
        one.remove(watch)
        two.add(watch)
        assert two.select(PATIENCE)
