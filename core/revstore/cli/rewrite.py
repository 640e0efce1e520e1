"""``revstore rewrite``."""

from __future__ import annotations

import click

from revstore.cli._output import dump_json
from revstore.cli._progress import progress_bar
from revstore.cli._scope import resolve
from revstore.cli._session import Session, pass_session, store_options
from revstore.cli._text import names_of
from revstore.kinds import for_prefix
from revstore.operations import RewriteResult, rewrite

__all__ = ["command"]


@click.command("rewrite", short_help="Write stale objects again.")
@click.argument("resources", nargs=-1, metavar="[RESOURCE]...")
@click.option("--all", "everything", is_flag=True, help="Also objects that are not stale.")
@click.option(
    "--until",
    type=click.IntRange(min=1),
    metavar="REVISION",
    help="With --all, only objects last written at REVISION or before: goes on where an "
    "interrupted command ended.  [default: the current revision]",
)
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    metavar="N",
    help="Rewrite at most N objects in a second.  [default: no limit]",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@store_options
@pass_session
def command(
    session: Session,
    *,
    resources: tuple[str, ...],
    everything: bool,
    until: int | None,
    rate: float | None,
    as_json: bool,
) -> None:
    """Write stale objects of the RESOURCEs again, by default all, without changing them.

    \b
    revstore rewrite
    revstore rewrite secrets configmaps --rate 100

    Stale is what was encrypted with an older key, or stored in an older version of its type. The
    store may be in use. Objects keep their expiry. After an interruption the same command goes on.
    Objects that cannot be read are named and left as they are, and the exit code is 1.
    """
    context = click.get_current_context()
    if until and not everything:
        raise click.UsageError("--until needs --all", context)
    session.create = False
    factory = session.factory
    names = names_of(resources)
    if names:
        infos = list(dict.fromkeys(resolve(session, name).info for name in names))
    else:
        overrides = session.config.resources
        infos = [for_prefix(prefix, overrides) for prefix in factory.stored_resources()]
    backends = {id(each): each for each in (factory.backend(info.qualified) for info in infos)}
    if everything and not until and len(backends) == 1:
        (backend,) = backends.values()
        until = backend.status().revision
        session.warn(f"to go on after an interruption, add: --until {until}")
    with progress_bar(shown=not as_json) as on_progress:
        result = (
            rewrite(
                factory,
                infos,
                everything=everything,
                until=until or 0,
                rate=rate or 0.0,
                on_progress=on_progress,
            )
            if infos
            else RewriteResult()
        )
    for error in result.errors:
        session.complain(str(error))
    unnamed = result.failed - len(result.errors)
    if unnamed:
        session.complain(f"{unnamed} more objects cannot be rewritten")
    if as_json:
        report = {
            "seen": result.seen,
            "rewritten": result.rewritten,
            "current": result.current,
            "failed": result.failed,
            "errors": [{"key": error.key, "error": str(error)} for error in result.errors],
        }
        click.echo(dump_json(report))
        return
    failed = f", {result.failed} cannot be rewritten" if result.failed else ""
    click.echo(
        f"Rewrote {result.rewritten} of {result.seen} objects; {result.current} were current"
        f"{failed}."
    )
