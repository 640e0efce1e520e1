"""The properties of one resource's objects that a storage and its cache must know."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import attrs

from revstore.codec import Codec, Upgrade, Versions, json_codec
from revstore.copier import Copier, SharingCopier, default_copier
from revstore.errors import InvalidArgument
from revstore.objects import ObjectMeta, field_value, labels_of, metadata_value, with_metadata
from revstore.raising import guarded, text_of
from revstore.selectors import FieldSelector, LabelSelector, SelectionPredicate
from revstore.storage import INITIAL_EVENTS_END
from revstore.versioner import APIObjectVersioner, Versioner, guarded_versioner

__all__ = ["ResourceType"]

T = TypeVar("T")


def _with_versions(codec: Any, self_: Any) -> Any:
    """Return ``codec`` for the stored versions that the type declares."""
    versions = self_.versions
    own = getattr(codec, "versions", None)
    # A codec may know the group that the declaration leaves out.
    if versions is None or (own and own == versions.in_group(own.version.rpartition("/")[0])):
        return codec
    make = getattr(codec, "with_versions", None)
    if make is None:
        message = (
            f"the codec {codec!r} has no stored versions: leave out version and upgrades, or use "
            "the built-in codec"
        )
        raise InvalidArgument("version", versions.version, "none", message=message)
    return make(versions)


@attrs.frozen
class ResourceType(Generic[T]):
    """The type of a resource's objects, where they are stored, and how they are handled.

    A ``TypedStorage`` and the ``Cacher`` over it take the same one::

        pods = ResourceType(Pod, "/pods", fields=lambda pod, path: pod.node_name)

    ``resource_prefix`` is a path such as "/pods", below which all keys lie. ``codec`` defaults to
    JSON for the type, ``copier`` to sharing frozen objects and copying others. ``new_object``
    creates the empty objects of bookmarks, by default by calling the type without arguments.
    ``labels`` and ``fields`` (AttrFunc) return what selectors see of an object; if they raise, the
    object matches no selector. ``fields`` takes an object and a path such as "spec.nodeName", and
    defaults to the codec's ``field_value`` if it has one, else to ``revstore.objects.field_value``.
    ``version`` is the version in which objects are stored, and ``upgrades`` are functions from the
    plain JSON value of an older version to that of the next, the oldest first: ``version="v3",
    upgrades={"v1": to_v2, "v2": to_v3}``; see docs/types.md. What ``copier``, ``versioner`` and
    ``new_object`` raise becomes ``InternalError``, unless it is an error of ``revstore.errors``.

    Raises:
        InvalidArgument: ``resource_prefix`` is "" or "/", or lacks the first slash (KEY-8), or the
            versions are not valid.
        TypeError: the type has no built-in codec, and none is given.
    """

    object_type: type[T]
    resource_prefix: str = attrs.field()
    version: str = attrs.field(kw_only=True, default="")
    upgrades: Mapping[str, Upgrade] = attrs.field(kw_only=True, factory=dict)
    #: None if no version is declared.
    versions: Versions | None = attrs.field(init=False, eq=False, repr=False)
    codec: Codec[T] = attrs.field(
        kw_only=True,
        converter=attrs.Converter(_with_versions, takes_self=True),  # type: ignore[misc]
    )
    versioner: Versioner[T] = attrs.field(
        kw_only=True, factory=APIObjectVersioner, converter=guarded_versioner
    )
    copier: Copier[T] = attrs.field(kw_only=True)
    new_object: Callable[[], T] = attrs.field(kw_only=True)
    labels: Callable[[T], Mapping[str, str]] = attrs.field(kw_only=True, default=labels_of)
    fields: Callable[[T, str], str] = attrs.field(kw_only=True)
    #: Copies an object for one more reader; None if readers share it.
    copy: Callable[[T], T] | None = attrs.field(init=False, eq=False, repr=False)

    @resource_prefix.validator
    def _check_prefix(self, _: Any, path: str) -> None:
        if not isinstance(path, str) or not path.startswith("/") or not path.strip("/"):
            raise InvalidArgument("resource_prefix", path, 'a path such as "/pods"')

    @versions.default
    def _default_versions(self) -> Versions | None:
        return Versions(self.version, self.upgrades) if self.version or self.upgrades else None

    @codec.default
    def _default_codec(self) -> Codec[T]:
        codec: Codec[T] = json_codec(self.object_type)
        return codec

    @copier.default
    def _default_copier(self) -> Copier[T]:
        return default_copier(self.object_type, self.codec)

    @new_object.default
    def _default_new_object(self) -> Callable[[], T]:
        return lambda: _empty_object(self.object_type)

    @fields.default
    def _default_fields(self) -> Callable[[T, str], str]:
        return getattr(self.codec, "field_value", field_value)

    @copy.default
    def _default_copy(self) -> Callable[[T], T] | None:
        return (
            None if isinstance(self.copier, SharingCopier) else guarded(self.copier.copy, "copier")
        )

    @property
    def root(self) -> str:
        """The beginning of all keys: the resource prefix and one slash, so that "/pods" does not
        hold "/podsecuritypolicies/x"."""
        return self.resource_prefix.rstrip("/") + "/"

    def predicate(
        self, label: str | LabelSelector = "", field: str | FieldSelector = ""
    ) -> SelectionPredicate[T]:
        """Return the predicate of two selectors, parsed or not.

        Raises:
            InvalidSelector: a selector does not parse.
        """
        fields = self.fields
        return SelectionPredicate.of(
            label, field, self.labels, lambda obj: lambda path: fields(obj, path)
        )

    def empty_object(self) -> T:
        """Return a new empty object.

        Raises:
            InvalidArgument: none can be created.
        """
        return guarded(self.new_object, "new_object")()

    def bookmark(self, revision: int, *, initial_events_end: bool = False) -> T:
        """Return an empty object at ``revision``.

        Raises:
            InvalidArgument: none can be created.
        """
        obj = self.versioner.update_object(self.empty_object(), revision)
        if not initial_events_end:
            return obj
        marked: T = with_metadata(obj, annotations={INITIAL_EVENTS_END: "true"})
        return marked


def _empty_object(object_type: type[T]) -> T:
    """Return the zero object of a type: all defaults, empty metadata.

    Raises:
        InvalidArgument: the type needs arguments.
    """
    if object_type is dict:
        return {"metadata": {}}  # type: ignore[return-value]
    try:
        try:
            obj: T = object_type()
        except TypeError:
            obj = object_type(metadata=ObjectMeta())  # type: ignore[call-arg]
    except TypeError as error:
        raise InvalidArgument(
            "new_object",
            "",
            "a function that creates an empty object",
            message=f"bookmarks need an empty object, which cannot be created: {text_of(error)}; "
            "give the ResourceType a new_object function",
        ) from error
    metadata_value(obj, "name")
    return obj
