"""``revstore watch``."""

from __future__ import annotations

import click

from revstore.cli._output import output_option
from revstore.cli._scope import Scope, parse_targets, scope_option, selection_options
from revstore.cli._session import Session, pass_session, store_options
from revstore.cli._streams import Query, follow

__all__ = ["command"]


@click.command("watch", short_help="List objects, then print changes as they arrive.")
@click.argument("what", nargs=-1, metavar="TYPE [NAME] | TYPE/NAME")
@scope_option()
@selection_options
@output_option
@click.option("--watch-only", is_flag=True, help="Print only changes, not existing objects.")
@click.option(
    "--resource-version",
    default="",
    metavar="N",
    help="Print only changes after this resource version.",
)
@click.option("--no-headers", is_flag=True, help="Omit table headings.")
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
    watch_only: bool,
    resource_version: str,
    no_headers: bool,
) -> None:
    """Show the objects of a type as ADDED, then each change as it comes, until Ctrl-C.

    With -o json each event is a line: {"object": ..., "type": "MODIFIED"}.
    """
    scope = Scope("" if all_namespaces else namespace)
    follow(
        session,
        parse_targets(session, what),
        Query(selector, field_selector, scope),
        output=output,
        typed=True,
        resource_version=resource_version,
        initial=not watch_only,
        headers=not no_headers,
    )
