"""``revstore verify``."""

from __future__ import annotations

import attrs
import click

from revstore.cli._output import dump_json
from revstore.cli._places import keys, opened, prefix_option
from revstore.cli._progress import progress_bar
from revstore.cli._session import Session, pass_session, store_options
from revstore.cli._table import TableWriter
from revstore.cli._text import TEXT
from revstore.operations import verify

__all__ = ["command"]


@click.command("verify", short_help="Compare two stores, or a store and a backup.")
@click.argument("source", metavar="FROM", type=TEXT)
@click.argument("target", metavar="[TO]", required=False, type=TEXT)
@prefix_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@store_options
@pass_session
def command(
    session: Session, *, source: str, target: str | None, prefix: str, as_json: bool
) -> None:
    """Compare what FROM and TO hold: keys, values, and when they expire.

    Each is the URL of a store, a TOML file, or a backup; without TO it is the store of --store.
    Revisions may differ. Nobody should write to the stores meanwhile. The exit code is 1 if they
    differ; of the differences, up to 100 are shown.
    """
    if target is not None:
        session.refuse_store("FROM and TO name the stores")
    if source == target == "-":
        raise click.UsageError("only one can be standard input", click.get_current_context())
    session.create = False
    with progress_bar(shown=not as_json) as on_progress, opened(source, on_progress) as left:
        if target is None:
            result = verify(
                left, session.factory.backend(), prefix=prefix or None, on_progress=on_progress
            )
        else:
            with opened(target, on_progress) as right:
                result = verify(left, right, prefix=prefix or None, on_progress=on_progress)
    session.exit_code = 0 if result.equal else 1
    if as_json:
        click.echo(dump_json({**attrs.asdict(result), "equal": result.equal}))
    elif result.equal:
        click.echo(f"{keys(result.keys)} {'is' if result.keys == 1 else 'are'} equal.")
    else:
        TableWriter(["DIFFERENCE", "KEY"]).write(
            [[each.what, each.key] for each in result.differences]
        )
        differ = "differs" if result.different == 1 else "differ"
        click.echo(f"{result.different} of {keys(result.keys)} {differ}.")
