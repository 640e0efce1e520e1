"""``revstore export``."""

from __future__ import annotations

import sys

import click

from revstore.cli._failures import one_line
from revstore.cli._output import dump_json
from revstore.cli._progress import progress_bar
from revstore.cli._scope import resolve, scope_option
from revstore.cli._session import Session, pass_session, store_options
from revstore.cli._text import TEXT, names_of
from revstore.kinds import ResourceInfo
from revstore.operations import export_objects

__all__ = ["command"]


@click.command("export", short_help="Write objects as manifests.")
@click.argument("types", nargs=-1, metavar="[TYPE[,TYPE...]]...")
@click.option(
    "-o",
    "--output",
    required=True,
    type=TEXT,
    metavar="PATH",
    help="A folder; or a file whose name ends in .yaml or .jsonl; or - for standard output.",
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(["tree", "yaml", "jsonl"]),
    help="A folder of YAML files, one YAML file, or one object a line.  [default: by the name of "
    "PATH; jsonl for -]",
)
@click.option("--exclude", multiple=True, metavar="TYPE", help="Leave out. May be repeated.")
@scope_option(show_default=False, help="Only the objects of this namespace.  [default: all]")
@click.option("-l", "--selector", default="", metavar="LABELS", help="Such as app=web,tier!=db.")
@click.option(
    "--plain-text", is_flag=True, help="Export objects readable that the store has encrypted."
)
@click.option(
    "--even-if-corrupt", is_flag=True, help="Leave out and name objects that cannot be exported."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@store_options
@pass_session
def command(
    session: Session,
    *,
    types: tuple[str, ...],
    output: str,
    format_: str | None,
    exclude: tuple[str, ...],
    namespace: str | None,
    selector: str,
    plain_text: bool,
    even_if_corrupt: bool,
    as_json: bool,
) -> None:
    """Write objects as manifests that `import`, `apply` and kubectl read.

    \b
    revstore export -o cluster/
    revstore export -o pods.yaml pods,services -n shop -l app=web
    revstore export -o - --exclude secrets | gzip > cluster.jsonl.gz

    All objects are read at one revision. Only you can read the files. A folder of an earlier export
    is brought up to date: files of objects that are gone are deleted.
    """
    if output == "-" and (as_json or format_ == "tree"):
        message = "standard output can have no tree" if not as_json else "give - or --json"
        raise click.UsageError(message, click.get_current_context())
    if output == "-":
        session.output.require()
    session.create = False
    with progress_bar(shown=not as_json and output != "-") as on_progress:
        result = export_objects(
            session.factory,
            sys.stdout.buffer if output == "-" else output,
            format=format_ or "",
            resources=_infos(session, types),
            exclude=_infos(session, exclude),
            namespace=namespace,
            label_selector=selector,
            plain_text=plain_text,
            even_if_corrupt=even_if_corrupt,
            on_progress=on_progress,
        )
    for error in result.errors:
        session.complain(one_line(error))
    if result.failed > len(result.errors):
        session.complain(f"{result.failed - len(result.errors)} more objects were left out")
    if as_json:
        click.echo(
            dump_json(
                {
                    "objects": result.objects,
                    "revision": result.revision,
                    "resources": dict(result.resources),
                    "failed": result.failed,
                }
            )
        )
    elif output != "-":
        noun = "object" if result.objects == 1 else "objects"
        click.echo(f"Exported {result.objects} {noun} at revision {result.revision}.")


def _infos(session: Session, types: tuple[str, ...]) -> list[ResourceInfo]:
    return [resolve(session, name).info for name in names_of(types)]
