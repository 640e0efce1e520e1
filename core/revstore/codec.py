"""Codecs: objects to bytes and back (runtime.Codec).

Built in is JSON, by msgspec: for attrs classes through cattrs, with fields in camelCase, and for
plain dicts as they are, unknown fields kept.
"""

from __future__ import annotations

import collections.abc
import math
import typing
from typing import Any, Generic, Protocol, TypeVar

import attrs
import cattrs
import cattrs.gen
import cattrs.preconf.json
import msgspec

from revstore.copier import FrozenDict
from revstore.nesting import TOO_DEEP, check_nesting
from revstore.objects import camel_case

__all__ = ["AttrsCodec", "Codec", "DictCodec", "json_codec"]

T = TypeVar("T")


class Codec(Protocol[T]):
    """Both methods are called from many threads. Any exception means that the object cannot be
    encoded, or the bytes not decoded."""

    def encode(self, obj: T) -> bytes:
        """Deterministic: equal objects give equal bytes, since an update that changes no byte is
        no write."""
        ...

    def decode(self, data: bytes) -> T:
        """A new object, which the caller owns."""
        ...


class DictCodec:
    """JSON for Kubernetes-shaped dicts. What comes back equals what went in; keys are sorted."""

    def __init__(self) -> None:
        self._encoder = msgspec.json.Encoder(order="sorted")
        self._decoder = msgspec.json.Decoder(dict[str, Any])

    def encode(self, obj: dict[str, Any]) -> bytes:
        if not isinstance(obj, dict):
            raise TypeError(f"expected a dict, not {type(obj).__name__}")
        try:
            return _encode(self._encoder, obj)
        except RecursionError:
            raise ValueError(TOO_DEEP) from None

    def decode(self, data: bytes) -> dict[str, Any]:
        return typing.cast("dict[str, Any]", _decode(self._decoder, data))


class AttrsCodec(Generic[T]):
    """JSON for one attrs class: fields in camelCase, those at their default left out.

    JSON fields that the class does not have are dropped when decoding. Types that cattrs does not
    know need hooks: pass your own ``converter`` with them.
    """

    def __init__(self, object_type: type[T], *, converter: cattrs.Converter | None = None) -> None:
        self._converter = converter or _make_converter()
        # Built once: the generic dispatch costs as much again as the generated function.
        self._structure = self._converter.get_structure_hook(object_type)
        self._unstructure = self._converter.get_unstructure_hook(object_type)
        self._encoder = msgspec.json.Encoder(order="sorted")
        self._decoder = msgspec.json.Decoder(dict[str, Any])
        self.object_type = object_type

    def encode(self, obj: T) -> bytes:
        if not isinstance(obj, self.object_type):
            raise TypeError(f"expected {self.object_type.__name__}, not {type(obj).__name__}")
        try:
            return _encode(self._encoder, self._unstructure(obj))
        except RecursionError:
            raise ValueError(TOO_DEEP) from None

    def decode(self, data: bytes) -> T:
        return typing.cast("T", self._structure(_decode(self._decoder, data), self.object_type))


def json_codec(object_type: type[Any]) -> Codec[Any]:
    """The built-in JSON codec for ``object_type``: an attrs class, or ``dict``."""
    if object_type is dict:
        return DictCodec()
    if attrs.has(object_type):
        return AttrsCodec(object_type)
    raise TypeError(f"no built-in codec for {object_type!r}: expected an attrs class or dict")


def _encode(encoder: msgspec.json.Encoder, value: Any) -> bytes:
    data = encoder.encode(value)
    check_nesting(data)
    # JSON has no NaN and no infinity; msgspec writes null for them, which would lose the value.
    # null is rare in real objects, so the walk is too.
    # (rfind takes a sixth of the time that `in` takes for these bytes.)
    if data.rfind(b"null") >= 0 and _has_no_number(value):
        raise ValueError("NaN and infinite numbers cannot be stored")
    return data


def _decode(decoder: msgspec.json.Decoder[Any], data: bytes) -> Any:
    check_nesting(data)
    return decoder.decode(data)


def _has_no_number(value: Any) -> bool:
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, dict):
        return any(map(_has_no_number, value.values()))
    return isinstance(value, (list, tuple)) and any(map(_has_no_number, value))


def _make_converter() -> cattrs.Converter:
    converter = cattrs.preconf.json.make_converter(
        detailed_validation=False, omit_if_default=True, forbid_extra_keys=False
    )
    converter.register_structure_hook_factory(attrs.has, _structure_factory(converter))
    converter.register_unstructure_hook_factory(attrs.has, _unstructure_factory(converter))
    converter.register_structure_hook_factory(_is_mapping, _mapping_factory(converter))
    # cattrs would turn what it can into the type; stored bytes of another shape are corrupt.
    for kind in (str, bool, int):
        converter.register_structure_hook(kind, _exactly(kind))
    converter.register_structure_hook(float, _float)
    return converter


def _exactly(kind: type[Any]) -> Any:
    def structure(value: Any, _: Any) -> Any:
        if type(value) is not kind:
            raise TypeError(f"expected {kind.__name__}, not {type(value).__name__}")
        return value

    return structure


def _float(value: Any, _: Any) -> float:
    if type(value) not in (int, float):  # JSON has one kind of number
        raise TypeError(f"expected a number, not {type(value).__name__}")
    return float(value)


def _renames(cls: Any) -> dict[str, Any]:
    return {
        field.name: cattrs.gen.override(rename=camel_case(field.name))
        for field in attrs.fields(typing.get_origin(cls) or cls)
    }


def _structure_factory(converter: cattrs.Converter) -> Any:
    def factory(cls: Any) -> Any:
        from_dict = cattrs.gen.make_dict_structure_fn(
            cls,
            converter,
            _cattrs_detailed_validation=False,
            **_renames(cls),
        )

        def structure(value: Any, kind: Any) -> Any:
            # A list without the fields' names would else become an object of defaults.
            if type(value) is not dict:
                raise TypeError(f"expected an object, not {type(value).__name__}")
            return from_dict(value, kind)

        return structure

    return factory


def _unstructure_factory(converter: cattrs.Converter) -> Any:
    def factory(cls: Any) -> Any:
        return cattrs.gen.make_dict_unstructure_fn(
            cls, converter, _cattrs_omit_if_default=True, **_renames(cls)
        )

    return factory


def _is_mapping(kind: Any) -> bool:
    return typing.get_origin(kind) is collections.abc.Mapping


def _mapping_factory(converter: cattrs.Converter) -> Any:
    """``Mapping`` promises a read-only mapping: decode it as one, so that objects can be shared."""

    def factory(kind: Any) -> Any:
        key_type, value_type = typing.get_args(kind)
        plain = key_type is str and value_type is str
        structure_key = converter.get_structure_hook(key_type)
        structure_value = converter.get_structure_hook(value_type)

        def structure(value: Any, _: Any) -> Any:
            if not isinstance(value, dict):
                raise TypeError(f"expected an object, not {type(value).__name__}")
            if plain:
                for item in value.values():
                    if type(item) is not str:
                        raise TypeError(f"expected str, not {type(item).__name__}")
                return FrozenDict(value)
            return FrozenDict(
                {
                    structure_key(key, key_type): structure_value(item, value_type)
                    for key, item in value.items()
                }
            )

        return structure

    return factory
