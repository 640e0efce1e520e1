"""The options of pydantic's models: each is refused at opening, or what was written is read."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
from typing import Any, Literal, NamedTuple

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from revstore import ObjectMeta, open_registry
from revstore.codec import json_codec
from revstore.errors import InvalidObject, UnsupportedType

pydantic = pytest.importorskip("pydantic")

# json_encoders is deprecated, and used.
pytestmark = pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20")


class Color(enum.Enum):
    RED = "Red"


class Mode(enum.IntFlag):
    READ = 1


class Pair(NamedTuple):
    color: Color = Color.RED


class Inner(pydantic.BaseModel):
    color: Color = Color.RED
    text: str = " Inner "


#: Options that change what a model makes of its arguments, or its own JSON. Those that this version
#: of pydantic lacks do nothing.
OPTIONS: dict[str, list[Any]] = {
    "str_strip_whitespace": [True],
    "str_to_lower": [True],
    "str_to_upper": [True],
    "str_min_length": [1],
    "str_max_length": [3],
    "coerce_numbers_to_str": [True],
    "revalidate_instances": ["always", "subclass-instances"],
    "json_encoders": [{float: str, dt.datetime: str, str: str.upper}],
    "ser_json_bytes": ["base64", "hex"],
    "ser_json_timedelta": ["float"],
    "ser_json_temporal": ["seconds", "milliseconds"],
    "ser_json_inf_nan": ["strings", "constants"],
    "val_json_bytes": ["base64", "hex"],
    "val_temporal_unit": ["seconds", "milliseconds"],
    "allow_inf_nan": [False],
    "validate_assignment": [True],
    "validate_default": [True],
    "strict": [True],
    "from_attributes": [True],
    "populate_by_name": [True],
    "serialize_by_alias": [True],
    "alias_generator": [lambda name: name if name == "metadata" else name.upper()],
    "arbitrary_types_allowed": [True],
    "defer_build": [True],
    "extra": ["allow", "ignore", "forbid"],
    "cache_strings": [False, "keys"],
    "use_attribute_docstrings": [True],
}

TEXT = st.text(st.sampled_from(" aB\u00c9\n"), max_size=4)
VALUES = st.fixed_dictionaries(
    {
        "text": TEXT,
        "texts": st.dictionaries(TEXT, st.lists(TEXT, max_size=2).map(tuple), max_size=2),
        "color": st.just(Color.RED),
        "number": st.floats(allow_nan=False, allow_infinity=False),
        "data": st.binary(max_size=3),
        "when": st.datetimes().map(lambda at: at.replace(tzinfo=dt.UTC, fold=0)),
        "lasts": st.timedeltas(dt.timedelta(0), dt.timedelta(days=9)),
        "price": st.decimals(allow_nan=False, allow_infinity=False),
        "inner": st.builds(Inner, text=TEXT),
    }
)


def model(options: dict[str, Any], **more: Any) -> Any:
    class Model(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(**options)

        metadata: ObjectMeta = ObjectMeta()
        text: str = ""
        texts: dict[str, tuple[str, ...]] = pydantic.Field(default_factory=dict)
        color: Color = Color.RED
        number: float = 0.0
        data: bytes = b""
        when: dt.datetime | None = None
        lasts: dt.timedelta = dt.timedelta()
        price: decimal.Decimal = decimal.Decimal(1)
        inner: Inner = Inner()

    return pydantic.create_model("Model", __base__=Model, **more) if more else Model


@settings(
    max_examples=25, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate]
)  # to make a model takes long
@given(
    st.fixed_dictionaries({}, optional={n: st.sampled_from(v) for n, v in OPTIONS.items()}),
    VALUES,
    TEXT,
)
def test_under_any_options_what_a_model_holds_is_read_again(options, values, text):
    """Whatever the options make of the arguments, and what is assigned afterwards: it is stored
    as the fields' types say, and comes back the same, or is refused before it is written."""
    cls = model(options)
    names = {name: field.alias or name for name, field in cls.model_fields.items()}
    try:
        obj = cls(**{names[name]: value for name, value in values.items()})
    except pydantic.ValidationError:
        obj = cls.model_construct(**{names[name]: value for name, value in values.items()})
    obj = obj.model_copy(update={"metadata": ObjectMeta(name="a")})
    changed = obj.model_copy(update={"text": text})
    with open_registry("memory://", cls, resource="models") as models:
        for each in (obj, changed):
            try:
                made = models.create(each)
            except InvalidObject:
                assert {"str_max_length", "str_min_length"} & options.keys()
                continue
            found = models.get("a")
            assert (found, repr(found)) == (made, repr(made))
            assert found == each.model_copy(update={"metadata": found.metadata})
            models.delete("a")


@pytest.mark.parametrize(
    "kind",
    [
        Color,
        Mode,
        Color | None,
        int | Color,
        Literal[Color.RED],
        tuple[Color, ...],
        dict[str, Color],
        dict[Color, int],
        dict[str, dict[str, list[Color | None]]],
        Pair,
    ],
    ids=str,
)
def test_values_in_the_place_of_enums_are_refused_at_opening(kind):
    """``use_enum_values`` puts "Red" where the field's type says ``Color.RED``: no write would
    succeed. The error names the field and the option."""
    cls = pydantic.create_model(
        "Bad", __config__=pydantic.ConfigDict(use_enum_values=True), n=(int, 1), it=(kind, ...)
    )

    with pytest.raises(UnsupportedType, match=r"Bad\.it .*use_enum_values") as caught:
        json_codec(cls)
    assert caught.value.field == "Bad.it"
    with pytest.raises(UnsupportedType, match=r"Outer\.bad\.it"):
        json_codec(pydantic.create_model("Outer", bad=(cls, ...)))
    made = pydantic.dataclasses.dataclass(config=pydantic.ConfigDict(use_enum_values=True))(
        type("Bad", (), {"__annotations__": {"it": kind}})
    )
    with pytest.raises(UnsupportedType, match=r"Bad\.it"):
        json_codec(made)


def test_a_model_without_enums_may_have_the_option():
    """It is often one of a base class that all models share; and models within it have their own
    options."""
    config = pydantic.ConfigDict(use_enum_values=True)
    cls: Any = pydantic.create_model(
        "Fine", __config__=config, n=(int, 1), inner=(Inner, Inner()), many=(tuple[Inner, ...], ())
    )
    obj = cls(inner=Inner(), many=(Inner(),))
    codec = json_codec(cls)

    assert repr(codec.decode(codec.encode(obj))) == repr(obj)
