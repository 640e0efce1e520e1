"""What a storage and its cache know of the objects of a resource."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

import revstore
from revstore.codec import DictCodec
from revstore.errors import InvalidArgument, InvalidSelector
from revstore.objects import ObjectMeta
from revstore.resource_type import ResourceType
from revstore.storage import INITIAL_EVENTS_END


@attrs.frozen(kw_only=True)
class Pod:
    metadata: ObjectMeta = attrs.field(factory=ObjectMeta)
    node: str = ""


@attrs.define(kw_only=True)
class Changeable:
    metadata: ObjectMeta = attrs.field(factory=ObjectMeta)


@pytest.mark.parametrize("prefix", ["", "/", "//", "pods", "pods/", " /pods", None, 3, b"/pods"])
def test_a_bad_prefix(prefix: Any) -> None:
    """KEY-8: a prefix that is no path below the root is refused by name, of whatever type it is."""
    with pytest.raises(InvalidArgument) as caught:
        ResourceType(Pod, prefix)
    assert caught.value.field == "resource_prefix"


@pytest.mark.parametrize("prefix", ["/pods", "/pods/", "/pods//"])
def test_the_root_of_the_keys(prefix: str) -> None:
    """KEY-4, KEY-5: "/pods/" and "/pods" name the same resource, and neither that of "/podsx"."""
    assert ResourceType(Pod, prefix).root == "/pods/"


def test_it_is_public_and_frozen() -> None:
    """It can be shared: nothing of it changes; a changed copy keeps the rest."""
    pods = revstore.ResourceType(Pod, "/pods", labels=lambda obj: {"node": obj.node})
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        pods.resource_prefix = "/other"  # type: ignore[misc]

    other = attrs.evolve(pods, resource_prefix="/other")

    assert (other.root, other.codec, other.labels) == ("/other/", pods.codec, pods.labels)


def test_objects_that_can_change_are_copied() -> None:
    """Readers share frozen objects, and are handed copies of others; a copier goes over that."""

    class Twice:
        def copy(self, obj: Pod) -> Pod:
            return attrs.evolve(obj, node=obj.node * 2)

    assert ResourceType(Pod, "/pods").copy is None
    copy = ResourceType(Changeable, "/pods").copy
    assert copy is not None
    obj = Changeable()
    assert copy(obj) == obj
    assert copy(obj) is not obj
    own = ResourceType(Pod, "/pods", copier=Twice()).copy
    assert own is not None
    assert own(Pod(node="a")).node == "aa"


def test_selectors_see_what_the_functions_give() -> None:
    """VER-4: ``labels`` and ``fields`` are what selectors are held against."""
    pods = ResourceType(
        Pod, "/pods", labels=lambda obj: {"on": obj.node}, fields=lambda obj, path: path + obj.node
    )

    predicate = pods.predicate("on=a", "x=xa,y!=xa")

    assert predicate.selects(Pod(node="a"))
    assert not predicate.selects(Pod(node="b"))
    assert pods.predicate().empty
    with pytest.raises(InvalidSelector):
        pods.predicate("", "x")


def test_the_codec_may_say_what_a_field_is() -> None:
    """Field selectors follow the codec's ``field_value`` if it has one, unless ``fields`` is
    given."""

    class Shouting(DictCodec):
        def field_value(self, obj: dict[str, Any], path: str) -> str:
            return path.upper()

    quiet: ResourceType[dict[str, Any]] = ResourceType(dict, "/pods")
    loud: ResourceType[dict[str, Any]] = ResourceType(dict, "/pods", codec=Shouting())
    own = attrs.evolve(loud, fields=lambda obj, path: "own")
    assert [each.fields({"a": "b"}, "a") for each in (quiet, loud, own)] == ["b", "A", "own"]


@pytest.mark.parametrize("kind", [dict, Pod, Changeable])
def test_bookmarks(kind: type[Any]) -> None:
    """WATCH-15, WATCH-16: an empty object at a revision; one mark ends the initial events."""
    pods: ResourceType[Any] = ResourceType(kind, "/pods")
    plain, end = pods.bookmark(7), pods.bookmark(8, initial_events_end=True)
    assert [pods.versioner.object_resource_version(each) for each in (plain, end)] == [7, 8]
    marks = [
        revstore.Event(revstore.EventType.BOOKMARK, each, "").initial_events_end
        for each in (plain, end)
    ]
    assert (marks, INITIAL_EVENTS_END) == ([False, True], "k8s.io/initial-events-end")


def test_no_empty_object_can_be_made() -> None:
    """WATCH-19: refused by the name of what is missing."""

    @attrs.frozen(kw_only=True)
    class Strict:
        metadata: ObjectMeta
        needed: str

    strict = ResourceType(Strict, "/strict")
    with pytest.raises(InvalidArgument) as caught:
        strict.bookmark(1)
    assert caught.value.field == "new_object"
    given = attrs.evolve(strict, new_object=lambda: Strict(metadata=ObjectMeta(), needed=""))
    assert given.bookmark(1).metadata.resource_version == "1"


def test_a_type_without_a_codec() -> None:
    """A type that has no built-in codec needs one."""
    with pytest.raises(TypeError, match="codec"):
        ResourceType(int, "/ints")
