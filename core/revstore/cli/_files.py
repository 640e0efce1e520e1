"""Objects from ``-f``: they are read and given a namespace, and duplicates are reported."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import click

from revstore import kinds
from revstore.cli._scope import DEFAULT_NAMESPACE, type_name
from revstore.errors import InvalidArgument, InvalidObject
from revstore.kinds import ResourceInfo
from revstore.manifests import Manifest, ManifestError, find_sources, read
from revstore.objects import with_metadata

if TYPE_CHECKING:
    from revstore.cli._session import Session

__all__ = ["Item", "files_option", "read_items"]

F = TypeVar("F", bound=Callable[..., Any])


@attrs.frozen
class Item:
    """An object from a file, with the resource that it belongs to."""

    info: ResourceInfo
    manifest: Manifest
    object: dict[str, Any]

    @property
    def name(self) -> str:
        """The object's name."""
        return str(self.object["metadata"]["name"])

    @property
    def namespace(self) -> str | None:
        """The namespace that it is stored in, None if it is in none."""
        given = self.object["metadata"].get("namespace")
        return str(given or DEFAULT_NAMESPACE) if self.info.namespaced else None

    @property
    def title(self) -> str:
        """The name in messages: "deployment.apps/web"."""
        return f"{type_name(self.info)}/{self.name}"

    @property
    def identity(self) -> tuple[str, str | None, str]:
        """A value that is equal for objects stored under the same key."""
        return self.info.prefix, self.namespace, self.name


def files_option(**arguments: Any) -> Callable[[F], F]:
    """Return the option ``-f``."""
    return click.option(
        "-f",
        "--filename",
        "filenames",
        multiple=True,
        metavar="FILE",
        help="A file, a folder, or - for standard input. Can be repeated.",
        **arguments,
    )


def read_items(session: Session, filenames: Sequence[str], namespace: str | None) -> list[Item]:
    """Return the objects in the files, in order.

    A malformed file is reported and left out. If an object occurs more than once, this is reported,
    and only the last one is returned. ``namespace`` is for objects without one; an object with
    another namespace is refused.
    """
    items = list(_placed(session, _manifests(session, filenames), namespace))
    groups: dict[tuple[str, str | None, str], list[Item]] = {}
    for item in items:
        groups.setdefault(item.identity, []).append(item)
    for same in groups.values():
        if len(same) > 1:
            places = ", ".join(item.manifest.where for item in same)
            session.warn(f"warning: {same[-1].title} occurs in {places}: only the last counts")
    return [item for item in items if groups[item.identity][-1] is item]


def _manifests(session: Session, filenames: Sequence[str]) -> Iterator[Manifest]:
    seen = set()
    for filename in filenames:
        try:
            sources = find_sources([filename])
        except ManifestError as error:
            session.complain(str(error))
            continue
        for source in sources:
            if source in seen:
                continue
            seen.add(source)
            try:
                # A folder may hold files that are still empty.
                yield from read(source, empty=source != filename)
            except ManifestError as error:
                session.complain(str(error))


def _placed(
    session: Session, manifests: Iterable[Manifest], namespace: str | None
) -> Iterator[Item]:
    stored = _StoredKinds(session)
    warned = ""
    for manifest in manifests:
        obj = manifest.object
        own = obj["metadata"].get("namespace")
        try:
            # So a kind of unknown scope is where -n says, unless the object names a namespace.
            placed = with_metadata(obj, namespace=own or namespace)
            info = kinds.for_object(placed, session.config.resources)
            stored.check(info)
            if own and namespace and info.namespaced and own != namespace:
                message = f"the object is in namespace {own!r}, not in {namespace!r} as -n says"
                raise InvalidArgument("metadata.namespace", own, namespace, message=message)
        except InvalidArgument as error:
            session.complain(f"{manifest.where}: {error}")
            continue
        if not info.namespaced:
            placed = with_metadata(obj, namespace=None)
            if own and warned != manifest.where:
                warned = manifest.where
                dropped = f"{info.kind} is cluster-scoped: namespace {own!r} is dropped"
                session.warn(f"warning: {manifest.where}: metadata.namespace: {dropped}")
        yield Item(info, manifest, placed)


class _StoredKinds:
    """Keeps undeclared kinds with the same plural from sharing keys."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._kinds = {info.prefix: info.kind for info in kinds.known(session.config.resources)}

    def check(self, info: ResourceInfo) -> None:
        """Refuse a kind if another one in the store, or in a file before, has its keys.

        Raises:
            InvalidObject: there is another one.
        """
        kind = self._kinds.get(info.prefix)
        if kind is None:
            kind = self._session.stored_kind(info) or info.kind
            self._kinds[info.prefix] = kind
        if kind != info.kind:
            expected = (
                f"a different kind: did you mean {kind!r}, which exists and has the same plural?"
            )
            raise InvalidObject("kind", info.kind, expected)
