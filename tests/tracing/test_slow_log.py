"""The log of slow calls: which calls it names, what it says of them, and what it never says."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revstore.cacher import Cacher
from revstore.config import StorageConfig
from revstore.errors import KeyNotFound, StorageError
from revstore.factory import StorageFactory
from revstore.storage import Storage
from revstore.typed import TypedStorage

# So short that every call is slow.
ALL = 1e-9
SECRET = "hunter2"


class Lines(logging.Handler):
    """The records of ``revstore.slow``."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[Any] = []

    def emit(self, record: logging.LogRecord) -> None:
        record.getMessage()
        self.records.append(record)

    def of(self, operation: str) -> Any:
        """The only record of an operation."""
        (record,) = [each for each in self.records if each.revstore_operation == operation]
        return record

    @property
    def texts(self) -> list[str]:
        return [each.getMessage() for each in self.records]


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler, log = Lines(), logging.getLogger("revstore.slow")
    log.addHandler(handler)
    yield handler
    log.removeHandler(handler)


@pytest.fixture(params=["memory://", "sqlite:///{}/x.db"], ids=["memory", "sqlite"])
def factory(request, tmp_path) -> Iterator[StorageFactory]:
    url = request.param.format(tmp_path)
    with StorageFactory(f"{url}?slow_operation_threshold={ALL}") as factory:
        yield factory


@pytest.fixture(params=[False, True], ids=["raw", "cached"])
def pods(request, factory) -> Storage[dict[str, Any]]:
    return factory.storage(dict, resource="pods", cached=request.param)


def pod(name: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": {"app": "x"}}, "password": SECRET}


#: One call of each operation that a storage has.
CALLS: dict[str, Callable[[Storage[Any]], Any]] = {
    "create": lambda pods: pods.create("/pods/b", pod("b")),
    "get": lambda pods: pods.get("/pods/a"),
    "list": lambda pods: pods.list("/pods"),
    "guaranteed_update": lambda pods: pods.guaranteed_update("/pods/a", lambda obj, _: obj),
    "delete": lambda pods: pods.delete("/pods/a"),
    "watch": lambda pods: pods.watch("/pods").close(),
    "changes": lambda pods: pods.changes("/pods").close(),
    "count": lambda pods: pods.count("/pods"),
    "stats": lambda pods: pods.stats(),
    "current_revision": lambda pods: pods.current_revision(),
    "compact_revision": lambda pods: pods.compact_revision(),
    "ready": lambda pods: pods.ready(),
}


def test_every_call_of_a_storage_is_known():
    """What is neither here nor below is a call that nobody sees."""
    unseen = {"close", "request_progress"}
    assert set(CALLS) | unseen == Storage.__abstractmethods__


@pytest.mark.parametrize("operation", CALLS)
def test_each_call_is_one_line(pods, lines, operation):
    pods.create("/pods/a", pod("a"))
    pods.list("/pods")  # the cache, if there is one, is filled
    lines.records.clear()

    CALLS[operation](pods)

    record = lines.of(operation)
    assert (record.levelname, record.name) == ("WARNING", "revstore.slow")
    assert record.revstore_resource == "pods"
    assert record.revstore_seconds > 0
    assert not [each for each in lines.texts if SECRET in each]


def test_classes_are_kept(factory):
    """What a program asks of a storage by its class is the same when it is traced."""
    assert isinstance(factory.storage(dict, resource="pods"), TypedStorage)
    cache = factory.storage(dict, resource="pods", cached=True)
    assert isinstance(cache, Cacher)
    assert cache.counters.objects == 0


def test_off_nothing_is_wrapped(lines):
    """Without a threshold the classes are the plain ones: there is nothing to pay for."""
    with StorageFactory("memory://") as factory:
        assert type(factory.storage(dict, resource="pods")) is TypedStorage
        cache = factory.storage(dict, resource="pods", cached=True)
        assert type(cache) is Cacher
        cache.list("/pods")
    assert lines.records == []


def test_what_is_faster_is_not_told(lines):
    with StorageFactory("memory://?slow_operation_threshold=1h") as factory:
        factory.storage(dict, resource="pods").create("/pods/a", pod("a"))
    assert lines.records == []


def test_a_threshold_of_one_resource(lines):
    config = StorageConfig(type="memory", overrides={"events": {"slow_operation_threshold": "1ms"}})
    with StorageFactory(config) as factory:
        assert type(factory.storage(dict, resource="pods")) is TypedStorage
        assert type(factory.storage(dict, resource="events")) is not TypedStorage
        assert factory.backend("events") is factory.backend("pods")


def test_arguments_and_results(factory, lines):
    pods = factory.storage(dict, resource="pods")
    for name in ("a", "b", "c"):
        pods.create(f"/pods/{name}", pod(name))
    first = pods.list("/pods", label_selector="app=x", limit=2)
    pods.list("/pods", label_selector="app=x", limit=2, continue_token=first.continue_token)
    pods.count("/pods")

    one, two = [each for each in lines.records if each.revstore_operation == "list"]
    asked = {"label_selector": "app=x", "limit": 2}
    assert one.revstore_arguments == asked
    assert two.revstore_arguments == {**asked, "continue_token": "..."}
    assert (one.revstore_count, two.revstore_count) == (2, 1)
    assert one.revstore_resource_version == first.resource_version
    assert first.continue_token not in two.getMessage()
    assert lines.of("count").revstore_count == 3


def test_attempts_of_an_update(factory, lines):
    """Another write comes between, once: two attempts, and the time of both functions."""
    pods = factory.storage(dict, resource="pods")
    pods.create("/pods/a", pod("a"))
    lines.records.clear()
    other = factory.storage(dict, resource="pods")
    turns = []

    def update(obj, _):
        turns.append(1)
        if len(turns) == 1:
            other.guaranteed_update("/pods/a", lambda found, _: {**found, "n": 1})
        return {**obj, "m": 2}

    pods.guaranteed_update("/pods/a", update)

    inner, outer = lines.records
    assert (inner.revstore_attempts, outer.revstore_attempts) == (1, 2)
    # The inner call is time of the caller's function, not of the outer one's requests.
    assert (inner.revstore_requests, outer.revstore_requests) == (2, 3)
    assert outer.revstore_functions_seconds >= inner.revstore_seconds


class SlowTransformer:
    """Takes 20 ms for each value."""

    def transform_from_storage(self, data: bytes, context: bytes) -> tuple[bytes, bool]:
        time.sleep(0.02)
        return data, False

    def transform_to_storage(self, data: bytes, context: bytes) -> bytes:
        time.sleep(0.02)
        return data


def test_the_part_that_takes_the_time(factory, lines):
    pods = factory.storage(dict, resource="pods", transformer=SlowTransformer())
    pods.create("/pods/a", pod("a"))

    record = lines.of("create")
    assert 0.02 <= record.revstore_transform_seconds <= record.revstore_seconds
    assert 0 < record.revstore_backend_seconds < record.revstore_seconds
    assert record.revstore_encode_seconds > 0
    assert record.revstore_decode_seconds > 0
    shown = re.search(r"transformer ([0-9.]+) ms", record.getMessage())
    assert shown is not None
    assert float(shown[1]) == pytest.approx(1000 * record.revstore_transform_seconds, rel=0.01)


def test_waiting_for_the_cache(factory, lines):
    """A read at a version that the store gets to later waits for it."""
    pods = factory.storage(dict, resource="pods", cached=True)
    revision = pods.current_revision()
    pods.list("/pods")
    writer = threading.Timer(0.05, lambda: pods.create("/pods/a", pod("a")))
    writer.start()

    pods.get("/pods/a", resource_version=str(revision + 1))
    writer.join()

    record = lines.of("get")
    assert 0 < record.revstore_waiting_seconds <= record.revstore_seconds
    assert "waiting" in record.getMessage()


def test_requests_of_the_feed_are_told_by_themselves(factory, lines):
    factory.storage(dict, resource="pods", cached=True).list("/pods")

    record = lines.of("backend list")
    assert (record.revstore_resource, record.revstore_key) == ("pods", "/registry/pods/")


def test_errors_are_told_by_class_only(factory, lines):
    """An error's text may quote what is stored, or what was to be."""
    pods = factory.storage(dict, resource="pods")
    with pytest.raises(KeyNotFound):
        pods.get("/pods/none")

    def fails(obj, _):
        raise ValueError(SECRET)

    pods.create("/pods/a", pod("a"))
    with pytest.raises(ValueError, match=SECRET):
        pods.guaranteed_update("/pods/a", fails)

    assert lines.of("get").revstore_error == "KeyNotFound"
    assert lines.of("guaranteed_update").revstore_error == "ValueError"
    assert SECRET not in str([vars(each) for each in lines.records])


@given(key=st.one_of(st.text(), st.none(), st.integers(), st.binary()))
def test_any_key_is_one_line(key):
    """A key cannot forge a line, nor make the log fail, nor change what the call raises."""
    handler, log = Lines(), logging.getLogger("revstore.slow")
    log.addHandler(handler)
    try:
        with StorageFactory(f"memory://?slow_operation_threshold={ALL}") as factory:
            pods = factory.storage(dict, resource="pods")
            with pytest.raises((StorageError, TypeError)):
                pods.get(key)
    finally:
        log.removeHandler(handler)
    (text,) = handler.texts
    assert text.isprintable()
