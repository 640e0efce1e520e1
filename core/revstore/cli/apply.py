"""``revstore apply``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from revstore.cli._failures import concerns_one_object, one_line
from revstore.cli._files import files_option, read_items
from revstore.cli._output import as_list, dump_json, dump_yaml
from revstore.cli._scope import scope_option
from revstore.cli._session import Session, pass_session, store_options
from revstore.cli._table import printable
from revstore.errors import StorageError

__all__ = ["command"]

# Fewer objects than this are done before anybody could read a bar.
_LONG_WORK = 50


@click.command("apply", short_help="Create or change objects from files.")
@files_option(required=True)
@scope_option(show_default=False, help="Namespace for objects that do not name one.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["name", "json", "yaml"]),
    help="Print names only, or the stored objects.",
)
@store_options
@pass_session
def command(
    session: Session, filenames: tuple[str, ...], namespace: str | None, output: str | None
) -> None:
    """Create or replace the objects of files in the store.

    \b
    revstore apply -f web.yaml
    revstore apply -f manifests/ -f extra.json
    generate | revstore apply -f -

    An object that differs is replaced as a whole: a field that is not in the file is removed
    from the store. A malformed file is reported in one line and left out, the rest is applied, and
    the exit code is 1.
    """
    items = read_items(session, filenames, namespace)
    stored = []
    with _progress(len(items)) as (tell, step):
        for item in items:
            try:
                result = session.factory.registry(item.info).apply(item.object)
            except StorageError as error:
                if not concerns_one_object(error):
                    raise
                session.complain(f"{item.manifest.where}: {item.title}: {one_line(error)}")
            else:
                stored.append(result.object)
                if output in (None, "name"):
                    done = "" if output else f" {result.outcome}"
                    tell(f"{printable(item.title)}{done}")
            step()
    if output in ("json", "yaml"):
        value = stored[0] if len(stored) == 1 else as_list(stored)
        click.echo(dump_json(value) if output == "json" else dump_yaml(value).rstrip("\n"))


_Steps = tuple[Callable[[str], None], Callable[[], None]]


@contextmanager
def _progress(total: int) -> Iterator[_Steps]:
    """Yield two functions: one prints a line, one reports that another object is done.

    A progress bar appears for long work if standard error is a terminal.
    """
    if total < _LONG_WORK or not sys.stderr.isatty():
        yield click.echo, lambda: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    # Lines on the same terminal must go through the bar's console, which moves the bar down.
    shared = sys.stdout.isatty()
    console = Console(stderr=not shared, highlight=False)
    bar = Progress(
        TextColumn("applying"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=shared,
    )

    def tell(line: str) -> None:
        if shared:
            console.print(line, markup=False, soft_wrap=True)
        else:
            click.echo(line)

    with bar:
        task = bar.add_task("applying", total=total)
        yield tell, lambda: bar.advance(task)
