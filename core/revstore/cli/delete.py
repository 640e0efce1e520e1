"""``revstore delete``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import attrs
import click
from click.core import ParameterSource

from revstore.cli._failures import concerns_one_object, one_line
from revstore.cli._files import files_option, read_items
from revstore.cli._scope import (
    Scope,
    Target,
    metadata_of,
    not_found,
    parse_targets,
    scope_option,
    selection_options,
    type_name,
)
from revstore.cli._session import Session, pass_session, store_options
from revstore.cli._table import printable
from revstore.cli.get import find
from revstore.errors import KeyNotFound, PreconditionFailed, StorageError
from revstore.kinds import ResourceInfo
from revstore.selectors import parse_field_selector, parse_label_selector

__all__ = ["command"]


@attrs.frozen
class _Victim:
    """An object to delete. ``candidates`` are tried in turn; ``listed`` ones may be gone by then.
    ``delete`` deletes an object that name and namespace may not identify."""

    target: Target
    candidates: tuple[ResourceInfo, ...]
    name: str
    namespace: str | None
    listed: bool = False
    delete: Callable[[], object] | None = None


@click.command("delete", short_help="Delete objects by name, file or selector.")
@click.argument("what", nargs=-1, metavar="[TYPE NAME... | TYPE/NAME... | TYPE]")
@files_option()
@scope_option()
@selection_options
@click.option("--all", "every", is_flag=True, help="All objects of the type.")
@click.option("--ignore-not-found", is_flag=True, help="Do not fail if an object is missing.")
@click.option("--even-if-corrupt", is_flag=True, help="Delete unreadable objects only.")
@click.option("-o", "--output", type=click.Choice(["name"]), help="Print names only.")
@store_options
@pass_session
def command(
    session: Session,
    *,
    what: tuple[str, ...],
    filenames: tuple[str, ...],
    namespace: str | None,
    all_namespaces: bool,
    selector: str,
    field_selector: str,
    every: bool,
    ignore_not_found: bool,
    even_if_corrupt: bool,
    output: str | None,
) -> None:
    """Delete objects: those named, those in files, or those that a selector matches.

    \b
    revstore delete pod web db
    revstore delete -f manifests/
    revstore delete pods -l app=web
    revstore delete configmaps --all -n test
    revstore delete configmap broken --even-if-corrupt
    revstore delete configmaps --all --even-if-corrupt
    """
    scope = Scope("" if all_namespaces else namespace)
    if filenames:
        if what or selector or field_selector or every or all_namespaces:
            raise _usage("-f cannot be combined with names or selectors")
        victims = _from_files(session, filenames, namespace)
    else:
        targets = parse_targets(session, what)
        _check_usage(targets, selected=bool(selector or field_selector or every or all_namespaces))
        if not any(target.names for target in targets):
            if even_if_corrupt and not every:
                raise _usage(
                    "--even-if-corrupt needs names or --all: no selector can match what is "
                    "unreadable"
                )
            conditions = _conditions(selector, field_selector)
            if every and any(conditions):
                raise _usage("--all cannot be combined with -l or --field-selector")
            if not every and not (conditions and all(conditions)):
                raise _usage("name the objects, or give -l, --field-selector or --all")
        if every and even_if_corrupt:
            victims = _unreadable(session, targets, scope)
        else:
            victims = _from_targets(session, targets, scope, selector, field_selector)
    remove = _Removal(session, scope, ignore_not_found, even_if_corrupt, output)
    for victim in victims:
        remove(victim)


def _conditions(selector: str, field_selector: str) -> list[bool]:
    """Return, for each selector that is given, whether it has a condition.

    " " and "," have none. If one of two selectors is empty, it may come from an unset variable, and
    more would be deleted than intended.
    """
    source = click.get_current_context().get_parameter_source
    return [
        not parsed.empty
        for name, parsed in (
            ("selector", parse_label_selector(selector)),
            ("field_selector", parse_field_selector(field_selector)),
        )
        if source(name) is not ParameterSource.DEFAULT
    ]


def _check_usage(targets: list[Target], *, selected: bool) -> None:
    if selected and any(target.names for target in targets):
        raise _usage("names cannot be combined with -l, --field-selector, --all or -A")


def _usage(message: str) -> click.UsageError:
    return click.UsageError(message, click.get_current_context())


def _from_files(
    session: Session, filenames: tuple[str, ...], namespace: str | None
) -> Iterator[_Victim]:
    for item in read_items(session, filenames, namespace):
        yield _Victim(Target(item.info), (item.info,), item.name, item.namespace)


def _from_targets(
    session: Session, targets: list[Target], scope: Scope, selector: str, field_selector: str
) -> Iterator[_Victim]:
    for target in targets:
        for name in target.names:
            yield _Victim(target, tuple(scope.candidates(target)), name, scope.namespace)
        if target.names:
            continue
        for obj in find(session, target, scope, selector=selector, field_selector=field_selector):
            metadata = metadata_of(obj)
            # Objects of other writers may be stored elsewhere than they say: delete nothing out of
            # scope.
            own = scope.of(target) or str(metadata.get("namespace") or "")
            scoped = bool(own) if target.guessed else target.info.namespaced
            info = attrs.evolve(target.info, namespaced=scoped)
            name = str(metadata.get("name") or "")
            yield _Victim(target, (info,), name, own or None, listed=True)


def _unreadable(session: Session, targets: list[Target], scope: Scope) -> Iterator[_Victim]:
    """Yield the unreadable objects by their keys: nobody knows whether they are of the resource's
    kind."""
    for target in targets:
        info = target.info
        listed = session.factory.registry(info).list(scope.of(target), even_if_corrupt=True)
        storage = session.factory.storage(dict, resource=info)
        for error in listed.errors:
            if scope.holds_key(target, error.key):
                name = error.key.rpartition("/")[2]
                delete = partial(storage.delete, error.key, even_if_corrupt=True)
                yield _Victim(target, (info,), name, None, listed=True, delete=delete)


@attrs.frozen
class _Removal:
    """Deletes one object after the other, and reports the results."""

    session: Session
    scope: Scope
    ignore_not_found: bool
    even_if_corrupt: bool
    output: str | None

    def __call__(self, victim: _Victim) -> None:
        for info in victim.candidates:
            try:
                self._delete(info, victim)
            except KeyNotFound:
                continue
            except StorageError as error:
                if not concerns_one_object(error):
                    raise
                reason = one_line(error)
                if self.even_if_corrupt and isinstance(error, PreconditionFailed):
                    reason = "the object is readable: delete it without --even-if-corrupt"
                self.session.complain(f"{type_name(info)}/{victim.name}: {reason}")
                return
            kind, name = type_name(info), printable(victim.name)
            click.echo(f"{kind}/{name}" if self.output else f'{kind} "{name}" deleted')
            return
        if not self.ignore_not_found and not victim.listed:
            where = Scope(victim.namespace or self.scope.namespace)
            self.session.complain(not_found(victim.target, victim.name, where))

    def _delete(self, info: ResourceInfo, victim: _Victim) -> None:
        if victim.delete is not None:
            victim.delete()
            return
        self.session.factory.registry(info).delete(
            victim.name,
            victim.namespace if info.namespaced else None,
            even_if_corrupt=self.even_if_corrupt,
        )
