"""``revstore plugins``."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from revstore.cli._output import dump_json
from revstore.cli._session import Session, pass_session, store_options
from revstore.cli._skeleton import write_plugin
from revstore.cli._table import TableWriter
from revstore.plugins import PluginState, PluginStatus, check_backend, list_backends

__all__ = ["command", "plugin_row", "print_plugins"]


@click.group("plugins", short_help="List and check the installed backends, or start a new one.")
def command() -> None:
    """List and check the installed backends, or start a new one."""


_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@command.command("list")
@_json_option
@click.option("--fast", is_flag=True, help="Read the metadata only, without importing plugins.")
@store_options
@pass_session
def _list(session: Session, as_json: bool, fast: bool) -> None:
    """Show the installed backends; no driver is imported."""
    plugins = list_backends(fast=fast)
    if as_json:
        click.echo(dump_json([plugin_row(plugin) for plugin in plugins]))
    else:
        print_plugins(plugins)


@command.command("check")
@click.argument("name")
@_json_option
@store_options
@pass_session
def _check(session: Session, name: str, as_json: bool) -> None:
    """Import the backend NAME with its drivers; the exit code is 1 if it does not work."""
    plugin = check_backend(name)
    if as_json:
        click.echo(dump_json(plugin_row(plugin)))
    else:
        print_plugins([plugin])
    if plugin.status != PluginState.OK:
        session.exit_code = 1


@command.command("new")
@click.argument("name")
@click.option(
    "--directory",
    type=click.Path(path_type=Path),
    help="Target folder.  [default: revstore-NAME in this folder]",
)
def _new(name: str, directory: Path | None) -> None:
    """Write the skeleton of a backend called NAME: a distribution that already works."""
    folder = directory or Path(f"revstore-{name}")
    for path in write_plugin(name, folder):
        click.echo(path)
    click.echo(f"Next: cd {shlex.quote(str(folder))}; pip install -e '.[testing]'; pytest tests")


def plugin_row(plugin: PluginStatus) -> dict[str, Any]:
    """Return a plugin as JSON."""
    version = plugin.api_version
    return {
        "name": plugin.name,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "status": str(plugin.status),
        "reason": plugin.reason,
        "api_version": ".".join(map(str, version)) if version else None,
        "capabilities": sorted(map(str, plugin.capabilities)),
        "description": plugin.description,
        "drivers": plugin.drivers,
    }


def print_plugins(plugins: Sequence[PluginStatus]) -> None:
    """Print a table of plugins; the last column says what is wrong with each."""
    rows = []
    for plugin in plugins:
        api = ".".join(map(str, plugin.api_version)) if plugin.api_version else ""
        drivers = ", ".join(f"{name} {version}" for name, version in plugin.drivers.items())
        about = plugin.reason or "; ".join(filter(None, (plugin.description, drivers)))
        origin = f"{plugin.distribution} {plugin.version}"
        rows.append([plugin.name, str(plugin.status), origin, api, about])
    TableWriter(["NAME", "STATUS", "DISTRIBUTION", "API", "ABOUT"]).write(rows)
