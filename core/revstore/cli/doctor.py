"""``revstore doctor``."""

from __future__ import annotations

import contextlib
from typing import Any

import click

from revstore.cacher import Cacher, CacherConfig
from revstore.cli._bench import Bench, Row, milliseconds
from revstore.cli._failures import exit_code_of, one_line
from revstore.cli._output import dump_json
from revstore.cli._session import Session, pass_session, store_options
from revstore.cli._table import TableWriter
from revstore.cli.plugins import plugin_row, print_plugins
from revstore.errors import AccessDenied, StorageError
from revstore.hooks import CheckResult, DoctorCheck
from revstore.kinds import for_prefix
from revstore.operations import unfinished
from revstore.plugins import list_backends, run_doctor

__all__ = ["command"]

# Seconds for reading all objects of one resource.
_CHECK_TIMEOUT = 120.0


@click.command("doctor", short_help="Check the store and its plugins.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json"]),
    default="table",
    help="Output format.  [default: table]",
)
@click.option(
    "--bench", is_flag=True, help="Measure for a few seconds which part limits the store's speed."
)
@store_options
@pass_session
def command(session: Session, *, as_json: bool, output: str, bench: bool) -> None:
    """Check the store and what it needs: its state, its objects, the plugins.

    With --bench it measures instead how long writes and reads take, and what takes the time. The
    store may be in use: one thread sends it about a hundred small requests. Their keys belong to no
    resource, and are deleted afterwards.

    The exit code is 1 if a check failed, 3 if the store cannot be reached.
    """
    as_json = as_json or output == "json"
    if bench:
        _bench(session, as_json=as_json)
        return
    plugins = list_backends()
    checks = list(run_doctor(session.config))
    store: dict[str, Any] = {"type": session.config.resolved_type, "prefix": session.config.prefix}
    objects: dict[str, int] = {}
    try:
        store.update(_status(session))
        checks += _unfinished(session)
        objects = _objects(session)
        checks += _caches(session)
    except StorageError as error:
        store["error"] = one_line(error)
        session.exit_code = exit_code_of(error)
    if any(check.result is CheckResult.FAILED for check in checks):
        session.exit_code = max(session.exit_code, 1)
    rows = [
        {"name": check.name, "result": str(check.result), "detail": check.detail}
        for check in checks
    ]
    if as_json:
        report = {
            "store": store,
            "objects": objects,
            "checks": rows,
            "plugins": [plugin_row(plugin) for plugin in plugins],
        }
        click.echo(dump_json(report))
        return
    _print_section("STORE", [[name, str(value)] for name, value in store.items()])
    _print_section("OBJECTS", [[name, str(count)] for name, count in objects.items()])
    if rows:
        TableWriter(["CHECK", "RESULT", "DETAIL"]).write([list(row.values()) for row in rows])
        click.echo()
    print_plugins(plugins)


def _bench(session: Session, *, as_json: bool) -> None:
    store: dict[str, Any] = {"type": session.config.resolved_type, "prefix": session.config.prefix}
    rows: list[Row] = []
    summary = ""
    try:
        bench = Bench(session.factory)
        rows = bench.rows
        store["server"] = session.factory.backend().status().server
        bench.run()
        summary = bench.summary
    except StorageError as error:
        store["error"] = one_line(error)
        session.exit_code = exit_code_of(error)
    if as_json:
        click.echo(dump_json({"store": store, "bench": _figures(rows), "summary": summary}))
        return
    _print_section("STORE", [[name, str(value)] for name, value in store.items()])
    if rows:
        TableWriter(["BENCH", "MEDIAN", "90 %", "TIMES", "ABOUT"]).write(
            [
                [row.name, _ms(row.median), _ms(row.slow), str(len(row.seconds)), row.about]
                if row.seconds
                else [row.name, "", "", "", row.note]
                for row in rows
            ]
        )
        click.echo()
    if summary:
        click.echo(summary)


def _figures(rows: list[Row]) -> list[dict[str, Any]]:
    """Return the rows with their times in seconds."""
    return [
        {
            "name": row.name,
            "about": row.about,
            "times": len(row.seconds),
            "median": row.median if row.seconds else None,
            "slow": row.slow if row.seconds else None,
            "note": row.note,
        }
        for row in rows
    ]


def _ms(seconds: float) -> str:
    return f"{milliseconds(seconds)} ms"


def _status(session: Session) -> dict[str, Any]:
    backend = session.factory.backend()
    status, size = backend.status(), backend.size()
    told: dict[str, Any] = {
        "server": status.server,
        "store_id": status.store_id,
        "revision": status.revision,
        "compacted_revision": status.compacted_revision,
        "foreign_keys": status.foreign_keys,
    }
    return told if size is None else {**told, "size": size}


def _unfinished(session: Session) -> list[DoctorCheck]:
    """Return a failed check for each operation that has left the store incomplete."""
    backend = session.factory.backend()
    found = []
    for prefix in ("", session.config.prefix):
        # A user of etcd may have no right to keys outside the store's prefix.
        with contextlib.suppress(AccessDenied):
            found.append(unfinished(backend, prefix))
    return [
        DoctorCheck(
            name="operations",
            result=CheckResult.FAILED,
            detail=f"the store is incomplete: run this again to finish it: {each}",
        )
        for each in dict.fromkeys(found)
        if each
    ]


def _objects(session: Session) -> dict[str, int]:
    """Return how many objects there are, by resource."""
    counts = {}
    for prefix in session.factory.stored_resources():
        name = for_prefix(prefix, session.config.resources).qualified
        # An override may have another prefix.
        root = session.config.for_resource(name).prefix.rstrip("/")
        counts[name] = session.factory.backend(name).count(f"{root}{prefix}/").count
    return dict(sorted(counts.items()))


def _caches(session: Session) -> list[DoctorCheck]:
    """Fill a watch cache with each resource, and compare it with the store."""
    checks, count = [], 0
    prefixes = session.factory.stored_resources()
    for prefix in prefixes:
        info = for_prefix(prefix, session.config.resources)
        resource_type = session.factory.resource_type(dict, info)
        storage = session.factory.storage(resource_type, resource=info)
        config = CacherConfig(storage=storage, resource_type=resource_type)
        with Cacher(config) as cache:
            report = cache.check_consistency(timeout=_CHECK_TIMEOUT)
            unreadable = cache.counters.unreadable
        count += report.objects
        name = f"cache of {info.qualified}"
        if report.consistent is None:
            detail = "could not be compared: the store changes too fast; try again"
            checks.append(DoctorCheck(name=name, result=CheckResult.WARNING, detail=detail))
        elif not report.consistent:
            detail = f"differs from the store at {report.first_difference}; please report this"
            checks.append(DoctorCheck(name=name, result=CheckResult.FAILED, detail=detail))
        if unreadable:
            detail = f"{unreadable} objects cannot be read; `revstore get` names them, and says why"
            checks.append(DoctorCheck(name=name, result=CheckResult.WARNING, detail=detail))
    if not checks:
        detail = f"{count} objects of {len(prefixes)} resources match the store"
        checks.append(DoctorCheck(name="caches", result=CheckResult.OK, detail=detail))
    return checks


def _print_section(title: str, rows: list[list[str]]) -> None:
    if rows:
        TableWriter([title, ""]).write(rows)
        click.echo()
