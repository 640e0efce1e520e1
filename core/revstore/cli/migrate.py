"""``revstore migrate``."""

from __future__ import annotations

import attrs
import click

from revstore.cli._output import dump_json
from revstore.cli._places import about_clients, keys, prefix_option, store_at
from revstore.cli._progress import progress_bar
from revstore.cli._session import Session, pass_session, store_options
from revstore.cli._text import TEXT
from revstore.config import redact_url
from revstore.operations import DEFAULT_REASON, MigrationResult, migrate

__all__ = ["command"]


@click.command("migrate", short_help="Move a store that is in use.")
@click.argument("source", metavar="FROM", type=TEXT)
@click.argument("target", metavar="TO", type=TEXT)
@click.option(
    "--replace",
    is_flag=True,
    help="Allow a store that has keys; those that FROM lacks are deleted.",
)
@prefix_option
@click.option("--no-leases", is_flag=True, help="Give keys that share a lease a time to live each.")
@click.option(
    "--reason",
    type=TEXT,
    default=DEFAULT_REASON,
    metavar="TEXT",
    help="The error of programs that write to FROM.",
)
@click.option(
    "--writers-stopped",
    is_flag=True,
    help="You have stopped all programs that write to FROM; needed if it cannot be fenced, as "
    "etcd2.",
)
@click.option(
    "--bump-by-writes",
    is_flag=True,
    help="Where the revision can only be raised by writes, as in etcd: write up to that of FROM.",
)
@click.option("--abort", is_flag=True, help="Give up: let programs write to FROM again.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@store_options
@pass_session
def command(
    session: Session,
    *,
    source: str,
    target: str,
    replace: bool,
    prefix: str,
    no_leases: bool,
    reason: str,
    writers_stopped: bool,
    bump_by_writes: bool,
    abort: bool,
    as_json: bool,
) -> None:
    """Move the store FROM, which may be in use, to the store TO.

    Each is a URL or a TOML file. TO must be empty, or filled by `copy --follow` from FROM. First
    everything is copied. Then FROM is fenced: programs that write to it get an error with the
    reason. The rest is copied, and both stores are compared. If the command is interrupted, the
    same command goes on; --abort removes the fence.
    """
    session.refuse_store("FROM and TO name the stores")
    if abort:
        with store_at(source) as left:
            left.unfence()
        if as_json:
            click.echo(dump_json({"fenced": False}))
        else:
            click.echo(
                "Programs can write to FROM again. Do not use TO: nothing brings it up to date."
            )
        return
    try:
        with (
            progress_bar(shown=not as_json) as on_progress,
            store_at(source) as left,
            store_at(target, create=True) as right,
        ):
            result = migrate(
                left,
                right,
                prefix=prefix,
                replace=replace,
                leases=not no_leases,
                reason=reason,
                writers_stopped=writers_stopped,
                bump_by_writes=bump_by_writes,
                on_progress=on_progress,
            )
    except KeyboardInterrupt:
        session.warn("Stopped. The same command goes on; with --abort, FROM can be written again.")
        raise
    if as_json:
        click.echo(dump_json(attrs.asdict(result)))
    else:
        _report(result, target)
    if result.moved:
        session.warn(
            "warning: FROM changed after its writers were stopped: a key expired, or a program "
            "that ignores the fence wrote to it; what it writes from now on is lost"
        )
    if not result.old_versions_expire:
        session.warn(about_clients(result.source_revision, result.revision))


def _report(result: MigrationResult, target: str) -> None:
    name = "REVSTORE_URL" if "://" in target else "REVSTORE_CONFIG"
    fence = (
        "FROM is fenced: programs get an error if they write to it."
        if result.fenced
        else "Nothing keeps programs from writing to FROM, so do not start any there."
    )
    click.echo(
        f"Moved {keys(result.keys)}, as of revision {result.source_revision}; TO is at revision "
        f"{result.revision}. {fence}"
    )
    click.echo(f"Now change the configuration of your programs: {name}={redact_url(target)}")
