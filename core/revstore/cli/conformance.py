"""``revstore conformance``."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import click

from revstore.cli._failures import Failed
from revstore.cli._output import dump_json
from revstore.cli._session import Session, pass_session, store_options
from revstore.cli._table import TableWriter
from revstore.cli._text import TEXT
from revstore.config import StorageConfig
from revstore.plugins import PluginState, check_backend, open_backend

if TYPE_CHECKING:
    from revstore.testing.conformance import ConformanceReport

__all__ = ["command"]


@click.command("conformance", short_help="Test the guarantees of a store.")
@click.argument("url", required=False, type=TEXT)
@click.option("--json", "as_json", is_flag=True, help="Print each guarantee as JSON.")
@click.option(
    "--histories",
    default=3,
    show_default=True,
    type=click.IntRange(0),
    help="Number of recorded workloads to check.",
)
@click.option("--histories-only", is_flag=True, help="Skip the test suite.")
@click.option(
    "--only", default="", metavar="WORDS", help="Run only matching tests, as pytest -k does."
)
@click.option("--own", is_flag=True, help="The store is not shared: test compaction too.")
@store_options
@pass_session
def command(
    session: Session,
    *,
    url: str | None,
    as_json: bool,
    histories: int,
    histories_only: bool,
    only: str,
    own: bool,
) -> None:
    """Test whether the store at URL keeps the guarantees of the contract of backends.

    The store may be in use: all keys are under a random prefix and are deleted afterwards. Its
    history is not compacted, unless nobody else can use the store. The exit code is 1 if a
    guarantee is not kept.
    """
    try:
        from revstore.testing.conformance import Outcome, run_conformance
    except ModuleNotFoundError as error:
        raise Failed(
            f"{error.name} is not installed; try: pip install 'revstore[testing]'"
        ) from error
    config = StorageConfig.load(url) if url else session.config
    status = check_backend(config.resolved_type)
    report = run_conformance(
        lambda: open_backend(config),
        suite=not histories_only,
        histories=histories,
        only=only,
        own=own,
        declared=status.capabilities if status.status is PluginState.OK else None,
    )
    if not report.passed:
        session.exit_code = 1
    if as_json:
        rows = [
            {
                "group": each.group,
                "name": each.name,
                "guarantee": each.guarantee,
                "outcome": str(each.outcome),
                "detail": each.detail,
            }
            for each in report.results
        ]
        click.echo(dump_json({"passed": report.passed, "results": rows}))
        return
    _print(report, [str(outcome) for outcome in Outcome])


def _print(report: ConformanceReport, outcomes: list[str]) -> None:
    """Print a line for each group, then the reasons for tests that did not run, then failures."""
    groups: dict[str, Counter[str]] = {}
    for each in report.results:
        groups.setdefault(each.group, Counter())[str(each.outcome)] += 1
    header = ["GUARANTEES", *(outcome.upper() for outcome in outcomes)]
    rows = [[group, *(str(counts[name]) for name in outcomes)] for group, counts in groups.items()]
    TableWriter(header).write(rows)
    untried = ("unsupported", "not run")
    reasons = Counter((str(r.outcome), r.detail) for r in report.results if r.outcome in untried)
    for (outcome, reason), times in sorted(reasons.items()):
        click.echo(f"{outcome}: {reason} ({times})")
    for each in report.failures:
        click.echo(f"\n{each.group}: {each.name}: {each.guarantee}")
        click.echo("    " + " ".join(each.detail.split())[:500])
