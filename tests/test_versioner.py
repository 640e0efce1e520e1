"""Resource versions, objects' metadata, preconditions."""

from __future__ import annotations

import copy
import json
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from revstore.codec import FrozenDict, json_codec
from revstore.errors import InvalidObject, InvalidResourceVersion, PreconditionFailed
from revstore.objects import (
    ObjectMeta,
    camel_case,
    labels_of,
    metadata_value,
    snake_case,
    with_metadata,
)
from revstore.preconditions import Preconditions
from revstore.versioner import (
    APIObjectVersioner,
    format_resource_version,
    parse_resource_version,
)

VERSIONER = APIObjectVersioner()


@attrs.frozen
class Node:
    metadata: ObjectMeta = attrs.field(factory=ObjectMeta)


@pytest.mark.parametrize(
    ("text", "number"),
    [("", 0), ("0", 0), ("1", 1), ("007", 7), (str(2**64 - 1), 2**64 - 1), ("0" * 30 + "5", 5)],
)
def test_parse(text, number):
    """VER-2: ASCII digits, leading zeros included, up to 2**64 - 1."""
    assert parse_resource_version(text) == number


@pytest.mark.parametrize(
    "text",
    [
        "a",
        " ",
        "-1",
        "+1",
        " 1",
        "1 ",
        "1_000",
        "1.0",
        "0x1",
        "\u0661",
        "\u00b2",
        str(2**64),
        "9" * 5000,
        5,
    ],
)
def test_parse_refuses(text):
    """VER-2: what Python's int() would take beyond that is refused, with the field's name."""
    with pytest.raises(InvalidResourceVersion, match="resourceVersion"):
        parse_resource_version(text)


@given(st.integers(1, 2**64 - 1))
def test_format_and_parse(number):
    """VER-1: decimal; 0 is the empty string."""
    assert parse_resource_version(format_resource_version(number)) == number
    assert format_resource_version(0) == ""


@given(st.text(max_size=10))
def test_any_text_is_a_version_or_refused(text):
    """One typed error, whatever is given."""
    try:
        number = parse_resource_version(text)
    except InvalidResourceVersion as error:
        assert error.value == text  # noqa: PT017 - any text may also be valid
    else:
        assert number == int(text or "0")
        assert text.isascii()


@pytest.mark.parametrize("obj", [Node(ObjectMeta(name="n")), {"metadata": {"name": "n"}}])
def test_update_object(obj):
    """VER-1: a copy at the version; 0 clears it; the object itself is left alone."""
    at_5 = VERSIONER.update_object(obj, 5)
    assert VERSIONER.object_resource_version(at_5) == 5
    assert VERSIONER.object_resource_version(obj) == 0
    assert VERSIONER.update_object(at_5, 0) == obj


def test_prepare_for_storage_strips():
    """BASE-5, CREATE-4: stored bytes hold neither resourceVersion nor selfLink; the caller's
    object is not touched, unlike the original's."""
    obj = {"metadata": {"name": "n", "resourceVersion": "5", "selfLink": "/x"}, "kind": "K"}
    assert VERSIONER.prepare_object_for_storage(obj) == {"metadata": {"name": "n"}, "kind": "K"}
    assert obj["metadata"]["resourceVersion"] == "5"
    typed = Node(ObjectMeta(name="n", resource_version="5"))
    assert VERSIONER.prepare_object_for_storage(typed) == Node(ObjectMeta(name="n"))


FILLED = {
    "name": "a",
    "labels": {"a": "b"},
    "annotations": FrozenDict({"a": "b"}),
    "finalizers": ["x"],
    "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "a", "uid": "1", "more": 1}],
    "generation": 3,
    "deletionGracePeriodSeconds": 30,
    "deletionTimestamp": "2026-01-01T00:00:00Z",
    "managedFields": [{"any": 1.5}],
}


def test_metadata_of_dicts():
    """What manifests hold is stored as it is, and what is null is absent for typed readers, as in
    Kubernetes."""
    codec, typed = json_codec(dict), json_codec(Node)
    for filled in (FILLED, dict.fromkeys(FILLED, None) | {"name": "a"}):
        kept = copy.deepcopy(filled)
        stored = codec.encode(VERSIONER.prepare_object_for_storage({"metadata": filled}))
        assert filled == kept
        assert json.loads(stored) == {"metadata": filled}
        read = typed.decode(stored).metadata
    assert read == ObjectMeta(name="a")


WRONG: list[Any] = [1, 1.5, True, {}, [], [1], [{}], {"a": 1}, {"a": None}, {"a": True}, "x"]


@pytest.mark.parametrize("name", [name for name in FILLED if name != "managedFields"])
def test_metadata_that_no_typed_reader_could_read(name):
    """It is refused before it is written, or read."""
    codec = json_codec(Node)
    for wrong in WRONG:
        obj = {"metadata": {"name": "a", name: wrong}}
        try:
            codec.decode(json.dumps(obj).encode())
        except ValueError:
            with pytest.raises(InvalidObject, match=f"metadata.{name}"):
                VERSIONER.prepare_object_for_storage(obj)
        else:
            assert VERSIONER.prepare_object_for_storage(obj) == obj


@pytest.mark.parametrize("obj", [{}, {"metadata": None}, {"metadata": []}, 5, None, "x"])
def test_objects_without_metadata(obj):
    """GU-17, DEL-3: refused by name."""
    with pytest.raises(InvalidObject, match="metadata"):
        VERSIONER.prepare_object_for_storage(obj)
    assert labels_of(obj) == {}


@pytest.mark.parametrize("make", [lambda **m: Node(ObjectMeta(**m)), None])
def test_preconditions(make):
    """DEL-3, GU-7: uid and version compare as strings; None is not checked."""
    if make is None:

        def make(**fields):
            return {"metadata": {camel_case(name): value for name, value in fields.items()}}

    obj = make(uid="u", resource_version="5")
    Preconditions().check("/k", obj)
    Preconditions(uid="u", resource_version="5").check("/k", obj)
    for wrong in (Preconditions(uid="v"), Preconditions(resource_version="05")):
        with pytest.raises(PreconditionFailed) as caught:
            wrong.check("/k", obj)
        assert (caught.value.key, caught.value.resource_version) == ("/k", "5")
    with pytest.raises(InvalidObject):
        Preconditions(uid="u").check("/k", {})


@pytest.mark.parametrize(
    ("snake", "camel"),
    [
        ("resource_version", "resourceVersion"),
        ("name", "name"),
        ("owner_references", "ownerReferences"),
        ("uid", "uid"),
    ],
)
def test_case(snake, camel):
    """Python's names and JSON's."""
    assert camel_case(snake) == camel
    assert snake_case(camel) == snake


def test_runs_of_capitals_are_one_word():
    """As in clusterIP and podCIDRs."""
    assert snake_case("clusterIP") == "cluster_ip"
    assert snake_case("HTTPGet") == "http_get"


def test_with_metadata_shares_the_rest():
    """Only the object and its metadata are copied; None removes from a dict."""
    obj = {"metadata": {"name": "n", "labels": {"a": "b"}}, "spec": {"x": 1}}
    changed = with_metadata(obj, name=None, uid="u")
    assert changed == {"metadata": {"labels": {"a": "b"}, "uid": "u"}, "spec": {"x": 1}}
    assert changed["spec"] is obj["spec"]
    assert metadata_value(obj, "name") == "n"
    assert metadata_value(obj, "uid") == ""
