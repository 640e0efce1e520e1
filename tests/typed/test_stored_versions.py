"""Objects stored in older versions of their type are upgraded when they are read, and written in
the current version; those of unknown versions are refused and never lost."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import itertools
import json
import pickle
from typing import Any, TypedDict

import attrs
import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from revstore.cacher import Cacher, CacherConfig
from revstore.codec import TypedCodec
from revstore.errors import (
    CorruptObject,
    CorruptObjects,
    IncompatibleVersion,
    InvalidArgument,
    InvalidObject,
)
from revstore.memory import MemoryBackend
from revstore.objects import ObjectMeta
from revstore.registry import Registry
from revstore.resource_type import ResourceType
from revstore.storage import EventType
from revstore.typed import TypedStorage

GROUP = "example.com"


@attrs.frozen(kw_only=True)
class Disk:
    metadata: ObjectMeta = attrs.field(factory=ObjectMeta)
    capacity: int = 0
    unit: str = "GiB"


def to_v2(value: dict[str, Any]) -> dict[str, Any]:
    """Changes its argument."""
    value["capacity"] = value.pop("size")
    return value


def to_v3(value: dict[str, Any]) -> dict[str, Any]:
    """Returns a new one, and says the version itself."""
    return {**value, "unit": value.get("unit", "GB"), "apiVersion": f"{GROUP}/v3"}


UPGRADES = {"v1": to_v2, "v2": to_v3}
DISKS: ResourceType[Disk] = ResourceType(Disk, "/disks", version=f"{GROUP}/v3", upgrades=UPGRADES)
DICTS: ResourceType[dict[str, Any]] = ResourceType(
    dict, "/disks", version=f"{GROUP}/v3", upgrades=UPGRADES
)
OLD: dict[str, Any] = {"metadata": {"name": "a"}, "size": 5, "extra": [1]}
KEY = "/disks/a"


def put(backend: MemoryBackend, name: str, value: dict[str, Any]) -> int:
    """Write plain bytes, as another program does."""
    key = f"/registry/disks/{name}"
    kv = backend.get(key).kv
    data = json.dumps(value).encode()
    return backend.put(key, data, expected_revision=kv.revision if kv else 0).revision


def stored(backend: MemoryBackend, name: str) -> dict[str, Any]:
    kv = backend.get(f"/registry/disks/{name}").kv
    assert kv is not None
    value: dict[str, Any] = json.loads(kv.value)
    return value


def without_version(obj: Any) -> Any:
    """The object without its resource version, as plain values."""
    value = copy.deepcopy(obj) if isinstance(obj, dict) else TypedCodec(type(obj)).to_json(obj)
    value["metadata"].pop("resourceVersion", None)
    return value


# Chains of upgrades: each step does one of these to a value.
STEPS = st.one_of(
    st.tuples(st.just("rename"), st.sampled_from("abc"), st.sampled_from("abc")),
    st.tuples(st.just("add"), st.sampled_from("abc"), st.integers(0, 9)),
    st.tuples(st.just("drop"), st.sampled_from("abc"), st.none()),
    st.tuples(st.just("wrap"), st.sampled_from("abc"), st.none()),
)


def done(step: tuple[str, str, Any], value: dict[str, Any]) -> dict[str, Any]:
    what, name, more = step
    if what == "rename" and name in value:
        value[more] = value.pop(name)
    elif what == "add":
        value.setdefault(name, more)
    elif what == "drop":
        value.pop(name, None)
    elif what == "wrap" and name in value:
        value[name] = {"was": value[name]}
    return value


@st.composite
def mixes(draw: st.DrawFn) -> tuple[list[Any], list[tuple[int, dict[str, Any]]]]:
    """A chain of steps, and values each with the number of its version."""
    steps = draw(st.lists(STEPS, max_size=5))
    fields = st.dictionaries(st.sampled_from("abcx"), st.integers(0, 9), max_size=3)
    values = draw(st.lists(st.tuples(st.integers(0, len(steps)), fields), max_size=8))
    return steps, values


@settings(max_examples=60)
@given(mixes(), st.booleans(), st.booleans())
def test_every_path_shows_any_mix_of_versions_alike(mix, in_group, bare_oldest):
    steps, values = mix
    names = [f"v{number}" for number in range(1, len(steps) + 2)]
    group = f"{GROUP}/" if in_group else ""
    upgrades = {
        name: lambda value, step=step: done(step, value)
        for name, step in zip(names, steps, strict=False)
    }
    made: ResourceType[dict[str, Any]] = ResourceType(
        dict, "/disks", version=group + names[-1], upgrades=upgrades
    )
    backend = MemoryBackend()
    expected = {}
    for number, (at, fields) in enumerate(values):
        value = {"metadata": {"name": f"o{number}", "namespace": "n"}, **fields}
        version = {} if bare_oldest and at == 0 else {"apiVersion": group + names[at]}
        put(backend, f"n/o{number}", {**value, **version})
        for step in steps[at:]:
            value = done(step, copy.deepcopy(value))
        expected[f"o{number}"] = {**value, "apiVersion": group + names[-1]}
    with (
        TypedStorage(backend, made) as raw,
        Cacher(CacherConfig(storage=TypedStorage(backend, made), resource_type=made)) as cached,
    ):
        start = backend.status().revision
        for storage in raw, cached:
            for number in range(len(values)):
                found = storage.get(f"/disks/n/o{number}", resource_version="0")
                assert without_version(found) == expected[f"o{number}"]
            assert by_name(storage.list("/disks").items) == expected
            registry = Registry(storage, resource_prefix="/disks", encode=made.codec.encode)
            pages, token = [], ""
            while True:
                page = registry.list("n", limit=2, continue_token=token)
                pages += page.items
                token = page.continue_token
                if not token:
                    break
            assert by_name(pages) == expected
            for value in range(3):
                chosen = registry.list(field_selector=f"a={value}").items
                assert by_name(chosen) == {
                    name: each for name, each in expected.items() if each.get("a") == value
                }
            with storage.watch("/disks", resource_version="0", send_initial_events=True) as watch:
                events = list(itertools.islice(watch, len(values)))
                assert by_name([event.object for event in events]) == expected
        watches = [
            storage.watch("/disks", resource_version=str(start), field_selector="a=1", timeout=60)
            for storage in (raw, cached)
        ]
        # All leave a selection that only their upgraded values may have been in.
        for number in range(len(values)):
            raw.delete(f"/disks/n/o{number}")
        raw.create("/disks/end", {"metadata": {"name": "end"}, "a": 1})
        for watch in watches:
            deleted = []
            for event in watch:
                if event.type is not EventType.DELETED:
                    break
                deleted.append(event.object)
            watch.close()
            assert by_name(deleted) == {
                name: each for name, each in expected.items() if each.get("a") == 1
            }


def by_name(objects: Any) -> dict[str, Any]:
    return {obj["metadata"]["name"]: without_version(obj) for obj in objects}


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("kind", [DISKS, DICTS])
@pytest.mark.parametrize("version", [None, "v1", f"{GROUP}/v1"])
def test_an_update_that_changes_nothing_writes_the_current_version_once(kind, cached, version):
    backend = MemoryBackend()
    before = put(backend, "a", {**OLD, **({"apiVersion": version} if version else {})})
    with opened(backend, kind, cached=cached) as storage:
        first = storage.guaranteed_update(KEY, lambda obj, _: obj)
        second = storage.guaranteed_update(KEY, lambda obj, _: obj)

    assert first == second
    assert backend.status().revision == before + 1
    assert stored(backend, "a") == {
        "apiVersion": f"{GROUP}/v3",
        "metadata": {"name": "a"},
        "capacity": 5,
        "unit": "GB",
        "extra": [1],  # the class does not know it
    }


@contextlib.contextmanager
def opened(backend: MemoryBackend, kind: Any, *, cached: bool = False) -> Any:
    with TypedStorage(backend, kind) as storage:
        if not cached:
            yield storage
            return
        with Cacher(CacherConfig(storage=storage, resource_type=kind)) as cache:
            yield cache


def test_a_typed_writer_adds_the_version_and_reads_without_it():
    backend = MemoryBackend()
    with opened(backend, DISKS) as disks:
        disk = disks.create(KEY, Disk(metadata=ObjectMeta(name="a"), capacity=1))
        assert disks.get(KEY) == disk
        assert disks.list("/disks", field_selector=f"apiVersion={GROUP}/v3").items == (disk,)
    assert stored(backend, "a")["apiVersion"] == f"{GROUP}/v3"


@dataclasses.dataclass
class AsDataclass:
    metadata: ObjectMeta
    capacity: int = 0


class AsStruct(msgspec.Struct, forbid_unknown_fields=True):
    metadata: ObjectMeta
    capacity: int = 0


class AsModel(pydantic.BaseModel, extra="allow"):
    metadata: ObjectMeta
    capacity: int = 0


class AsDict(TypedDict):
    metadata: dict[str, Any]
    capacity: int


@attrs.frozen(kw_only=True)
class WithKind:
    """Its kind is a field of its own, and no type of Kubernetes."""

    metadata: ObjectMeta
    capacity: int = 0
    kind: str = "ssd"


@pytest.mark.parametrize("found", [None, "v1", f"{GROUP}/v1"])
@pytest.mark.parametrize("version", ["v2", f"{GROUP}/v2"])
@pytest.mark.parametrize("cls", [Disk, AsDataclass, AsStruct, AsModel, AsDict, WithKind])
def test_every_kind_of_class_is_upgraded(cls, version, found):
    backend = MemoryBackend()
    value = {"metadata": {"name": "a"}, "size": 5, **({"apiVersion": found} if found else {})}
    before = put(backend, "a", value)
    kind = ResourceType(cls, "/disks", version=version, upgrades={"v1": to_v2})
    with opened(backend, kind) as storage:
        read = storage.get(KEY)
        updated = storage.guaranteed_update(KEY, lambda obj, _: obj)
        assert storage.guaranteed_update(KEY, lambda obj, _: obj) == updated
    for obj in read, updated:
        assert (obj["capacity"] if cls is AsDict else obj.capacity) == 5
    assert backend.status().revision == before + 1
    written = stored(backend, "a")
    assert written["apiVersion"].rpartition("/")[2] == "v2"
    assert "size" not in written


def test_changing_another_property_keeps_a_codec_that_has_the_versions():
    """The codec may be a wrapper, as of a storage whose calls are traced."""
    first: ResourceType[Disk] = ResourceType(
        Disk, "/disks", codec=TypedCodec(Disk).with_type_meta(f"{GROUP}/v1", "Disk"), version="v2"
    )
    again = attrs.evolve(first, labels=lambda _: {})

    assert again.codec is first.codec
    assert first.codec.encode(Disk()).startswith(b'{"apiVersion":"example.com/v2"')


def test_a_class_with_a_version_of_its_own():
    @attrs.frozen(kw_only=True)
    class Own:
        metadata: ObjectMeta = attrs.field(factory=ObjectMeta)
        api_version: str = "v2"
        kind: str = "Own"
        capacity: int = 0

    kind = ResourceType(Own, "/disks", version="v2", upgrades={"v1": to_v2})
    backend = MemoryBackend()
    put(backend, "a", {**OLD, "apiVersion": "v1", "kind": "Own"})
    with opened(backend, kind) as storage:
        assert storage.get(KEY).api_version == "v2"
        assert storage.get(KEY).capacity == 5
        with pytest.raises(InvalidObject, match="v9"):
            storage.create("/disks/b", Own(metadata=ObjectMeta(name="b"), api_version="v9"))


def test_what_is_written_in_an_older_version_is_upgraded():
    backend = MemoryBackend()
    given_object = {"apiVersion": f"{GROUP}/v1", **copy.deepcopy(OLD)}
    before = copy.deepcopy(given_object)
    with opened(backend, DICTS) as storage:
        registry = Registry(storage, resource_prefix="/disks", encode=DICTS.codec.encode)
        made = registry.apply({**given_object, "metadata": {"name": "a"}})
        again = registry.apply(given_object)

        assert (made.outcome, again.outcome) == ("created", "unchanged")
        assert made.object["capacity"] == 5
        assert given_object == before
        with pytest.raises(InvalidObject, match="unknown") as caught:
            registry.apply({"apiVersion": f"{GROUP}/v4", **OLD})
        assert caught.value.field == "apiVersion"


UNKNOWN = [f"{GROUP}/v4", "v4", "other.io/v1", "", 7, {"a": 1}, ["v1"], f"{GROUP}/v1/x", "\u2028"]


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("kind", [DISKS, DICTS])
@pytest.mark.parametrize("version", UNKNOWN)
def test_an_unknown_version_is_an_error_and_no_loss(kind, cached, version):
    backend = MemoryBackend()
    put(backend, "a", {**OLD, "apiVersion": version})
    put(backend, "b", {**OLD, "metadata": {"name": "b"}})
    before = backend.get("/registry/disks/a").kv
    with opened(backend, kind, cached=cached) as storage:
        errors = []
        for call in (
            lambda: storage.get(KEY),
            lambda: storage.get(KEY, resource_version="0"),
            lambda: storage.guaranteed_update(KEY, lambda obj, _: obj),
            lambda: storage.delete(KEY),
            lambda: storage.delete(KEY, even_if_corrupt=True),
        ):
            with pytest.raises(IncompatibleVersion) as caught:
                call()
            errors.append(caught.value)
        for more in {}, {"resource_version": "0"}, {"field_selector": "capacity=5"}:
            with pytest.raises(CorruptObjects) as listed:
                storage.list("/disks", **more)
            errors += listed.value.errors
        rest = storage.list("/disks", even_if_corrupt=True)
        assert len(rest.items) == 1
        errors += rest.errors
        with storage.watch("/disks", send_initial_events=True, even_if_corrupt=True) as watch:
            assert next(iter(watch)).type is EventType.ERROR
    assert len(errors) == 9
    for error in errors:
        assert type(error) is IncompatibleVersion
        assert error.key == KEY
        assert error.found == (version if isinstance(version, str) else repr(version))
        assert error.known == (f"{GROUP}/v1", f"{GROUP}/v2", f"{GROUP}/v3")
        assert repr(version) in str(error)
        assert pickle.loads(pickle.dumps(error)).found == error.found
    assert backend.get("/registry/disks/a").kv == before


@pytest.mark.parametrize("cached", [False, True])
def test_an_older_program_does_not_destroy_newer_objects(cached):
    older = ResourceType(dict, "/disks", version=f"{GROUP}/v1")
    backend = MemoryBackend()
    with opened(backend, DICTS) as newer, opened(backend, older, cached=cached) as storage:
        newer.create(KEY, {"metadata": {"name": "a"}, "capacity": 7})
        registry = Registry(storage, resource_prefix="/disks", namespaced=False)
        for call in (
            lambda: registry.apply({"metadata": {"name": "a"}, "size": 1}),
            lambda: registry.update({"metadata": {"name": "a"}, "size": 1}),
            lambda: registry.delete("a"),
            lambda: registry.delete("a", even_if_corrupt=True),
        ):
            with pytest.raises(IncompatibleVersion):
                call()
        assert newer.get(KEY)["capacity"] == 7


class Broken(Exception):
    pass


def raising(value: dict[str, Any]) -> dict[str, Any]:
    raise Broken("no size")


@pytest.mark.parametrize(
    ("upgrade", "cause"),
    [
        (raising, Broken),
        (lambda value: None, ValueError),
        (lambda value: [value], ValueError),
        (lambda value: {**value, "at": object()}, ValueError),
        (lambda value: {**value, "at": float("nan")}, ValueError),
        (lambda value: {**value, "at": "\ud800"}, ValueError),
        (lambda value: {**value, "apiVersion": "v9"}, ValueError),
        (lambda value: {**value, "metadata": {"name": "other"}}, ValueError),
        (lambda value: {**value, "metadata": None}, ValueError),
        (lambda value, more: value, TypeError),
    ],
)
@pytest.mark.parametrize("cached", [False, True])
def test_an_upgrade_that_fails_is_an_error_with_its_cause(upgrade, cause, cached):
    kind = ResourceType(dict, "/disks", version="v2", upgrades={"v1": upgrade})
    backend = MemoryBackend()
    put(backend, "a", OLD)
    with opened(backend, kind, cached=cached) as storage:
        for call in (
            lambda: storage.get(KEY),
            lambda: storage.guaranteed_update(KEY, lambda obj, _: obj),
            lambda: storage.delete(KEY, even_if_corrupt=True),
        ):
            with pytest.raises(IncompatibleVersion, match="upgrade to 'v2' failed") as caught:
                call()
            assert caught.value.key == KEY
            assert isinstance(caught.value.__cause__.__cause__, cause)
    assert stored(backend, "a") == OLD


def test_an_upgraded_value_that_the_class_refuses_is_corrupt():
    kind = ResourceType(
        Disk, "/disks", version="v2", upgrades={"v1": lambda value: {**value, "capacity": "x"}}
    )
    backend = MemoryBackend()
    put(backend, "a", OLD)
    with opened(backend, kind) as storage, pytest.raises(CorruptObject, match="capacity"):
        storage.get(KEY)


@pytest.mark.parametrize(
    ("version", "upgrades"),
    [
        ("", {"v1": to_v2}),
        ("v2", {"v2": to_v2}),
        ("a/v2", {"v1": to_v2, "a/v1": to_v2}),
        ("v 2", {}),
        ("/v2", {}),
        (2, {}),
        ("v2", {"v1": "to_v2"}),
        ("v2", [("v1", to_v2)]),
        ("v2", {1: to_v2}),
    ],
)
def test_versions_that_are_not_valid_are_refused(version, upgrades):
    with pytest.raises(InvalidArgument) as caught:
        ResourceType(dict, "/disks", version=version, upgrades=upgrades)
    assert caught.value.field in ("version", "upgrades")


def test_a_codec_without_versions_is_refused():
    class Plain:
        def encode(self, obj: Any) -> bytes:
            return b""

        def decode(self, data: bytes) -> Any:
            return {}

    with pytest.raises(InvalidArgument, match="built-in codec"):
        ResourceType(dict, "/disks", codec=Plain(), version="v2")
