"""``revstore backup``."""

from __future__ import annotations

import sys

import attrs
import click

from revstore.cli._output import dump_json
from revstore.cli._places import keys, prefix_option
from revstore.cli._progress import progress_bar
from revstore.cli._session import Session, pass_session, store_options
from revstore.cli._text import TEXT
from revstore.operations import backup, backup_to

__all__ = ["command"]


@click.command("backup", short_help="Write everything in the store to a file.")
@click.argument("file", type=TEXT)
@prefix_option
@click.option(
    "--compression",
    type=click.Choice(["zstd", "gzip", "none"]),
    help="How to compress the file.  [default: zstd if revstore[zstd] is installed, else gzip]",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@store_options
@pass_session
def command(
    session: Session, *, file: str, prefix: str, compression: str | None, as_json: bool
) -> None:
    """Write everything in the store, as it is at one revision, to FILE; - is standard output.

    The store may be in use. Values are copied as they are stored: what is encrypted stays
    encrypted. Only you can read and write the file. It gets its name once it is complete, so an
    interrupted backup leaves the file of before, if there was one.
    """
    to_stdout = file == "-"
    if to_stdout:
        session.output.require()
    if to_stdout and (as_json or sys.stdout.isatty()):
        message = "a backup is not for a terminal" if not as_json else "give - or --json, not both"
        raise click.UsageError(message, click.get_current_context())
    session.create = False
    backend = session.factory.backend()
    with progress_bar(shown=not as_json) as on_progress:
        if to_stdout:
            result = backup_to(
                backend,
                sys.stdout.buffer,
                prefix=prefix,
                compression=compression,
                on_progress=on_progress,
            )
        else:
            result = backup(
                backend, file, prefix=prefix, compression=compression, on_progress=on_progress
            )
    if result.foreign_keys:
        session.warn(f"warning: left out, since not UTF-8: {keys(result.foreign_keys)}")
    if as_json:
        click.echo(dump_json(attrs.asdict(result)))
    elif not to_stdout:
        click.echo(
            f"Backed up {keys(result.keys)} at revision {result.revision}: {result.size} bytes, "
            f"SHA-256 {result.sha256}."
        )
