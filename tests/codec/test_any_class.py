"""Classes and values that nobody thought of: whatever opens comes back, whatever does not fit is
refused before anything is written."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar, Union

import attrs
import msgspec
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from revstore.cacher import Cacher, CacherConfig
from revstore.codec import FrozenDict, json_codec
from revstore.errors import InvalidObject, UnsupportedType
from revstore.manifests import parse, to_yaml
from revstore.memory import MemoryBackend
from revstore.objects import ObjectMeta, with_metadata
from revstore.resource_type import ResourceType
from revstore.typed import TypedStorage

KEY = "/things/default/a"

E = TypeVar("E", bound=Exception)


class Color(enum.StrEnum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Bits(enum.IntFlag):
    A = 1
    B = 2
    C = 4


@attrs.frozen
class Leaf:
    n: int
    word: str = ""


@dataclasses.dataclass(frozen=True)
class Tagged:
    amount: float
    type: Literal["tagged"] = "tagged"


class Struct(msgspec.Struct, frozen=True):
    long_name: tuple[int, ...] = ()


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
ZONES = st.sampled_from([None, dt.UTC, dt.timezone(dt.timedelta(minutes=-150))])
MOMENTS = st.datetimes(timezones=st.none()).flatmap(
    lambda moment: ZONES.map(lambda zone: moment.replace(tzinfo=zone, fold=0))
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | FLOATS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
SCALARS: dict[Any, st.SearchStrategy[Any]] = {
    int: st.integers(),
    str: TEXT,
    bool: st.booleans(),
    float: FLOATS,
    bytes: st.binary(max_size=8),
    type(None): st.none(),
    dt.datetime: MOMENTS,
    dt.date: st.dates(),
    dt.timedelta: st.timedeltas(),
    decimal.Decimal: st.decimals(allow_nan=False, allow_infinity=False),
    uuid.UUID: st.uuids(),
    Color: st.sampled_from(Color),
    Level: st.sampled_from(Level),
    Bits: st.integers(0, 7).map(Bits),
    Literal["a", 1, True]: st.sampled_from(["a", 1, True]),
    Leaf: st.builds(Leaf, st.integers(), TEXT),
    Tagged: st.builds(Tagged, FLOATS),
    Struct: st.builds(Struct, st.lists(st.integers(), max_size=2).map(tuple)),
    Any: JSON,
}
KEYS = [str, int, bool, Color, Level, uuid.UUID, dt.date]
HASHABLE = [int, str, bool, float, bytes, Color, Level, dt.datetime, Leaf]

#: An annotation and the values that it has.
Pair = tuple[Any, st.SearchStrategy[Any]]


def widened(inner: st.SearchStrategy[Pair]) -> st.SearchStrategy[Pair]:
    """Containers and unions of what ``inner`` draws."""

    def mapping(keys: Any, pair: Pair, *, frozen: bool) -> Pair:
        kind = Mapping[keys, pair[0]] if frozen else dict[keys, pair[0]]
        return kind, st.dictionaries(SCALARS[keys], pair[1], max_size=2)

    return st.one_of(
        inner.map(lambda p: (tuple[p[0], ...], st.lists(p[1], max_size=3).map(tuple))),
        inner.map(lambda p: (list[p[0]], st.lists(p[1], max_size=3))),
        inner.map(
            lambda p: (collections.deque[p[0]], st.lists(p[1], max_size=2).map(collections.deque))
        ),
        st.tuples(inner, inner).map(
            lambda pair: (tuple[pair[0][0], pair[1][0]], st.tuples(pair[0][1], pair[1][1]))
        ),
        st.builds(mapping, st.sampled_from(KEYS), inner, frozen=st.booleans()),
        st.sampled_from(HASHABLE).map(
            lambda kind: (frozenset[kind], st.frozensets(SCALARS[kind], max_size=3))
        ),
        st.lists(inner, min_size=2, max_size=3).map(
            lambda pairs: (
                _union([pair[0] for pair in pairs]),
                st.one_of(*(pair[1] for pair in pairs)),
            )
        ),
    )


def _union(kinds: list[Any]) -> Any:
    return Union[tuple(kinds)]  # noqa: UP007 - made while the test runs


ANNOTATIONS = st.recursive(
    st.sampled_from(list(SCALARS)).map(lambda kind: (kind, SCALARS[kind])), widened, max_leaves=4
)


def build(library: str, fields: dict[str, Any]) -> Any:
    """A class of these fields, made by a library."""
    every = {"metadata": ObjectMeta, **fields}
    if library == "attrs":
        made = {name: attrs.field(type=kind) for name, kind in every.items()}
        return attrs.make_class("Thing", made, frozen=True)
    if library == "dataclass":
        return dataclasses.make_dataclass("Thing", list(every.items()), frozen=True)
    return msgspec.defstruct("Thing", list(every.items()), frozen=True)


def error_of(kind: type[E], call: Callable[[], object]) -> E | None:
    """The error of this kind that a call raises, None if it raises none."""
    try:
        call()
    except kind as error:
        return error
    return None


@st.composite
def things(draw: st.DrawFn) -> Any:
    """An object of a class made for it."""
    drawn = draw(st.lists(ANNOTATIONS, min_size=1, max_size=4))
    fields = {f"field_{number}x": kind for number, (kind, _) in enumerate(drawn)}
    cls = build(draw(st.sampled_from(["attrs", "dataclass", "msgspec"])), fields)
    refused = error_of(UnsupportedType, lambda: json_codec(cls))
    assert refused is None or refused.field.startswith("Thing.field_")
    assume(refused is None)
    values = [draw(values) for _, values in drawn]
    return cls(ObjectMeta(name="a", namespace="default", labels={"l": "v"}), *values)


def shown(value: Any) -> Any:
    """A value in a form that tells 1 from True and from 1.0, and one zone from another."""
    if isinstance(value, FrozenDict):
        value = dict(value)
    kind = type(value).__name__
    if isinstance(value, dict):
        return kind, sorted(((shown(k), shown(v)) for k, v in value.items()), key=repr)
    if isinstance(value, (list, tuple, collections.deque)):
        return kind, list(map(shown, value))
    if isinstance(value, frozenset):
        return kind, sorted(map(shown, value), key=repr)
    if attrs.has(type(value)) or dataclasses.is_dataclass(value):
        names = type(value).__annotations__ or [f.name for f in attrs.fields(type(value))]
        return kind, [(name, shown(getattr(value, name))) for name in names]
    if isinstance(value, msgspec.Struct):
        return kind, [(name, shown(getattr(value, name))) for name in value.__struct_fields__]
    return kind, repr(value)


def with_floats(value: Any) -> Any:
    """``value`` as it comes back where floats are expected."""
    if isinstance(value, dict):
        return {key: with_floats(each) for key, each in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return type(value)(map(with_floats, value))
    return float(value) if type(value) is int else value


SETTINGS = settings(max_examples=300, deadline=None, suppress_health_check=[*HealthCheck])


def within_64_bits(value: Any) -> bool:
    """Whether all whole numbers are."""
    if isinstance(value, dict):
        return all(map(within_64_bits, value.values()))
    if isinstance(value, list):
        return all(map(within_64_bits, value))
    return not isinstance(value, int) or -(2**63) <= value < 2**64


@SETTINGS
@given(things())
def test_whatever_opens_comes_back(obj):
    """GET-5: typed, through a cache, as a dict, and through YAML."""
    cls = type(obj)
    codec = json_codec(cls)
    data = codec.encode(obj)
    assert shown(codec.decode(data)) == shown(obj)
    assert codec.encode(codec.decode(data)) == data
    plain = json_codec(dict)
    as_dict = plain.decode(data)
    assert plain.encode(as_dict) == data
    if not within_64_bits(as_dict):
        return  # YAML's numbers end there
    manifest = {"apiVersion": "v1", "kind": "Thing", **as_dict}
    (read,) = parse(to_yaml(manifest).encode())
    assert plain.encode(read.object) == plain.encode(manifest)
    assert shown(codec.decode(plain.encode(read.object))) == shown(obj)


@settings(SETTINGS, max_examples=40)
@given(things())
def test_whatever_opens_comes_back_from_storages(obj):
    """GET-5, LIST-5: created, read, listed, raw and cached; the second update is no write."""
    kind = ResourceType(type(obj), "/things")
    with MemoryBackend() as backend:
        storage = TypedStorage(backend, kind)
        created = storage.create(KEY, obj)
        wanted = shown(with_metadata(obj, resource_version=created.metadata.resource_version))
        assert shown(created) == wanted
        assert shown(storage.get(KEY)) == wanted
        with Cacher(CacherConfig(storage=storage, resource_type=kind)) as cache:
            cache.wait_ready(30)
            (listed,) = cache.list("/things").items
            assert shown(listed) == wanted
            cache.guaranteed_update(KEY, lambda *_: listed)
            assert shown(storage.get(KEY)) == wanted


WRONG = st.one_of(
    JSON,
    st.sampled_from(
        [
            float("nan"), "\ud800", 1j, object(), b"x", {1}, (1,), Color.RED, "red", 1, True, 1.0,
            dt.date(2026, 1, 1), Level.LOW, Leaf(1), Leaf("x"), [Leaf(1)], {"a": {1: 2}},
            collections.OrderedDict(a=1), decimal.Decimal("sNaN"), type, {"n": 1, "word": ""},
        ]
    ),
)  # fmt: skip


@SETTINGS
@given(ANNOTATIONS, WRONG)
def test_what_does_not_fit_is_refused_before_it_is_written(pair, value):
    """A value either comes back as it is, or InvalidObject names its field and nothing is
    written."""
    cls = build("attrs", {"it": pair[0]})
    try:
        kind = ResourceType(cls, "/things")
    except UnsupportedType:
        return
    obj = cls(ObjectMeta(name="a"), value)
    with MemoryBackend() as backend:
        storage = TypedStorage(backend, kind)
        error = error_of(InvalidObject, lambda: storage.create(KEY, obj))
        if error is not None:
            assert error.field.startswith("it")
            assert error.key == KEY
            assert backend.count("/").count == 0
            return
        found = storage.get(KEY).it
        assert shown(found) == shown(value) or shown(found) == shown(with_floats(value))


@given(JSON | st.sampled_from([(1,), {1}, b"x", {1: 2}, Color.RED, dt.date(2026, 1, 1), 1j]))
def test_dicts_are_exact_too(value):
    """The same for plain dicts."""
    codec = json_codec(dict)
    obj = {"spec": value}
    error = error_of(InvalidObject, lambda: codec.encode(obj))
    if error is None:
        assert shown(codec.decode(codec.encode(obj))) == shown(obj)
    else:
        assert error.field.startswith("spec")


@pytest.mark.parametrize("text", [f"{{{inner}}}" for inner in ('"it":5', '"it":["x"]', "")])
def test_bytes_of_another_shape_are_corrupt(text):
    """GET-5."""
    cls = attrs.make_class("Thing", {"it": attrs.field(type=tuple[int, ...])})
    with pytest.raises(ValueError, match=r"it|required"):
        json_codec(cls).decode(text.encode())
