"""Spans: one of each call, those of its requests below it, and nothing of what is stored."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace as otel
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from revstore import aio
from revstore.errors import KeyNotFound
from revstore.factory import StorageFactory
from revstore.typed import TypedStorage

SECRET = "hunter2"
# A program can set its provider once, also while storages are open.
EXPORTER = InMemorySpanExporter()
PROVIDER = TracerProvider()
PROVIDER.add_span_processor(SimpleSpanProcessor(EXPORTER))


@pytest.fixture(scope="module", autouse=True)
def _provider() -> None:
    otel.set_tracer_provider(PROVIDER)


class Spans:
    """The spans that have ended."""

    @property
    def all(self) -> list[ReadableSpan]:
        return list(EXPORTER.get_finished_spans())

    def named(self, name: str) -> list[ReadableSpan]:
        return [each for each in self.all if each.name == name]

    def one(self, name: str) -> Any:
        (span,) = self.named(name)
        return span

    def below(self, parent: ReadableSpan) -> list[str]:
        """The names of the spans under ``parent``."""
        wanted = parent.context.span_id
        return [each.name for each in self.all if each.parent and each.parent.span_id == wanted]


@pytest.fixture
def spans() -> Iterator[Spans]:
    EXPORTER.clear()
    yield Spans()
    EXPORTER.clear()


@pytest.fixture(params=["memory", "sqlite"])
def factory(request, tmp_path) -> Iterator[StorageFactory]:
    url = {"memory": "memory://", "sqlite": f"sqlite:///{tmp_path}/x.db"}[request.param]
    with StorageFactory(f"{url}?tracing=true") as factory:
        yield factory


def secret(name: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": {"app": SECRET}}, "data": SECRET}


def test_a_call_and_its_requests(factory, spans):
    """An update reads and writes; both are below it."""
    secrets = factory.storage(dict, resource="secrets")
    secrets.create("/secrets/a/x", secret("x"))
    secrets.guaranteed_update("/secrets/a/x", lambda obj, _: {**obj, "n": 1})

    update = spans.one("guaranteed_update secrets")
    assert update.kind is otel.SpanKind.INTERNAL
    assert update.status.status_code is otel.StatusCode.UNSET
    assert update.attributes["db.system.name"] == factory.config.resolved_type
    assert update.attributes["db.operation.name"] == "guaranteed_update"
    assert update.attributes["db.collection.name"] == "secrets"
    assert update.attributes["revstore.attempts"] == 1
    assert update.attributes["revstore.decode_seconds"] > 0
    assert spans.below(update) == ["backend get secrets", "backend update secrets"]
    request = spans.one("backend update secrets")
    assert request.kind is otel.SpanKind.CLIENT
    assert request.attributes["db.operation.name"] == "update"
    assert update.start_time <= request.start_time <= request.end_time <= update.end_time


def test_a_call_is_below_the_programs_own_span(factory, spans):
    pods = factory.storage(dict, resource="pods")
    with PROVIDER.get_tracer("program").start_as_current_span("request") as request:
        pods.count("/pods")
        assert otel.get_current_span() is request
    pods.count("/pods")

    assert spans.below(spans.one("request")) == ["count pods"]
    assert [each.parent is None for each in spans.named("count pods")] == [False, True]


def test_calls_of_a_function_are_below_the_update(factory, spans):
    pods = factory.storage(dict, resource="pods")
    pods.create("/pods/a", secret("a"))

    def update(obj, _):
        return {**obj, "n": pods.count("/pods")}

    pods.guaranteed_update("/pods/a", update)

    below = spans.below(spans.one("guaranteed_update pods"))
    assert below == ["backend get pods", "count pods", "backend update pods"]


def test_a_cached_read_asks_nothing(factory, spans):
    pods = factory.storage(dict, resource="pods", cached=True)
    pods.create("/pods/a", secret("a"))
    pods.list("/pods")
    EXPORTER.clear()

    assert len(pods.list("/pods", resource_version="0")) == 1

    span = spans.one("list pods")
    assert span.attributes["db.response.returned_rows"] == 1
    assert spans.below(span) == []


def test_a_request_of_the_feed_is_by_itself(factory, spans):
    factory.storage(dict, resource="pods", cached=True).list("/pods")

    span = spans.one("backend list pods")
    assert (span.kind, span.parent) == (otel.SpanKind.CLIENT, None)
    assert span.attributes["db.operation.name"] == "list"


def test_an_error_is_a_status(factory, spans):
    """Its class is told, its text is not: that may quote an object."""
    pods = factory.storage(dict, resource="pods")
    with pytest.raises(KeyNotFound):
        pods.get(f"/pods/{SECRET}")

    span = spans.one("get pods")
    assert span.status.status_code is otel.StatusCode.ERROR
    assert span.status.description is None
    assert span.attributes["error.type"] == "KeyNotFound"
    assert span.events == ()


def test_neither_keys_nor_values_are_told(factory, spans):
    pods = factory.storage(dict, resource="pods", cached=True)
    pods.create(f"/pods/{SECRET}", secret(SECRET))
    pods.list("/pods", label_selector=f"app={SECRET}")
    pods.get(f"/pods/{SECRET}")
    pods.delete(f"/pods/{SECRET}")

    assert len(spans.all) > 6
    assert not [each.to_json() for each in spans.all if SECRET in each.to_json()]


def test_the_span_of_a_task_is_above(tmp_path, spans):
    """The context of an event loop's task goes along into the thread of the call."""

    async def main() -> None:
        url = f"sqlite:///{tmp_path}/x.db?tracing=true"
        async with aio.open_storage(url, dict, resource="pods") as pods:
            with PROVIDER.get_tracer("program").start_as_current_span("task"):
                await pods.count("/pods")

    asyncio.run(main())

    assert spans.below(spans.one("task")) == ["count pods"]


def test_off_is_the_default(spans):
    with StorageFactory("memory://") as factory:
        pods = factory.storage(dict, resource="pods")
        pods.count("/pods")
        assert type(pods) is TypedStorage
    assert spans.all == []


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )


def test_without_the_library():
    """What is to be installed is said, and a program that traces nothing does not need it."""
    open_it = "from revstore import open_registry\nopen_registry({!r}, dict, resource='pods')"
    absent = "import sys\nsys.modules['opentelemetry'] = None\n"

    done = run(absent + open_it.format("memory://?tracing=true"))
    assert "ConfigError: tracing needs opentelemetry-api: run  pip install" in done.stderr

    plain = run(absent + open_it.format("memory://?slow_operation_threshold=1"))
    assert (plain.returncode, plain.stderr) == (0, "")


def test_without_a_provider():
    """With the API alone calls work, and nothing is collected."""
    code = (
        "from revstore import open_storage\n"
        "with open_storage('memory://?tracing=true', dict, resource='pods') as pods:\n"
        "    print(pods.count('/pods'))"
    )
    done = run(code)
    assert (done.stdout, done.stderr) == ("0\n", "")
