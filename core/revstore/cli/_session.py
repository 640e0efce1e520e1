"""The parts that all commands share: the chosen store, opened when first needed, and the exit
code."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import click

from revstore.cli._failures import Misconfigured
from revstore.cli._standard_streams import Output
from revstore.cli._table import printable
from revstore.errors import ConfigError, CorruptObject, CorruptObjects

if TYPE_CHECKING:
    from revstore.config import StorageConfig
    from revstore.factory import StorageFactory
    from revstore.kinds import ResourceInfo

__all__ = ["Session", "pass_session", "store_options"]

F = TypeVar("F", bound=Callable[..., Any])


@attrs.define(eq=False, slots=False)
class Session:
    """One run of the command."""

    store: str = ""
    config_file: str = ""
    debug: bool = False
    #: Whether ``factory`` creates a store that does not exist.
    create: bool = True
    exit_code: int = 0
    output: Output = attrs.field(factory=lambda: Output(1))

    @functools.cached_property
    def config(self) -> StorageConfig:
        """The configuration of --store, --config, or the environment; else revstore.db in the
        current folder."""
        from revstore.config import StorageConfig

        if self.store and self.config_file:
            raise click.UsageError(
                "give --store or --config, not both", click.get_current_context()
            )
        where = Path(self.config_file.strip()) if self.config_file else self.store or None
        try:
            return StorageConfig.load(where)
        except ConfigError as error:
            raise Misconfigured(str(error)) from error

    @functools.cached_property
    def factory(self) -> StorageFactory:
        """The factory, opened at the first use; ``close`` closes it."""
        from revstore.factory import StorageFactory

        return StorageFactory(self.config, create=self.create)

    def refuse_store(self, instead: str) -> None:
        """Refuse --store and --config for a command that takes its stores by ``instead``."""
        for option, given in (("--store", self.store), ("--config", self.config_file)):
            if given:
                message = f"{option} has no meaning here: {instead}"
                raise click.UsageError(message, click.get_current_context())

    def stored_kind(self, info: ResourceInfo) -> str:
        """Return the kind of the first object of a resource that is known only by its keys.

        It is "" if there is no object, or it has no kind.
        """
        registry = self.factory.registry(info, namespaced=True)
        try:
            kinds = [obj.get("kind") for obj in registry.list(limit=1)]
        except (CorruptObject, CorruptObjects):
            readable = registry.list(even_if_corrupt=True)
            kinds = [obj.get("kind") for obj in readable]
        return kinds[0] if kinds and isinstance(kinds[0], str) else ""

    def close(self) -> None:
        """Close the store, if it was opened."""
        if "factory" in self.__dict__:
            self.factory.close()

    def complain(self, message: str, exit_code: int = 1) -> None:
        """Report a failure that does not end the command, and remember it for the exit code."""
        sys.stdout.flush()
        click.echo(f"error: {printable(' '.join(message.split()))}", err=True)
        self.exit_code = max(self.exit_code, exit_code)

    def warn(self, message: str) -> None:
        """Write a warning to standard error."""
        sys.stdout.flush()
        click.echo(printable(message), err=True)


pass_session = click.make_pass_decorator(Session)


def _remember(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    session = ctx.find_object(Session)
    if isinstance(value, str) and not value.strip():
        # Such as --store "$UNSET": the default store is not intended.
        raise click.BadParameter("it is empty", ctx, param)
    if value and session is not None and param.name:
        setattr(session, param.name, value)


def store_options(command: F) -> F:
    """Add the options that every command takes, before or after the command's name."""
    for names, arguments in (
        (("--debug",), {"is_flag": True, "help": "Show where an error comes from."}),
        (
            ("--config", "config_file"),
            {"metavar": "FILE", "help": "A TOML file that says where the store is."},
        ),
        (
            ("--store",),
            {
                "metavar": "URL",
                "help": "The store, such as sqlite:///cluster.db.  [default: $REVSTORE_URL, "
                "$REVSTORE_CONFIG, or revstore.db in this folder]",
            },
        ),
    ):
        option = click.option(*names, expose_value=False, callback=_remember, **arguments)
        command = option(command)
    return command
