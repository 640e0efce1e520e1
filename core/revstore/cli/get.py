"""``revstore get``."""

from __future__ import annotations

from typing import Any

import click

from revstore.cli._failures import one_line
from revstore.cli._output import Found, output_option, print_found
from revstore.cli._scope import (
    Scope,
    Target,
    not_found,
    parse_targets,
    read_one,
    scope_option,
    selection_options,
)
from revstore.cli._session import Session, pass_session, store_options
from revstore.cli._streams import Query, follow
from revstore.errors import CorruptObject, KeyNotFound

__all__ = ["command", "find"]


@click.command("get", short_help="Show objects.")
@click.argument("what", nargs=-1, metavar="TYPE[,TYPE...] [NAME...] | TYPE/NAME...")
@scope_option()
@selection_options
@output_option
@click.option("-w", "--watch", is_flag=True, help="After listing, print changes as they arrive.")
@click.option("--show-labels", is_flag=True, help="Add a column that shows the labels.")
@click.option("--no-headers", is_flag=True, help="Omit table headings.")
@click.option("--ignore-not-found", is_flag=True, help="Do not fail if an object is missing.")
@store_options
@pass_session
def command(
    session: Session,
    *,
    what: tuple[str, ...],
    namespace: str | None,
    all_namespaces: bool,
    selector: str,
    field_selector: str,
    output: str,
    watch: bool,
    show_labels: bool,
    no_headers: bool,
    ignore_not_found: bool,
) -> None:
    """Show objects: all of a type, or those named.

    \b
    revstore get pods
    revstore get pods,services -A -l app=web
    revstore get pod web db -o yaml
    revstore get deploy/web svc/web
    revstore get all

    "all" is what runs: pods, services, deployments and the like, as in kubectl.
    """
    scope = Scope("" if all_namespaces else namespace)
    targets = parse_targets(session, what)
    named = any(target.names for target in targets)
    if named and (selector or field_selector or all_namespaces):
        raise click.UsageError(
            "a name cannot be combined with a selector or -A", click.get_current_context()
        )
    if watch:
        query = Query(selector, field_selector, scope)
        follow(session, targets, query, output=output, headers=not no_headers, labels=show_labels)
        return
    found = [
        Found(
            target,
            find(
                session,
                target,
                scope,
                selector=selector,
                field_selector=field_selector,
                ignore_not_found=ignore_not_found,
                even_if_corrupt=True,
            ),
        )
        for target in targets
    ]
    print_found(
        found,
        output,
        single=named and sum(len(target.names) for target in targets) == 1,
        namespaces=all_namespaces,
        labels=show_labels,
        headers=not no_headers,
    )
    if (
        not named
        and output in ("table", "wide", "name")
        and not any(each.objects for each in found)
        and not session.exit_code
    ):
        session.warn(_nothing(targets, scope))


def find(
    session: Session,
    target: Target,
    scope: Scope,
    *,
    selector: str = "",
    field_selector: str = "",
    ignore_not_found: bool = False,
    even_if_corrupt: bool = False,
) -> list[dict[str, Any]]:
    """Return the objects of ``target``: those named, else all that the selectors match.

    Names that do not exist are reported, and with ``even_if_corrupt`` objects that cannot be read.
    """
    if not target.names:
        registry = session.factory.registry(target.info)
        listed = registry.list(
            scope.of(target),
            label_selector=selector,
            field_selector=field_selector,
            even_if_corrupt=even_if_corrupt,
        )
        for error in listed.errors:
            if scope.holds_key(target, error.key):
                session.complain(one_line(error))
        return [obj for obj in listed if scope.holds(target, obj)]
    objects = []
    for name in target.names:
        try:
            objects.append(read_one(session, target, name, scope))
        except KeyNotFound:
            if not ignore_not_found:
                session.complain(not_found(target, name, scope))
        except CorruptObject as error:
            session.complain(one_line(error))
    return objects


def _nothing(targets: list[Target], scope: Scope) -> str:
    if scope.namespace and any(target.info.namespaced for target in targets):
        return f"No resources found in namespace {scope.namespace}; -A looks in all."
    return "No resources found."
