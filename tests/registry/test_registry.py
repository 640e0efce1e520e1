"""The registry: names to keys, the metadata it fills in, update, apply, watch."""

from __future__ import annotations

import contextlib
import copy
import functools
import re
import threading
import uuid
from typing import Any

import attrs
import pytest

from revstore.errors import (
    Closed,
    Conflict,
    CorruptObject,
    InvalidArgument,
    InvalidObject,
    InvalidResourceVersion,
    KeyExists,
    KeyNotFound,
    PreconditionFailed,
    ResourceVersionSet,
    Timeout,
)
from revstore.memory import MemoryBackend
from revstore.objects import ObjectMeta, metadata_value, with_metadata
from revstore.preconditions import Preconditions
from revstore.registry import ApplyOutcome, Registry, _registry
from revstore.registry._fields import as_new, as_successor, built_in
from revstore.registry._keys import Keys
from revstore.resource_type import ResourceType
from revstore.storage import EventType, WithTTL
from revstore.testing._support import PATIENCE, run_threads
from revstore.typed import TypedStorage

NOW = 1_600_000_000.5
NOW_TEXT = "2020-09-13T12:26:40Z"


@attrs.frozen(kw_only=True)
class Pod:
    metadata: ObjectMeta
    image: str = ""
    args: tuple[str, ...] = ()
    status: str = ""


@attrs.define(kw_only=True)
class Loose:
    """One that its holder may change."""

    metadata: ObjectMeta
    args: list[str] = attrs.field(factory=list)


def typed(name: str = "web", *, image: str = "", status: str = "", **metadata: Any) -> Pod:
    return Pod(metadata=ObjectMeta(name=name, **metadata), image=image, status=status)


def unstructured(name: str = "web", *, image: str = "", status: str = "", **metadata: Any) -> Any:
    obj = {"kind": "Pod", "metadata": {}, "image": image, "status": status}
    return with_metadata(obj, name=name, **metadata)


@pytest.fixture
def backend():
    with MemoryBackend() as backend:
        yield backend


@pytest.fixture
def make(backend):
    """A function that makes a registry over a storage of its own on one backend."""

    def make(object_type=dict, *, resource_prefix="/pods", namespaced=True, **options):
        storage = TypedStorage(backend, ResourceType(object_type, resource_prefix))
        return Registry(
            storage,
            resource_prefix=resource_prefix,
            namespaced=namespaced,
            clock=lambda: NOW,
            **options,
        )

    return make


@pytest.fixture(params=[typed, unstructured])
def new(request):
    """The function that makes an object of the one or the other shape."""
    return request.param


@pytest.fixture
def pods(make, new):
    return make(Pod if new is typed else dict)


def value(obj: Any, name: str) -> Any:
    return obj[name] if isinstance(obj, dict) else getattr(obj, name)


def changed(obj: Any, **fields: Any) -> Any:
    return {**obj, **fields} if isinstance(obj, dict) else attrs.evolve(obj, **fields)


def version(obj: Any) -> str:
    return metadata_value(obj, "resource_version")


# Keys


@pytest.mark.parametrize(
    ("namespaced", "name", "namespace", "expected"),
    [
        (True, "web", "a", "/pods/a/web"),
        (True, "web", None, "/pods/default/web"),
        (True, "..web", "a.b", "/pods/a.b/..web"),
        (True, "system:node", "a", "/pods/a/system:node"),
        (False, "web", None, "/pods/web"),
    ],
)
def test_keys(namespaced, name, namespace, expected):
    """KEY-9: prefix + namespace + "/" + name, or prefix + name; the same from an object."""
    for prefix in ("/pods", "/pods/"):
        keys = Keys(prefix, namespaced=namespaced)
        assert keys.one(name, namespace) == expected
        assert keys.of(unstructured(name, namespace=namespace or "")) == expected
        assert keys.of(typed(name, namespace=namespace or "")) == expected


@pytest.mark.parametrize("bad", ["", " ", "\n\u2003", ".", "..", "a/b", "/", "a%2fb", None, 7])
def test_names_that_are_no_path_segments(make, bad):
    """KEY-9: such a name or namespace is refused, as an argument and in an object."""
    pods = make()
    for call in (pods.get, pods.delete, lambda *at: pods.guaranteed_update(at[0], print, *at[1:])):
        with pytest.raises(InvalidArgument, match="invalid name"):
            call(bad)
        if bad is not None:
            with pytest.raises(InvalidArgument, match="invalid namespace"):
                call("web", bad)
    if bad is not None:
        for call in (pods.list, pods.watch):
            with pytest.raises(InvalidArgument, match="invalid namespace"):
                call(bad)
        with pytest.raises(InvalidArgument, match="invalid name"):
            pods.watch(name=bad)
    for call in (pods.create, pods.update, pods.apply):
        with pytest.raises(InvalidObject, match=r"metadata\.name"):
            call(unstructured(bad))
        if bad not in ("", None):
            with pytest.raises(InvalidObject, match=r"metadata\.namespace"):
                call(unstructured("web", namespace=bad))


@pytest.mark.parametrize("obj", [{}, {"metadata": None}, {"metadata": []}, None, 7])
def test_objects_without_metadata(make, obj):
    """An object without metadata is refused by every method that takes one."""
    pods = make()
    for call in (pods.create, pods.update, pods.apply):
        with pytest.raises(InvalidObject, match="metadata"):
            call(obj)


def test_cluster_scope_knows_no_namespace(make):
    """KEY-9: where there are no namespaces, naming one is refused, and none is filled in."""
    nodes = make(resource_prefix="/nodes", namespaced=False)
    for call in (nodes.get, nodes.delete):
        with pytest.raises(InvalidArgument, match="namespace"):
            call("n1", "a")
    for call in (nodes.list, nodes.watch):
        with pytest.raises(InvalidArgument, match="namespace"):
            call("a")
    for call in (nodes.create, nodes.update, nodes.apply):
        with pytest.raises(InvalidObject, match="namespace"):
            call(unstructured("n1", namespace="a"))
    created = nodes.create({"metadata": {"name": "n1", "namespace": None}})
    assert created["metadata"]["namespace"] is None
    assert nodes.apply({"metadata": {"name": "n1", "namespace": None}}).outcome == "unchanged"
    assert nodes.get("n1") == nodes.list()[0] == created


# Create and get


def test_create_fills_in(pods, new, backend):
    """Uid, creation time, generation, resource version and the default namespace;
    all else comes back as it went in, and the caller's object stays as it was."""
    obj = new(image="x", labels={"app": "web"})
    before = copy.deepcopy(obj)

    created = pods.create(obj)

    assert obj == before
    assert uuid.UUID(metadata_value(created, "uid")).version == 4
    assert created == with_metadata(
        obj,
        uid=metadata_value(created, "uid"),
        creation_timestamp=NOW_TEXT,
        generation=1,
        namespace="default",
        resource_version="2",
    )
    assert pods.get("web") == pods.get("web", "default") == created
    assert [kv.key for kv in backend.list("").kvs] == ["/registry/pods/default/web"]


def test_create_ignores_what_is_the_registrys(pods, new):
    """A uid, time, version and generation that the object brings are dropped."""
    old = pods.create(new())
    pods.delete("web")
    again = pods.create(with_metadata(old, generation=9, creation_timestamp="1999-12-31T23:59:59Z"))
    assert metadata_value(again, "uid") != metadata_value(old, "uid")
    assert metadata_value(again, "creation_timestamp") == NOW_TEXT
    assert metadata_value(again, "generation") == 1
    assert version(again) == "4"


def test_storage_still_refuses_versions(make):
    """CREATE-2 is the storage's rule; the registry is what drops them."""
    storage = TypedStorage(MemoryBackend(), ResourceType(dict, "/pods"))
    with pytest.raises(ResourceVersionSet):
        storage.create("/pods/a/web", unstructured(resource_version="3"))


def test_own_uids(make):
    """`new_uid` gives the uids."""
    pods = make(new_uid=lambda: "u-1")
    assert pods.create(unstructured())["metadata"]["uid"] == "u-1"


def test_create_exists(pods, new):
    """CREATE-3: a second create is refused, with the logical key; other namespaces do not meet."""
    pods.create(new())
    pods.create(new(namespace="a"))
    with pytest.raises(KeyExists) as caught:
        pods.create(new(namespace="default"))
    assert caught.value.key == "/pods/default/web"
    assert len(pods.list()) == 2


def test_errors_about_an_object_name_its_key(make):
    """What is wrong with an object whose name is known is told with its key. (GU-3)"""
    pods = make()
    stored = pods.create(unstructured())
    deep = {**stored, "spec": functools.reduce(lambda inner, _: [inner], range(5000), 1)}
    for call, bad, kind in (
        (pods.update, with_metadata(stored, resource_version="x"), InvalidResourceVersion),
        (pods.update, deep, InvalidObject),
        (pods.apply, deep, InvalidObject),
    ):
        with pytest.raises(kind) as caught:
            call(bad)
        assert caught.value.key == "/pods/default/web"


def test_get_misses(pods):
    """GET-1: KeyNotFound with the key."""
    with pytest.raises(KeyNotFound) as caught:
        pods.get("web", "a")
    assert caught.value.key == "/pods/a/web"


def test_create_with_ttl(make):
    """CREATE-5: the ttl reaches the store, and an update keeps or changes it."""
    now = [0.0]
    with MemoryBackend(clock=lambda: now[0]) as backend:
        storage = TypedStorage(backend, ResourceType(dict, "/pods"))
        pods = Registry(storage, resource_prefix="/pods")
        for name in ("kept", "cleared", "applied"):
            pods.create(unstructured(name), ttl=10)
        pods.guaranteed_update("kept", lambda obj, _: {**obj, "image": "x"})
        pods.guaranteed_update("cleared", lambda obj, _: WithTTL(obj, 0))
        pods.apply(unstructured("applied", image="x"))
        now[0] = 11.0
        backend.sweep()
        assert [obj["metadata"]["name"] for obj in pods.list()] == ["cleared"]


def test_generate_name(pods, new):
    """As Kubernetes: a name is made from generateName and five random characters; a name that is
    given goes before."""
    created = pods.create(new("", generate_name="web-"))
    name = metadata_value(created, "name")
    assert re.fullmatch(r"web-[bcdfghjklmnpqrstvwxz2456789]{5}", name)
    assert pods.get(name) == created
    assert metadata_value(pods.create(new("own", generate_name="web-")), "name") == "own"
    long = metadata_value(pods.create(new("", generate_name="x" * 80)), "name")
    assert re.fullmatch(r"x{58}[^x].*|x{59}.*", long)
    assert len(long) == 63


def test_generated_names_are_tried_anew(make, monkeypatch):
    """A name that is taken leads to another, eight times in all; then the caller is told."""
    pods = make()
    pods.create(unstructured("web-a"))
    names = ["web-a", "web-a", "web-b"]
    monkeypatch.setattr(_registry, "_generate", lambda _: names.pop(0))
    assert pods.create(unstructured("", generate_name="web-"))["metadata"]["name"] == "web-b"
    names += ["web-a"] * 8 + ["web-c"]
    with pytest.raises(KeyExists):
        pods.create(unstructured("", generate_name="web-"))
    assert names == ["web-c"]


def test_generate_name_needs_create(make):
    """Apply and update need a name; a generateName must be usable."""
    pods = make()
    for call in (pods.apply, pods.update):
        with pytest.raises(InvalidObject, match=r"metadata\.name"):
            call({"metadata": {"generateName": "web-"}})
    with pytest.raises(InvalidObject, match="generateName"):
        pods.create({"metadata": {"generateName": 7}})
    with pytest.raises(InvalidObject, match=r"metadata\.name"):
        pods.create({"metadata": {"generateName": "a/"}})


# Update


def test_update_keeps_identity(pods, new):
    """Uid and creation time are the stored object's whatever comes in; the caller's object stays
    as it was."""
    created = pods.create(new())
    obj = new(image="x", creation_timestamp="1999-12-31T23:59:59Z", generation=40)
    before = copy.deepcopy(obj)

    updated = pods.update(obj)

    assert obj == before
    assert updated == changed(with_metadata(created, generation=2, resource_version="3"), image="x")


def test_generation_counts_changes_of_the_content(pods, new):
    """As apiservers: metadata and status leave the generation alone, all else raises it by one."""
    obj = pods.create(new())
    steps = [
        ({"image": "x"}, {}, 2),
        ({"status": "ready"}, {}, 2),
        ({}, {"labels": {"a": "b"}}, 2),
        ({"status": "", "image": "y"}, {"labels": {}}, 3),
    ]
    for fields, metadata, expected in steps:
        before = version(obj)
        obj = pods.update(with_metadata(changed(obj, **fields), **metadata))
        assert metadata_value(obj, "generation") == expected
        assert version(obj) != before


def test_update_without_a_change_writes_nothing(pods, new, backend):
    """GU-3: the version stays; key order in a dict is no difference."""
    created = pods.create(new(image="x"))
    if isinstance(created, dict):
        created = dict(reversed(created.items()))
    assert pods.update(created) == created
    assert pods.update(new(image="x")) == created
    assert backend.status().revision == 2


def test_update_with_a_stale_version(pods, new):
    """Conflict names the version that is there now; a current one, and none, go through."""
    old = pods.create(new())
    now = pods.update(changed(old, image="x"))
    with pytest.raises(Conflict, match="is at version 3") as caught:
        pods.update(changed(old, image="y"))
    assert (caught.value.key, caught.value.resource_version) == ("/pods/default/web", "3")
    assert pods.get("web") == now
    assert value(pods.update(changed(now, image="y")), "image") == "y"
    assert value(pods.update(new(image="z", resource_version="0")), "image") == "z"
    with pytest.raises(InvalidResourceVersion):
        pods.update(new(resource_version="x"))


def test_update_of_what_is_gone(pods, new):
    """With a version it is a conflict whose version is "", without one KeyNotFound."""
    old = pods.create(new())
    pods.delete("web")
    with pytest.raises(Conflict, match="gone") as caught:
        pods.update(old)
    assert (caught.value.key, caught.value.resource_version) == ("/pods/default/web", "")
    with pytest.raises(KeyNotFound) as missing:
        pods.update(new())
    assert missing.value.key == "/pods/default/web"
    assert pods.list().items == ()


def test_update_of_another_incarnation(pods, new):
    """An update made from an object that was deleted since is refused by its uid."""
    old = pods.create(new())
    pods.delete("web")
    again = pods.create(new())
    with pytest.raises(Conflict, match="recreated") as caught:
        pods.update(new(uid=metadata_value(old, "uid")))
    assert caught.value.resource_version == version(again)
    assert pods.get("web") == again


def test_only_one_of_racing_updates_wins(pods, new):
    """Of many updates from one version, one goes through; the others hear of it."""
    base = pods.create(new())

    def update(index):
        try:
            return pods.update(changed(base, image=str(index)))
        except Conflict as error:
            return error.resource_version

    results = run_threads(8, update)
    assert [each for each in results if each != "3"] == [pods.get("web")]


# Guaranteed update


def test_guaranteed_update(pods, new):
    """GU-1: the function sees the current object and its version; identity and generation are
    kept as by update."""
    created = pods.create(new(namespace="a"))
    seen = []

    def update(obj, meta):
        seen.append((obj, meta.resource_version))
        return with_metadata(changed(obj, image="x"), creation_timestamp="", generation=0)

    updated = pods.guaranteed_update("web", update, "a")
    assert seen == [(created, "2")]
    assert updated == changed(with_metadata(created, generation=2, resource_version="3"), image="x")
    with pytest.raises(KeyNotFound):
        pods.guaranteed_update("web", update)


@pytest.mark.parametrize("kind", [dict, Loose])
def test_guaranteed_update_may_change_what_it_is_given(make, kind):
    """GU-16: a change in place counts as one, generation included."""
    pods = make(kind)
    pods.create(
        {"metadata": {"name": "web"}, "args": []}
        if kind is dict
        else Loose(metadata=ObjectMeta(name="web"))
    )

    def update(obj, _):
        value(obj, "args").append("-v")
        return obj

    updated = pods.guaranteed_update("web", update)
    assert value(updated, "args") == ["-v"]
    assert metadata_value(updated, "generation") == 2


def test_guaranteed_update_without_a_change(pods, new, backend):
    """GU-3: nothing is written."""
    created = pods.create(new())
    assert pods.guaranteed_update("web", lambda obj, _: obj) == created
    assert pods.guaranteed_update("web", lambda obj, _: WithTTL(obj, 0)) == created
    assert backend.status().revision == 2


def test_guaranteed_update_cannot_move_the_object(pods, new):
    """Another name or namespace is refused, another uid is a conflict, no object is none."""
    pods.create(new())
    for made in (new("other"), new(namespace="a")):
        with pytest.raises(InvalidObject, match="/pods/default/web"):
            pods.guaranteed_update("web", lambda *_, made=made: made)
    with pytest.raises(Conflict):
        pods.guaranteed_update("web", lambda *_: new(uid="other"))
    with pytest.raises(InvalidObject):
        pods.guaranteed_update("web", lambda *_: None)
    with pytest.raises(PreconditionFailed):
        pods.guaranteed_update(
            "web", lambda obj, _: obj, preconditions=Preconditions(resource_version="9")
        )
    assert version(pods.get("web")) == "2"


def test_guaranteed_updates_add_up(make):
    """GU-1: none of many concurrent updates is lost; the generation counts them."""
    pods = make()
    pods.create({"metadata": {"name": "web"}, "count": 0})

    def count(_):
        for _ in range(20):
            pods.guaranteed_update("web", lambda obj, _: {**obj, "count": obj["count"] + 1})

    run_threads(4, count)
    assert pods.get("web")["count"] == 80
    assert pods.get("web")["metadata"]["generation"] == 81


# Apply


def test_apply_creates_changes_and_leaves_alone(pods, new, backend):
    """Replace if different; a second apply writes nothing."""
    first = pods.apply(new(image="x"))
    assert (first.outcome, first.outcome.value) == (ApplyOutcome.CREATED, "created")
    assert first.object == pods.get("web")
    assert metadata_value(first.object, "generation") == 1
    again = pods.apply(new(image="x"))
    assert (again.outcome, again.object) == ("unchanged", first.object)
    assert backend.status().revision == 2
    third = pods.apply(new(image="y"))
    assert third.outcome == "configured"
    assert third.object == changed(
        with_metadata(first.object, generation=2, resource_version="3"), image="y"
    )
    labelled = pods.apply(new(image="y", labels={"a": "b"}))
    assert labelled.outcome == "configured"
    assert metadata_value(labelled.object, "generation") == 2


def test_apply_ignores_what_is_the_registrys(pods, new, backend):
    """What was read elsewhere or long ago can be applied as it is: supplied uid,
    time, version and generation make no difference and stand in nobody's way."""
    first = pods.apply(new(image="x")).object
    foreign = with_metadata(
        new(image="x"),
        uid="of another cluster",
        creation_timestamp="1999-12-31T23:59:59Z",
        resource_version="99",
        generation=7,
        namespace="default",
    )
    assert pods.apply(foreign) == _registry.ApplyResult(first, ApplyOutcome.UNCHANGED)
    assert backend.status().revision == 2
    elsewhere = pods.apply(with_metadata(foreign, namespace="a"))
    assert elsewhere.outcome == "created"
    assert metadata_value(elsewhere.object, "uid") not in ("", "of another cluster")
    assert metadata_value(elsewhere.object, "creation_timestamp") == NOW_TEXT


def test_apply_of_exported_yaml(make):
    """What kubectl leaves in manifests, creationTimestamp: null and selfLink, changes nothing."""
    pods = make()
    obj = {"metadata": {"name": "web", "creationTimestamp": None, "selfLink": "/x"}, "spec": {}}
    assert pods.apply(obj).outcome == "created"
    assert pods.apply(obj).outcome == "unchanged"
    assert "selfLink" not in pods.get("web")["metadata"]


def test_apply_replaces_as_a_whole(make):
    """A field that is not in the object is gone from the store."""
    pods = make()
    pods.apply({"metadata": {"name": "web", "labels": {"a": "b"}}, "spec": {"a": 1, "b": 2}})
    applied = pods.apply({"metadata": {"name": "web"}, "spec": {"a": 1}}).object
    assert applied["spec"] == {"a": 1}
    assert "labels" not in applied["metadata"]


def test_apply_over_what_others_have_stored(make, backend):
    """An object that no registry has filled in is applied over, and given what it lacks only by
    a change."""
    backend.put(
        "/registry/pods/default/web",
        b'{"metadata":{"name":"web","namespace":"default","generation":"?"},"image":"x"}',
        expected_revision=0,
    )
    pods = make()
    assert pods.apply({"metadata": {"name": "web"}, "image": "y"}).outcome == "configured"
    metadata = pods.get("web")["metadata"]
    assert "uid" not in metadata
    assert metadata["generation"] == 1


def test_apply_is_waited_out_not_lost(make):
    """Applies that race with creates, deletes and each other all end, and none fails."""
    pods = make()

    def work(index):
        for step in range(30):
            if index == 0:
                with contextlib.suppress(KeyNotFound):
                    pods.delete("web")
            else:
                pods.apply(unstructured(image=f"{index}.{step}"))
        return index

    assert run_threads(4, work) == [0, 1, 2, 3]
    assert pods.apply(unstructured(image="1.29")).object["image"] == "1.29"


def test_objects_too_deep_to_compare(make):
    """An error of ours, not of the interpreter, for what is nested too deeply."""
    pods = make()
    deep: Any = None
    for _ in range(600):
        deep = {"a": deep}
    obj = {"metadata": {"name": "web"}, "deep": deep}
    try:
        pods.create(obj)
        outcome = pods.apply(obj).outcome
    except (InvalidObject, CorruptObject):
        outcome = None
    assert outcome in (None, "unchanged")


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        ({"a": 1, "b": [1, 2]}, {"b": [1, 2], "a": 1}, True),
        ({"a": 1}, {"a": 1, "b": None}, False),
        ({"a": None}, {"b": None}, False),
        ([1], [1, 2], False),
        ({"a": 1}, {"a": True}, False),
        ({"a": [0]}, {"a": [False]}, False),
        (1, 1.0, False),
        (0.0, -0.0, False),
        ("a", ["a"], False),
    ],
)
def test_what_counts_as_a_difference(left, right, expected):
    """Whatever would be stored as other bytes, and nothing else."""
    for one, other in ((left, right), (right, left)):
        stored = unstructured(spec=one)
        found = as_successor(unstructured(spec=other), stored, None, built_in)
        assert (found is stored) is expected


def test_pure_functions_change_nothing():
    """The metadata of new objects and successors, as a table of both shapes."""
    for make_object in (typed, unstructured):
        obj = make_object(uid="mine", resource_version="9")
        before = copy.deepcopy(obj)
        first = as_new(obj, namespace="a", uid="u", now="t")
        assert first == with_metadata(
            make_object(), namespace="a", uid="u", creation_timestamp="t", generation=1
        )
        stored = with_metadata(first, resource_version="3")
        assert as_successor(obj, stored, "a", built_in) is stored
        assert as_successor(make_object(image="x"), stored, "a", built_in) == changed(
            with_metadata(first, generation=2), image="x"
        )
        assert obj == before


# List, delete, watch


def test_list(pods, new, backend):
    """LIST-1: of one namespace, or of all with whatever lies under the prefix; options go
    through."""
    for name, namespace in (("a", "x"), ("b", "x"), ("a", "xy")):
        pods.create(new(name, namespace=namespace, labels={"n": name}))
    backend.put(
        "/registry/pods/flat", backend.get("/registry/pods/x/a").kv.value, expected_revision=0
    )
    backend.put("/registry/podsx/x/a", b"{}", expected_revision=0)
    assert [metadata_value(obj, "name") for obj in pods.list("x")] == ["a", "b"]
    assert len(pods.list()) == 4
    assert len(pods.list("xy")) == 1
    assert len(pods.list("nobody")) == 0
    assert len(pods.list("x", label_selector="n=b")) == 1
    assert len(pods.list(field_selector="metadata.namespace=xy")) == 1
    page = pods.list(limit=1)
    assert page.remaining_item_count == 3
    assert len(pods.list(limit=2, continue_token=page.continue_token)) == 2
    assert len(pods.list(resource_version="3", resource_version_match="Exact")) == 2


def test_delete(pods, new):
    """DEL-1: the last content comes back at the deletion's version; preconditions hold."""
    created = pods.create(new(namespace="a"))
    with pytest.raises(KeyNotFound):
        pods.delete("web")
    with pytest.raises(PreconditionFailed):
        pods.delete("web", "a", preconditions=Preconditions(uid="other"))
    with pytest.raises(PreconditionFailed):
        pods.delete("web", "a", even_if_corrupt=True)
    uid = metadata_value(created, "uid")
    gone = pods.delete("web", "a", preconditions=Preconditions(uid=uid))
    assert gone == with_metadata(created, resource_version="3")
    assert pods.list().items == ()


def test_delete_what_cannot_be_read(pods, backend):
    """DEL-12: only even_if_corrupt takes it away."""
    backend.put("/registry/pods/default/web", b"\xff", expected_revision=0)
    with pytest.raises(CorruptObject):
        pods.delete("web")
    assert pods.delete("web", even_if_corrupt=True) is None
    assert backend.count("").count == 0


def drain(watch, count):
    events = []
    while len(events) < count:
        batch = watch.poll(PATIENCE)
        assert batch is not None, f"so far {events}"
        events += batch
    return [(str(event.type), metadata_value(event.object, "name")) for event in events]


def test_watch(pods, new):
    """WATCH-9: all, one namespace, or one object, which is in the default namespace if none is
    named; all end with close."""
    start = version(pods.create(new("first", namespace="a")))
    watches = [
        pods.watch(resource_version=start),
        pods.watch("default", resource_version=start),
        pods.watch(name="web", resource_version=start),
        pods.watch("a", name="web", resource_version=start),
    ]
    pods.create(new("web"))
    pods.create(new("web2"))
    pods.create(new("web", namespace="a"))
    pods.delete("web")

    assert drain(watches[0], 4) == [
        ("ADDED", "web"),
        ("ADDED", "web2"),
        ("ADDED", "web"),
        ("DELETED", "web"),
    ]
    assert drain(watches[1], 3) == [("ADDED", "web"), ("ADDED", "web2"), ("DELETED", "web")]
    assert drain(watches[2], 2) == [("ADDED", "web"), ("DELETED", "web")]
    assert drain(watches[3], 1) == [("ADDED", "web")]
    pods.close()
    for watch in watches:
        with pytest.raises(Closed):
            watch.poll(0)


def test_watch_options(pods, new):
    """WATCH-16: selectors, initial events and their bookmark go through."""
    pods.create(new("one", labels={"app": "web"}))
    pods.create(new("two"))
    with pods.watch(
        label_selector="app=web", send_initial_events=True, allow_bookmarks=True
    ) as watch:
        events = []
        while not any(event.initial_events_end for event in events):
            events += watch.poll(PATIENCE) or ()
    assert [event.type for event in events] == [EventType.ADDED, EventType.BOOKMARK]


# Deadlines and end


def test_timeouts_go_through(pods, new):
    """A deadline that has passed already ends every call with Timeout; nothing is done."""
    pods.create(new())
    for call in (
        lambda: pods.create(new("other"), timeout=0),
        lambda: pods.update(new(image="x"), timeout=0),
        lambda: pods.apply(new(image="x"), timeout=0),
        lambda: pods.guaranteed_update("web", lambda obj, _: obj, timeout=0),
        lambda: pods.delete("web", timeout=0),
    ):
        with pytest.raises(Timeout):
            call()
    assert len(pods.list(timeout=PATIENCE)) == 1
    assert version(pods.get("web", timeout=PATIENCE)) == "2"


def test_close(make):
    """Closing the registry closes its storage; leaving the with block does so too."""
    before = threading.active_count()
    with make() as pods:
        pods.create(unstructured())
    with pytest.raises(Closed):
        pods.get("web")
    pods.close()
    assert threading.active_count() <= before
