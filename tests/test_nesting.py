"""How deeply a stored object may be nested: 100 levels, on every version of Python."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from revstore.codec import json_codec
from revstore.errors import CorruptObject, InvalidObject
from revstore.manifests import _yaml_reader
from revstore.memory import MemoryBackend
from revstore.nesting import MAX_DEPTH, check_nesting
from revstore.objects import ObjectMeta
from revstore.resource_type import ResourceType
from revstore.typed import TypedStorage


@attrs.frozen(kw_only=True)
class Thing:
    metadata: ObjectMeta
    spec: Any = None


def nested(levels: int, kinds: str = "{[", end: Any = "x") -> Any:
    """A value of so many levels, of objects and lists by turns."""
    value = end
    for number in range(levels):
        value = {"a": value, "b": "}]{["} if kinds[number % len(kinds)] == "{" else [1, value, '"[']
    return value


def depth(value: Any) -> int:
    children = value.values() if isinstance(value, dict) else value
    return 1 + max(map(depth, children), default=0) if isinstance(value, (dict, list)) else 0


def accepted(data: bytes) -> bool:
    try:
        check_nesting(data)
    except ValueError:
        return False
    return True


LEAVES = st.none() | st.booleans() | st.integers() | st.text(alphabet='[]{}",:\\\nae') | st.text()
VALUES = st.recursive(
    LEAVES, lambda each: st.lists(each) | st.dictionaries(st.text(alphabet='[{"\\a'), each)
)


@given(VALUES, st.integers(85, 110), st.sampled_from(["{", "[", "{[", "[[{"]), st.booleans())
def test_the_bound_is_exact(value, levels, kinds, spaced):
    """Whatever stands in strings, and beside what is deep: more than 100 levels are refused, and no
    others."""
    whole = {"x": value, "y": nested(levels, kinds, value), "z": [value]}
    data = json.dumps(whole, separators=None if spaced else (",", ":")).encode()

    assert accepted(data) == (depth(whole) <= MAX_DEPTH)


@given(st.binary() | st.text(alphabet='[]{}",:\\').map(str.encode), st.integers(1, 60))
def test_bytes_that_are_no_json(data, times):
    """They pass or are refused, whatever they are; nothing else happens."""
    accepted(data * times)


@pytest.mark.parametrize("kind", [dict, Thing])
@pytest.mark.parametrize("levels", [50, 98, 99, 500, 950, 5_000, 200_000])
def test_storage_refuses_what_is_deeper(kind, levels):
    """An object of 100 levels is stored and comes back; a deeper one is InvalidObject, and nothing
    is written. The object itself and ``spec`` are two levels."""
    codec = json_codec(kind)
    with MemoryBackend() as backend, TypedStorage(backend, ResourceType(kind, "/t")) as storage:
        spec = {"value": nested(levels - 1, "{")}
        if kind is dict:
            thing: Any = {"metadata": {"name": "a"}, "spec": spec}
        else:
            thing = Thing(metadata=ObjectMeta(name="a"), spec=spec)
        if levels < MAX_DEPTH:
            storage.create("/t/a", thing)
            found = storage.get("/t/a")
            assert (found["spec"] if kind is dict else found.spec) == spec
            codec.encode(thing)
            return
        with pytest.raises(InvalidObject, match="nested more than 100 levels"):
            storage.create("/t/a", thing)
        assert backend.count("/").count == 0


@pytest.mark.parametrize("kind", [dict, Thing])
@pytest.mark.parametrize("levels", [101, 5_000, 200_000])
@pytest.mark.parametrize("shape", ["[", '{"a":'])
def test_deeper_bytes_are_corrupt(kind, levels, shape):
    """What another writer stored more deeply is CorruptObject, whole or cut off."""
    with MemoryBackend() as backend, TypedStorage(backend, ResourceType(kind, "/t")) as storage:
        whole = shape * levels + "1" + ("]" if shape == "[" else "}") * levels
        for number, data in enumerate((whole, whole[: len(whole) // 2])):
            text = f'{{"metadata":{{"name":"a"}},"spec":{data}' + "}" * (data == whole)
            backend.put(f"/registry/t/{number}", text.encode(), expected_revision=0)
            with pytest.raises(CorruptObject):
                storage.get(f"/t/{number}")


def test_manifests_have_the_same_bound():
    """What a manifest may have can be stored."""
    assert _yaml_reader.MAX_DEPTH == MAX_DEPTH
