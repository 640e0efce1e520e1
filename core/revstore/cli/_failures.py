"""Errors as the command line shows them: one line, advice for the user, and an exit code."""

from __future__ import annotations

import signal

import click

from revstore.cli._table import printable
from revstore.errors import (
    AccessDenied,
    ConfigError,
    Conflict,
    CorruptObject,
    CorruptObjects,
    CorruptStore,
    IncompatibleStore,
    IncompatibleVersion,
    InternalError,
    InvalidArgument,
    KeyExists,
    KeyNotFound,
    NoSpace,
    NotReady,
    OutcomeUnknown,
    PluginError,
    PreconditionFailed,
    ReadOnly,
    StorageError,
    Timeout,
    TooLargeResourceVersion,
    Unreachable,
    Unsupported,
    ValueTooLarge,
)
from revstore.manifests import ManifestError

__all__ = [
    "Failed",
    "Misconfigured",
    "concerns_one_object",
    "exit_code_of",
    "interrupt_behind",
    "one_line",
]


class Failed(click.ClickException):
    """The command cannot go on; the exit code is 1."""


class Misconfigured(click.ClickException):
    """The configuration is refused, whatever the command; the exit code is 2. It is not an
    ``InvalidArgument``, which a command may attribute to one object."""

    exit_code = 2


_UNREACHABLE = (Unreachable, Timeout, AccessDenied, NotReady, TooLargeResourceVersion)

_OF_OBJECTS = (
    InvalidArgument,
    KeyNotFound,
    KeyExists,
    Conflict,
    PreconditionFailed,
    CorruptObject,
    InternalError,
    ValueTooLarge,
)

# The first that fits; what the error's own text already says is not repeated.
_ADVICE: tuple[tuple[type[StorageError], str], ...] = (
    (OutcomeUnknown, "check whether the write took effect before you retry"),
    (Timeout, "try again; if the error persists, run `revstore doctor`"),
    (Unreachable, "is the server running, and is its address correct?"),
    (AccessDenied, "check credentials and file permissions"),
    (Conflict, "read the object again and reapply the change"),
    (IncompatibleVersion, "use a program that knows the version, or declare it in [resources]"),
    (CorruptObject, "`revstore delete TYPE NAME --even-if-corrupt` removes it"),
    (CorruptObjects, "`revstore delete TYPE NAME --even-if-corrupt` removes one"),
    (CorruptStore, "restore it from a backup"),
    (IncompatibleStore, "check that --store names the right store"),
    (NoSpace, "free some space and retry"),
    (ReadOnly, "make it writable, or choose another store with --store"),
)


def exit_code_of(error: BaseException) -> int:
    """Return the exit code of the process for ``error``."""
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        # Signals other than SIGINT are named by the error.
        return 128 + (error.args[0] if error.args else signal.SIGINT)
    if isinstance(error, click.ClickException):
        return error.exit_code
    if isinstance(error, _UNREACHABLE):
        return 3
    if isinstance(error, ManifestError):
        return 1
    return 2 if isinstance(error, (InvalidArgument, PluginError, Unsupported)) else 1


def interrupt_behind(error: BaseException | None) -> KeyboardInterrupt | None:
    """Return the Ctrl-C that ``error`` arose from. Python 3.11 turns one within ``__set_name__``,
    as in the making of an enum, into a RuntimeError, and a plugin's import fails of that."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error


def concerns_one_object(error: StorageError) -> bool:
    """Return whether other objects may succeed: the store itself is all right."""
    return isinstance(error, _OF_OBJECTS) and not isinstance(error, ConfigError)


def one_line(error: BaseException) -> str:
    """Return the error, and advice for the user, without line breaks."""
    if isinstance(error, click.UsageError):
        where = f"; see `{error.ctx.command_path} --help`" if error.ctx else ""
        # The message of this error, which click has since 8.2, is the whole help.
        missing = type(error).__name__ == "NoArgsIsHelpError"
        text = ("missing command" if missing else error.format_message().rstrip(".")) + where
    elif isinstance(error, click.ClickException):
        text = error.format_message()
    elif isinstance(error, StorageError):
        advice = next((text for kind, text in _ADVICE if isinstance(error, kind)), "")
        text = f"{error}: {advice}" if advice else str(error)
    elif isinstance(error, OSError):
        named = error.filename and error.strerror
        text = f"{error.filename}: {error.strerror}" if named else str(error)
    else:
        text = f"unexpected {type(error).__name__}: {error}; --debug shows where"
    return printable(" ".join(text.split()))
