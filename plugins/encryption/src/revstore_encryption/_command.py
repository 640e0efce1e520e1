"""``revstore encryption``."""

from __future__ import annotations

import json

import click

from revstore.cli import TEXT, Session, pass_session, store_options
from revstore_encryption._configuration import KEY_SIZES
from revstore_encryption._key_file import init, rotate
from revstore_encryption._reload import exposure
from revstore_encryption._status import Unreadable, status

__all__ = ["command"]

#: How many values that cannot be decrypted are named; all are counted.
_NAMED = 100


@click.group("encryption", short_help="Make and replace keys, and count what they encrypt.")
def command() -> None:
    """Make and replace the keys that encrypt stored values, and count what they encrypt."""


@command.command("init", short_help="Write a file with a fresh key.")
@click.argument("file", metavar="FILE", type=TEXT)
@click.option(
    "--provider",
    type=click.Choice(list(KEY_SIZES)),
    default="aesgcm",
    show_default=True,
    help="The cipher of the key.",
)
@click.option(
    "--resource",
    "resources",
    multiple=True,
    type=TEXT,
    default=("secrets",),
    show_default=True,
    metavar="RESOURCE",
    help="What is encrypted, such as secrets, '*.apps' or '*.*'. May be repeated.",
)
@store_options
@pass_session
def init_command(session: Session, file: str, provider: str, resources: tuple[str, ...]) -> None:
    """Write an EncryptionConfiguration with a fresh key to FILE, which must not exist.

    Only you can read the file. Values in plain text that are stored already stay readable.
    """
    _check_file(session, file)
    init(file, provider, resources)
    click.echo(f"Wrote {file} with a fresh key: {', '.join(resources)} by {provider}, key1.")


def _check_file(session: Session, file: str) -> None:
    session.refuse_store("FILE is all that is used")
    if file == "-":
        raise click.UsageError("keys have a file: - is none", click.get_current_context())


@command.command("rotate", short_help="Add a fresh first key to a file.")
@click.argument("file", metavar="FILE", type=TEXT)
@click.option(
    "--resource",
    type=TEXT,
    metavar="RESOURCE",
    help="Rotate only the entry that lists this resource.  [default: all entries]",
)
@click.option("--behind", is_flag=True, help="The fresh key can decrypt, but does not encrypt yet.")
@click.option(
    "--front",
    type=TEXT,
    metavar="KEY",
    help="Add none: move the key of this name to the front.",
)
@store_options
@pass_session
def rotate_command(
    session: Session, file: str, resource: str | None, *, behind: bool, front: str | None
) -> None:
    """Add a fresh key to the first provider of each entry of FILE, in front of the others.

    From then on it encrypts new values; the other keys still decrypt. The file is replaced in one
    step, and loses its comments. Programs that use it read it again by themselves.

    \b
    If programs use copies of the file:
      revstore encryption rotate FILE --behind     then copy it to all of them
      revstore encryption rotate FILE --front KEY  then copy it again
    """
    _check_file(session, file)
    if behind and front:
        raise click.UsageError("give --behind or --front, not both", click.get_current_context())
    for each in rotate(file, resource=resource or "", behind=behind, front=front or ""):
        entry = ", ".join(each.resources)
        if not each.key:
            click.echo(f"{entry}: unchanged: {each.reason}")
        elif behind:
            click.echo(f"{entry}: {each.provider}, {each.key} can decrypt.")
        else:
            click.echo(f"{entry}: {each.provider}, {each.key} encrypts new values.")
    exposed = exposure(file)
    if exposed:
        session.warn(f"warning: {exposed}")


@command.command("status", short_help="Count stored values by key.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@store_options
@pass_session
def status_command(session: Session, *, as_json: bool) -> None:
    """Count the stored values by resource, provider and key, and name those that no key decrypts.

    A key that encrypts no stored value may be removed, once no backup needs it. The exit code is
    1 if a value cannot be decrypted, and 3 if a KMS plugin that has its key does not answer.
    """
    named: list[Unreadable] = []
    count = 0

    def unreadable(found: Unreadable) -> None:
        nonlocal count
        count += 1
        session.exit_code = max(session.exit_code, 3 if found.unavailable else 1)
        if count <= _NAMED:
            named.append(found)
            if not as_json:
                session.complain(f"{found.key}: {found.reason}")

    result = status(session.factory, unreadable)
    if as_json:
        report = {
            "values": [
                {
                    "resource": row.resource,
                    "provider": row.provider,
                    "key": row.key,
                    "count": number,
                    "stale": result.stale.get(row, 0),
                }
                for row, number in result.values.items()
            ],
            "unused": [
                {"file": path, "provider": provider, "key": key}
                for path, provider, key in result.unused
            ],
            "unreadable": count,
            "errors": [
                {"key": each.key, "reason": each.reason, "unavailable": each.unavailable}
                for each in named
            ],
        }
        click.echo(json.dumps(report, indent=4, sort_keys=True, ensure_ascii=False))
        return
    if count > _NAMED:
        session.complain(f"{count - _NAMED} more values cannot be decrypted")
    cells = [("RESOURCE", "PROVIDER", "KEY", "VALUES", "STALE")]
    for row, number in result.values.items():
        stale = result.stale.get(row, 0)
        cells.append((row.resource, row.provider, row.key or "-", str(number), str(stale)))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo("   ".join(padded).rstrip())
    for path, provider, key in result.unused:
        click.echo(f"{path}: {provider}, {key} encrypts no stored value.")
