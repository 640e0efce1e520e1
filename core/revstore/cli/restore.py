"""``revstore restore``."""

from __future__ import annotations

import attrs
import click

from revstore.cli._output import dump_json
from revstore.cli._places import backup_at, keys
from revstore.cli._progress import progress_bar
from revstore.cli._session import Session, pass_session, store_options
from revstore.cli._text import TEXT
from revstore.operations import Merge, RestoreResult, restore

__all__ = ["command"]


@click.command("restore", short_help="Fill an empty store from a backup.")
@click.argument("file", type=TEXT)
@click.option(
    "--merge",
    type=click.Choice([str(each) for each in Merge]),
    help="Allow a store that has keys, and leave or overwrite those that the backup has too.",
)
@click.option(
    "--prefix",
    type=TEXT,
    metavar="PREFIX",
    help="Only keys that begin with PREFIX.  [default: all keys of the backup]",
)
@click.option("--no-leases", is_flag=True, help="Give keys that share a lease a time to live each.")
@click.option(
    "--bump",
    type=click.IntRange(min=0),
    metavar="N",
    help="Raise the store's revision to N above that of the backup.  [default: a billion]",
)
@click.option(
    "--bump-by-writes",
    is_flag=True,
    help="Where the revision can only be raised by writes, as in etcd: write up to the backup's, "
    "and N above it.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@store_options
@pass_session
def command(
    session: Session,
    *,
    file: str,
    merge: str | None,
    prefix: str | None,
    no_leases: bool,
    bump: int | None,
    bump_by_writes: bool,
    as_json: bool,
) -> None:
    """Fill an empty store from the backup FILE, and compare the two; - is standard input.

    A file that was cut or altered is refused before anything is written. If the command is
    interrupted, the same command goes on. No client of the old store should run meanwhile.
    """
    with progress_bar(shown=not as_json) as on_progress, backup_at(file, on_progress) as source:
        result = restore(
            session.factory.backend(),
            source,
            prefix=prefix,
            merge=Merge(merge) if merge else None,
            leases=not no_leases,
            bump=bump,
            bump_by_writes=bump_by_writes,
            on_progress=on_progress,
        )
    if as_json:
        click.echo(dump_json(attrs.asdict(result)))
    else:
        what = f"{keys(result.keys)} of revision {result.backup_revision}"
        if result.resumed and not result.written:
            done = f"The store already holds this backup: {what}"
        elif result.resumed:
            done = f"Finished the restore that had begun: {what}, {result.written} written now"
        else:
            done = f"Restored {what}, {result.written} of them written"
        click.echo(f"{done}; the store is at revision {result.revision}.")
    if not result.old_versions_expire:
        session.warn(f"warning: {_about_clients(result)}")


def _about_clients(result: RestoreResult) -> str:
    if result.revision >= result.backup_revision:
        return (
            "this store cannot be compacted: clients that go on from a resource version of the old "
            "store may miss changes; restart them, so that they list first"
        )
    return (
        f"this store's revision, {result.revision}, is below that of the old one, "
        f"{result.backup_revision}: clients that go on from a resource version of the old store "
        "may miss changes; restart them, so that they list first, or restore with --bump-by-writes"
    )
