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
from revstore.manifests import ManifestError, parse, to_yaml
from revstore.memory import MemoryBackend
from revstore.nesting import MAX_DEPTH, TOO_DEEP, check_nesting
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
        with pytest.raises(InvalidObject, match="at most 100 levels of nesting"):
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


@pytest.mark.parametrize("levels", [MAX_DEPTH - 1, MAX_DEPTH, MAX_DEPTH + 1])
def test_what_is_stored_can_be_printed_and_read_again(levels):
    """The levels of a List do not count, whether an object stands in one or alone; what could not
    be stored is refused, by its document and line."""
    head = {"apiVersion": "v1", "kind": "Thing", "metadata": {"name": "a"}}
    deep = {**head, "spec": nested(levels - 1, "{")}
    for whole in (deep, {"apiVersion": "v1", "kind": "List", "items": [head, deep]}):
        data = f"---\n{to_yaml(head)}---\n{json.dumps(whole)}\n".encode()
        if levels > MAX_DEPTH:
            with pytest.raises(ManifestError, match=TOO_DEEP) as caught:
                parse(data)
            assert (caught.value.document, caught.value.line) == (2, 7)
        else:
            for text in (data, json.dumps(whole).encode(), to_yaml(whole).encode()):
                assert parse(text)[-1].object == deep


def test_nothing_deep_is_read_however_many_lists_it_is_in():
    """The text as a whole has a bound of its own."""
    for text in ("[" * MAX_DEPTH * 2, "{kind: List, items: [" * MAX_DEPTH):
        with pytest.raises(ManifestError, match=TOO_DEEP):
            parse(text.encode())
