"""Codecs, copiers, and the identity transformer."""

from __future__ import annotations

import collections.abc
import copy
import enum
import pickle

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from revstore.codec import json_codec
from revstore.copier import DeepCopier, FrozenDict, SharingCopier, default_copier, is_frozen
from revstore.errors import InvalidObject, UnsupportedType
from revstore.objects import ObjectMeta, OwnerReference
from revstore.transform import IdentityTransformer


class Phase(enum.Enum):
    RUNNING = "Running"
    FAILED = "Failed"


@attrs.frozen(kw_only=True)
class Port:
    container_port: int
    name: str = ""


@attrs.frozen(kw_only=True)
class Pod:
    metadata: ObjectMeta = attrs.field(factory=ObjectMeta)
    phase: Phase = Phase.RUNNING
    ports: tuple[Port, ...] = ()
    weights: collections.abc.Mapping[str, float] = attrs.field(factory=dict)
    node_name: str | None = None
    ready: bool = False


@attrs.define
class Mutable:
    metadata: ObjectMeta = attrs.field(factory=ObjectMeta)
    items: list[str] = attrs.field(factory=list)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=12,
)  # fmt: skip
PODS = st.builds(
    Pod,
    metadata=st.builds(
        ObjectMeta,
        name=TEXT,
        labels=st.dictionaries(TEXT, TEXT, max_size=3),
        generation=st.integers(0, 2**62),
        deletion_grace_period_seconds=st.none() | st.integers(0, 9),
        finalizers=st.lists(TEXT, max_size=2).map(tuple),
        owner_references=st.lists(
            st.builds(OwnerReference, api_version=TEXT, kind=TEXT, name=TEXT, uid=TEXT),
            max_size=2,
        ).map(tuple),
    ),
    phase=st.sampled_from(Phase),
    ports=st.lists(st.builds(Port, container_port=st.integers(0, 9), name=TEXT), max_size=2).map(
        tuple
    ),
    weights=st.dictionaries(TEXT, st.floats(allow_nan=False, allow_infinity=False), max_size=2),
    node_name=st.none() | TEXT,
    ready=st.booleans(),
)


@given(st.dictionaries(TEXT, JSON, max_size=4))
def test_dicts_come_back_as_they_went_in(obj):
    """Unknown fields, nulls and empty values are kept."""
    codec = json_codec(dict)
    assert codec.decode(codec.encode(obj)) == obj


@given(PODS)
def test_typed_objects_come_back_as_they_went_in(pod):
    """The same for attrs classes: nested ones, tuples, mappings, enums, optional fields."""
    codec = json_codec(Pod)
    assert codec.decode(codec.encode(pod)) == pod


@given(st.permutations(["b", "a", "c"]))
def test_encoding_is_deterministic(order):
    """GU-3: an update that changes nothing is no write, so equal objects are equal bytes."""
    codec = json_codec(dict)
    assert codec.encode(dict.fromkeys(order, 1)) == b'{"a":1,"b":1,"c":1}'


def test_json_has_kubernetes_spelling():
    """camelCase names; all fields but the empty ones of the metadata; what is absent has its
    default; unknown fields of stored bytes are no error."""
    codec = json_codec(Pod)
    pod = Pod(ports=(Port(container_port=80),), node_name="n")
    assert codec.encode(pod) == (
        b'{"metadata":{},"nodeName":"n","phase":"Running",'
        b'"ports":[{"containerPort":80,"name":""}],"ready":false,"weights":{}}'
    )
    assert codec.decode(b'{"nodeName":"n","ports":[{"containerPort":80}],"new":{}}') == pod


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{", b"[]", b"5", b"null", b'"x"', b"\xff", b'{"a":NaN}', b"{}x", b'{"a":1,}',
        b"[" * 100_000, b'{"a":' * 100_000,
    ],
)  # fmt: skip
@pytest.mark.parametrize("object_type", [dict, Pod])
def test_bytes_that_are_no_object(object_type, data):
    """GET-5: refused, whatever they are; never a RecursionError."""
    with pytest.raises(Exception, match=r".") as caught:
        json_codec(object_type).decode(data)
    assert not isinstance(caught.value, RecursionError | MemoryError)


@pytest.mark.parametrize(
    "data",
    [
        b'{"nodeName":5}', b'{"ready":"yes"}', b'{"ready":1}', b'{"phase":"Sleeping"}',
        b'{"metadata":[]}', b'{"metadata":{"labels":{"a":5}}}', b'{"metadata":{"labels":[]}}',
        b'{"ports":[{}]}', b'{"ports":5}', b'{"ports":[{"containerPort":"80"}]}',
        b'{"ports":[{"containerPort":true}]}', b'{"ports":[{"containerPort":1.5}]}',
        b'{"weights":{"a":"1.5"}}', b'{"weights":{"a":true}}', b'{"ports":[[]]}',
    ],
)  # fmt: skip
def test_bytes_of_another_shape_are_corrupt(data):
    """GET-5: not coerced into the type."""
    with pytest.raises(Exception, match=r"."):
        json_codec(Pod).decode(data)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_json_lacks(number):
    """Refused when encoding: they would come back as null."""
    with pytest.raises(ValueError, match="NaN"):
        json_codec(dict).encode({"a": [{"b": number}]})
    with pytest.raises(ValueError, match="NaN"):
        json_codec(Pod).encode(Pod(weights={"a": number}))


@pytest.mark.parametrize(("object_type", "obj"), [(dict, []), (Pod, {}), (Pod, Mutable())])
def test_objects_of_another_type(object_type, obj):
    """Refused by name."""
    with pytest.raises(InvalidObject, match="expected"):
        json_codec(object_type).encode(obj)


def test_types_without_a_codec():
    """Only classes with fields and dict have a built-in one."""
    with pytest.raises(UnsupportedType, match="no built-in codec"):
        json_codec(int)


@pytest.mark.parametrize(
    ("kind", "frozen"),
    [
        (Pod, True), (ObjectMeta, True), (Mutable, False), (dict, False), (str, True),
        (tuple[str, ...], True), (tuple[list[int], ...], False), (list[str], False),
        (collections.abc.Mapping[str, int], True), (dict[str, int], False), (Phase, True),
        (int | None, True), (Mutable | None, False), (object, False),
    ],
)  # fmt: skip
def test_is_frozen(kind, frozen):
    """Only what nobody can change is shared."""
    assert is_frozen(kind) is frozen
    assert isinstance(default_copier(kind), SharingCopier if frozen else DeepCopier)


def test_decoded_mappings_cannot_be_changed():
    """What is shared must not be changed through a field."""
    pod = json_codec(Pod).decode(b'{"metadata":{"labels":{"a":"b"}},"weights":{"x":1.5}}')
    for mapping in (pod.metadata.labels, pod.weights):
        for change in (
            lambda m: m.__setitem__("z", 1), lambda m: m.pop("a", None), lambda m: m.clear(),
            lambda m: m.update(z=1), lambda m: m.setdefault("z", 1), lambda m: m.popitem(),
            lambda m: m.__delitem__("a"), lambda m: m.__ior__({"z": 1}),
        ):  # fmt: skip
            with pytest.raises(TypeError, match="shared"):
                change(mapping)
    assert pod.metadata.labels == {"a": "b"}


def test_frozen_dicts_are_dicts_otherwise():
    """Equal, copied, pickled and encoded as one."""
    frozen = FrozenDict({"a": [1]})
    assert frozen == {"a": [1]}
    assert copy.copy(frozen) is frozen
    assert copy.deepcopy(frozen)["a"] is not frozen["a"]
    assert pickle.loads(pickle.dumps(frozen)) == frozen
    assert json_codec(dict).encode(frozen) == b'{"a":[1]}'


@given(JSON)
def test_deep_copies_are_equal_and_apart(value):
    """OLD-16: a copy equals the object and shares nothing that can be changed."""
    copied = DeepCopier().copy({"x": value})
    assert copied == {"x": value}
    if isinstance(value, dict | list):
        assert copied["x"] is not value


def test_the_identity_refuses_what_was_encrypted():
    """XF-2: better an error than cipher text for an object."""
    identity = IdentityTransformer()
    assert identity.transform_to_storage(b"x", b"/k") == b"x"
    assert identity.transform_from_storage(b"x", b"/k") == (b"x", False)
    with pytest.raises(ValueError, match="encrypted"):
        identity.transform_from_storage(b"k8s:enc:aescbc:v1:key1:...", b"/k")
