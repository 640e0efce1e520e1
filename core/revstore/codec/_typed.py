"""The built-in codecs."""

from __future__ import annotations

import copy
import functools
import operator
import os
import threading
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar, cast

from revstore.codec._class_shape import ClassShape
from revstore.codec._classes import is_class
from revstore.codec._compile import compile_class, shape_of
from revstore.codec._json import Misfit, check_plain, decode_json, encode_json, seen, too_deep
from revstore.codec._shapes import Shape, changeable, depth
from revstore.codec._versions import VersionMisfit, Versions
from revstore.errors import InvalidObject, UnsupportedType
from revstore.nesting import MAX_DEPTH

__all__ = ["DictCodec", "TypedCodec", "check_fields", "is_frozen"]

T = TypeVar("T")

_TEXT = shape_of(str)
#: From here on Kubernetes writes floats with an exponent.
_EXPONENT = 1e21
_TYPE_META = frozenset(["apiVersion", "kind"])


class DictCodec:
    """JSON for Kubernetes-shaped dicts. A decoded dict equals the encoded one; keys are sorted.

    With ``versions``, dicts are stored in the current version, and ``apiVersion`` says so.
    """

    def __init__(self, versions: Versions | None = None) -> None:
        self.versions = versions

    def encode(self, obj: dict[str, Any]) -> bytes:
        """Return the bytes.

        Raises:
            InvalidObject: JSON would not give ``obj`` back unchanged, or its version is unknown or
                cannot be upgraded.
        """
        value = self.to_json(obj)
        try:
            return encode_json(value if self.versions is None else self.versions.written(value))
        except Misfit as error:
            raise _invalid(error) from None
        except VersionMisfit as error:
            raise _wrong_version(error) from error

    def to_json(self, obj: dict[str, Any]) -> dict[str, Any]:
        """Return the dict itself.

        Raises:
            InvalidObject: as for ``encode``.
        """
        try:
            if not isinstance(obj, dict):
                raise Misfit(obj, "a dict")
            check_plain(obj)
        except Misfit as error:
            raise _invalid(error) from None
        return obj

    def field_value(self, obj: dict[str, Any], path: str) -> str:
        """Return the value at a dotted path as text; "" if there is none, or it is not a scalar."""
        value: Any = obj
        for name in _split(path):
            value = value.get(name) if isinstance(value, dict) else None
        return text_of(value)

    def decode(self, data: bytes) -> dict[str, Any]:
        """Return the dict; any exception means that the bytes are corrupt."""
        value = decode_json(data)
        return value if self.versions is None else self.versions.read(value)

    def upgrade(self, data: bytes) -> tuple[bytes, bool]:
        """Return stored bytes in the current version, and whether they were in an older one; any
        exception means that they are corrupt."""
        return (data, False) if self.versions is None else self.versions.read_bytes(data)

    def with_versions(self, versions: Versions) -> DictCodec:
        """Return the same codec for these stored versions."""
        return DictCodec(versions)


class TypedCodec(Generic[T]):
    """JSON for one class: attrs, dataclass, ``msgspec.Struct``, TypedDict or pydantic.

    Names are in camelCase unless a field gives its own. Every field is stored. A field that is
    absent was added to the class later, and gets its default.

    ``type_meta`` are the apiVersion and kind that are stored with each object of a class which has
    no such fields, so that its dicts and manifests are complete. With ``versions``, objects are
    stored in the current version, and ``apiVersion`` says so.

    Raises:
        UnsupportedType: a field of the class cannot be stored exactly.
    """

    def __init__(
        self,
        object_type: type[T],
        *,
        type_meta: Mapping[str, str] | None = None,
        exact_kind: bool = False,
        versions: Versions | None = None,
    ) -> None:
        self.object_type = object_type
        self._shape = _shape_of(object_type)
        self._type = next(iter(self._shape.types))
        hidden = self._type is not dict and _TYPE_META.isdisjoint(self._shape.fields)
        self._type_meta = dict(type_meta or ()) if hidden else {}
        self._exact_kind = exact_kind
        if versions is not None:
            versions = versions.in_group(self._type_meta.get("apiVersion", "").rpartition("/")[0])
            if self._type is not dict and "apiVersion" not in self._shape.fields:
                self._type_meta["apiVersion"] = versions.version
        self.versions = versions
        self._open = self._shape.info.extras  # an object may have its own
        _check_metadata(self._shape)
        self._getters: dict[str, tuple[Callable[[Any], Any] | None, Shape]] = {}
        self._encode, self._decode = self._shape.encode, self._shape.decode
        self._shallow = depth(self._shape) <= MAX_DEPTH

    def encode(self, obj: T) -> bytes:
        """Return the bytes.

        Raises:
            InvalidObject: a value does not fit its field, which the error names.
        """
        try:
            value = self._encode(obj)
            if self._open:
                for name, text in self._type_meta.items():
                    if value.get(name) == text:
                        raise Misfit(text, "none: the registry stores it by itself").under(name)
                value |= {**self._type_meta, **value}
            elif self._type_meta:
                value.update(self._type_meta)
            if self.versions is not None:
                value = self.versions.written(value)
            return encode_json(value, shallow=self._shallow)
        except Misfit as error:
            raise _invalid(error) from None
        except VersionMisfit as error:
            raise _wrong_version(error) from error
        except RecursionError:
            raise _invalid(too_deep()) from None

    def decode(self, data: bytes) -> T:
        """Return the object; any exception means that the bytes are corrupt."""
        value = decode_json(data)
        if self.versions is not None:
            value = self.versions.read(value)
        for name, text in self._type_meta.items():
            same = value.get(name, text) == text
            if not same and self._exact_kind and name == "kind":
                raise ValueError(f"its kind is {value[name]!r}, not {text!r}")
            # Any other kind is as unknown as other fields, and is kept even if those are not.
            if same or self._shape.info.unknown != "keep":
                value.pop(name, None)
        return cast("T", self._decode(value))

    def decode_noting(self, data: bytes) -> tuple[T, bool]:
        """Return the object, and whether the bytes have fields that the class does not know but
        keeps."""
        before, seen.unknown = seen.unknown, False  # an object's own code may read other fields
        try:
            return self.decode(data), seen.unknown
        finally:
            seen.unknown = before

    def with_type_meta(self, api_version: str, kind: str, *, exact: bool = False) -> TypedCodec[T]:
        """Return the same codec with this apiVersion and kind stored beside the fields of each
        object.

        If ``exact``, an object of another kind counts as corrupt.
        """
        type_meta = {"apiVersion": api_version, "kind": kind}
        return TypedCodec(
            self.object_type, type_meta=type_meta, exact_kind=exact, versions=self.versions
        )

    def with_versions(self, versions: Versions) -> TypedCodec[T]:
        """Return the same codec for these stored versions."""
        return TypedCodec(
            self.object_type,
            type_meta=self._type_meta,
            exact_kind=self._exact_kind,
            versions=versions,
        )

    def upgrade(self, data: bytes) -> tuple[bytes, bool]:
        """Return stored bytes in the current version, and whether they were in an older one; any
        exception means that they are corrupt."""
        return (data, False) if self.versions is None else self.versions.read_bytes(data)

    @property
    def met_unknown(self) -> bool:
        """True if a stored object of this class was found to have unknown fields."""
        return self._shape.notes.met_unknown

    def forget_unknown(self) -> None:
        """Reset ``met_unknown``, as when all such objects are gone."""
        self._shape.notes.met_unknown = False

    def merge(self, data: bytes, stored: bytes) -> bytes:
        """Return ``data`` with those fields of ``stored`` that the class does not know but keeps.

        Raises:
            InvalidObject: it is not clear which item of a list they belong to.
        """
        try:
            old, new = decode_json(stored), decode_json(data)
            if not self._open:
                new.update((name, old[name]) for name in self._type_meta if name in old)
            return encode_json(self._shape.merge(old, new))
        except Misfit as error:
            raise _invalid(error) from None

    def to_json(self, obj: T) -> dict[str, Any]:
        """Return the object as plain values.

        Raises:
            InvalidObject: a value does not fit its field.
        """
        try:
            return cast("dict[str, Any]", self._encode(obj))
        except Misfit as error:
            raise _invalid(error) from None

    def field_value(self, obj: T, path: str) -> str:
        """Return the value at a dotted path such as "spec.nodeName" as text, as in the JSON.

        It is "" if there is no value, or it is not a scalar.
        """
        if type(obj) is not self._type or path in self._type_meta:
            return self._type_meta.get(path, "")
        known = self._getters.get(path)
        if known is None:
            known = self._getters[path] = self._getter(path)
        get, shape = known
        if get is not None:
            value = get(obj)
            return value if type(value) is str and shape is _TEXT else text_of(shape.encode(value))
        value, shape = obj, self._shape
        for name in _split(path):
            found = None if value is None else shape.step(value, name)
            if found is None:
                return ""
            shape, value = found
        return text_of(shape.encode(value))

    def _getter(self, path: str) -> tuple[Callable[[Any], Any] | None, Shape]:
        """Return a function that reads the value directly; None unless all fields on the path
        always exist."""
        if len(self._getters) >= 256:  # paths come from the callers' selectors
            self._getters.clear()
        shape: Shape = self._shape
        names = []
        for name in _split(path):
            field = shape.fields.get(name) if isinstance(shape, ClassShape) else None
            if field is None or not shape.has_all_fields:  # type: ignore[attr-defined]
                return None, shape
            names.append(field.name)
            shape = field.shape
        return operator.attrgetter(".".join(names)), shape


@functools.lru_cache(maxsize=1024)
def _split(path: str) -> tuple[str, ...]:
    return tuple(path.split("."))


def text_of(value: Any) -> str:
    """Return a JSON value as a field selector compares it: "" if it is not a scalar."""
    if type(value) is str:
        return value
    if value is None or isinstance(value, (Mapping, list, tuple)):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXPONENT:
        value = int(value)  # JSON's 2 and 2.0 are one number; a typed field has one of the two
    return str(value)


_compiling = threading.RLock()  # one shape for each class, since it notes what was found
_compile = functools.lru_cache(maxsize=512)(compile_class)


def _after_fork_in_child() -> None:
    global _compiling  # noqa: PLW0603 - another thread of the parent may hold the old one
    _compiling = threading.RLock()


os.register_at_fork(after_in_child=_after_fork_in_child)


def _shape_of(object_type: Any) -> ClassShape:
    if not is_class(getattr(object_type, "__origin__", object_type)):
        raise UnsupportedType(
            "object_type",
            object_type,
            "a class with fields, or dict",
            message=f"no built-in codec for {object_type!r}: expected a class made by attrs, "
            "dataclasses, msgspec, pydantic or TypedDict, or dict",
        )
    with _compiling:
        return _compile(object_type)


def _check_metadata(shape: ClassShape) -> None:
    """Refuse a class without a resource version: its objects would be overwritten unnoticed."""
    where = f"{shape.name}.metadata"
    for name, field in shape.fields.items():
        if field.name == "metadata" != name:
            raise UnsupportedType(where, name, "the name metadata in JSON as well")
    metadata = shape.fields.get("metadata")
    if metadata is None:
        return
    for each in getattr(metadata.shape, "members", (metadata.shape,)):
        if each.kinds == {"null"}:
            continue
        if shape.info.library == "typeddict":
            if dict not in each.types:
                raise UnsupportedType(where, each.name, "a dict or a TypedDict")
        elif not _is_metadata(each):
            raise UnsupportedType(where, each.name, "ObjectMeta, or a class with its fields")


def _is_metadata(shape: Shape) -> bool:
    """Return whether it can be stamped with resource versions, under the names that all readers
    know."""
    if not isinstance(shape, ClassShape) or shape.info.library in ("typeddict", "namedtuple"):
        return False
    name, version = shape.fields.get("name"), shape.fields.get("resourceVersion")
    if name is None or version is None or (name.name, version.name) != ("name", "resource_version"):
        return False
    return str in version.shape.types and version.shape.values is None


def is_frozen(object_type: Any) -> bool:
    """Return whether no instance of ``object_type``, decoded by the built-in codec, can be
    changed."""
    try:
        return not changeable(shape_of(object_type))
    except UnsupportedType:
        return False


@functools.cache
def _decoders_of(cls: Any) -> dict[str, Callable[[Any], Any]]:
    return {name: field.shape.decode for name, field in _shape_of(cls).fields.items()}


def check_fields(cls: Any, values: Mapping[str, Any], *, within: str) -> None:
    """Check that JSON values, by their names, fit the fields of ``cls``.

    Other names, and null, are not checked. ``within`` is where they are, for the error.

    Raises:
        InvalidObject: one does not fit, so that no typed reader could read the object.
    """
    decoders = _decoders_of(cls)
    at = ""
    try:
        for at, value in values.items():
            decode = decoders.get(at)
            if decode is not None and value is not None:
                if isinstance(value, dict):
                    value = dict(value)  # noqa: PLW2901 - decoding takes no frozen ones
                elif isinstance(value, list):
                    value = copy.deepcopy(value)  # noqa: PLW2901 - decoding consumes dicts in it
                decode(value)
    except Misfit as error:
        raise _invalid(error.under(at).under(within)) from None


def _invalid(error: Misfit) -> InvalidObject:
    field = error.path or "object"
    message = f"invalid {field} {error.given}: expected {error.expected}"
    return InvalidObject(field, error.value, error.expected, message=message)


def _wrong_version(error: VersionMisfit) -> InvalidObject:
    message = f"the object {error.reason}"
    return InvalidObject("apiVersion", error.found, " or ".join(error.known), message=message)
