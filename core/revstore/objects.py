"""Objects with metadata: what revstore reads and fills in when it stores them.

There are two shapes. A *typed* object is an instance of a class with a field ``metadata:
ObjectMeta``. An *unstructured* one is a plain dict in Kubernetes' JSON shape, with a dict under
"metadata"; fields that revstore does not know stay unchanged.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, ClassVar

import attrs

from revstore.codec import FrozenDict, camel_case, evolve, json_codec
from revstore.errors import InvalidObject

__all__ = [
    "ObjectMeta",
    "OwnerReference",
    "camel_case",
    "field_value",
    "labels_of",
    "metadata_value",
    "snake_case",
    "with_metadata",
]


def _frozen(given: Mapping[str, str]) -> Mapping[str, str]:
    # Anything else is left to the codec, which refuses it by name.
    return FrozenDict(given) if type(given) is dict else given


@attrs.frozen(kw_only=True)
class OwnerReference:
    """The object that owns this one (Kubernetes metav1.OwnerReference)."""

    __omit_empty__: ClassVar = True

    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool | None = None
    block_owner_deletion: bool | None = None


@attrs.frozen(kw_only=True)
class ObjectMeta:
    """Kubernetes' metav1.ObjectMeta, without what only an apiserver needs.

    Times are RFC 3339 strings in UTC, as Kubernetes writes them. ``resource_version`` is an opaque
    string, "" on an object that was never stored; it is never part of the stored bytes. Labels and
    annotations cannot be changed: those given are copied into a ``FrozenDict``. Fields that are
    empty are left out of the stored bytes, as Kubernetes leaves them out.
    """

    __omit_empty__: ClassVar = True

    name: str = ""
    generate_name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: str = ""
    deletion_timestamp: str = ""
    deletion_grace_period_seconds: int | None = None
    labels: Mapping[str, str] = attrs.field(default=FrozenDict(), converter=_frozen)
    annotations: Mapping[str, str] = attrs.field(default=FrozenDict(), converter=_frozen)
    owner_references: tuple[OwnerReference, ...] = ()
    finalizers: tuple[str, ...] = ()

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """Let a pydantic model have a field of this class, which takes instances of it."""
        from pydantic_core import core_schema

        return core_schema.is_instance_schema(cls)


@functools.cache
def snake_case(name: str) -> str:
    """Convert ``resourceVersion`` to ``resource_version``; a run of capitals is one word."""
    out = []
    for index, char in enumerate(name):
        if char.isupper():
            after_lower = index > 0 and not name[index - 1].isupper()
            before_lower = 0 < index < len(name) - 1 and name[index + 1].islower()
            if after_lower or before_lower:
                out.append("_")
        out.append(char.lower())
    return "".join(out).lstrip("_")


def _metadata(obj: Any) -> Any:
    metadata = obj.get("metadata") if isinstance(obj, dict) else getattr(obj, "metadata", None)
    if metadata is None or (isinstance(obj, dict) and not isinstance(metadata, dict)):
        raise InvalidObject(
            "metadata",
            type(obj).__name__,
            "an attrs object with a field metadata, or a dict with a dict under 'metadata'",
        )
    return metadata


def metadata_value(obj: Any, name: str) -> Any:
    """Return the metadata field of the snake-case ``name``; "" if it is absent or None.

    Raises:
        InvalidObject: the object has no metadata.
    """
    metadata = _metadata(obj)
    value = (
        metadata.get(camel_case(name))
        if isinstance(metadata, dict)
        else getattr(metadata, name, None)
    )
    return "" if value is None else value


def with_metadata(obj: Any, **changes: Any) -> Any:
    """Return a copy of ``obj`` with these metadata fields (snake case); for a dict, None removes
    one.

    Only the object and its metadata are copied; everything below is shared.

    Raises:
        InvalidObject: the object has no metadata.
    """
    metadata = _metadata(obj)
    if isinstance(obj, dict):
        changed = dict(metadata)
        for name, value in changes.items():
            if value is None:
                changed.pop(camel_case(name), None)
            else:
                changed[camel_case(name)] = value
        return {**obj, "metadata": changed}
    if isinstance(metadata, dict):
        merged = {**metadata, **{camel_case(name): value for name, value in changes.items()}}
        return evolve(obj, metadata=merged)
    if type(metadata) is ObjectMeta:
        return evolve(obj, metadata=attrs.evolve(metadata, **changes))
    for name in changes:
        if not hasattr(metadata, name):
            raise InvalidObject(
                f"metadata.{name}", type(metadata).__name__, "a class with the fields of ObjectMeta"
            )
    return evolve(obj, metadata=evolve(metadata, **changes))


def labels_of(obj: Any) -> Mapping[str, str]:
    """Return the object's labels; empty if it has none, or no metadata."""
    try:
        labels = metadata_value(obj, "labels")
    except InvalidObject:
        return {}
    return labels if isinstance(labels, (dict, Mapping)) else {}


def field_value(obj: Any, path: str) -> str:
    """Return the value at a dotted path in JSON spelling, such as "spec.nodeName", as a string.

    Booleans are "true" and "false". The result is "" if there is no value, or no scalar, at the
    path, as in Kubernetes' field sets. Typed objects are read as they are in JSON, so that a
    selector has the same answer for them and for dicts.
    """
    return str(json_codec(type(obj)).field_value(obj, path))
