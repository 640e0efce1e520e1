"""What each annotation accepts, how its values stand in JSON, and what is refused."""

from __future__ import annotations

import collections
import collections.abc
import dataclasses
import datetime as dt
import decimal
import enum
import re
import typing
import uuid
from collections.abc import Mapping
from typing import Annotated, Any, Final, Generic, Literal, NamedTuple, NewType, TypeVar

import attrs
import msgspec
import pytest

from revstore.codec import FrozenDict, JsonName, json_codec
from revstore.errors import InvalidObject, UnsupportedType
from revstore.objects import ObjectMeta

UTC = dt.UTC
EAST = dt.timezone(dt.timedelta(hours=5, minutes=30))


class Color(enum.StrEnum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Bits(enum.IntFlag):
    A = 1
    B = 2


class Access(enum.Flag):
    R = enum.auto()
    W = enum.auto()


class Old(str, enum.Enum):  # noqa: UP042 - what people have
    X = "x"
    Y = "y"


class Mixed(enum.Enum):
    ONE = 1
    TRUE = "true"
    NONE = None


@attrs.frozen
class Leaf:
    n: int
    text: str = "t"


@attrs.frozen
class SubLeaf(Leaf):
    more: int = 0


@attrs.frozen
class Other:
    name: str


class Point(NamedTuple):
    x: int
    long_name: str = ""


class Opts(typing.TypedDict):
    a_b: int
    c: typing.NotRequired[list[str]]


T = TypeVar("T")
UserId = NewType("UserId", int)


@attrs.frozen
class Box(Generic[T]):
    content: T
    many: tuple[T, ...] = ()


@attrs.frozen
class IntBox(Box[int]):
    pass


@attrs.frozen
class Node:
    value: int
    next: Node | None = None
    children: tuple[Node, ...] = ()


@dataclasses.dataclass(frozen=True)
class Tcp:
    type: Literal["tcp"] = "tcp"
    port: int = 0


@dataclasses.dataclass(frozen=True)
class Udp:
    type: Literal["udp"] = "udp"
    port: int = 0


class Cat(msgspec.Struct, tag="cat", frozen=True):
    lives: int = 9


class Dog(msgspec.Struct, tag="dog", frozen=True):
    lives: int = 1


def holder(annotation: Any, **options: Any) -> Any:
    """A class with one field."""
    return attrs.make_class("Holder", {"it": attrs.field(type=annotation, **options)}, frozen=True)


def exactly(left: Any, right: Any) -> bool:
    """Whether both are equal in value and in type, all the way down."""
    if isinstance(left, FrozenDict) or isinstance(right, FrozenDict):
        left, right = dict(left), dict(right)
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(
            exactly(sorted(left, key=repr), sorted(right, key=repr)) and exactly(left[k], right[k])
            for k in left
        )
    if isinstance(left, (list, tuple, collections.deque)):
        return len(left) == len(right) and all(map(exactly, left, right))
    if isinstance(left, (set, frozenset)):
        return exactly(sorted(left, key=repr), sorted(right, key=repr))
    if isinstance(left, dt.datetime):
        return left == right and left.isoformat() == right.isoformat()
    if attrs.has(type(left)):
        names = [field.name for field in attrs.fields(type(left))]
        return all(exactly(getattr(left, n), getattr(right, n)) for n in names)
    return bool(left == right) and repr(left) == repr(right)


def there_and_back(annotation: Any, value: Any) -> Any:
    """What comes back."""
    cls = holder(annotation)
    codec = json_codec(cls)
    return codec.decode(codec.encode(cls(value))).it


ACCEPTED = [
    (int, 10**40), (int, -(2**63) - 1), (float, -0.0), (float, 5e-324), (float, 1.7e308),
    (bool, True), (type(None), None), (str, "\0x\u2028\U0001f600"),
    (bytes, b"\0\xff"), (bytes, b""),
    (dt.datetime, dt.datetime(2026, 1, 1, 0, 0, 0, 1)),
    (dt.datetime, dt.datetime(2026, 1, 1, tzinfo=UTC)),
    (dt.datetime, dt.datetime(1, 1, 1, tzinfo=EAST)),
    (dt.date, dt.date(1, 1, 1)), (dt.time, dt.time(1, 2, 3, 4, tzinfo=EAST)),
    (dt.timedelta, dt.timedelta(days=-3, microseconds=1)), (dt.timedelta, dt.timedelta.max),
    (decimal.Decimal, decimal.Decimal("-1.00")), (decimal.Decimal, decimal.Decimal("1E+999")),
    (uuid.UUID, uuid.UUID(int=5)),
    (Color, Color.RED), (Level, Level.HIGH), (Bits, Bits.A | Bits.B), (Bits, Bits(0)),
    (Access, Access.R | Access.W), (Old, Old.X), (Mixed, Mixed.NONE), (Mixed, Mixed.ONE),
    (Color | None, Color.BLUE), (Color | Level, Level.LOW), (Color | Level, Color.RED),
    (tuple[Color, ...], (Color.RED,)), (dict[Color, int], {Color.RED: 1}),
    (dict[Level, Level], {Level.LOW: Level.HIGH}), (dict[bool, str], {True: "a", False: "b"}),
    (dict[int, str], {-1: "a", 10**30: "b"}), (dict[uuid.UUID, int], {uuid.UUID(int=1): 1}),
    (dict[Old, None], {Old.X: None}), (Mapping[str, str], {"b": "1", "a": "2"}),
    (Mapping[str, Leaf], {"a": Leaf(1)}), (dict[str, dict[str, list[int]]], {"a": {"b": [1]}}),
    (int | float, 1), (int | float, 1.0), (float | None, 1.5), (int | str | None, "1"),
    (bool | int, True), (bool | int, 1),
    (Literal[1, True, "a", None], True),  # noqa: PYI061
    (Literal[1, True, "a", None], 1),  # noqa: PYI061
    (Literal["a", Level.LOW], Level.LOW), (Literal["a"] | int, "a"),
    (Literal["a"] | str, "b"),  # noqa: PYI051
    (tuple[()], ()), (tuple[int, str], (1, "a")), (tuple[int, ...], (1, 2)), (tuple, (1, "a")),
    (list, [1, [None]]), (list[int | None], [1, None]), (set[str], {"b", "a"}),
    (frozenset[int], frozenset([3, 1])), (set[int | str], {1, "a"}),
    (collections.deque[int], collections.deque([1, 2])), (collections.abc.Sequence[int], (1,)),
    (collections.abc.MutableSequence[int], [1]), (typing.List[int], [1]),  # noqa: UP006
    (typing.Dict[str, int], {"a": 1}), (typing.Optional[int], None),  # noqa: UP006, UP045
    (Any, {"a": [1, 1.0, True, None, "x"]}), (object, [0.0, -0.0]), (dict[str, Any], {"a": {}}),
    (Leaf, Leaf(1)), (Leaf | None, None), (Leaf | Other, Leaf(1)), (Leaf | Other, Other("x")),
    (tuple[Leaf | Other, ...], (Leaf(1), Other("y"))), (dict[str, Leaf | None], {"a": None}),
    (Tcp | Udp, Udp()), (Tcp | Udp, Tcp(port=1)), (Cat | Dog, Dog()), (Cat | None, Cat(3)),
    (Point, Point(1, "b")), (Opts, {"a_b": 1}), (Opts, {"a_b": 1, "c": ["x"]}),
    (Box[int], Box(1, (2,))), (Box[Box[str]], Box(Box("a"))), (IntBox, IntBox(1)),
    (Node, Node(1, Node(2), (Node(3),))), (UserId, 5), (Annotated[int, "x"], 5),
    (Final[int], 5), (typing.LiteralString, "a"), (Leaf | str | int | list[int], [1]),
    (frozenset[tuple[int, str]], frozenset([(1, "a"), (0, "b")])),
]  # fmt: skip


@pytest.mark.parametrize(("annotation", "value"), ACCEPTED)
def test_what_is_accepted_comes_back(annotation, value):
    """GET-5: equal in value and in type; only a ``Mapping`` comes back as a FrozenDict."""
    found = there_and_back(annotation, value)
    assert exactly(found, value), found


MISFITS = [
    (int, "3"), (int, None), (int, True), (int, 1.0), (int, Level.LOW), (str, Color.RED),
    (str, b"x"), (str, "\ud800"), (bool, 1), (float, "1"), (float, True), (float, float("nan")),
    (float, float("inf")), (float, 2**53 + 1), (float, 10**400), (bytes, "x"),
    (bytes, bytearray(b"x")), (dt.datetime, dt.date(2026, 1, 1)),
    (dt.date, dt.datetime(2026, 1, 1)), (dt.datetime, "2026-01-01T00:00:00Z"),
    (decimal.Decimal, decimal.Decimal("NaN")), (decimal.Decimal, 1.0), (uuid.UUID, "x"),
    (Color, "red"), (Color, "Nonsense"), (Level, 1), (Old, "x"), (Color | None, "red"),
    (Literal["a", "b"], "c"), (Literal[1], True), (Literal[1], 1.0), (Literal["a"], ["a"]),
    (tuple[int, ...], 5), (tuple[int, ...], [1]), (tuple[int, str], (1,)), (tuple[()], (1,)),
    (list[int], (1,)), (list[int], ["1"]), (set[int], [1]), (frozenset[int], {1}),
    (collections.deque[int], collections.deque([1], maxlen=3)), (Mapping[str, str], {"a": 1}),
    (Mapping[str, str], {1: "a"}), (Mapping[str, str], [("a", "b")]),
    (dict[str, int], collections.OrderedDict(a=1)), (dict[Color, int], {"red": 1}),
    (dict[int, int], {True: 1}), (Any, (1,)), (Any, {1: 2}), (Any, {"a": {"b": {1}}}),
    (Any, b"x"), (Any, Color.RED), (object, dt.date(2026, 1, 1)), (Any, float("nan")),
    (Leaf, SubLeaf(1)), (Leaf, None), (Leaf, {"n": 1}), (Leaf | None, Other("x")),
    (tuple[Leaf, ...], (Leaf(1), SubLeaf(2))), (Point, (1, "b")), (Opts, {"a_b": "1"}),
    (Opts, {}), (Box[int], Box("a")), (type(None), 0), (int | float, "1"), (int | str, 1.0),
    (dt.datetime, dt.datetime(2026, 1, 1, fold=1, tzinfo=UTC)), (Leaf, Leaf("x")),
    (list[list[int]], [[1], ["x"]]),
]  # fmt: skip


@pytest.mark.parametrize(("annotation", "value"), MISFITS)
def test_what_does_not_fit_is_refused(annotation, value):
    """CREATE: by InvalidObject, which names the field."""
    cls = holder(annotation)
    with pytest.raises(InvalidObject) as caught:
        json_codec(cls).encode(cls(value))
    assert caught.value.field.startswith("it")


REFUSED = [
    bytes | str, dt.datetime | str, dt.date | dt.datetime, Color | str, Color | Old | str,
    uuid.UUID | str, list[int] | tuple[int, ...], list[int] | list[str], Leaf | dict[str, int],
    Leaf | Node | SubLeaf, Box[int] | Box[str], Literal["red", Color.RED], Literal[b"x"],
    collections.defaultdict[str, int], collections.OrderedDict[str, int], complex, bytearray,
    collections.Counter[str], collections.abc.Iterable[int], Box, T, type, range,
    dict[float, int], dict[int | str, int], dict[tuple[int, int], int], dict[None, int],
    Level | int, typing.Callable[[], int], None | re.Pattern,
    enum.Enum("Odd", {"A": (1, 2)}), type("MyStr", (str,), {}), float | Level | Bits,
]  # fmt: skip


@pytest.mark.parametrize("annotation", REFUSED)
def test_what_cannot_be_carried_is_refused_at_opening(annotation):
    """KEY-8: one error, which names the field and says what to do."""
    with pytest.raises(UnsupportedType) as caught:
        json_codec(holder(annotation))
    assert caught.value.field.startswith("Holder.it")
    assert caught.value.expected


def test_names_that_collide():
    """Two fields with one name in JSON would lose one."""
    for names in (("x_2", "x2"), ("foo_bar", "fooBar"), ("_foo", "foo")):
        fields = {name: attrs.field(type=int, alias=f"a{at}") for at, name in enumerate(names)}
        cls = attrs.make_class("Pair", fields)
        with pytest.raises(UnsupportedType, match="unique name in JSON"):
            json_codec(cls)


def test_names_of_ones_own():
    """A field may say what it is called in JSON, in each library's way."""

    @attrs.frozen
    class A:
        host_ip: str = attrs.field(metadata={"json": "hostIP"})

    @dataclasses.dataclass
    class B:
        host_ip: str = dataclasses.field(metadata={"json": "hostIP"})

    class C(msgspec.Struct):
        host_ip: str = msgspec.field(name="hostIP")

    class D(NamedTuple):
        host_ip: Annotated[str, JsonName("hostIP")]

    class E(msgspec.Struct, rename={"host_ip": "hostIP"}):
        host_ip: str

    for cls in (A, B, C, E):
        codec = json_codec(cls)
        assert codec.encode(cls("x")) == b'{"hostIP":"x"}'
        assert codec.decode(b'{"hostIP":"x"}') == cls("x")
        assert codec.field_value(cls("x"), "hostIP") == "x"
    holds = holder(D)
    assert json_codec(holds).encode(holds(D("x"))) == b'{"it":{"hostIP":"x"}}'


def test_an_int_in_a_float_field_is_a_float():
    """GU-3: so that the second apply is no write."""
    cls = holder(float)
    assert json_codec(cls).encode(cls(3)) == json_codec(cls).encode(cls(3.0)) == b'{"it":3.0}'


def test_metadata_has_a_resource_version():
    """GU-7: a dict as metadata would have no optimistic lock."""
    for annotation in (dict, dict[str, Any], Mapping[str, str], Any, Leaf, str):
        cls = attrs.make_class("Thing", {"metadata": attrs.field(type=annotation)})
        with pytest.raises(UnsupportedType, match="ObjectMeta"):
            json_codec(cls)
    assert json_codec(attrs.make_class("Thing", {"metadata": attrs.field(type=ObjectMeta)}))


def test_numbers_beyond_what_python_writes():
    """CREATE: an int of 5,000 digits, wherever it stands."""
    big = 10**5000
    for annotation, value in (
        (int, big), (tuple[int, ...], (1, big)), (dict[int, str], {big: ""}), (Any, [{"a": big}]),
    ):  # fmt: skip
        cls = holder(annotation)
        with pytest.raises(InvalidObject) as caught:
            json_codec(cls).encode(cls(value))
        assert caught.value.field.startswith("it")
        assert len(str(caught.value)) < 1000
