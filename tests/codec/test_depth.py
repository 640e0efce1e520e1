"""Types whose values cannot be nested too deeply, which are encoded without a look for it."""

from __future__ import annotations

from typing import Any, Union

import attrs
import pydantic
import pytest

from revstore.codec import TypedCodec
from revstore.errors import InvalidObject
from revstore.nesting import MAX_DEPTH
from revstore.objects import ObjectMeta

EMPTY = ObjectMeta()


@attrs.frozen
class Chain:
    """One that contains itself."""

    next: Union[Chain, None] = None  # noqa: UP007 - a string and None have no "|"


class Open(pydantic.BaseModel, extra="allow"):
    """One with fields of its objects' own."""

    metadata: ObjectMeta = EMPTY


@attrs.frozen
class Holder:
    metadata: ObjectMeta = EMPTY
    spec: Chain | None = None
    status: Any = None


def nested(levels: int) -> Any:
    """Lists in lists."""
    value: Any = "x"
    for _ in range(levels):
        value = [value]
    return value


def chain(levels: int) -> Chain:
    value = Chain()
    for _ in range(levels - 1):
        value = Chain(value)
    return value


def of_levels(levels: int) -> tuple[type[Any], Any]:
    """A class whose objects have that many levels, and one of them."""
    annotation: Any = str
    value: Any = "x"
    for _ in range(levels - 1):
        annotation, value = tuple[annotation, ...], (value,)
    cls = attrs.make_class(
        "Deep",
        {
            "metadata": attrs.field(default=EMPTY, type=ObjectMeta),
            "spec": attrs.field(default=(), type=annotation),
        },
        frozen=True,
    )
    return cls, cls(spec=value)


@pytest.mark.parametrize("levels", [2, MAX_DEPTH - 1, MAX_DEPTH, MAX_DEPTH + 1, MAX_DEPTH + 20])
def test_values_of_every_kind_have_one_limit(levels):
    """A type with a fixed depth, one that contains itself, one that takes anything, and one with
    fields of its objects' own."""
    cls, obj = of_levels(levels)
    values = (
        (cls, obj),
        (Holder, Holder(spec=chain(levels - 1))),
        (Holder, Holder(status=nested(levels - 1))),
        (Open, Open(more=nested(levels - 1))),
    )
    for each, value in values:
        codec = TypedCodec(each)
        if levels <= MAX_DEPTH:
            assert codec.decode(codec.encode(value)) == value
        else:
            with pytest.raises(InvalidObject, match=f"at most {MAX_DEPTH} levels of nesting"):
                codec.encode(value)
