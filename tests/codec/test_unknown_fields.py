"""Fields of stored objects that a class does not know survive a typed writer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import attrs
import pytest

from revstore.cacher import Cacher, CacherConfig
from revstore.codec import json_codec
from revstore.errors import CorruptObject, InvalidObject
from revstore.memory import MemoryBackend
from revstore.objects import ObjectMeta, with_metadata
from revstore.registry import Registry
from revstore.resource_type import ResourceType
from revstore.typed import TypedStorage

KEY = "/registry/pods/default/a"


@attrs.frozen
class Port:
    number: int
    name: str = ""


@attrs.frozen
class Tcp:
    type: Literal["tcp"] = "tcp"
    port: Port | None = None


@attrs.frozen
class Udp:
    type: Literal["udp"] = "udp"


@attrs.frozen(kw_only=True)
class Pod:
    metadata: ObjectMeta
    size: int = 0
    main: Port | None = None
    listen: Tcp | Udp = Udp()
    ports: tuple[Port, ...] = ()
    keyed: tuple[Port, ...] = attrs.field(default=(), metadata={"list_key": "name"})
    by_name: Mapping[str, Port] = attrs.field(factory=dict)
    pair: tuple[int, Port] = (0, Port(0))


NEWER: dict[str, Any] = {
    "metadata": {"name": "a", "namespace": "default", "new": 1, "ownerReferences": []},
    "size": 1,
    "added": {"x": [1, None]},
    "main": {"number": 1, "name": "m", "protocol": "TCP"},
    "listen": {"type": "tcp", "port": {"number": 2, "extra": True}, "more": 1.5},
    "ports": [{"number": 3, "hostPort": 4}, {"number": 5, "name": "p"}],
    "keyed": [{"name": "a", "number": 1, "tls": 1}, {"name": "b", "number": 2, "tls": 2}],
    "byName": {"x": {"number": 1, "y": "z"}},
    "pair": [1, {"number": 1, "p": 2}],
}


@pytest.fixture
def backend():
    with MemoryBackend() as backend:
        backend.put(KEY, json.dumps(NEWER).encode(), expected_revision=0)
        yield backend


def open_pods(backend: Any, cls: type[Any] = Pod) -> Registry[Any]:
    return Registry(TypedStorage(backend, ResourceType(cls, "/pods")), resource_prefix="/pods")


@pytest.fixture(params=["raw", "cached"])
def pods(backend, request):
    """A registry of pods, with and without a cache."""
    kind = ResourceType(Pod, "/pods")
    storage: Any = TypedStorage(backend, kind)
    if request.param == "raw":
        yield Registry(storage, resource_prefix="/pods")
        return
    with Cacher(CacherConfig(storage=storage, resource_type=kind)) as cache:
        cache.wait_ready(10)
        yield Registry(cache, resource_prefix="/pods")


def stored(backend: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(backend.get(KEY).kv.value)
    return found


def unknown_parts(data: dict[str, Any]) -> list[Any]:
    return [
        data["metadata"].get("new"), data.get("added"), data["main"].get("protocol"),
        data["listen"].get("more"), data["listen"]["port"].get("extra"),
        [port.get("hostPort") for port in data["ports"]],
        {each["name"]: each.get("tls") for each in data["keyed"]},
        data["byName"]["x"].get("y"), data["pair"][1].get("p"),
    ]  # fmt: skip


WRITERS = {
    "update": lambda pods: pods.update(attrs.evolve(pods.get("a"), size=2)),
    "apply": lambda pods: pods.apply(attrs.evolve(pods.get("a"), size=2)).object,
    "guaranteed_update": lambda pods: pods.guaranteed_update(
        "a", lambda obj, _: attrs.evolve(obj, size=2)
    ),
}


@pytest.mark.parametrize("how", WRITERS)
def test_they_survive(backend, pods, how):
    """At every level: nested, in unions, tuples, lists with a key, and mappings."""
    changed = WRITERS[how](pods)
    assert changed.size == 2
    found = stored(backend)
    assert found["size"] == 2
    assert unknown_parts(found) == unknown_parts(NEWER)


def test_no_change_is_no_write(backend, pods):
    """GU-3: what the class does not know makes no difference."""
    pods.update(attrs.evolve(pods.get("a"), size=2))
    before = backend.get(KEY).kv.revision
    pod = pods.get("a")
    assert pods.apply(pod).outcome == "unchanged"
    assert pods.update(pod) == pod
    assert backend.get(KEY).kv.revision == before


def test_items_by_their_key(backend):
    """A list with a key may be changed, reordered and shortened."""
    pods = open_pods(backend)
    pod = pods.get("a")
    second = attrs.evolve(pod.keyed[1], number=7)
    pods.update(attrs.evolve(pod, keyed=(second, Port(9, "c"))))
    assert stored(backend)["keyed"] == [
        {"name": "b", "number": 7, "tls": 2}, {"name": "c", "number": 9},
    ]  # fmt: skip


@pytest.mark.parametrize(
    "ports", [(), (Port(9),), (Port(5, "p"), Port(3)), (Port(3, "renamed"), Port(5, "p"))]
)
def test_items_without_a_key(backend, ports):
    """An item with unknown fields that was changed, moved or removed: refused, with the reason."""
    pods = open_pods(backend)
    before = backend.get(KEY).kv
    with pytest.raises(InvalidObject, match="list_key") as caught:
        pods.update(attrs.evolve(pods.get("a"), ports=ports))
    assert caught.value.field == "ports[0]"
    assert backend.get(KEY).kv == before
    # What stands behind is another item's business.
    pods.update(attrs.evolve(pods.get("a"), ports=(Port(3), Port(6), Port(7))))
    assert stored(backend)["ports"][0]["hostPort"] == 4


def test_what_is_taken_away_is_gone(backend):
    """A part that the writer removes or replaces by another kind takes its fields with it."""
    pods = open_pods(backend)
    pods.update(attrs.evolve(pods.get("a"), main=None, listen=Udp(), by_name={}))
    found = stored(backend)
    assert (found["main"], found["listen"], found["byName"]) == (None, {"type": "udp"}, {})
    assert found["added"] == NEWER["added"]


def test_suggestions_are_not_used(backend):
    """GU-18: an object without its bytes does not tell what the class left out."""
    kind = ResourceType(Pod, "/pods")
    with TypedStorage(backend, kind) as storage:
        suggestion = storage.get("/pods/default/a")
        storage.guaranteed_update(
            "/pods/default/a", lambda obj, _: attrs.evolve(obj, size=9), suggestion=suggestion
        )
    assert unknown_parts(stored(backend)) == unknown_parts(NEWER)


def test_a_class_may_forbid_or_drop_them(backend):
    """By the class variable ``__unknown_fields__``."""

    @attrs.frozen(kw_only=True)
    class Strict:
        __unknown_fields__: ClassVar[str] = "forbid"
        metadata: ObjectMeta

    @attrs.frozen(kw_only=True)
    class Loose:
        __unknown_fields__: ClassVar[str] = "drop"
        metadata: ObjectMeta

    with pytest.raises(CorruptObject, match="no field"):
        open_pods(backend, Strict).get("a")
    pods = open_pods(backend, Loose)
    pods.update(with_metadata(pods.get("a"), labels={"x": "y"}))
    assert set(stored(backend)) == {"metadata"}
    assert stored(backend)["metadata"]["new"] == 1  # ObjectMeta keeps what it does not know


@attrs.frozen
class Entry:
    name: str


@attrs.frozen
class Newer:
    name: str
    above: int = 0


def test_programs_of_two_versions_agree_on_the_order_of_a_set():
    """GU-3: the older one's update without a change is no write."""

    @attrs.frozen
    class Before:
        names: frozenset[Entry] = frozenset()

    @attrs.frozen
    class After:
        names: frozenset[Newer] = frozenset()

    older, newer = json_codec(Before), json_codec(After)
    stored = newer.encode(After(frozenset([Newer("a", 2), Newer("b", 1)])))
    assert older.merge(older.encode(older.decode(stored)), stored) == stored


def test_two_items_with_one_key():
    """GU-1: fields that belong to one are not given to both."""

    @attrs.frozen
    class Keyed:
        entries: tuple[Entry, ...] = attrs.field(default=(), metadata={"list_key": "name"})

    codec = json_codec(Keyed)
    stored = b'{"entries": [{"name": "a"}, {"above": 1, "name": "b"}]}'
    with pytest.raises(InvalidObject):
        codec.merge(codec.encode(Keyed((Entry("b"), Entry("a"), Entry("b")))), stored)
