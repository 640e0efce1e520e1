"""Resource versions: opaque decimal strings outside, integers inside."""

from __future__ import annotations

import re
from typing import Any, Protocol, TypeVar

from revstore.codec import check_fields, set_field
from revstore.errors import InvalidResourceVersion
from revstore.objects import ObjectMeta, metadata_value, with_metadata
from revstore.raising import guarded

__all__ = [
    "APIObjectVersioner",
    "Versioner",
    "format_resource_version",
    "guarded_versioner",
    "parse_resource_version",
]

T = TypeVar("T")

_DECIMAL = re.compile(r"[0-9]+", re.ASCII)
_MAX = 2**64 - 1


def parse_resource_version(text: str) -> int:
    """Return the number in ``text``, 0 for "". (APIObjectVersioner.ParseResourceVersion)

    Raises:
        InvalidResourceVersion: ``text`` is not a number of ASCII digits, leading zeros included, up
            to 2**64 - 1, or has more than 40 digits.
    """
    if not text:
        return 0
    # int() alone would take "+1", " 1", "1_000" and other scripts' digits. 40 digits are enough
    # for any number in range with many leading zeros; more is refused before int() works on it.
    if isinstance(text, str) and len(text) <= 40 and _DECIMAL.fullmatch(text):
        number = int(text)
        if number <= _MAX:
            return number
    raise InvalidResourceVersion("resourceVersion", text, "a decimal number up to 2**64 - 1, or ''")


def format_resource_version(revision: int) -> str:
    """Return the string for ``revision``; "" for 0."""
    return str(revision) if revision else ""


class Versioner(Protocol[T]):
    """The reader and writer of the resource version in one type of object (storage.Versioner)."""

    def object_resource_version(self, obj: T) -> int:
        """Return the object's version, 0 if it has none.

        Raises:
            InvalidResourceVersion: it is not a number.
        """
        ...

    def update_object(self, obj: T, revision: int) -> T:
        """Return a copy of ``obj`` at ``revision`` (0 clears it); leave ``obj`` unchanged."""
        ...

    def stamp(self, obj: T, revision: int) -> T:
        """Return ``obj`` at ``revision``; it may be changed in place, even if its class is frozen.

        Only the caller holds ``obj``, since it was just decoded.
        """
        ...

    def prepare_object_for_storage(self, obj: T) -> T:
        """Return a copy of ``obj`` without resource version and selfLink; leave ``obj`` unchanged.

        Kubernetes' own method changes the object itself (CREATE-4).

        Raises:
            InvalidObject: ``obj`` has no metadata, or a dict has some that ``ObjectMeta`` cannot
                hold, such as a label that is a number.
        """
        ...


class APIObjectVersioner:
    """The versioner of attrs objects with ``metadata: ObjectMeta`` and of Kubernetes' dicts."""

    def object_resource_version(self, obj: Any) -> int:
        return parse_resource_version(metadata_value(obj, "resource_version"))

    def update_object(self, obj: Any, revision: int) -> Any:
        text = format_resource_version(revision)
        return with_metadata(obj, resource_version=text or (None if isinstance(obj, dict) else ""))

    def stamp(self, obj: Any, revision: int) -> Any:
        if isinstance(obj, dict):
            metadata = obj.get("metadata")
            if isinstance(metadata, dict):
                metadata["resourceVersion"] = format_resource_version(revision)
            return obj
        metadata = getattr(obj, "metadata", None)
        if hasattr(metadata, "resource_version"):
            # It bypasses the freeze on purpose: nobody else has seen the object yet, and evolving
            # it twice would cost as much as decoding it.
            set_field(metadata, "resource_version", format_resource_version(revision))
        return obj

    def prepare_object_for_storage(self, obj: Any) -> Any:
        if isinstance(obj, dict):
            bare = with_metadata(obj, resource_version=None, self_link=None)
            check_fields(ObjectMeta, bare["metadata"], within="metadata")
            return bare
        if metadata_value(obj, "resource_version") == "":
            return obj
        return with_metadata(obj, resource_version="")


class _Guarded:
    """A user's versioner, whose own errors become ``InternalError``."""

    def __init__(self, versioner: Versioner[Any]) -> None:
        self._versioner = versioner
        self.object_resource_version = guarded(versioner.object_resource_version, "versioner")
        self.update_object = guarded(versioner.update_object, "versioner")
        self.stamp = guarded(versioner.stamp, "versioner")
        self.prepare_object_for_storage = guarded(versioner.prepare_object_for_storage, "versioner")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Guarded) and self._versioner == other._versioner

    def __hash__(self) -> int:
        return hash(self._versioner)


def guarded_versioner(versioner: Versioner[T]) -> Versioner[T]:
    """Wrap ``versioner``, so that it raises only errors of ``revstore.errors``."""
    ours = type(versioner) is APIObjectVersioner or isinstance(versioner, _Guarded)
    return versioner if ours else _Guarded(versioner)
