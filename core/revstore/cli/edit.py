"""``revstore edit``."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import click

from revstore import kinds
from revstore.cli._failures import Failed, one_line
from revstore.cli._output import dump_json, dump_yaml, with_type
from revstore.cli._scope import (
    Scope,
    metadata_of,
    not_found,
    parse_targets,
    read_one,
    scope_option,
    type_name,
)
from revstore.cli._session import Session, pass_session, store_options
from revstore.errors import Conflict, InvalidArgument, KeyNotFound
from revstore.kinds import ResourceInfo
from revstore.manifests import ManifestError, parse
from revstore.objects import with_metadata

__all__ = ["command"]

_HEADING = """\
# Edit the object below, then save and quit. Lines that begin with # are ignored.
# An unchanged or empty file cancels the edit.
#
"""

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@click.command("edit", short_help="Change an object in an editor.")
@click.argument("what", nargs=-1, metavar="TYPE NAME | TYPE/NAME")
@scope_option()
@store_options
@pass_session
def command(session: Session, what: tuple[str, ...], namespace: str | None) -> None:
    """Change an object in $EDITOR (else vi).

    If somebody else has changed it meanwhile, nothing is stored. If your text could not be stored,
    it is kept in a file, which the error names.
    """
    targets = parse_targets(session, what)
    if len(targets) != 1 or len(targets[0].names) != 1:
        raise click.UsageError("name one object", click.get_current_context())
    target, scope = targets[0], Scope(namespace)
    name = target.names[0]
    try:
        obj = with_type(target.info, read_one(session, target, name, scope))
    except KeyNotFound:
        raise Failed(not_found(target, name, scope)) from None
    info = _scoped(tuple(scope.candidates(target)), obj)
    before = _HEADING + dump_yaml(obj)
    with _buffer(before) as path:
        _run_editor(path)
        after = _read(path)
        if after == before.encode() or not _content(after):
            click.echo("Edit cancelled, no changes made.")
            return
        edited = _store(session, info, obj, after)
    if edited is None:
        click.echo("Edit cancelled, no changes made.")
    else:
        click.echo(f"{type_name(info)}/{name} edited")


def _scoped(infos: tuple[ResourceInfo, ...], obj: dict[str, Any]) -> ResourceInfo:
    """Return the one of ``infos`` that has the scope of ``obj``, for a resource that may have
    either."""
    namespaced = bool(metadata_of(obj).get("namespace"))
    return next((info for info in infos if info.namespaced == namespaced), infos[0])


@contextmanager
def _buffer(text: str) -> Iterator[Path]:
    """Yield a file that nobody else can read, and remove it afterwards.

    If an error or a signal ends the edit and the user has written something, the file is kept, and
    the error says where it is.
    """
    folder = Path(tempfile.mkdtemp(prefix="revstore-edit-"))  # mode 0700
    path = folder / "object.yaml"
    kept = ""
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(text.encode())
        yield path
    except BaseException as error:
        kept = _written_by_user(path, text)
        if not kept:
            raise
        if isinstance(error, Exception):
            raise Failed(f"{one_line(error)}; {kept}") from error
        click.echo(f"error: the edit was ended; {kept}", err=True)
        raise
    finally:
        if not kept:
            shutil.rmtree(folder, ignore_errors=True)


def _read(path: Path) -> bytes:
    if not path.is_file():  # a pipe would be waited for
        raise OSError(f"{path}: the editor has left no file there")
    return path.read_bytes()


def _written_by_user(path: Path, text: str) -> str:
    """Return a phrase that says where the user's text is; "" if there is none.

    An editor that was ended may have put it into a file beside, as vi does.
    """
    try:
        if _read(path) != text.encode():
            return f"your edits are saved in {path}"
        others = len(list(path.parent.iterdir())) > 1
    except OSError:
        others = True
    return f"the files that your editor saved are in {path.parent}" if others else ""


def _run_editor(path: Path) -> None:
    """Run the editor to its end.

    Ctrl-C is the editor's own while it runs. SIGTERM and SIGHUP are passed on to it, so that it can
    save its text and restore the terminal; the command ends when it has.
    """
    editor = os.environ.get("EDITOR", "").strip() or "vi"
    try:
        words = shlex.split(editor)
    except ValueError as error:
        raise Failed(f"$EDITOR {editor!r} cannot be split into words: {error}") from error
    child: subprocess.Popen[bytes] | None = None
    ended = 0

    def handle(number: int, _: FrameType | None) -> None:
        nonlocal ended
        if number == signal.SIGINT:
            return
        ended = number
        if child is not None:
            child.send_signal(number)

    # A handler, unlike SIG_IGN, is not inherited by the editor; what was ignored at the start is.
    previous = {number: signal.getsignal(number) for number in _SIGNALS}
    caught = [number for number in _SIGNALS if previous[number] is not signal.SIG_IGN]
    try:
        for number in caught:
            signal.signal(number, handle)
        child = subprocess.Popen([*words, str(path)])  # noqa: S603
        if ended:
            child.send_signal(ended)
        code = child.wait()
    except OSError as error:
        raise Failed(f"cannot run {editor!r}: {error.strerror}; set $EDITOR") from error
    finally:
        for number in caught:
            signal.signal(number, previous[number])
    if ended:
        raise KeyboardInterrupt(ended)
    if code:
        raise Failed(f"{editor!r} ended with code {code}: no changes made")


def _content(text: bytes) -> list[bytes]:
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith(b"#")]


def _store(
    session: Session, info: ResourceInfo, before: dict[str, Any], text: bytes
) -> dict[str, Any] | None:
    """Store the text and return the object; None if it is unchanged."""
    manifests = parse(text, "the edited text")
    if len(manifests) != 1:
        raise ManifestError("the edited text", f"holds {len(manifests)} objects, not one")
    obj = manifests[0].object
    if _identity(obj, session) != _identity(before, session):
        raise ManifestError("the edited text", "kind, name and namespace must stay as they are")
    # The version that was read counts, whatever the text says now.
    obj = with_metadata(
        obj,
        resource_version=metadata_of(before).get("resourceVersion"),
        uid=metadata_of(before).get("uid"),
    )
    # In Python 1, 1.0 and True are equal; as text they differ.
    if dump_json(obj) == dump_json(before):
        return None
    try:
        stored: dict[str, Any] = session.factory.registry(info).update(obj)
    except Conflict as error:
        raise Failed("the object was changed by another client; nothing was written") from error
    return stored


def _identity(obj: dict[str, Any], session: Session) -> tuple[str, object, object]:
    try:
        prefix = kinds.for_object(obj, session.config.resources).prefix
    except InvalidArgument as error:
        raise ManifestError("the edited text", str(error)) from error
    return prefix, metadata_of(obj).get("name"), metadata_of(obj).get("namespace")
