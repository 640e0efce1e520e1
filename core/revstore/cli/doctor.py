"""``revstore doctor``."""

from __future__ import annotations

from typing import Any

import click

from revstore.cacher import Cacher, CacherConfig
from revstore.cli._failures import exit_code_of, one_line
from revstore.cli._output import dump_json
from revstore.cli._session import Session, pass_session, store_options
from revstore.cli._table import TableWriter
from revstore.cli.plugins import plugin_row, print_plugins
from revstore.errors import StorageError
from revstore.hooks import CheckResult, DoctorCheck
from revstore.kinds import for_prefix
from revstore.plugins import list_backends, run_doctor

__all__ = ["command"]

# Seconds for reading all objects of one resource.
_CHECK_TIMEOUT = 120.0


@click.command("doctor", short_help="Check the store and what it needs.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@store_options
@pass_session
def command(session: Session, as_json: bool) -> None:
    """Check the store and what it needs: its state, its objects, the plugins.

    The exit code is 1 if a check failed, 3 if the store cannot be reached.
    """
    plugins = list_backends()
    checks = list(run_doctor(session.config))
    store: dict[str, Any] = {"type": session.config.resolved_type, "prefix": session.config.prefix}
    objects: dict[str, int] = {}
    try:
        store.update(_status(session))
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


def _objects(session: Session) -> dict[str, int]:
    """How many objects there are, by resource."""
    counts = {}
    for prefix in session.factory.stored_resources():
        name = for_prefix(prefix, session.config.resources).qualified
        # An override may have a prefix of its own.
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
            detail = "could not be compared with the store, which changes too fast; try again"
            checks.append(DoctorCheck(name=name, result=CheckResult.WARNING, detail=detail))
        elif not report.consistent:
            detail = f"differs from the store at {report.first_difference}; please report this"
            checks.append(DoctorCheck(name=name, result=CheckResult.FAILED, detail=detail))
        if unreadable:
            detail = f"{unreadable} objects cannot be read; get them to see which, and why"
            checks.append(DoctorCheck(name=name, result=CheckResult.WARNING, detail=detail))
    if not checks:
        detail = f"{count} objects of {len(prefixes)} resources are as in the store"
        checks.append(DoctorCheck(name="caches", result=CheckResult.OK, detail=detail))
    return checks


def _print_section(title: str, rows: list[list[str]]) -> None:
    if rows:
        TableWriter([title, ""]).write(rows)
        click.echo()
