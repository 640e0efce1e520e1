"""The backend that measures requests: what it counts, and that it changes nothing else."""

from __future__ import annotations

from collections.abc import Iterator

import attrs
import pytest
from prometheus_client import CollectorRegistry

from revstore import metrics
from revstore.backend import Backend
from revstore.config import StorageConfig
from revstore.errors import Closed, Unreachable
from revstore.factory import StorageFactory
from revstore.memory import MemoryBackend
from revstore.metrics import MeasuredBackend, Request, RequestCounts
from revstore.metrics._requests import BUCKETS, added
from revstore.objects import ObjectMeta
from revstore.plugins import open_backend
from revstore.testing import BackendTests
from revstore.testing._support import run_threads


class TestMeasured(BackendTests):
    """STAT-4: measured, a backend does what it did before."""

    large_value = 4096

    @pytest.fixture
    def backend(self) -> Iterator[Backend]:
        with MeasuredBackend(MemoryBackend()) as backend:
            yield backend


@attrs.frozen(kw_only=True)
class Pod:
    metadata: ObjectMeta


def pod(name: str) -> Pod:
    return Pod(metadata=ObjectMeta(name=name, namespace="a"))


@pytest.fixture
def backend() -> Iterator[MeasuredBackend]:
    with MeasuredBackend(MemoryBackend(), prefix="/registry") as backend:
        yield backend


@pytest.fixture
def wrapper(tmp_path, monkeypatch) -> str:
    """The name under which the wrapper is installed here."""
    info = tmp_path / "revstore_measured-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: revstore-measured\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[revstore.wrappers]\nmeasured = revstore.metrics_plugin\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return "measured"


def counts(backend: MeasuredBackend) -> dict[str, int]:
    return {request.operation: each.count for request, each in backend.requests.items()}


def test_operations(backend):
    """STAT-4: each request is counted under the original's name for it."""
    made = backend.put("/registry/pods/a/x", b"1", expected_revision=0)
    changed = backend.put("/registry/pods/a/x", b"2", expected_revision=made.revision)
    assert not backend.put("/registry/pods/a/x", b"3", expected_revision=0).succeeded
    backend.get("/registry/pods/a/x")
    backend.list("/registry/pods/")
    backend.list("/registry/pods/", keys_only=True)
    backend.count("/registry/pods/")
    backend.delete("/registry/pods/a/x", expected_revision=changed.revision)
    backend.status()
    backend.compact(changed.revision)

    assert counts(backend) == {
        "create": 2,
        "update": 1,
        "get": 1,
        "list": 1,
        "listOnlyKeys": 1,
        "listWithCount": 1,
        "delete": 1,
        "getCurrentResourceVersion": 1,
        "compact": 1,
    }
    assert all(each.errors == 0 for each in backend.requests.values())
    for each in backend.requests.values():
        assert len(each.durations) == len(BUCKETS) + 1
        assert sum(each.durations) == each.count
        assert each.seconds > 0


@pytest.mark.parametrize(
    ("key", "group", "resource"),
    [
        ("/registry/pods/a/x", "", "pods"),
        ("/registry/nodes/x", "", "nodes"),
        ("/registry/deployments/a/x", "apps", "deployments"),
        ("/registry/example.com/widgets/a/x", "example.com", "widgets"),
        ("/registry/example.com/widgets", "", ""),
        ("/registry/example.com", "", ""),
        ("/registry/health", "", ""),
        ("/registryx/pods/a/x", "", ""),
        ("/else/pods/a/x", "", ""),
        ("pods", "", ""),
    ],
)
def test_resources(backend, key, group, resource):
    """STAT-4: group and resource are told by the key, twice the same."""
    backend.get(key)
    backend.get(key)

    assert backend.requests.keys() == {Request("get", group, resource)}


def test_prefixes_of_lists(backend):
    """STAT-4: lists are of the resource below whose keys they look."""
    for prefix in ("/registry/pods/", "/registry/pods/a/", "/registry/", "", "/registry/po"):
        backend.list(prefix)

    resources = {request.resource: each.count for request, each in backend.requests.items()}
    assert resources == {"pods": 2, "": 3}


class Unreachables(MemoryBackend):
    def get(self, key, **options):
        raise Unreachable("nobody answered")


def test_errors():
    """STAT-4: a request that raises is counted, timed, and counted as an error; the error comes
    through as it is."""
    with MeasuredBackend(Unreachables()) as backend:
        with pytest.raises(Unreachable, match="nobody answered"):
            backend.get("/pods/x")
        with pytest.raises(ValueError, match="expected_revision 0"):
            backend.delete("/pods/x", expected_revision=0)
        backend.status()
    with pytest.raises(Closed):
        backend.status()

    errors = {request.operation: each.errors for request, each in backend.requests.items()}
    assert errors == {"get": 1, "delete": 1, "getCurrentResourceVersion": 1}
    assert counts(backend) == {"get": 1, "delete": 1, "getCurrentResourceVersion": 2}


def test_watches(backend):
    """STAT-5: the events and the progress marks that watches deliver are counted by resource."""
    with backend.watch("/registry/pods/", recursive=True, after_revision=0) as watch:
        for name in "abc":
            backend.put(f"/registry/pods/{name}", b"", expected_revision=0)
        backend.put("/registry/nodes/n", b"", expected_revision=0)
        seen = 0
        while seen < 3:
            batch = watch.poll(10)
            assert batch is not None
            seen += len(batch.events)
        marks = backend.progress_marks.get(("", "pods"), 0)
        watch.request_progress()
        batch = watch.poll(10)
        assert batch is not None
        assert batch.events == ()

    assert backend.events_received == {("", "pods"): 3}
    assert backend.progress_marks == {("", "pods"): marks + 1}


def test_many_threads(backend):
    """Nothing is lost when many threads make requests at once."""

    def work(_: int) -> None:
        for _ in range(500):
            backend.get("/registry/pods/x")

    run_threads(8, work)

    assert counts(backend) == {"get": 4000}


def test_adding():
    """Counts of two backends add up, each class of durations by itself."""
    one = RequestCounts(3, 1, 0.5, (1, 2))
    assert added(one, RequestCounts(1, 0, 0.25, (0, 1))) == RequestCounts(4, 1, 0.75, (1, 3))


def test_by_configuration(wrapper):
    """STAT-4: what the configuration wraps is measured, with its prefix and its own resources."""
    config = StorageConfig(
        type="memory",
        prefix="/r",
        wrappers=[wrapper],
        resources={"things.apps": {"kind": "Thing"}},
    )
    with open_backend(config) as backend:
        assert isinstance(backend, MeasuredBackend)
        backend.get("/r/things/a/x")
        backend.get("/r/apps/things/a/x")
        backend.get("/registry/pods/a/x")
        assert {request.resource for request in backend.requests} == {"things", "apps", ""}


def test_scraped(wrapper):
    """STAT-4, STAT-5: a factory's collector shows the requests of its backends by operation, group
    and resource, with the durations as a histogram."""
    registry = CollectorRegistry()
    with StorageFactory(StorageConfig(type="memory", wrappers=[wrapper])) as factory:
        collector = metrics.register(factory, registry=registry)
        pods = factory.storage(Pod)
        factory.storage(Pod, resource="widgets.example.com")
        pods.create("/pods/a/x", pod("x"))
        pods.create("/pods/a/y", pod("y"))
        backend = factory.backend()
        labels = {"operation": "create", "group": "", "resource": "pods"}
        value = registry.get_sample_value

        assert value("etcd_requests_total", labels) == 2
        assert value("etcd_request_errors_total", labels) == 0
        assert value("etcd_request_duration_seconds_count", labels) == 2
        assert value("etcd_request_duration_seconds_bucket", {**labels, "le": "+Inf"}) == 2
        assert value("etcd_request_duration_seconds_bucket", {**labels, "le": "60.0"}) == 2
        seconds = backend.requests[Request("create", "", "pods")].seconds
        assert value("etcd_request_duration_seconds_sum", labels) == seconds

        other = MeasuredBackend(MemoryBackend(), prefix="/registry")
        collector.add(other)
        other.put("/registry/pods/a/x", b"", expected_revision=0)
        with other.watch("/registry/pods/", recursive=True, after_revision=0) as watch:
            while (
                value("apiserver_storage_events_received_total", {"group": "", "resource": "pods"})
                is None
            ):
                watch.poll(10)
        assert value("etcd_requests_total", labels) == 3
        collector.remove(other)
        other.close()
        pods.close()
        assert value("etcd_requests_total", labels) == 2
    assert value("etcd_requests_total", labels) is None
