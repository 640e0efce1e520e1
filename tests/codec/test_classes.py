"""What classes may be: how they are made, inherit, refer to each other, and convert."""

from __future__ import annotations

import dataclasses
import enum
import functools
import json
import typing
from collections.abc import Mapping
from typing import Any, ClassVar, Final, Generic, Literal, NamedTuple, Self, TypeVar

import attrs
import msgspec
import pytest

from revstore.codec import evolve, is_frozen, json_codec
from revstore.errors import InvalidObject, UnsupportedType
from revstore.objects import ObjectMeta, metadata_value, with_metadata
from revstore.versioner import APIObjectVersioner

pydantic = pytest.importorskip("pydantic")

T = TypeVar("T")


def again(obj: Any) -> Any:
    """What comes back of an object."""
    codec = json_codec(type(obj))
    return codec.decode(codec.encode(obj))


def test_converters_do_not_run_again():
    """What was stored is what the object held, not what a converter makes of it."""

    @attrs.define
    class Priced:
        cents: int = attrs.field(converter=lambda value: value + 1)
        tags: tuple[str, ...] = attrs.field(converter=lambda value: (*value, "x"), default=())

    obj = Priced(1)
    assert obj.cents == 2
    assert again(obj) == obj
    # A default goes through the converter, as in __init__.
    assert json_codec(Priced).decode(b'{"cents":5}') == attrs.evolve(obj, cents=4, tags=())


def test_validators_refuse_both_ways():
    """Stored values that a validator refuses are corrupt; an object that was changed behind its
    validator's back is not stored."""

    @attrs.define(on_setattr=[])
    class Bounded:
        n: int = attrs.field(validator=attrs.validators.ge(0))

    with pytest.raises(ValueError, match=">= 0"):
        json_codec(Bounded).decode(b'{"n":-1}')
    obj = Bounded(1)
    object.__setattr__(obj, "n", -1)
    with pytest.raises(InvalidObject, match="validators"):
        json_codec(Bounded).encode(obj)


def test_fields_without_init_and_post_init():
    """Fields that ``__init__`` does not take are kept, and what it makes besides is made."""

    @attrs.define(slots=False)
    class Counter:
        start: int
        count: int = attrs.field(init=False, default=0)
        late: int = attrs.field(init=False)

        def __attrs_post_init__(self) -> None:
            self.late = 100
            self.index = {"made": True}

    @dataclasses.dataclass
    class Data:
        start: int
        count: int = dataclasses.field(init=False, default=0)

        def __post_init__(self) -> None:
            self.start += 1

    counter, data = Counter(1), Data(1)
    counter.count, counter.late, data.count = 5, 7, 6
    found = again(counter)
    assert (found, found.late, found.index) == (counter, 7, {"made": True})
    assert again(data) == data
    assert json_codec(Counter).decode(b'{"start":1}').late == 100


def test_private_names_aliases_and_keywords():
    """Python's names and JSON's have nothing to do with the arguments of ``__init__``."""

    @attrs.frozen(kw_only=True)
    class Odd:
        _hidden: int
        from_: str = ""
        x_2: int = attrs.field(default=0, alias="second")
        __mangled: int = 3
        shared: ClassVar[int] = 5

        @property
        def double(self) -> int:
            return self._hidden * 2

    obj = Odd(hidden=4, from_="a", second=2)
    assert again(obj) == obj
    codec = json_codec(Odd)
    assert [codec.field_value(obj, path) for path in ("hidden", "from", "x2", "x_2")] == [
        "4", "a", "2", "",
    ]  # fmt: skip


def test_defaults_that_look_at_the_object():
    """A field that was not there when the object was written has its default."""

    @attrs.frozen
    class Scaled:
        base: int
        double: int = attrs.field(default=attrs.Factory(lambda self: self.base * 2, True))
        items: Mapping[str, str] = attrs.field(factory=dict)

    assert json_codec(Scaled).decode(b'{"base":4}') == Scaled(4, 8)


def test_fields_left_out_of_comparison_and_equal_values():
    """``eq=False``, True where 1 is the default, -0.0 for 0.0: all are stored."""

    @attrs.frozen
    class Loose:
        note: str = attrs.field(default="", eq=False)
        number: int | bool = 1
        amount: int | float = 0

    for obj in (Loose("x"), Loose("", True), Loose("", 1, -0.0), Loose("", 1, 0.0)):
        found = again(obj)
        assert repr(found) == repr(obj)


def test_classes_defined_in_functions():
    """Names are looked up in the function that defines the classes, while it runs."""

    @attrs.frozen
    class Inner:
        n: int

    @attrs.frozen
    class Outer:
        inner: Inner | None = None
        outer: Outer | None = None
        many: tuple[Inner, ...] = ()

    obj = Outer(Inner(1), Outer(), (Inner(2),))
    assert again(obj) == obj


def make_unresolvable() -> Any:
    """A class whose annotation names what is gone when the function has returned."""

    @attrs.frozen
    class Gone:
        n: int

    @attrs.frozen
    class Uses:
        it: Gone

    return Uses, Gone


def test_names_that_cannot_be_looked_up():
    """Refused with what to do; ``attrs.resolve_types`` is one way."""
    uses, gone = make_unresolvable()
    with pytest.raises(UnsupportedType, match="top of its module"):
        json_codec(uses)
    attrs.resolve_types(uses, None, {"Gone": gone})
    assert json_codec(uses)


def test_inheritance():
    """Fields of bases, overridden ones, and undecorated subclasses."""

    @attrs.frozen
    class Base:
        n: int | str

    @attrs.frozen
    class Narrow(Base):
        n: int

    class Bare(Narrow):
        pass

    for obj in (Narrow(1), Bare(2)):
        assert again(obj) == obj
        assert type(again(obj)) is type(obj)
    with pytest.raises(InvalidObject):
        json_codec(Narrow).encode(Narrow("x"))
    with pytest.raises(InvalidObject):
        json_codec(Base).encode(Narrow(1))


def test_generic_bases_with_one_variable():
    """Each base has its own meaning of T."""

    @attrs.frozen
    class First(Generic[T]):
        a: T

    @attrs.frozen
    class Second(First[int], Generic[T]):
        b: T

    @attrs.frozen
    class Third(Second[str]):
        pass

    assert again(Third(1, "x")) == Third(1, "x")
    for bad in (Third("x", "x"), Third(1, 1)):
        with pytest.raises(InvalidObject):
            json_codec(Third).encode(bad)


@attrs.frozen
class Marked:
    fixed: Final[int] = 3
    shared: ClassVar[Final[int]] = 5
    inner: Self | None = None
    many: tuple[Self, ...] = ()


def test_marks_around_annotations():
    """Final, ClassVar and Self, in annotations that are strings."""
    assert again(Marked(1, Marked(2), (Marked(),))) == Marked(1, Marked(2), (Marked(),))
    with pytest.raises(InvalidObject):
        json_codec(Marked).encode(Marked(1, 5))


def test_init_var():
    """What an InitVar was given is not kept: refused."""

    @dataclasses.dataclass
    class Lost:
        n: int
        extra: dataclasses.InitVar[int]

    with pytest.raises(UnsupportedType, match="InitVar"):
        json_codec(Lost)


@attrs.frozen
class AttrsPod:
    metadata: ObjectMeta
    node_name: str = ""
    weights: Mapping[str, int] = attrs.field(factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class DataPod:
    metadata: ObjectMeta
    node_name: str = ""


@dataclasses.dataclass
class OpenPod:
    metadata: ObjectMeta
    node_name: str = ""


class StructPod(msgspec.Struct, frozen=True):
    metadata: ObjectMeta
    node_name: str = ""


class TuplePod(NamedTuple):
    metadata: ObjectMeta
    node_name: str = ""


class ModelPod(pydantic.BaseModel):
    metadata: ObjectMeta
    node_name: str = ""


PODS = [AttrsPod, DataPod, OpenPod, StructPod, TuplePod, ModelPod]


@pytest.mark.parametrize("cls", PODS)
def test_every_library_by_the_same_rules(cls):
    """VER-1: the same JSON, metadata, resource version, selectors, and refusals."""
    obj = cls(metadata=ObjectMeta(name="a", labels={"x": "y"}), node_name="n")
    codec = json_codec(cls)
    data = codec.encode(obj)
    assert b'"metadata":{"labels":{"x":"y"},"name":"a"},"nodeName":"n"' in data
    assert codec.decode(data) == obj
    assert type(codec.decode(data)) is cls
    assert codec.field_value(obj, "nodeName") == "n"
    moved = with_metadata(obj, resource_version="5")
    assert (metadata_value(moved, "resource_version"), metadata_value(obj, "resource_version")) == (
        "5", "",
    )  # fmt: skip
    stamped = APIObjectVersioner().stamp(codec.decode(data), 7)
    assert metadata_value(stamped, "resource_version") == "7"
    assert evolve(obj, node_name="m").node_name == "m"
    with pytest.raises(InvalidObject) as caught:
        codec.encode(evolve(obj, node_name=5))
    assert caught.value.field == "nodeName"


class TypedPod(typing.TypedDict):
    metadata: dict[str, Any]
    count: int


def test_typed_dicts():
    """They are dicts in JSON spelling; keys that they do not name are kept."""
    codec = json_codec(TypedPod)
    obj = {"metadata": {"name": "a"}, "count": 1, "more": [1, {"x": None}]}
    assert codec.decode(codec.encode(obj)) == obj
    assert codec.field_value(obj, "metadata.name") == "a"
    for bad in ({"metadata": {}}, {**obj, "count": "1"}, {**obj, "more": (1,)}):
        with pytest.raises(InvalidObject):
            codec.encode(bad)


def test_models_of_pydantic():
    """Aliases, extras, and validators."""

    class Model(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(extra="allow")
        host_ip: str = pydantic.Field(default="", alias="hostIP")
        size: int = pydantic.Field(default=0, ge=0)

    obj = Model(hostIP="1", size=2, other=[1])
    codec = json_codec(Model)
    assert codec.encode(obj) == b'{"hostIP":"1","other":[1],"size":2}'
    assert codec.decode(codec.encode(obj)) == obj
    with pytest.raises(ValueError, match="greater than or equal"):
        codec.decode(b'{"size":-1}')


class WithProperty:
    """Namespace of the classes below."""

    @attrs.frozen
    class Slots:
        n: int

        @functools.cached_property
        def shared(self) -> list[int]:
            return []

    @attrs.frozen(slots=False)
    class Dict:
        n: int

        @functools.cached_property
        def shared(self) -> list[int]:
            return []


FROZEN = [
    (AttrsPod, True), (DataPod, True), (StructPod, True), (OpenPod, False), (ModelPod, False),
    (TypedPod, False), (WithProperty.Slots, False), (WithProperty.Dict, False), (Any, False),
    (object, False), (dict, False), (T, False), (typing.NewType("N", int), True),
    (typing.NewType("L", list[int]), False), (typing.Annotated[list[int], 1], False),
    (typing.Annotated[int, 1], True), (tuple, False), (tuple[int, ...], True),
    (frozenset[int], True), (Mapping[str, list[int]], False), (Mapping[str, int], True),
    (typing.Final[int], True), (int | list[int], False), (TuplePod, True), (bytes, True),
    (bytearray, False),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "expected"), FROZEN)
def test_what_is_frozen(kind, expected):
    """Only what nobody can change is shared."""
    assert is_frozen(kind) is expected


def test_labels_cannot_be_changed():
    """Those that were given, and those that were read."""
    given = {"a": "b"}
    meta = ObjectMeta(labels=given, annotations=given)
    for labels in (
        meta.labels,
        meta.annotations,
        with_metadata(AttrsPod(meta), labels={"x": "y"}).metadata.labels,
    ):
        with pytest.raises(TypeError, match="shared"):
            labels["owner"] = "me"
    given["c"] = "d"
    assert meta.labels == {"a": "b"}


def test_evolving_keeps_all_other_fields():
    """GU-1: no converter, no ``init=False`` field, no cached value comes in between."""

    @attrs.define(slots=False)
    class Thing:
        metadata: ObjectMeta
        n: int = attrs.field(converter=lambda value: value + 1, default=0)
        late: int = attrs.field(init=False, default=0)

        @functools.cached_property
        def title(self) -> str:
            return f"<{self.metadata.name}>"

    thing = Thing(ObjectMeta(name="a"))
    thing.late = 5
    assert thing.title == "<a>"
    other = with_metadata(thing, name="b")
    assert (other.n, other.late, other.title) == (1, 5, "<b>")


@attrs.frozen
class _Part:
    size: Any = 1


class _Colour(enum.Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("kind", "default"),
    [
        (int, None),
        (int, "3"),
        (_Colour, "red"),
        (tuple[int, ...], []),
        (tuple[int, ...], (1, "2")),
        (Literal["a"], "b"),
        (float, float("nan")),
        (str, "\ud800"),
        (_Part, None),
        (_Part, _Part({1})),
    ],
)
def test_a_default_that_does_not_fit_is_refused_at_opening(kind: Any, default: Any) -> None:
    """Every object that leaves the field out would be refused when it is written."""
    made: list[Any] = [attrs.make_class("Thing", {"x": attrs.field(type=kind, default=default)})]
    if not isinstance(default, list):  # the others take a list for a factory, or refuse it
        made.append(dataclasses.make_dataclass("Thing", [("x", kind, default)]))
        made.append(msgspec.defstruct("Thing", [("x", kind, default)]))
    for cls in made:
        with pytest.raises(UnsupportedType, match=r"invalid Thing\.x.*: expected a default"):
            json_codec(cls)


def test_defaults_that_fit_are_taken() -> None:
    """Instances, ints of float fields and what a converter or ``__attrs_post_init__`` makes fit."""

    @attrs.define
    class Thing:
        part: _Part = _Part(2)
        ratio: float = 1
        size: int = attrs.field(default="3", converter=int)

    @attrs.define
    class Filled:
        size: int = None  # type: ignore[assignment]

        def __attrs_post_init__(self) -> None:
            self.size = self.size or 5

    for obj in (Thing(), Filled()):
        codec = json_codec(type(obj))
        assert codec.decode(codec.encode(obj)) == obj


def test_dataclasses_of_pydantic():
    """Their fields have the defaults and the aliases that pydantic's own Field gives them."""
    options = pydantic.ConfigDict(populate_by_name=True)

    @pydantic.dataclasses.dataclass(config=options)
    class Sized:
        metadata: ObjectMeta
        size: int = pydantic.Field(default=1, ge=0)
        items: list[int] = pydantic.Field(default_factory=lambda: [7])
        host_ip: str = pydantic.Field(default="", alias="hostIP")
        needed: int = pydantic.Field(kw_only=True)

    codec = json_codec(Sized)
    given = Sized(metadata=ObjectMeta(name="a"), host_ip="::1", needed=3)
    data = codec.encode(given)
    assert json.loads(data) == {
        "metadata": {"name": "a"},
        "size": 1,
        "items": [7],
        "hostIP": "::1",
        "needed": 3,
    }
    assert codec.decode(data) == given
    older = codec.decode(b'{"metadata":{"name":"a"},"needed":3}')
    assert (older.size, older.items, older.host_ip) == (1, [7], "")
    with pytest.raises(ValueError, match="needed"):
        codec.decode(b'{"metadata":{"name":"a"}}')

    @pydantic.dataclasses.dataclass(config=pydantic.ConfigDict(extra="allow"))
    class Growing:
        metadata: ObjectMeta

    with pytest.raises(UnsupportedType, match=r"Growing.*extra"):
        json_codec(Growing)
