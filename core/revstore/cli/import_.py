"""``revstore import``."""

from __future__ import annotations

import attrs
import click

from revstore.cli._output import dump_json
from revstore.cli._progress import progress_bar
from revstore.cli._session import Session, pass_session, store_options
from revstore.cli._text import TEXT
from revstore.operations import ImportResult, import_objects

__all__ = ["command"]


@click.command("import", short_help="Store objects from manifests as they are.")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=TEXT)
@click.option(
    "--preserve-uids",
    is_flag=True,
    help="Store uids, creation times, generations and the like as they are in the manifests.",
)
@click.option("--overwrite", is_flag=True, help="Replace objects that exist and differ.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@store_options
@pass_session
def command(
    session: Session,
    *,
    paths: tuple[str, ...],
    preserve_uids: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Store the objects of manifests: files or folders as `export` writes them, or - for standard
    input.

    \b
    revstore import --preserve-uids cluster/
    zcat cluster.jsonl.gz | revstore import -

    An object that exists is left alone; if it differs, that is an error. So the same command goes
    on after an interruption; what was done until then is printed. Without --preserve-uids, objects
    get new uids, and owner references to them break; the command says which.
    """
    ended: list[ImportResult] = []
    try:
        with progress_bar(shown=not as_json) as on_progress:
            import_objects(
                session.factory,
                paths,
                preserve_uids=preserve_uids,
                overwrite=overwrite,
                on_progress=on_progress,
                on_end=ended.append,
            )
    finally:
        for result in ended:
            _report(session, result, as_json=as_json)


def _report(session: Session, result: ImportResult, *, as_json: bool) -> None:
    for failure in result.failures:
        session.complain(f"{failure.where}: {failure.reason}")
    if result.failed > len(result.failures):
        session.complain(f"{result.failed - len(result.failures)} more objects failed")
    if result.other_expiry:
        session.warn(
            f"warning: {result.other_expiry} of the unchanged objects expire at another moment "
            "than the manifests say: --overwrite would change it"
        )
    if result.broken:
        first = result.references[0]
        session.warn(
            f"warning: {result.broken} owner references name uids that no object has now, such as "
            f"that of {first.key} to {first.owner}: --preserve-uids would keep them"
        )
    if as_json:
        click.echo(dump_json(attrs.asdict(result)))
        return
    before = "" if result.complete else "Before it ended: "
    click.echo(
        f"{before}Created {result.created}, replaced {result.replaced}, unchanged "
        f"{result.unchanged}, failed {result.failed}."
    )
