"""What the original's etcd2 helper and watcher did, and this backend does as well."""

from __future__ import annotations

import json

import pytest

from revstore.errors import KeyExists, KeyNotFound, PreconditionFailed
from revstore.preconditions import Preconditions
from revstore.resource_type import ResourceType
from revstore.testing._support import PATIENCE
from revstore.testing.storage._parts import Pod, pod
from revstore.typed import TypedStorage
from revstore_etcd2._names import url_of


@pytest.fixture
def backend(open_store):
    return open_store()


@pytest.fixture
def prefix(backend):
    return f"/old-{id(backend)}-{backend.status().revision}"


@pytest.fixture
def storage(backend, prefix):
    with TypedStorage(backend, ResourceType(Pod, prefix)) as storage:
        yield storage


def raw(backend, path, query=""):
    """What the server itself says: the index in its head, and the answer."""
    reply = backend._client.call("GET", url_of(path) + query)
    return reply.index, json.loads(reply.body)


def test_versions_are_the_servers_indexes(backend, storage, prefix):
    """OLD-3: an object's version is its modifiedIndex, a list's the store's index."""
    first = storage.create(f"{prefix}/a", pod("a"))
    storage.create(f"{prefix}/b", pod("b"))
    index, answer = raw(backend, f"/registry{prefix}/a")

    assert int(first.metadata.resource_version) == answer["node"]["modifiedIndex"]
    assert int(storage.list(prefix).resource_version) == index
    assert storage.get(f"{prefix}/a") == first


def test_lists_are_flat_and_of_folders_that_are_missing_empty(backend, storage, prefix):
    """OLD-6: whatever folders the keys are in, the list is one; a folder that is not there is an
    empty list at the store's index."""
    assert storage.list(prefix).items == ()
    assert int(storage.list(prefix).resource_version) == backend.status().revision
    for name in ("a/1", "a/b/2", "3"):
        storage.create(f"{prefix}/{name}", pod(name[-1]))
    assert [each.metadata.name for each in storage.list(prefix).items] == ["3", "1", "2"]
    assert storage.list(f"{prefix}/none").items == ()


def test_deletions_compare_the_index(backend, storage, prefix):
    """OLD-10: a deletion with a precondition is one of the index that was checked; OLD-23: its
    object has the index of the deletion in a watch."""
    created = storage.create(f"{prefix}/a", pod("a"))
    with pytest.raises(PreconditionFailed):
        storage.delete(f"{prefix}/a", preconditions=Preconditions(uid="another"))
    start = int(created.metadata.resource_version)
    storage.delete(f"{prefix}/a", preconditions=Preconditions(uid=created.metadata.uid))
    _index, answer = raw(
        backend, f"/registry{prefix}", f"?wait=true&recursive=true&waitIndex={start + 1}"
    )
    with storage.watch(prefix, resource_version=str(start), timeout=PATIENCE) as watch:
        event = next(iter(watch))

    assert answer["action"] == "compareAndDelete"
    assert (event.type, event.object.metadata.name) == ("DELETED", "a")
    assert int(event.object.metadata.resource_version) == answer["node"]["modifiedIndex"]


def test_errors(backend, storage, prefix):
    """OLD-18: 100 is KeyNotFound, 105 is KeyExists, 101 is a lost compare. (That a cluster is not
    to be reached is test_faults.py's.)"""
    with pytest.raises(KeyNotFound):
        storage.get(f"{prefix}/a")
    created = storage.create(f"{prefix}/a", pod("a"))
    with pytest.raises(KeyExists):
        storage.create(f"{prefix}/a", pod("a"))
    revision = int(created.metadata.resource_version)
    lost = backend.put(f"/registry{prefix}/a", b"", expected_revision=revision - 1)
    assert not lost.succeeded
    assert lost.current.revision == revision


@pytest.mark.parametrize("version", ["", "0"])
def test_watches_from_nowhere_begin_with_the_state(storage, prefix, version):
    """OLD-20: what there is comes as ADDED, then what changes; OLD-22: the prefix itself is no
    object of the watch."""
    for name in "ab":
        storage.create(f"{prefix}/{name}", pod(name))
    with storage.watch(prefix, resource_version=version, timeout=PATIENCE) as watch:
        events = iter(watch)
        found = [next(events), next(events)]
        storage.create(f"{prefix}/c", pod("c"))
        found.append(next(events))

    assert [(each.type, each.object.metadata.name) for each in found] == [
        ("ADDED", "a"),
        ("ADDED", "b"),
        ("ADDED", "c"),
    ]


def test_watches_may_be_stopped_at_any_time(backend):
    """OLD-26: before anything was read, twice, and with all threads gone after the backend."""
    watches = [backend.watch("/", recursive=True, after_revision=0) for _ in range(5)]
    for each in watches:
        each.close()
        each.close()
    backend.close()
    thread = backend._hub._thread
    assert thread is not None
    thread.join(PATIENCE)
    assert not thread.is_alive()
