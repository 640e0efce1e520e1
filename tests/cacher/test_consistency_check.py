"""Comparing a cache with its store."""

from __future__ import annotations

import attrs
import pytest

from revstore.cacher import Cacher, CacherConfig
from revstore.cacher._consistency import check_consistency
from revstore.errors import Closed, Expired, Unreachable
from revstore.memory import MemoryBackend
from revstore.objects import ObjectMeta
from revstore.resource_type import ResourceType
from revstore.testing._support import run_threads, wait_until
from revstore.typed import TypedStorage


@attrs.frozen(kw_only=True)
class Pod:
    metadata: ObjectMeta
    node: str = ""


def pod(name: str, node: str = "") -> Pod:
    return Pod(metadata=ObjectMeta(name=name, namespace="a"), node=node)


@pytest.fixture
def backend():
    with MemoryBackend() as backend:
        yield backend


@pytest.fixture
def cache(backend):
    storage = TypedStorage(backend, ResourceType(Pod, "/pods"))
    config = CacherConfig(storage=storage, resource_type=ResourceType(Pod, "/pods"))
    with Cacher(config) as cache:
        yield cache


def test_a_cache_is_as_its_store_also_while_both_change(cache):
    """CACHE-22: compared at one revision, whatever is written meanwhile."""
    for number in range(50):
        cache.create(f"/pods/a/{number}", pod(str(number)))

    def work(index: int) -> None:
        for turn in range(60):
            if index == 0:
                report = cache.check_consistency(timeout=10)
                assert report.consistent, report
            else:
                key = f"/pods/a/{index}-{turn % 5}"
                if turn % 10 < 5:
                    cache.create(key, pod(key[8:]))
                else:
                    cache.delete(key)

    run_threads(3, work)
    report = cache.check_consistency()
    assert (report.consistent, report.objects, report.first_difference) == (True, 50, "")
    assert report.digest == cache.check_consistency().digest
    cache.delete("/pods/a/7")
    assert report.digest != cache.check_consistency().digest
    counters = cache.counters
    assert counters.consistency_checks == 63
    assert counters.inconsistencies == 0


@pytest.mark.parametrize("readable", [False, True])
def test_what_becomes_readable_or_not_meanwhile_is_no_difference(
    backend, cache, readable, monkeypatch
):
    """CACHE-22: also if that happens after the cache's part was read."""
    cache.create("/pods/a/1", pod("1"))
    cache.create("/pods/a/2", pod("2"))
    kv = backend.list("").kvs[0]
    before, after = (b"{", kv.value) if readable else (kv.value, b"{")
    revision = backend.put(kv.key, before, expected_revision=kv.revision).revision

    def version_of(obj: Pod) -> int:
        if backend.get(kv.key).kv.revision == revision:
            put = backend.put(kv.key, after, expected_revision=revision)
            wait_until(lambda: cache.counters.resource_version >= put.revision, "the change")
        return int(obj.metadata.resource_version)

    monkeypatch.setattr(cache._resource_type.versioner, "object_resource_version", version_of)
    report = check_consistency(cache._storage, cache._content, "/pods/", 20)

    assert report.consistent, report


@pytest.mark.parametrize("defect", ["lost", "stale", "extra"])
def test_a_difference_is_found_and_repaired(cache, defect):
    """CACHE-21, CACHE-22: a difference of any kind is named, the cache is refilled, and watches
    end, since they may have shown wrong events."""
    cache.create("/pods/a/1", pod("1"))
    cache.create("/pods/a/2", pod("2"))
    assert len(cache.list("/pods")) == 2
    watch = cache.watch("/pods", resource_version="1")
    content = cache._content
    with content._lock:
        if defect == "lost":
            content.state.remove("/pods/a/2")
        elif defect == "stale":
            content.state.put("/pods/a/2", content._attributes.of(content.state.get("/pods/a/1")))
        else:
            content.state.put("/pods/a/3", content._attributes.of(content.state.get("/pods/a/1")))
    report = cache.check_consistency(timeout=10)
    assert report.consistent is False
    assert report.first_difference == ("/pods/a/3" if defect == "extra" else "/pods/a/2")
    with pytest.raises(Expired):
        list(watch)
    wait_until(lambda: cache.counters.initializations == 2, "a new filling")
    assert cache.check_consistency(timeout=10).consistent
    assert [each.metadata.name for each in cache.list("/pods")] == ["1", "2"]
    assert cache.counters.inconsistencies == 1


def test_objects_that_cannot_be_read_are_no_difference(backend, cache):
    """They are counted by themselves."""
    cache.create("/pods/a/1", pod("1"))
    backend.put("/registry/pods/a/2", b"no object", expected_revision=0)
    wait_until(lambda: cache.counters.unreadable == 1, "the object that cannot be read")
    report = cache.check_consistency(timeout=10)
    assert (report.consistent, report.objects) == (True, 1)


def test_the_stores_errors_are_raised():
    """No verdict is made up."""

    class Breaks(MemoryBackend):
        broken = False

        def list(self, *arguments, **options):
            if self.broken:
                raise Unreachable("gone")
            return super().list(*arguments, **options)

    with Breaks() as backend:
        storage = TypedStorage(backend, ResourceType(Pod, "/pods"))
        config = CacherConfig(storage=storage, resource_type=ResourceType(Pod, "/pods"))
        cache = Cacher(config)
        cache.wait_ready()
        backend.broken = True
        with pytest.raises(Unreachable):
            cache.check_consistency()
        cache.close()
        with pytest.raises(Closed):
            cache.check_consistency()
