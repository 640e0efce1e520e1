"""``revstore copy``."""

from __future__ import annotations

import attrs
import click

from revstore.cli._output import dump_json
from revstore.cli._places import about_clients, keys, prefix_option, store_at
from revstore.cli._progress import progress_bar
from revstore.cli._session import Session, pass_session, store_options
from revstore.cli._text import TEXT
from revstore.operations import copy

__all__ = ["command"]


@click.command("copy", short_help="Make a store equal to another.")
@click.argument("source", metavar="FROM", type=TEXT)
@click.argument("target", metavar="TO", type=TEXT)
@click.option("--follow", is_flag=True, help="Go on with the changes in FROM, until Ctrl-C.")
@click.option(
    "--replace",
    is_flag=True,
    help="Allow a store that has keys; those that FROM lacks are deleted.",
)
@prefix_option
@click.option("--no-leases", is_flag=True, help="Give keys that share a lease a time to live each.")
@click.option(
    "--bump",
    type=click.IntRange(min=0),
    metavar="N",
    help="Raise the revision of TO to N above that of FROM.  [default: a billion]",
)
@click.option(
    "--bump-by-writes",
    is_flag=True,
    help="Where the revision can only be raised by writes, as in etcd: write up to that of FROM, "
    "and N above it.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@store_options
@pass_session
def command(
    session: Session,
    *,
    source: str,
    target: str,
    follow: bool,
    replace: bool,
    prefix: str,
    no_leases: bool,
    bump: int | None,
    bump_by_writes: bool,
    as_json: bool,
) -> None:
    """Make the store TO equal to the store FROM, which may be in use.

    Each is a URL or a TOML file. TO must be empty. If the command is interrupted, the same command
    goes on; until it has finished, TO is marked as incomplete. With --follow it does not finish:
    run it without, to complete TO.
    """
    session.refuse_store("FROM and TO name the stores")
    try:
        with (
            progress_bar(shown=not as_json) as on_progress,
            store_at(source) as left,
            store_at(target, create=True) as right,
        ):
            result = copy(
                left,
                right,
                prefix=prefix,
                follow=follow,
                replace=replace,
                leases=not no_leases,
                bump=bump,
                bump_by_writes=bump_by_writes,
                on_progress=on_progress,
            )
    except KeyboardInterrupt:
        session.warn("Stopped. TO is incomplete; the same command goes on.")
        raise
    if as_json:
        click.echo(dump_json(attrs.asdict(result)))
    else:
        click.echo(
            f"Copied {keys(result.keys)} of revision {result.source_revision}, {result.written} of "
            f"them written; the store is at revision {result.revision}."
        )
    if not result.old_versions_expire:
        session.warn(about_clients(result.source_revision, result.revision))
