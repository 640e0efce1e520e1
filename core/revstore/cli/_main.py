"""The group of commands, each loaded when it is called, and the end of every run."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Any

import click
from click.shell_completion import shell_complete

from revstore.cli._failures import exit_code_of, interrupt_behind, one_line
from revstore.cli._session import Session, store_options
from revstore.cli._standard_streams import Output, guarded_streams

__all__ = ["run"]

# Here, so that the list of commands imports none of them.
_COMMANDS = {
    "apply": "Create or change objects from files.",
    "backup": "Write everything in the store to a file.",
    "conformance": "Test the guarantees of a store.",
    "copy": "Make a store equal to another.",
    "compact": "Discard the history up to a revision.",
    "delete": "Delete objects by name, file or selector.",
    "doctor": "Check the store and its plugins.",
    "edit": "Change an object in an editor.",
    "export": "Write objects as manifests.",
    "get": "Show objects.",
    "import": "Store objects from manifests as they are.",
    "migrate": "Move a store that is in use.",
    "plugins": "List and check the installed backends, or start a new one.",
    "restore": "Fill an empty store from a backup.",
    "rewrite": "Write stale objects again.",
    "verify": "Compare two stores, or a store and a backup.",
    "watch": "List objects, then print changes as they arrive.",
}

#: These go on even if nobody can read what they print: half of the work would be worse.
_CHANGING = frozenset(
    {"apply", "compact", "copy", "delete", "edit", "import", "migrate", "restore", "rewrite"}
)


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        from revstore.plugins import command_names

        return sorted({*_COMMANDS, *command_names()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in _COMMANDS:
            module = "import_" if cmd_name == "import" else cmd_name
            command: click.Command = importlib.import_module(f"revstore.cli.{module}").command
            return command
        from revstore.plugins import has_command, load_command

        if cmd_name not in self.commands and has_command(cmd_name):
            load_command(cmd_name, self)
        return super().get_command(ctx, cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            close = difflib.get_close_matches(args[0], self.list_commands(ctx), 1)
            hint = f": did you mean {close[0]!r}?" if close else ""
            raise click.UsageError(f"no such command {args[0]!r}{hint}", ctx)
        name, command, rest = super().resolve_command(ctx, args)
        ctx.ensure_object(Session).output.keep_going = name in _CHANGING
        return name, command, rest

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, _COMMANDS.get(name, "(from a plugin)")) for name in self.list_commands(ctx)]
            )


def _print_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    from importlib.metadata import version

    from revstore.plugins import list_backends

    click.echo(f"revstore {version('revstore')}")
    for plugin in list_backends(fast=True):
        click.echo(f"  backend {plugin.name} ({plugin.distribution} {plugin.version})")
    ctx.exit()


@click.group(
    cls=_LazyGroup,
    invoke_without_command=True,
    epilog="Exit codes: 0 success; 1 not found, conflict or partial failure; 2 usage or "
    "configuration error; 3 store unreachable.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and the installed backends.",
)
@store_options
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Store, read, watch and change Kubernetes-shaped objects in any store."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line with ``arguments`` (default: the process's); returns the exit code."""
    # A warning is one line here, like an error.
    warnings.showwarning = _show_warning
    words = sys.argv[1:] if arguments is None else arguments
    with guarded_streams() as output:
        code = _run(list(words), output)
        output.keep_going = True
        sys.stdout.flush()
        return _code_of_loss(output.error, code)


def _run(words: list[str], output: Output) -> int:
    session = Session(output=output)
    try:
        try:
            if "_REVSTORE_COMPLETE" in os.environ:
                return shell_complete(
                    cli, {}, "revstore", "_REVSTORE_COMPLETE", os.environ["_REVSTORE_COMPLETE"]
                )
            with cli.make_context("revstore", words, obj=session) as context:
                cli.invoke(context)
            sys.stdout.flush()
        finally:
            session.close()
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except (KeyboardInterrupt, click.Abort) as error:
        return exit_code_of(error)
    except Exception as error:  # noqa: BLE001 - the last place that can tell it
        interrupt = interrupt_behind(error)
        if interrupt is not None:
            return exit_code_of(interrupt)
        if session.debug:
            traceback.print_exc()
        if error is not output.error:
            click.echo(f"error: {one_line(error)}", err=True)
        return exit_code_of(error)
    return session.exit_code


def _code_of_loss(error: OSError | None, code: int) -> int:
    """Return the exit code if the output could not be written.

    It is 141, without a message, if the reader has exited, as `head` does.
    """
    if error is None:
        return code
    if isinstance(error, BrokenPipeError):
        return 141
    click.echo(f"error: standard output cannot be written: {error.strerror}", err=True)
    return max(code, 1)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    click.echo(f"warning: {' '.join(str(message).split())}", err=True)
