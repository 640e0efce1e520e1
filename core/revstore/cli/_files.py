"""Objects from ``-f``: read, placed into a namespace, duplicates told."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import click

from revstore import kinds
from revstore.cli._scope import DEFAULT_NAMESPACE, type_name
from revstore.errors import InvalidArgument
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
        """What messages call it: "deployment.apps/web"."""
        return f"{type_name(self.info)}/{self.name}"

    @property
    def identity(self) -> tuple[str, str | None, str]:
        """The same for what is stored under the same key."""
        return self.info.prefix, self.namespace, self.name


def files_option(**arguments: Any) -> Callable[[F], F]:
    """The option ``-f``."""
    return click.option(
        "-f",
        "--filename",
        "filenames",
        multiple=True,
        metavar="FILE",
        help="A file, a folder, or - for standard input; may be given several times.",
        **arguments,
    )


def read_items(session: Session, filenames: Sequence[str], namespace: str | None) -> list[Item]:
    """What the files hold, in order. A file that is malformed is complained of and left out. Of
    an object that occurs more than once, which is told, only the last is there.

    ``namespace`` is for objects without one; another than an object's own is refused.
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
                yield from read(source)
            except ManifestError as error:
                session.complain(str(error))


def _placed(
    session: Session, manifests: Iterable[Manifest], namespace: str | None
) -> Iterator[Item]:
    for manifest in manifests:
        obj = manifest.object
        own = obj["metadata"].get("namespace")
        try:
            info = kinds.for_object(obj, session.config.resources)
        except InvalidArgument as error:
            session.complain(f"{manifest.where}: {error}")
            continue
        if namespace and info.namespaced:
            if own and own != namespace:
                session.complain(
                    f"{manifest.where}: the object is in namespace {own!r}, not in "
                    f"{namespace!r} as -n says"
                )
                continue
            obj = with_metadata(obj, namespace=namespace)
        yield Item(info, manifest, obj)
