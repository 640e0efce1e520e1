"""To which resource an object, a class or a prefix of keys belongs, and which kinds are refused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from revstore.errors import InvalidArgument, InvalidObject
from revstore.kinds._names import Overrides, known, only, overridden
from revstore.kinds._table import (
    BUILTIN_GROUPS,
    BY_KIND,
    BY_PREFIX,
    KINDS,
    ResourceInfo,
    is_in,
    plural_of,
)

__all__ = ["check", "for_class", "for_object", "for_prefix", "is_kind", "is_resource", "leads_back"]


def for_class(name: str, overrides: Overrides | None = None) -> ResourceInfo:
    """Return the resource of a class called ``name``.

    It is that of the kind of exactly this name, else a new one in the core group.

    Raises:
        InvalidArgument: several groups have a kind of that name, or the name is not a kind but
            could be mistaken for one: it differs from a kind only in case, or has the same plural.
    """
    infos = known(overrides)
    exact = [info for info in infos if info.kind == name]
    info = only(name, [info for info in exact if not info.group] or exact)
    if info is not None:
        return info
    info = ResourceInfo(plural_of(name), name)
    for other in infos:
        if other.kind.lower() == name.lower() or other.prefix == info.prefix:
            raise InvalidArgument("resource", name, _meant(other))
    return info


def _meant(info: ResourceInfo) -> str:
    return f"another name, or resource= (did you mean {info.kind!r}, {info.qualified}?)"


def for_object(obj: Mapping[str, Any], overrides: Overrides | None = None) -> ResourceInfo:
    """Return the resource that ``obj``, a Kubernetes-shaped dict, belongs to.

    ``apiVersion`` and ``kind`` determine it, and for kinds that neither the table nor ``overrides``
    know also ``metadata.namespace``.

    Raises:
        InvalidObject: ``apiVersion`` or ``kind`` is not a valid string, or the kind could be
            mistaken for another one: it differs from one of its group only in case, or has its
            plural.
    """
    group, kind = _group_kind(obj)
    metadata = obj.get("metadata")
    namespaced = isinstance(metadata, Mapping) and bool(metadata.get("namespace"))
    infos = known(overrides, namespaced=namespaced) if overrides else KINDS
    info = None if overrides else BY_KIND.get(kind)
    if info is not None and is_in(info, group):
        return info
    ours = [each for each in infos if is_in(each, group)]
    info = next((each for each in ours if each.kind == kind), None)
    if info is None:
        info = ResourceInfo(plural_of(kind), kind, group, namespaced)
        for other in ours:
            if other.kind.lower() == kind.lower():
                raise _mistaken(obj, other)
    for other in infos:
        if other.prefix == info.prefix and (other.kind, other.group) != (info.kind, info.group):
            raise _mistaken(obj, other)
    return info


def leads_back(info: ResourceInfo, api_version: str, overrides: Overrides | None = None) -> bool:
    """Return whether an object with this apiVersion and the kind of ``info`` belongs to
    ``info``."""
    namespace = {"namespace": "default"} if info.namespaced else {}
    obj = {"apiVersion": api_version, "kind": info.kind, "metadata": namespace}
    try:
        return for_object(obj, overrides).prefix == info.prefix
    except InvalidObject:
        return False


def _mistaken(obj: Mapping[str, Any], other: ResourceInfo) -> InvalidObject:
    kind = obj["kind"]
    if other.kind == kind:
        expected = f'"{other.group}/v1" or another of that group for kind {kind!r}'
        return InvalidObject("apiVersion", obj["apiVersion"], expected)
    return InvalidObject("kind", kind, f"a different kind: did you mean {other.kind!r}?")


# A new group must have a dot, as Kubernetes demands. No resource's name has one, so "/<group>/..."
# cannot be among a built-in resource's keys.
_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_GROUP = re.compile(rf"{_LABEL}(\.{_LABEL})+")
_VERSION = re.compile(_LABEL)
_KIND = re.compile("[A-Za-z]([-A-Za-z0-9]*[A-Za-z0-9])?")


def is_kind(text: str) -> bool:
    """Return True if the text can be the kind of an object or the name of a class."""
    return bool(_KIND.fullmatch(text)) or text.isidentifier()


def is_resource(text: str) -> bool:
    """Return True if the text can be a resource: a plural, or a plural, a dot and a group."""
    plural, dot, group = text.partition(".")
    return (
        text == text.lower()
        and bool(re.fullmatch(_LABEL, plural) or plural.isidentifier())
        and bool(not dot or (group and group in BUILTIN_GROUPS) or _GROUP.fullmatch(group))
    )


def _group_kind(obj: Mapping[str, Any]) -> tuple[str, str]:
    version, kind = obj.get("apiVersion"), obj.get("kind")
    if not isinstance(version, str) or not _is_api_version(version):
        raise InvalidObject("apiVersion", version, 'a string such as "v1" or "apps/v1"')
    if not isinstance(kind, str) or not _KIND.fullmatch(kind):
        raise InvalidObject("kind", kind, 'a string such as "Pod"')
    return version.rpartition("/")[0], kind


def _is_api_version(text: str) -> bool:
    group, slash, version = text.rpartition("/")
    known = group in BUILTIN_GROUPS and bool(group) == bool(slash)
    return bool((known or _GROUP.fullmatch(group)) and _VERSION.fullmatch(version))


def for_prefix(prefix: str, overrides: Overrides | None = None) -> ResourceInfo:
    """Return the resource whose keys start with ``prefix``, such as "/pods" or
    "/example.com/widgets".

    If neither the table nor ``overrides`` know it, ``kind`` is the resource's own name, and
    ``namespaced`` is True, although it may hold objects of both scopes.
    """
    for info in overridden(overrides or {}, True):
        if info.prefix == prefix:
            return info
    if prefix in BY_PREFIX:
        return BY_PREFIX[prefix]
    group, _, resource = prefix.strip("/").rpartition("/")
    plain = group.removesuffix(".")
    return ResourceInfo(resource, resource, plain if plain in BUILTIN_GROUPS else group)


def check(info: ResourceInfo) -> None:
    """Refuse a resource whose keys could be those of another.

    Raises:
        InvalidArgument: a name is blank or has a "/", the group has no dot and is not one of
            Kubernetes' own, or another resource has the same prefix.
    """
    first, *rest = parts = info.prefix[1:].split("/")
    back = for_prefix(info.prefix)
    if (
        (back.group, back.resource) != (info.group, info.resource)
        or len(parts) > 2
        or any(not part.strip() or part in (".", "..") for part in parts)
        or bool(rest) != ("." in first)
    ):
        expected = 'a resource and its group, which has a dot, such as "widgets.example.com"'
        raise InvalidArgument("resource", info.qualified, expected)
