"""Classes and values that try to be stored as something else."""

from __future__ import annotations

import abc
import copy
import dataclasses
import datetime as dt
import enum
import os
import threading
import typing
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypedDict, TypeVar

import attrs
import msgspec
import pydantic
import pytest
import typing_extensions as te

from revstore import ObjectMeta, open_registry
from revstore.codec import JsonName, json_codec
from revstore.errors import InvalidObject, UnsupportedType
from revstore.factory import StorageFactory

T = TypeVar("T")
Either: Any = typing.Union  # as it comes of aliases that are joined


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class ByRed(TypedDict):
    color: Literal[Color.RED]


class ByBlue(TypedDict):
    color: Literal[Color.BLUE]


class Point(NamedTuple):
    x: int


class Marked(Point):
    __slots__ = ()


@attrs.frozen
class Tagged(Generic[T]):
    tag: T


@attrs.frozen
class Deeper(Generic[T]):
    value: T
    rest: Deeper[list[T]] | None = None


def holder(annotation: Any) -> Any:
    """A class with metadata and one field."""
    made = attrs.make_class(
        "Holder",
        {"metadata": attrs.field(type=ObjectMeta), "it": attrs.field(type=annotation)},
    )
    made.__module__ = __name__
    return made


def comes_back(obj: Any, *, cached: bool) -> Any:
    """What is read of ``obj``, after every way to write it again has changed nothing."""
    with open_registry("memory://", type(obj), resource="things", cached=cached) as things:
        created = things.create(obj)
        assert things.apply(obj).outcome == "unchanged"
        assert things.update(things.get("a")) == created
        assert things.guaranteed_update("a", lambda current, _: current) == created
        (listed,) = things.list()
        assert listed == created
        assert json_codec(type(obj)).encode(listed) == json_codec(type(obj)).encode(created)
        return listed


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Either[Literal["a"], Literal["b"]], "a"),
        (Either[Literal["a"], None, Literal[2]], "a"),
        (Either[Literal[Color.RED], Literal[Color.BLUE]], Color.RED),
        (Any | None, [1, None]),
        (object | int | None, {"a": True}),
        (ByRed | ByBlue, {"color": Color.BLUE}),
        (Marked, Marked(1)),
    ],
)
def test_what_the_annotation_allows(annotation, value, cached):
    """CREATE-1: every member of a union, of a Literal and of an inherited tuple is taken."""
    found = comes_back(holder(annotation)(ObjectMeta(name="a"), value), cached=cached)
    assert found.it == value
    assert type(found.it) is type(value)


@pytest.mark.parametrize(
    "value",
    [
        dt.datetime(2026, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=1), "CET")),
        dt.datetime(2026, 1, 1, tzinfo=dt.timezone(dt.timedelta(0), "GMT")),
        dt.datetime(2026, 1, 1, tzinfo=dt.timezone(dt.timedelta(microseconds=1))),
        dt.time(1, tzinfo=dt.timezone(dt.timedelta(hours=1), "CET")),
    ],
)
def test_zones_that_would_come_back_as_others(value):
    """CREATE-1: by their name, or as Python reads an offset below a second."""
    cls = holder(type(value))
    with open_registry("memory://", cls, resource="things") as things:
        with pytest.raises(InvalidObject, match="offset"):
            things.create(cls(ObjectMeta(name="a"), value))
        assert things.list().items == ()


@pytest.mark.parametrize(
    ("annotation", "field"),
    [
        (Annotated[int, JsonName(5)], "Holder.it"),  # type: ignore[arg-type]
        (Annotated[int, JsonName("")], "Holder.it"),
        (Annotated[int, JsonName("\ud800")], "Holder.it"),
        (Tagged[Literal["a"]] | Tagged[Literal["b"]], "Holder.it"),
        (Deeper[int], "object_type"),
        (pydantic.BaseModel, "BaseModel"),
    ],
)
def test_annotations_that_no_value_fits(annotation, field):
    """KEY-8: refused when the registry is opened, by the field."""
    with pytest.raises(UnsupportedType) as caught:
        open_registry("memory://", holder(annotation), resource="things")
    assert caught.value.field == field


@pytest.mark.parametrize("kind", [[], {}, 5, "x", None, Annotated[Point, []]])
def test_what_is_no_class(kind):
    """KEY-8: whatever is given for a class."""
    for call in (json_codec, lambda it: open_registry("memory://", it, resource="things")):
        with pytest.raises(UnsupportedType):
            call(kind)


@pytest.mark.parametrize("base", [list, dict, str, Exception, abc.ABC])
def test_fields_of_classes_that_cannot_be_rebuilt(base):
    """KEY-8: an object of a class is more than its fields if a base has a content of its own, and
    an abstract class has no objects."""
    marks = {"__abstractmethods__": frozenset({"run"})} if base is abc.ABC else {}
    made = dataclasses.make_dataclass("Odd", [("n", int, 0)], bases=(base,))
    for name, value in marks.items():
        setattr(made, name, value)
    with pytest.raises(UnsupportedType, match=r"object\.__new__") as caught:
        open_registry("memory://", holder(made), resource="things")
    assert caught.value.field == "Holder.it"


def test_metadata_under_another_name_or_that_cannot_be_stamped():
    """KEY-8: every reader finds the resource version in one place."""

    class Tuple(NamedTuple):
        name: str = ""
        resource_version: str = ""

    @attrs.frozen
    class Number:
        name: str = ""
        resource_version: int = 0

    class Dict(TypedDict):
        metadata: ObjectMeta

    class Struct(msgspec.Struct, rename="pascal"):
        metadata: ObjectMeta

    renamed = attrs.make_class(
        "Renamed", {"metadata": attrs.field(type=ObjectMeta, metadata={"json": "meta"})}
    )
    with_meta = [attrs.make_class("Meta", {"metadata": attrs.field(type=kind)})
                 for kind in (Tuple, Number)]  # fmt: skip
    for kind in (renamed, Struct, Dict, *with_meta):
        with pytest.raises(UnsupportedType, match="metadata"):
            open_registry("memory://", kind, resource="things")


def test_a_subclass_without_its_decorator():
    """KEY-8: its annotations are no fields, and what they hold would be lost."""

    @dataclasses.dataclass
    class Data:
        metadata: ObjectMeta

    @attrs.define
    class Attrs:
        metadata: ObjectMeta

    for base in (Data, Attrs):
        forgotten = type("Forgotten", (base,), {"__annotations__": {"size": int}})
        with pytest.raises(UnsupportedType) as caught:
            open_registry("memory://", forgotten)
        assert caught.value.field == "Forgotten.size"
        plain: Any = type("Plain", (base,), {})
        assert type(comes_back(plain(ObjectMeta(name="a")), cached=False)) is plain


@attrs.define
class GrowingAttrs:
    metadata: ObjectMeta
    items: list[Any]

    def __attrs_post_init__(self) -> None:
        self.items.append({"more": len(self.items)})


@dataclasses.dataclass
class GrowingData:
    metadata: ObjectMeta
    items: list[int]

    def __post_init__(self) -> None:
        self.items.append(1)
        self.lock = threading.Lock()


class GrowingStruct(msgspec.Struct):
    metadata: ObjectMeta
    items: list[int]

    def __post_init__(self) -> None:
        self.items.append(1)


class GrowingModel(pydantic.BaseModel):
    metadata: ObjectMeta
    items: list[int]

    def model_post_init(self, _: Any) -> None:
        self.items.append(1)


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("cls", [GrowingAttrs, GrowingData, GrowingStruct, GrowingModel])
def test_a_post_init_that_changes_in_place(cls, cached):
    """GU-3: it runs with every read, and what it does to the values is undone each time."""
    obj = cls(metadata=ObjectMeta(name="a"), items=[5])
    assert comes_back(obj, cached=cached).items == obj.items


def grow(obj: Any) -> None:
    object.__setattr__(obj, "size", obj.size + 1)


@attrs.define(on_setattr=[])
class AppendingAttrs:
    metadata: ObjectMeta
    items: list[Any] = attrs.field(
        validator=[attrs.validators.instance_of(list), lambda _o, _f, items: items.append(1)]
    )
    size: int = attrs.field(default=3, validator=lambda obj, _f, _v: grow(obj))


class AppendingModel(pydantic.BaseModel):
    metadata: ObjectMeta
    items: Any
    size: int = 3

    @pydantic.field_validator("items")
    @classmethod
    def append(cls, items: Any) -> Any:
        items.append(1)
        return items


class Items(pydantic.BaseModel):
    items: list[int]


class ReachingModel(pydantic.BaseModel):
    metadata: ObjectMeta
    items: Items
    size: int = 3

    @pydantic.model_validator(mode="after")
    def append(self) -> Any:
        self.items.items.append(1)
        self.size += 1
        return self


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize(
    ("cls", "items"),
    [(AppendingAttrs, [5]), (AppendingModel, [5]), (ReachingModel, Items(items=[5]))],
)
def test_validators_that_change_what_they_see(cls, items, cached):
    """CREATE-1: they run with every read, and what they change is set back; those of attrs see what
    will be read, not the caller's object, before it is written."""
    obj = cls(metadata=ObjectMeta(name="a"), items=items)
    obj.size = 3  # the constructor has run them
    before = copy.deepcopy((obj.items, obj.size))
    found = comes_back(obj, cached=cached)
    assert (found.items, found.size) == (obj.items, obj.size) == before


@attrs.define
class Picky:
    metadata: ObjectMeta
    size: int = attrs.field(default=1)

    @size.validator
    def check(self, _: Any, size: int) -> None:
        if size > 5:
            raise ValueError("too\nlarge")


@dataclasses.dataclass
class PickyData:
    metadata: ObjectMeta
    size: int = 1

    def __post_init__(self) -> None:
        if self.size > 5:
            raise ValueError("too\nlarge")


class PickyStruct(msgspec.Struct):
    metadata: ObjectMeta
    size: int = 1

    def __post_init__(self) -> None:
        if self.size > 5:
            raise ValueError("too\nlarge")


class PickyInner(pydantic.BaseModel):
    size: int = pydantic.Field(default=1, le=5)


class PickyModel(pydantic.BaseModel):
    metadata: ObjectMeta
    items: list[PickyInner] = []


@pytest.mark.parametrize("cls", [Picky, PickyData, PickyStruct, PickyModel])
def test_what_the_code_of_a_class_refuses_is_told_in_one_line(cls):
    """CREATE-1: nothing is written; the line names the class, and the field if it is known."""
    obj = cls(metadata=ObjectMeta(name="a"))
    if cls is PickyModel:
        obj.items.append(PickyInner.model_construct(size=9))
    else:
        object.__setattr__(obj, "size", 9) if cls is Picky else setattr(obj, "size", 9)
    with open_registry("memory://", cls, resource="things") as things:
        with pytest.raises(InvalidObject, match="Picky") as caught:
            things.create(obj)
        assert things.list().items == ()
    assert "\n" not in str(caught.value)
    assert caught.value.field == ("items[0].size" if cls is PickyModel else "object")


def test_extras_are_selected_as_in_a_dict():
    """One selector has one answer, typed or not, cached or not."""
    with StorageFactory("memory://") as factory:
        typed = factory.registry("things", Model)
        cached = factory.registry("things", Model, cached=True)
        plain = factory.registry("things")
        typed.create(Model(metadata=ObjectMeta(name="a"), x="1", z={"y": True}))  # type: ignore[call-arg]
        for selector, count in (("x=1", 1), ("x=2", 0), ("z.y=true", 1), ("w=", 1), ("x!=1", 0)):
            for registry in (typed, cached, plain):
                assert len(registry.list(field_selector=selector).items) == count, selector


@pytest.mark.parametrize("annotation", [[int], {"a": int}, {int}, list[[int]], dict[str, {}]])  # type: ignore[valid-type,misc]
def test_values_in_the_place_of_types(annotation):
    """CREATE-1: as beginners write them."""
    with pytest.raises(UnsupportedType, match=r"Holder.it.*such as list\[int\]"):
        json_codec(holder(annotation))


def test_moments_that_pydantic_has_read():
    """CREATE-1: its fixed offsets are offsets, and come back as the standard library's."""

    class Since(pydantic.BaseModel):
        metadata: ObjectMeta
        since: dt.datetime

    for text in ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00.5-02:30"):
        obj = Since(metadata=ObjectMeta(name="a"), since=text)  # type: ignore[arg-type]
        since = comes_back(obj, cached=True).since
        assert (since, since.utcoffset()) == (obj.since, obj.since.utcoffset())
        assert type(since.tzinfo) is dt.timezone


class ReadOnlyDict(te.TypedDict):
    name: te.ReadOnly[str]
    size: te.NotRequired[te.ReadOnly[int]]
    color: te.ReadOnly[te.NotRequired[Color]]


class ClosedDict(te.TypedDict, closed=True):
    name: str


class BoxDict(te.TypedDict, Generic[T]):
    name: T


class MoreDict(te.TypedDict, extra_items=int):
    name: str


def test_typed_dicts_of_typing_extensions():
    """CREATE-1: they are as those of typing; a closed one has no further keys."""
    name = {"name": "x"}
    for annotation, good, bad in (
        (
            ReadOnlyDict,
            [name, {**name, "color": Color.RED, "more": [1]}],
            [{}, {**name, "size": ""}],
        ),
        (ClosedDict, [name], [{}, {**name, "more": 1}]),
        (BoxDict[str], [name], [{"name": 1}]),
    ):
        cls = holder(annotation)
        for value in good:
            assert comes_back(cls(ObjectMeta(name="a"), value), cached=True).it == value
        for value in bad:
            with pytest.raises(InvalidObject, match="it"):
                json_codec(cls).encode(cls(ObjectMeta(name="a"), value))
    codec = json_codec(holder(ClosedDict))
    with pytest.raises(ValueError, match="no field 'more'"):
        codec.decode(b'{"metadata":{},"it":{"name":"x","more":1}}')
    with pytest.raises(UnsupportedType, match="extra_items"):
        json_codec(holder(MoreDict))


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")

    metadata: ObjectMeta
    host_ip: int = 1
    seen: int = pydantic.Field(1, validation_alias=pydantic.AliasChoices("seen", "saw"), gt=0)
    _secret: int = pydantic.PrivateAttr(default=3)


def test_models_with_state_beside_their_fields():
    """CREATE-1: extras under the name of a field, and private attributes, are not dropped."""
    metadata = ObjectMeta(name="a")
    changed = Model(metadata=metadata)
    changed._secret = 4
    spoilt = Model(metadata=metadata)
    spoilt.seen = -1
    wrong = {
        "hostIp": Model(metadata=metadata, hostIp=7),  # type: ignore[call-arg]
        "kind": Model(metadata=metadata, kind="Thing"),  # type: ignore[call-arg]
        "_secret": changed,
        "seen": spoilt,
    }
    with open_registry("memory://", Model, resource="things") as things:
        for field, obj in wrong.items():
            with pytest.raises(InvalidObject) as caught:
                things.create(obj)
            assert caught.value.field == field
        assert things.list().items == ()
    found = comes_back(Model(metadata=metadata, saw=2, kind="Other", z=[1]), cached=True)  # type: ignore[call-arg]
    assert (found.seen, found.model_extra) == (2, {"kind": "Other", "z": [1]})


def test_models_with_names_that_are_none_in_python_and_root_models():
    """CREATE-1: whatever pydantic makes."""
    made: Any = pydantic.create_model(
        "Made", metadata=(ObjectMeta, ...), **{"foo-bar": (int, 1), "class": (int, 2)}
    )
    obj = made(metadata=ObjectMeta(name="a"), **{"foo-bar": 3})
    assert getattr(comes_back(obj, cached=True), "foo-bar") == 3

    root = pydantic.RootModel[list[int]]
    value = root([1, 2])
    assert comes_back(holder(root)(ObjectMeta(name="a"), value), cached=True).it == value


def test_a_property_in_the_place_of_a_field():
    """CREATE-1: one whose setter changes what it is given is found out before the write."""

    @dataclasses.dataclass
    class Doubling:
        metadata: ObjectMeta
        size: int

    Doubling.size = property(  # type: ignore[assignment]
        lambda self: self.__dict__["kept"],
        lambda self, value: self.__dict__.update(kept=value * 2),
    )
    with open_registry("memory://", Doubling) as things:
        with pytest.raises(InvalidObject) as caught:
            things.create(Doubling(ObjectMeta(name="a"), 3))
        assert caught.value.field == "size"
        assert things.create(Doubling(ObjectMeta(name="a"), 0)).size == 0


class Silent:
    """Raises whatever is asked of it."""

    def __repr__(self) -> str:
        raise RuntimeError

    def __hash__(self) -> int:
        raise RuntimeError

    def __eq__(self, other: object) -> bool:
        raise RuntimeError


@pytest.mark.parametrize("annotation", [int, Any, Literal["a"], Literal["a"] | int, Color, str])
def test_values_that_raise(annotation):
    """CREATE-1: the error names the field all the same."""
    cls = holder(annotation)
    with open_registry("memory://", cls, resource="things") as things:
        with pytest.raises(InvalidObject) as caught:
            things.create(cls(ObjectMeta(name="a"), Silent()))
        assert caught.value.field == "it"


def test_errors_can_be_printed():
    """CREATE-1: whatever the keys of the object are."""
    for key in ("\ud800", "a\nb", "\0"):
        with pytest.raises(InvalidObject) as caught:
            json_codec(dict).encode({"a": {key: {"\ud800"}}})
        assert str(caught.value).isprintable()


def test_keys_that_are_one_in_python():
    """GET-4: two entries do not become one unseen."""

    @attrs.frozen
    class Ids:
        ids: dict[dt.datetime, int]

    data = b'{"ids": {"2026-01-01T00:00:00Z": 1, "2026-01-01T01:00:00+01:00": 2}}'
    with pytest.raises(ValueError, match="different values"):
        json_codec(Ids).decode(data)


def test_defaults_are_not_shared():
    """GET-1: an object that lacks a field gets a default of its own."""

    @attrs.define
    class Loose:
        metadata: ObjectMeta = ObjectMeta(name="x")  # noqa: RUF009
        items: list[int] = [1]  # noqa: RUF008

    codec = json_codec(Loose)
    first, second = codec.decode(b"{}"), codec.decode(b"{}")
    first.items.append(2)
    assert second.items == [1]
    assert first.metadata is not second.metadata


def test_a_fork_while_another_thread_opens_a_registry():
    """OPEN-1: a class is looked at under a lock, which the child does not inherit held."""
    inside, go_on = threading.Event(), threading.Event()

    class Slow(type(enum.Enum)):  # type: ignore[misc]
        def __iter__(cls) -> Any:
            if not go_on.is_set():
                inside.set()
                go_on.wait(60)
            return super().__iter__()

    class Phase(enum.Enum, metaclass=Slow):
        ONE = 1

    thread = threading.Thread(target=lambda: json_codec(holder(Phase)))
    thread.start()
    assert inside.wait(60)
    child = os.fork()
    if not child:
        threading.Timer(20, lambda: os._exit(1)).start()  # should it hang
        json_codec(holder(int))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    go_on.set()
    thread.join(60)
    assert os.waitstatus_to_exitcode(status) == 0
