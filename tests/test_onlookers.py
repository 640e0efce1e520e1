"""What code of others raises that only looks on: it goes no further, wherever it is called."""

from __future__ import annotations

import logging
import math
import re
import threading
from pathlib import Path

import pytest

from revstore.cacher import Cacher, CacherConfig
from revstore.compactor import Compactor
from revstore.errors import Closed, InternalError, KeyNotFound, Unreachable
from revstore.factory import StorageFactory
from revstore.memory import MemoryBackend
from revstore.metrics import Collector
from revstore.onlookers import Log, shown_to
from revstore.registry import Registry
from revstore.resource_type import ResourceType
from revstore.testing._support import PATIENCE, run_threads, wait_until
from revstore.testing.cacher._feed import ControlledStorage
from revstore.tracing import Trace, TracedCacher, traced_storage
from revstore.tracing._slow import log_slow
from revstore.transform import IdentityTransformer
from revstore.typed import TypedStorage

PODS = ResourceType(dict, "/pods")
ROOT = Path(__file__).parents[1]


class Mute(Exception):
    """Has no text: to ask for one raises."""

    def __str__(self):
        raise RuntimeError("no text")


KINDS = [ValueError, Mute, MemoryError, SystemExit, KeyboardInterrupt]
FATAL = (SystemExit, KeyboardInterrupt)


def pod(name, **more):
    return {"metadata": {"name": name}, **more}


def raising(kind):
    def fail(*_args, **_options):
        raise kind

    return fail


class Failing(logging.Handler):
    """Raises in the place of what handlers are called for, and counts how often."""

    def __init__(self, kind, place):
        super().__init__()
        self.calls = 0
        setattr(self, place, self._fail)
        self._kind = kind

    def _fail(self, _record):
        self.calls += 1
        raise self._kind


@pytest.fixture
def add_handler():
    """Adds handlers to loggers until the test ends."""
    added = []

    def add_handler(name, handler):
        logging.getLogger(name).addHandler(handler)
        added.append((logging.getLogger(name), handler))
        return handler

    yield add_handler
    for log, handler in added:
        log.removeHandler(handler)


class BadSpans:
    """Raise at the begin or at the end of each."""

    def __init__(self, place, kind):
        setattr(self, place, raising(kind))

    def begin(self, _operation, *, request):
        return object()

    def end(self, span, error, call):
        pass


def observed(cached, **options):
    """A storage with a trace, and its backend; all calls are slow."""
    backend = MemoryBackend()
    version_of = PODS.versioner.object_resource_version
    defaults = {"threshold": 0.0, "log_slow": log_slow, "version_of": version_of}
    trace = Trace("pods", **(defaults | options))
    storage = traced_storage(
        trace, backend, PODS, behind_cache=cached, transformer=IdentityTransformer()
    )
    if cached:
        storage = TracedCacher(trace, CacherConfig(storage=storage, resource_type=PODS))
        storage.wait_ready(PATIENCE)
    return storage, backend


PLACES = {
    "handler": lambda kind, add, cached: (
        add("revstore.slow", Failing(kind, "emit")),
        observed(cached),
    )[1],
    "filter": lambda kind, add, cached: (
        add("revstore.slow", Failing(kind, "filter")),
        observed(cached),
    )[1],
    "slow log": lambda kind, add, cached: observed(cached, log_slow=raising(kind)),
    "version": lambda kind, add, cached: observed(cached, version_of=raising(kind)),
    "span's begin": lambda kind, add, cached: observed(cached, spans=BadSpans("begin", kind)),
    "span's end": lambda kind, add, cached: observed(cached, spans=BadSpans("end", kind)),
}


def use(storage):
    """Every kind of call, all of which work."""
    storage.create("/pods/a", pod("a"))
    made = storage.guaranteed_update("/pods/a", lambda *_: pod("a", n=1))
    version = made["metadata"]["resourceVersion"]
    assert storage.get("/pods/a", resource_version=version, timeout=PATIENCE)["n"] == 1
    with storage.watch("/pods", resource_version=version) as watch:
        storage.create("/pods/b", pod("b"))
        assert watch.poll(PATIENCE)
    assert len(storage.list("/pods", timeout=PATIENCE).items) == 2
    storage.delete("/pods/b")
    with pytest.raises(KeyNotFound):
        storage.get("/pods/b")
    assert storage.count("/pods", timeout=PATIENCE) == 1


@pytest.mark.parametrize("cached", [False, True], ids=["raw", "cached"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", PLACES)
def test_calls_do_what_they_do(place, kind, cached, add_handler):
    """In a thread nothing that an onlooker raises comes out, and no write is taken for failed."""
    storage, backend = PLACES[place](kind, add_handler, cached)
    with backend, storage:
        run_threads(1, lambda _: use(storage))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", PLACES)
def test_in_the_main_thread(place, kind, add_handler):
    """There Ctrl-C and the end of the program come out; no lock stays held, and what was written is
    there."""
    storage, backend = PLACES[place](kind, add_handler, False)
    with backend, storage:
        if kind not in FATAL:
            use(storage)
            return
        with pytest.raises(kind):
            storage.create("/pods/a", pod("a"))
        begun = place != "span's begin"
        assert backend.count("/registry/pods/").count == begun
        run_threads(1, lambda _: storage.guaranteed_update("/pods/c", make, ignore_not_found=True))
        assert backend.get("/registry/pods/c").kv is not None


def make(*_):
    return pod("c")


@pytest.mark.parametrize("kind", KINDS)
def test_a_feed_goes_on(kind, add_handler):
    """The thread of a cache outlives handlers that raise when it logs that the store is away, and
    callbacks of watches."""
    handler = add_handler("revstore.cacher", Failing(kind, "emit"))
    with MemoryBackend() as backend:
        feed = ControlledStorage(TypedStorage(backend, PODS))
        with Cacher(CacherConfig(storage=feed, resource_type=PODS)) as cache:
            cache.wait_ready(PATIENCE)
            watch = cache.watch("/pods")
            run_threads(1, lambda _: watch.on_readable(raising(kind)))
            feed.cut()
            wait_until(lambda: handler.calls, "the feed has logged")
            made = cache.create("/pods/a", pod("a"))
            version = made["metadata"]["resourceVersion"]
            assert cache.get("/pods/a", resource_version=version, timeout=PATIENCE) == made


@pytest.mark.parametrize("kind", KINDS)
def test_a_compactor_goes_on(kind, add_handler):
    """Its thread outlives handlers that raise when it logs that a round failed."""
    handler = add_handler("revstore.compactor", Failing(kind, "emit"))

    class Bad(MemoryBackend):
        def put(self, *args, **options):
            raise Unreachable("of the test")

    with Bad() as backend, Compactor(backend, interval=0.01):
        wait_until(lambda: handler.calls > 2, "three rounds")


def test_no_other_loggers():
    """Every logger of the packages is one whose handlers may raise, but for the command line's."""
    found = [
        path.relative_to(ROOT)
        for path in [*ROOT.glob("core/revstore/**/*.py"), *ROOT.glob("plugins/*/src/**/*.py")]
        if re.search(r"logging\.getLogger|\bimport warnings", path.read_text())
        and not {"cli", "testing"} & set(path.parts)
    ]
    # Before anything is open; the last one only sets the level of a library's logger.
    warned = (
        "config/_storage_config.py",
        "plugins/_plugins.py",
        "revstore_encryption/_reload.py",
        "revstore_serve/_grpc.py",
        "revstore_serve/_header_fields.py",
    )
    assert [str(path) for path in found if not str(path).endswith(warned)] == [
        "core/revstore/onlookers.py"
    ]


def test_a_log_names_the_caller(caplog):
    """A record's place is that of the call."""
    Log("revstore.test").warning("x")
    assert caplog.records[-1].filename == Path(__file__).name


def test_what_is_shown(caplog):
    """What the function returns comes back; a failure is logged by its name."""
    assert shown_to("a sum", sum, [1, 2]) == 3
    assert shown_to("a sum", sum, [None]) is None
    assert "a sum failed" in caplog.text


# --- what is not only to look on ----------------------------------------------------------------

FUNCTIONS = {
    "clock": lambda storage, fail: Registry(storage, resource_prefix="/pods", clock=fail),
    "new_uid": lambda storage, fail: Registry(storage, resource_prefix="/pods", new_uid=fail),
    "encode": lambda storage, fail: Registry(storage, resource_prefix="/pods", encode=fail),
}


@pytest.mark.parametrize("kind", [ValueError, Mute])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_functions_of_a_registry(function, kind):
    """What they raise becomes an error of the library, and nothing is written."""
    with MemoryBackend() as backend, TypedStorage(backend, PODS) as storage:
        Registry(storage, resource_prefix="/pods").create(pod("a"))
        registry, before = FUNCTIONS[function](storage, raising(kind)), backend.status().revision
        write = registry.update if function == "encode" else registry.create
        with pytest.raises(InternalError, match=function):
            write(pod("a" if function == "encode" else "b", n=1))
        assert backend.status().revision == before


def test_a_clock_that_gives_no_time():
    """It is the clock's failure, not one of the object."""
    with MemoryBackend() as backend, TypedStorage(backend, PODS) as storage:
        for given in (math.nan, "x", None, 1e300):
            registry = Registry(storage, resource_prefix="/pods", clock=lambda given=given: given)
            with pytest.raises(InternalError, match="clock"):
                registry.create(pod("a"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_close_that_raises_keeps_nothing_else_open(kind):
    """A factory closes all, then raises what a function to be called at the end has raised."""
    factory = StorageFactory("memory://")
    factory.storage(dict, resource="pods", on_close=raising(kind))
    other = factory.storage(dict, resource="services", cached=True)
    backend, before = factory.backend(), threading.active_count()
    with pytest.raises(kind):
        factory.close()
    for closed in (backend.status, lambda: other.get("/services/a")):
        with pytest.raises(Closed):
            closed()
    assert threading.active_count() < before


@pytest.mark.parametrize("kind", [ValueError, Mute])
def test_a_scrape_goes_past_a_store_that_raises(kind):
    """Its figures are those of a failure; the others are told."""

    class Bad(TypedStorage):
        def stats(self, **_options):
            raise kind

    with MemoryBackend() as backend:
        bad, good = Bad(backend, PODS), TypedStorage(backend, PODS)
        good.create("/pods/a", pod("a"))
        collector = Collector()
        collector.add(bad, resource="bad")
        collector.add(good, resource="pods")
        found = {
            sample.labels["resource"]: sample.value
            for family in collector.collect()
            for sample in family.samples
            if sample.name == "apiserver_resource_objects"
        }
        assert found == {"bad": -1, "pods": 1}
