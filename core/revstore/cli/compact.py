"""``revstore compact``."""

from __future__ import annotations

import click

from revstore.cli._session import Session, pass_session, store_options

__all__ = ["command"]


@click.command("compact", short_help="Discard the history up to a revision.")
@click.option(
    "--revision",
    type=click.IntRange(min=1),
    help="The oldest revision to keep readable.  [default: the current revision]",
)
@store_options
@pass_session
def command(session: Session, revision: int | None) -> None:
    """Discard the history up to a revision. The current objects do not change.

    Lists and watches from before that revision end with "Expired" and must start over.
    """
    session.create = False
    backend = session.factory.backend()
    status = backend.status()
    wanted = revision or status.revision
    if revision is None and wanted <= status.compacted_revision:
        click.echo(f"Nothing to do: already compacted up to revision {status.compacted_revision}.")
        return
    backend.compact(wanted)
    click.echo(f"Compacted up to revision {wanted}.")
