"""From annotations to shapes."""

from __future__ import annotations

import collections
import collections.abc
import enum
import types
import typing
from collections.abc import Callable
from functools import partial
from typing import Any

from revstore.codec._annotations import substitute
from revstore.codec._class_shape import ClassShape, Field, Notes
from revstore.codec._classes import ABSENT, UNSET, ListKey, describe, is_class
from revstore.codec._frozen import FrozenDict
from revstore.codec._generate import decoder, encoder
from revstore.codec._json import Misfit, encode_json
from revstore.codec._scalars import enum_shape, literal_shape, scalar_shape
from revstore.codec._shapes import ListShape, MapShape, PlainShape, Shape
from revstore.codec._unions import union_shape
from revstore.errors import UnsupportedType

__all__ = ["compile_class", "shape_of"]

_LISTS: dict[Any, tuple[type, bool]] = {
    list: (list, False),
    collections.abc.MutableSequence: (list, False),
    collections.abc.Sequence: (tuple, False),
    collections.deque: (collections.deque, False),
    set: (set, True),
    collections.abc.MutableSet: (set, True),
    frozenset: (frozenset, True),
    collections.abc.Set: (frozenset, True),
}
_MAPS: dict[Any, tuple[tuple[type, ...], Callable[[Any], Any] | None, bool]] = {
    dict: ((dict,), None, True),
    collections.abc.MutableMapping: ((dict,), None, True),
    collections.abc.Mapping: ((dict, FrozenDict), FrozenDict, False),
    FrozenDict: ((FrozenDict,), FrozenDict, False),
}
# By name, since typing_extensions has its own versions of some.
_WRAPPERS = {"Final", "ClassVar", "Required", "NotRequired", "ReadOnly"}
_INSTEAD = {
    collections.defaultdict: "dict: the default factory is not stored",
    collections.OrderedDict: "dict, or a tuple of pairs: JSON objects have no order",
    collections.Counter: "dict[..., int]",
    complex: "two floats",
    bytearray: "bytes",
}


def compile_class(cls: Any) -> ClassShape:
    """Return the shape of a class of objects, with the shapes of all that it contains.

    Raises:
        UnsupportedType: a field cannot be stored exactly.
    """
    shape = shape_of(cls)
    if not isinstance(shape, ClassShape):
        raise UnsupportedType("object_type", cls, "a class with fields, or dict")
    return shape


def shape_of(kind: Any) -> Shape:
    """Return the shape of any annotation.

    Raises:
        UnsupportedType: its values cannot be stored exactly.
    """
    compiler = _Compiler()
    try:
        shape = compiler.shape(kind, getattr(kind, "__name__", str(kind)))
    except RecursionError:
        raise UnsupportedType(
            "object_type",
            kind,
            "a class of finite depth: this generic class contains itself with new parameters",
        ) from None
    for check in compiler.checks:
        check()
    for each in compiler.classes.values():
        # Replaces the methods: code that refers to the class looks them up when it uses them.
        for name, made in (("encode", encoder(each)), ("decode", decoder(each))):
            setattr(each, name, made)
    for check in compiler.default_checks:
        check()
    return shape


class _Compiler:
    def __init__(self) -> None:
        self.classes: dict[Any, ClassShape] = {}
        self.checks: list[Callable[[], None]] = []  # run when all classes have their fields
        self.default_checks: list[Callable[[], None]] = []  # run when all can encode
        self.notes = Notes()
        self._aliases: list[Any] = []
        self._owners: list[Any] = []  # the classes whose fields are being compiled

    def shape(self, kind: Any, where: str) -> Shape:
        """Return the shape of ``kind``, the annotation of the field ``where``."""
        kind, key = _bare(kind)
        if not _is_hashable(kind):
            raise UnsupportedType(where, kind, "a type, such as list[int] or dict[str, int]")
        origin, args = typing.get_origin(kind), typing.get_args(kind)
        if kind is None:
            kind = type(None)
        if kind is typing.Self and self._owners:
            kind = self._owners[-1]
        if kind is Any or kind is object:
            return PlainShape()
        if kind is getattr(typing, "LiteralString", None):
            kind = str
        if origin in (typing.Union, types.UnionType):
            return union_shape([self.shape(arg, where) for arg in args], where, self.checks)
        if origin is typing.Literal:
            return literal_shape(args, where)
        if hasattr(origin or kind, "__value__"):
            return self._alias(kind, origin, args, where)
        found = scalar_shape(kind)
        if found is not None:
            return found
        return self._container(kind, origin or kind, args, where, key)

    def _alias(self, kind: Any, origin: Any, args: tuple[Any, ...], where: str) -> Shape:
        if kind in self._aliases:
            raise UnsupportedType(where, kind, "a type that does not contain itself; use a class")
        alias = origin or kind
        self._aliases.append(kind)
        known = dict(zip(alias.__type_params__, args, strict=False))
        found = self.shape(substitute(alias.__value__, known), where)
        self._aliases.pop()
        return found

    def _container(
        self, kind: Any, origin: Any, args: tuple[Any, ...], where: str, key: str
    ) -> Shape:
        name = kind.__name__ if isinstance(kind, type) and not args else str(kind)
        if origin is tuple or kind is typing.Tuple:  # noqa: UP006
            if kind in (tuple, typing.Tuple):  # noqa: UP006
                args = (Any, ...)
            return self._tuple(name, args, where, key)
        if origin in _LISTS:
            cls, unordered = _LISTS[origin]
            item = self.shape(args[0] if args else Any, f"{where}[]")
            make = _same if cls is list else cls
            return ListShape(name, cls, make, (item,), unordered=unordered, key=key)
        if origin in _MAPS:
            accepted, make_map, mutable = _MAPS[origin]
            keys, values = args or (str, Any)
            return MapShape(
                name,
                accepted,
                make_map,
                self._keys(keys, where),
                self.shape(values, f"{where}.*"),
                mutable=mutable,
            )
        if isinstance(origin, type) and issubclass(origin, enum.Enum):
            return enum_shape(origin, where)
        if is_class(origin):
            return self._class(kind, origin, args, where)
        raise UnsupportedType(where, kind, _advice(kind, origin))

    def _tuple(self, name: str, args: tuple[Any, ...], where: str, key: str) -> Shape:
        if len(args) == 2 and args[1] is Ellipsis:
            return ListShape(name, tuple, tuple, (self.shape(args[0], f"{where}[]"),), key=key)
        items = tuple(self.shape(arg, f"{where}[{at}]") for at, arg in enumerate(args))
        return ListShape(name, tuple, tuple, items, fixed=True)

    def _keys(self, kind: Any, where: str) -> Shape | None:
        shape = self.shape(kind, f"{where} (its keys)")
        if shape is scalar_shape(str):
            return None
        if shape.mutable or len(shape.kinds) != 1 or not shape.kinds <= {"str", "int", "bool"}:
            raise UnsupportedType(
                where, kind, "a mapping whose keys are str, int, bool, an Enum, or one text in JSON"
            )
        return shape

    def _class(self, kind: Any, cls: type[Any], args: tuple[Any, ...], where: str) -> ClassShape:
        known = self.classes.get(kind)
        if known is not None:
            return known
        info = describe(cls)
        if info.library in ("attrs", "dataclass"):
            _check_instantiable(cls, where)
        shape = self.classes[kind] = ClassShape(info, self.notes)
        parameters = getattr(cls, "__parameters__", ())
        variables = dict(zip(parameters, args, strict=False))
        self._owners.append(kind)
        for field in info.fields:
            place = f"{where}.{field.name or field.json_name}"
            found = self.shape(substitute(field.annotation, variables), place)
            _check_name(field.json_name, place)
            twin = shape.fields.get(field.json_name)
            if twin is not None:
                raise UnsupportedType(
                    place,
                    field.json_name,
                    f"a unique name in JSON: {twin.name!r} is {field.json_name!r} "
                    "too; rename one of them",
                )
            shape.fields[field.json_name] = Field(field, found)
            if info.enum_values:
                self.checks.append(partial(_refuse_enums, found, place, set()))
            # Code that runs after __init__ may replace a default that does not fit.
            if not info.after and field.value is not ABSENT and field.value is not UNSET:
                self.default_checks.append(partial(_check_default, field.value, found, place))
        self._owners.pop()
        return shape


def _check_instantiable(cls: type[Any], where: str) -> None:
    """Refuse a class whose objects cannot be rebuilt from their fields alone."""
    try:
        object.__new__(cls)
    except TypeError as error:  # it is abstract, or has dict, list, str or Exception as a base
        expected = f"a class of fields alone, whose objects object.__new__ makes ({error})"
        raise UnsupportedType(where, cls, expected) from None


def _refuse_enums(shape: Shape, place: str, seen: set[Shape]) -> None:
    """Refuse an enum in a field of a model that has put a plain value in its place."""
    if shape in seen or (isinstance(shape, ClassShape) and shape.info.library == "pydantic"):
        return  # the option applies to other classes in the model, not to other models
    seen.add(shape)
    for each in shape.types:
        if issubclass(each, enum.Enum):
            raise UnsupportedType(
                place,
                each,
                "no enum under use_enum_values=True, which puts a plain value in its place: "
                "leave the option out, or give the field the type of the values",
            )
    for part in shape.parts():
        _refuse_enums(part, place, seen)


def _check_default(value: Any, shape: Shape, place: str) -> None:
    try:
        encode_json(shape.encode(value))
    except Misfit as misfit:
        where = f"{place}.{misfit.path}" if misfit.path else place
        expected = f"a default that fits its type: {misfit.expected}"
        message = f"invalid {where} {misfit.given}: expected {expected}"
        raise UnsupportedType(where, value, expected, message=message) from None


def _bare(kind: Any) -> tuple[Any, str]:
    """Return the annotation without the parts that do not concern values, and the key of its
    elements."""
    key = ""
    while True:
        origin = typing.get_origin(kind)
        if origin is typing.Annotated:
            key = next((each.name for each in kind.__metadata__ if isinstance(each, ListKey)), key)
            kind = kind.__origin__
        elif getattr(origin, "_name", "") in _WRAPPERS:
            kind = typing.get_args(kind)[0]
        elif isinstance(kind, typing.NewType):
            kind = kind.__supertype__
        else:
            return kind, key


def _is_hashable(kind: Any) -> bool:
    try:
        hash(kind)
    except TypeError:  # a value in place of a type, such as [int]
        return False
    return True


def _check_name(name: Any, place: str) -> None:
    try:
        if type(name) is str and name.encode():
            return
    except UnicodeEncodeError:
        pass
    raise UnsupportedType(place, name, "a name in JSON: a str, not empty, without lone surrogates")


def _same(value: list[Any]) -> list[Any]:
    return value


def _advice(kind: Any, origin: Any) -> str:
    if origin in _INSTEAD:
        return _INSTEAD[origin]
    if isinstance(kind, typing.TypeVar):
        return f"a type for {kind}, as in Box[int]"
    bases = (str, int, float, dict, list, tuple, set, frozenset, bytes)
    if isinstance(origin, type) and issubclass(origin, bases):
        base = next(each for each in bases if issubclass(origin, each))
        return f"{base.__name__}: a subclass would come back as its base"
    return (
        "a type that JSON can carry exactly: see the table in docs/types.md, or give the storage "
        "a codec of its own"
    )
