"""The parts of a class of objects, whichever library made the class."""

from __future__ import annotations

import dataclasses
import functools
import sys
import typing
from collections.abc import Callable, Mapping
from typing import Any

import attrs
import msgspec

from revstore.codec._annotations import own_annotations, resolve
from revstore.errors import UnsupportedType

__all__ = [
    "ABSENT",
    "UNSET",
    "ClassInfo",
    "FieldInfo",
    "JsonName",
    "ListKey",
    "camel_case",
    "describe",
    "is_class",
    "library_of",
]

#: The class variable that says what happens to fields that a class does not know.
UNKNOWN_FIELDS = "__unknown_fields__"
_OMIT_EMPTY = "__omit_empty__"

ABSENT: Any = object()
UNSET: Any = object()


@attrs.frozen
class JsonName:
    """The name of a field in JSON: ``host_ip: Annotated[str, JsonName("hostIP")]``."""

    name: str


@attrs.frozen
class ListKey:
    """The field that identifies the elements of a list, by its name in JSON: ``containers:
    Annotated[tuple[Container, ...], ListKey("name")]``."""

    name: str


@attrs.frozen
class FieldInfo:
    """A field: its name in Python and in JSON, its annotation, and its value if it is absent.

    ``default`` takes the unfinished object and returns the value; None: the field is required.
    ``value`` is the default itself if it is always the same, ABSENT if it is not, UNSET if the
    field has none and the class sets it.
    """

    name: str
    json_name: str
    annotation: Any
    default: Callable[[Any], Any] | None = None
    value: Any = ABSENT
    constant: bool = False  # a tag that is no attribute; the annotation is a Literal
    optional: bool = False  # if absent, it is absent from the object itself (TypedDict)


@attrs.frozen
class ClassInfo:
    """A class. ``unknown`` is "keep", "forbid" or "drop"; ``after`` is what its ``__init__`` would
    do once the fields are set."""

    cls: type[Any]
    library: str
    fields: tuple[FieldInfo, ...]
    frozen: bool
    unknown: str = "keep"
    omit_empty: bool = False
    after: tuple[Callable[[Any], Any], ...] = ()
    validate: Callable[[Any], Any] | None = None
    extras: bool = False  # takes and keeps fields that it does not declare (pydantic)
    changes: bool = False  # its validators are the class's own code, which may change values
    enum_values: bool = False  # its instances hold the values of enums, not the members (pydantic)


@functools.cache
def camel_case(name: str) -> str:
    """Convert ``resource_version`` to ``resourceVersion``."""
    head, *rest = name.strip("_").split("_")
    return head + "".join(part[:1].upper() + part[1:] for part in rest)


def library_of(cls: Any) -> str:
    """Return the library that made the class, "" if none did."""
    if not isinstance(cls, type):
        return ""
    if issubclass(cls, dict) and hasattr(cls, "__required_keys__"):
        return "typeddict"  # of typing, or of typing_extensions
    pydantic = sys.modules.get("pydantic")  # a program that has such a class has imported it
    if pydantic is not None and issubclass(cls, pydantic.BaseModel):
        return "pydantic"
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        return "namedtuple"
    for base in cls.__mro__:
        for mark, library in _MARKS.items():
            if mark in vars(base):
                return library
    return ""


_MARKS = {
    "__attrs_attrs__": "attrs",
    "__dataclass_fields__": "dataclass",
    "__struct_config__": "msgspec",
}


def is_class(cls: Any) -> bool:
    """Return whether ``cls`` is a class with fields."""
    return bool(library_of(cls))


def describe(cls: type[Any]) -> ClassInfo:
    """Describe ``cls``.

    Raises:
        UnsupportedType: an annotation is missing or cannot be resolved, or a field cannot be kept.
    """
    _check_decorated(cls)
    return _DESCRIBERS[library_of(cls)](cls)


def _check_decorated(cls: type[Any]) -> None:
    """Refuse a class with annotations that its library has not turned into fields."""
    library = library_of(cls)
    if library not in ("attrs", "dataclass", "namedtuple"):
        return
    for base in cls.__mro__:
        if not _MARKS.keys().isdisjoint(vars(base)) or "_field_defaults" in vars(base):
            return
        for name, annotation in own_annotations(base).items():
            if "ClassVar" not in str(annotation) and library_of(base):
                raise UnsupportedType(
                    f"{base.__name__}.{name}",
                    annotation,
                    f"a field, but {base.__name__} lacks the decorator that makes it one",
                )


def _unknown(cls: type[Any], default: str = "keep") -> str:
    chosen = getattr(cls, UNKNOWN_FIELDS, default)
    if chosen not in ("keep", "forbid", "drop"):
        raise UnsupportedType(
            f"{cls.__name__}.{UNKNOWN_FIELDS}", chosen, '"keep", "forbid" or "drop"'
        )
    return str(chosen)


def _json_name(name: str, annotation: Any, metadata: Any = ()) -> str:
    chosen = metadata.get("json") if isinstance(metadata, Mapping) else None
    for extra in getattr(annotation, "__metadata__", ()):
        if isinstance(extra, JsonName):
            chosen = extra.name
    return camel_case(name) or name if chosen is None else chosen


def _annotated(cls: type[Any], name: str, given: Any, metadata: Any) -> Any:
    """Return the annotation of a field, together with the settings in its metadata."""
    annotation = resolve(cls, name, given)
    key = metadata.get("list_key") if isinstance(metadata, Mapping) else None
    return typing.Annotated[annotation, ListKey(str(key))] if key else annotation


def _steady(value: Any) -> tuple[Callable[[Any], Any], Any]:
    return lambda _: value, value


_Default = tuple[Callable[[Any], Any] | None, Any]
_REQUIRED: _Default = (None, ABSENT)
_SET_LATER: _Default = (lambda _: UNSET, UNSET)


def _attrs_default(field: Any) -> _Default:
    default, converter = field.default, field.converter
    if default is attrs.NOTHING:
        return _REQUIRED if field.init else _SET_LATER
    if isinstance(default, attrs.Factory):  # type: ignore[arg-type]
        factory = default.factory
        make = factory if default.takes_self else lambda _: factory()
    elif converter is None:
        return _steady(default)
    else:
        make = _steady(default)[0]
    if converter is None:
        return make, ABSENT
    if isinstance(converter, attrs.Converter):
        return lambda obj: _call_converter(converter, make(obj), obj, field), ABSENT
    return lambda obj: converter(make(obj)), ABSENT


def _call_converter(converter: Any, value: Any, obj: Any, field: Any) -> Any:
    extra = [obj] if converter.takes_self else []
    extra += [field] if converter.takes_field else []
    return converter.converter(value, *extra)


def _of_attrs(cls: type[Any]) -> ClassInfo:
    fields = []
    for field in attrs.fields(cls):
        annotation = _annotated(cls, field.name, field.type, field.metadata)
        name = _json_name(field.name, annotation, field.metadata)
        fields.append(FieldInfo(field.name, name, annotation, *_attrs_default(field)))
    post = getattr(cls, "__attrs_post_init__", None)
    validators = [field.validator for field in attrs.fields(cls) if field.validator]
    return ClassInfo(
        cls,
        "attrs",
        tuple(fields),
        # attrs has no public way to ask whether a class is frozen.
        frozen=getattr(cls.__setattr__, "__name__", "") == "_frozen_setattrs"
        and not _has_more_state(cls, {field.name for field in fields}),
        unknown=_unknown(cls),
        omit_empty=_OMIT_EMPTY in cls.__dict__,
        after=() if post is None else (post,),
        validate=attrs.validate if validators else None,
        changes=not all(map(_only_looks, validators)),
    )


def _only_looks(validator: Any) -> bool:
    """Return whether the validator is one of attrs' own, which changes no value, and so are all its
    parts."""
    if isinstance(validator, tuple):
        return all(map(_only_looks, validator))
    if type(validator).__module__ != "attr.validators":
        return validator is None
    parts = [field.name for field in attrs.fields(type(validator)) if "validator" in field.name]
    return all(_only_looks(getattr(validator, name)) for name in parts)


def _has_more_state(cls: type[Any], names: set[str]) -> bool:
    """Return whether instances hold more than their fields: cached properties, further slots."""
    for base in cls.__mro__[:-1]:
        if any(isinstance(each, functools.cached_property) for each in vars(base).values()):
            return True
        slots = base.__dict__.get("__slots__", ())
        own = {slots} if isinstance(slots, str) else set(slots)
        if own - names - {"__weakref__", "__dict__", "_attrs_cached_hash"}:
            return True
    return False


def _of_dataclass(cls: type[Any]) -> ClassInfo:
    every = cls.__dataclass_fields__.values()
    for field in every:
        if field._field_type is dataclasses._FIELD_INITVAR:  # type: ignore[attr-defined] # noqa: SLF001
            raise UnsupportedType(
                f"{cls.__name__}.{field.name}",
                "InitVar",
                "a field: an InitVar is not kept, so the object could not be rebuilt",
            )
    # It comes from pydantic.dataclasses.
    config: Mapping[str, Any] = getattr(cls, "__pydantic_config__", None) or {}
    of_pydantic: Mapping[str, Any] = getattr(cls, "__pydantic_fields__", None) or {}
    if config.get("extra") == "allow":
        raise UnsupportedType(
            cls.__name__,
            'extra="allow"',
            'extra="forbid" or "ignore", or a model: extras of a '
            "dataclass are attributes like others, which are not stored",
        )
    fields = []
    for field in dataclasses.fields(cls):
        annotation = _annotated(cls, field.name, field.type, field.metadata)
        name = _json_name(field.name, annotation, field.metadata)
        default = _dataclass_default(field)
        described: Any = of_pydantic.get(field.name)
        if described is not None:
            name = described.serialization_alias or described.alias or name
            given: Any = field.default
            if isinstance(given, type(described)):
                required = described.is_required()
                default = _REQUIRED if required else (_pydantic_default(described), ABSENT)
        fields.append(FieldInfo(field.name, name, annotation, *default))
    post = getattr(cls, "__post_init__", None)
    return ClassInfo(
        cls,
        "dataclass",
        tuple(fields),
        frozen=cls.__dataclass_params__.frozen
        and not _has_more_state(cls, {field.name for field in fields}),
        unknown=_unknown(cls),
        after=() if post is None else (post,),
        enum_values=bool(config.get("use_enum_values")),
    )


def _dataclass_default(field: dataclasses.Field[Any]) -> _Default:
    if field.default_factory is not dataclasses.MISSING:
        factory = field.default_factory
        return lambda _: factory(), ABSENT
    if field.default is not dataclasses.MISSING:
        return _steady(field.default)
    return _REQUIRED if field.init else _SET_LATER


def _of_struct(cls: type[Any]) -> ClassInfo:
    config = cls.__struct_config__
    fields = []
    for field in msgspec.structs.fields(cls):
        annotation = resolve(cls, field.name, _own(cls, field.name))
        name = _json_name(field.name, annotation)
        if field.encode_name != field.name:
            name = field.encode_name
        fields.append(FieldInfo(field.name, name, annotation, *_struct_default(field)))
    if config.tag is not None:
        literal = typing.Literal[config.tag]  # type: ignore[name-defined]
        fields.append(FieldInfo("", config.tag_field, literal, constant=True))
    post = getattr(cls, "__post_init__", None)
    return ClassInfo(
        cls,
        "msgspec",
        tuple(fields),
        frozen=config.frozen and not config.dict,
        unknown=_unknown(cls, "forbid" if config.forbid_unknown_fields else "keep"),
        after=() if post is None else (post,),
    )


def _own(cls: type[Any], name: str) -> Any:
    found = (own_annotations(base)[name] for base in cls.__mro__ if name in own_annotations(base))
    return next(found, None)


def _struct_default(field: Any) -> _Default:
    if field.default_factory is not msgspec.NODEFAULT:
        return lambda _: field.default_factory(), ABSENT
    return _REQUIRED if field.required else _steady(field.default)


def _of_typeddict(cls: Any) -> ClassInfo:
    fields = []
    for name in cls.__required_keys__ | cls.__optional_keys__:
        # A TypedDict has no bases at run time; its annotations hold those of its bases.
        annotation = resolve(cls, name, own_annotations(cls)[name])
        # NotRequired in an annotation that is a string is not seen when the class is made.
        optional, inner = name in cls.__optional_keys__, annotation
        while typing.get_origin(inner) is typing.Annotated or hasattr(inner, "_name"):
            mark = getattr(typing.get_origin(inner), "_name", "")
            if mark in ("Required", "NotRequired"):
                optional = mark == "NotRequired"
            inner = next(iter(typing.get_args(inner)), None)
        fields.append(FieldInfo(name, name, annotation, optional=optional))
    more = getattr(cls, "__extra_items__", None)
    if getattr(more, "__name__", "NoExtraItems") != "NoExtraItems":
        raise UnsupportedType(
            f"{cls.__name__}.__extra_items__", more, "no extra_items: use a field that is a dict"
        )
    unknown = "forbid" if getattr(cls, "__closed__", False) else "keep"
    return ClassInfo(cls, "typeddict", tuple(fields), frozen=False, unknown=unknown)


def _of_namedtuple(cls: Any) -> ClassInfo:
    fields = []
    for name in cls._fields:
        annotation = resolve(cls, name, _own(cls, name))
        defaults = cls._field_defaults
        default = _steady(defaults[name]) if name in defaults else _REQUIRED
        fields.append(FieldInfo(name, _json_name(name, annotation), annotation, *default))
    return ClassInfo(cls, "namedtuple", tuple(fields), frozen=not cls.__dictoffset__)


def _of_pydantic(cls: Any) -> ClassInfo:
    # Names of classes that were defined later can be looked up only now.
    if cls.__name__ == "BaseModel" or cls.model_rebuild(raise_errors=False) is False:
        raise UnsupportedType(cls.__name__, cls, "a model whose annotations can be resolved")
    fields = []
    for name, field in cls.model_fields.items():
        annotation = field.annotation
        for extra in field.metadata:
            if isinstance(extra, (JsonName, ListKey)):
                annotation = typing.Annotated[annotation, extra]
        alias = field.serialization_alias or field.alias
        default = None if field.is_required() else _pydantic_default(field)
        json_name = alias or _json_name(name, annotation)
        fields.append(FieldInfo(name, json_name, annotation, default))
    extra = cls.model_config.get("extra", "ignore")
    post = cls.__pydantic_post_init__ and (lambda obj: obj.model_post_init(None))
    return ClassInfo(
        cls,
        "pydantic",
        tuple(fields),
        # Its __dict__ and its private attributes can be changed, whatever the model says.
        frozen=bool(cls.model_config.get("frozen")) and not cls.__private_attributes__,
        unknown=_unknown(cls, "forbid" if extra == "forbid" else "keep"),
        after=(post,) if post else (),
        extras=extra == "allow",
        changes="'function-" in str(cls.__pydantic_core_schema__),
        enum_values=bool(cls.model_config.get("use_enum_values")),
    )


def _pydantic_default(field: Any) -> Callable[[Any], Any]:
    return lambda _: field.get_default(call_default_factory=True, validated_data={})


_DESCRIBERS: dict[str, Callable[[Any], ClassInfo]] = {
    "attrs": _of_attrs,
    "dataclass": _of_dataclass,
    "msgspec": _of_struct,
    "typeddict": _of_typeddict,
    "namedtuple": _of_namedtuple,
    "pydantic": _of_pydantic,
}
