"""Lists and gets from memory show what the store shows, no matter who wrote it."""

from __future__ import annotations

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st

from revstore.cacher import Cacher, CacherConfig
from revstore.memory import MemoryBackend
from revstore.objects import ObjectMeta
from revstore.resource_type import ResourceType
from revstore.storage import EventType
from revstore.typed import TypedStorage


@attrs.frozen(kw_only=True)
class Pod:
    metadata: ObjectMeta
    node_name: str = ""


def pod(name: str, namespace: str = "a", node: str = "", **labels: str) -> Pod:
    return Pod(metadata=ObjectMeta(name=name, namespace=namespace, labels=labels), node_name=node)


def moved(node: str):
    return lambda found, _: attrs.evolve(found, node_name=node)


def test_lists_see_writes_that_went_elsewhere(backend, open_cache):
    """CACHE-13, DELEG-1: a list without a version shows every acknowledged write, also of other
    resources' revisions that the feed has no event for."""
    cache = open_cache()
    other = TypedStorage(backend, ResourceType(Pod, "/pods"))
    nodes = TypedStorage(backend, ResourceType(Pod, "/nodes"))
    for number in range(200):
        written = other.create(f"/pods/a/{number}", pod(str(number)))
        nodes.create(f"/nodes/{number}", pod(str(number)))
        listed = cache.list("/pods/a")
        assert len(listed) == number + 1
        assert int(listed.resource_version) >= int(written.metadata.resource_version)


def test_old_states_come_from_the_log(open_cache):
    """CACHE-15, CACHE-19, DELEG-5, DELEG-7: exact lists and pages are those of the store, also of
    states that the store itself has compacted."""
    cache = open_cache()
    storage = cache._storage
    versions = []
    for number in range(40):
        key = f"/pods/{'ab'[number % 2]}/{number % 7}"
        if number % 5 == 4 and storage.get(key, ignore_not_found=True):
            versions.append(storage.delete(key).metadata.resource_version)
        elif storage.get(key, ignore_not_found=True):
            versions.append(
                storage.guaranteed_update(key, moved(str(number))).metadata.resource_version
            )
        else:
            name = key.rpartition("/")[2]
            versions.append(storage.create(key, pod(name)).metadata.resource_version)
    expected = {
        (version, scope): storage.list(
            scope, resource_version=version, resource_version_match="Exact"
        )
        for version in versions
        for scope in ("/pods", "/pods/a", "/pods/b")
    }
    cache.list("/pods")
    cache._storage._backend.compact(int(versions[-1]))
    for (version, scope), want in expected.items():
        got = cache.list(scope, resource_version=version, resource_version_match="Exact")
        assert (got.items, got.resource_version) == (want.items, want.resource_version)
        paged, token = [], ""
        while True:
            page = cache.list(
                scope,
                resource_version="" if token else version,
                resource_version_match="" if token else "Exact",
                limit=2,
                continue_token=token,
            )
            paged += page.items
            token = page.continue_token
            if not token:
                break
        assert tuple(paged) == want.items


SELECTORS = ["app=x", "app=y", "app!=x", "app in (x,y),tier", "!app", "tier=1,app=x", ""]


FIELDS = ["", "nodeName=n1", "nodeName!=n1", "metadata.namespace=a", "nodeName=n2,metadata.name=p1"]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 5),
            st.sampled_from(["put", "delete"]),
            st.sampled_from(["", "n1", "n2"]),
            st.dictionaries(st.sampled_from(["app", "tier"]), st.sampled_from(["x", "y", "1"])),
        ),
        max_size=25,
    )
)
def test_indexes_find_what_a_scan_finds(steps):
    """CACHE-17: whatever happened, a list by selector equals the store's."""
    with MemoryBackend() as backend:
        storage = TypedStorage(backend, ResourceType(Pod, "/pods"))
        config = CacherConfig(
            storage=storage,
            resource_type=ResourceType(Pod, "/pods"),
            indexed_fields=("nodeName", "metadata.namespace"),
        )
        with Cacher(config) as cache:
            for number, what, node, labels in steps:
                key = f"/pods/{'ab'[number % 2]}/p{number}"
                new = pod(f"p{number}", "ab"[number % 2], node, **labels)
                if what == "put":
                    storage.guaranteed_update(
                        key, lambda _, __, new=new: new, ignore_not_found=True
                    )
                elif storage.get(key, ignore_not_found=True):
                    storage.delete(key)
            for label in SELECTORS:
                for field in FIELDS:
                    for scope in ("/pods", "/pods/a"):
                        asked = {"label_selector": label, "field_selector": field}
                        got, want = cache.list(scope, **asked), storage.list(scope, **asked)
                        assert got == want


def test_mutable_objects_are_copied_for_each_reader(open_cache):
    """Nothing that a reader does to its object is seen by another."""
    cache = open_cache(dict)
    cache.create("/pods/a/x", {"metadata": {"name": "x", "labels": {"k": "v"}}})
    watches = [cache.watch("/pods", resource_version="1") for _ in range(2)]
    events = [watch.poll(5)[0] for watch in watches]
    readers = [
        lambda: cache.list("/pods")[0],
        lambda: cache.get("/pods/a/x", resource_version="2"),
        lambda: next(iter(cache.watch("/pods"))).object,
        *(lambda event=event: event.object for event in events),
    ]
    for read in readers:
        found = read()
        assert found["metadata"]["labels"] == {"k": "v"}
        found["metadata"]["labels"]["k"] = "changed"
        found["metadata"].pop("name")
    assert cache.list("/pods")[0]["metadata"]["labels"] == {"k": "v"}
    cache.guaranteed_update("/pods/a/x", lambda found, _: found["metadata"].clear() or found)
    assert events[0].type is EventType.ADDED
