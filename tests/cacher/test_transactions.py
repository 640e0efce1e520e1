"""A cache over a store in which one transaction changes several objects, at one revision."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from revstore.backend import Backend, Transaction
from revstore.cacher import Cacher, CacherConfig
from revstore.memory import MemoryBackend
from revstore.testing.cacher._base import INDEXED
from revstore.testing.storage._parts import PODS, pod
from revstore.typed import TypedStorage
from revstore_sqlite._backend import SQLiteBackend
from revstore_sqlite._options import SQLiteOptions


@pytest.fixture(params=["memory", "sqlite"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    if request.param == "memory":
        with MemoryBackend() as backend:
            yield backend
    else:
        with SQLiteBackend(SQLiteOptions(path=str(tmp_path / "store.db"))) as backend:
            yield backend


def test_all_of_a_transaction_comes_at_one_version(backend: Backend) -> None:
    """The cache's list at the revision is the store's, and a watch gets each change with it."""
    storage = TypedStorage(backend, PODS)
    keys = [f"/pods/ns/p{number}" for number in range(9)]
    for label in ("old", "new"):
        for key in keys:
            if label == "new":
                storage.delete(key)
            storage.create(key, pod(key.removeprefix("/pods/"), labels={"is": label}))
    stored = [kv.key for kv in backend.list("").kvs]
    first = backend.status().revision
    with Cacher(CacherConfig(storage=storage, resource_type=PODS, indexed_fields=INDEXED)) as cache:
        cache.wait_ready()
        with cache.watch("/pods", resource_version=str(first)) as watch:

            def body(seen: Transaction) -> None:
                values = {key: seen.get(key) for key in stored}
                for key in stored[:3]:
                    seen.delete(key)
                for key in stored[3:]:
                    kv = values[key]
                    assert kv is not None
                    seen.put(key, kv.value.replace(b'"new"', b'"changed"'))

            revision = backend.transaction(body).revision
            found = watch.poll(10)
        kept = cache.list("/pods", resource_version=str(revision))
        stored_now = storage.list("/pods")

    assert found is not None, "all of it comes in one answer"
    assert {event.object.metadata.resource_version for event in found} == {str(revision)}
    assert [event.type.value for event in found] == ["DELETED"] * 3 + ["MODIFIED"] * 6
    assert kept.resource_version == str(revision)
    assert [each.metadata.labels["is"] for each in kept.items] == ["changed"] * 6
    assert kept.items == stored_now.items
