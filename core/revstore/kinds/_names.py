"""The names of resources: those that the configuration adds, and those that people write."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol, TypeAlias

from revstore.errors import InvalidArgument
from revstore.kinds._table import KINDS, ResourceInfo, is_in, plural_of

__all__ = [
    "Overrides",
    "ResourceOverride",
    "find",
    "known",
    "lookup",
    "only",
    "overridden",
]


class ResourceOverride(Protocol):
    """The configuration's settings of a resource that the table lacks."""

    @property
    def kind(self) -> str: ...
    @property
    def namespaced(self) -> bool | None: ...
    @property
    def short_names(self) -> Sequence[str]: ...


#: The configuration's ``resources``: by "widgets.example.com".
Overrides: TypeAlias = Mapping[str, ResourceOverride]


def overridden(overrides: Overrides, namespaced: bool) -> list[ResourceInfo]:
    """Return the resources of the configuration; ``namespaced`` is the default where it does not
    say."""
    infos = []
    for name, given in overrides.items():
        resource, _, group = name.lower().partition(".")
        scope = namespaced if given.namespaced is None else given.namespaced
        shorts = tuple(short.lower() for short in given.short_names)
        infos.append(ResourceInfo(resource, given.kind, group, scope, shorts))
    return infos


def known(overrides: Overrides | None = None, *, namespaced: bool = True) -> list[ResourceInfo]:
    """Return the resources of the configuration and of the table.

    A resource of the configuration replaces one of the table. ``namespaced`` is the default where
    the configuration does not say.
    """
    own = overridden(overrides or {}, namespaced)
    taken = {info.prefix for info in own}
    return [*own, *(info for info in KINDS if info.prefix not in taken)]


_VERSION_NAME = re.compile(r"v[1-9][0-9]*((alpha|beta)[1-9][0-9]*)?")


def _readings(name: str) -> Iterator[tuple[str, str | None]]:
    """Yield each name and group (None: any) that "name.group" or "name.version.group" may mean."""
    first, dot, group = name.lower().removesuffix(".").partition(".")
    yield first, group if dot else None
    version, _, rest = group.partition(".")
    if _VERSION_NAME.fullmatch(version):
        yield first, rest


_WAYS: tuple[Callable[[ResourceInfo, str], bool], ...] = (
    lambda info, name: info.resource == name,
    # If a resource is known only by its keys, the kind is the resource's name.
    lambda info, name: (
        name == info.kind.lower()
        or (info.kind == info.resource and plural_of(name) == info.resource)
    ),
    lambda info, name: name in info.short_names,
)


def find(name: str, infos: Iterable[ResourceInfo]) -> list[ResourceInfo]:
    """Return those of ``infos`` that ``name`` may mean, in upper or lower case.

    The name is a plural, kind or short name, alone or with the group or version and group, as
    "deployments", "Deployment", "deploy", "deployments.apps" or "deployments.v1.apps". Plurals have
    precedence over kinds, and kinds over short names. A name without a group means the core group's
    resource if there is one. Several are returned if several groups have the name.
    """
    infos = list(infos)
    for wanted, group in _readings(name):
        among = infos if group is None else [info for info in infos if is_in(info, group)]
        for is_called in _WAYS:
            found = [info for info in among if is_called(info, wanted)]
            if found:
                return [info for info in found if not info.group] or found
    return []


def only(name: str, found: Sequence[ResourceInfo]) -> ResourceInfo | None:
    """Return the one resource that ``find`` found, None if it found none.

    Raises:
        InvalidArgument: there are several; the error names them.
    """
    if len(found) > 1:
        names = " or ".join(sorted(info.qualified for info in found))
        message = f"{name!r} is the name of several resources: write {names}"
        raise InvalidArgument("resource", name, names, message=message)
    return found[0] if found else None


def lookup(name: str, overrides: Overrides | None = None) -> ResourceInfo | None:
    """Return the resource called ``name``, or None if there is none of that name."""
    return only(name, find(name, known(overrides))) if overrides else _in_table(name)


@functools.lru_cache(256)
def _in_table(name: str) -> ResourceInfo | None:
    return only(name, find(name, KINDS))
