"""Stores and backups that a command names as arguments."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import click

from revstore.cli._failures import Failed, Misconfigured
from revstore.cli._text import TEXT
from revstore.config import StorageConfig
from revstore.errors import ConfigError
from revstore.operations import BackupReader, OnProgress, open_backup

if TYPE_CHECKING:
    from revstore.backend import Backend

__all__ = ["about_clients", "backup_at", "keys", "opened", "prefix_option", "store_at"]

prefix_option = click.option(
    "--prefix",
    type=TEXT,
    callback=lambda _, __, value: value or "",
    metavar="PREFIX",
    help="Only keys that begin with PREFIX, such as /registry/; needed where a user may not use "
    "other keys.  [default: all keys]",
)


@contextmanager
def store_at(place: str, *, create: bool = False) -> Iterator[Backend]:
    """Open the store that ``place`` names: a URL, or a TOML file as for --config. Without
    ``create`` it must exist."""
    from revstore.factory import StorageFactory

    if "://" not in place and not Path(place).exists():
        raise Misconfigured(f"{place}: there is no such file, and it is no URL of a store")
    try:
        config = StorageConfig.load(Path(place) if _is_file(place) else place)
    except ConfigError as error:
        hint = f" (a store in a file is named by its URL, such as sqlite:///{place})"
        is_other = _is_file(place) and not place.endswith(".toml")
        raise Misconfigured(str(error) + hint * is_other) from error
    # A compactor would write to it.
    with StorageFactory(attrs.evolve(config, compaction_interval=0), create=create) as factory:
        yield factory.backend()


@contextmanager
def backup_at(place: str, on_progress: OnProgress | None = None) -> Iterator[BackupReader]:
    """Open and check the backup in the file or pipe ``place``, or in standard input for "-"."""
    with ExitStack() as stack:
        if place != "-" and not Path(place).is_fifo():
            yield stack.enter_context(open_backup(place, on_progress=on_progress))
            return
        name = "standard input" if place == "-" else place
        stream = sys.stdin.buffer if place == "-" else stack.enter_context(open(place, "rb"))
        # It is read several times. Nobody else can open a file without a name.
        file = stack.enter_context(tempfile.TemporaryFile())
        try:
            while data := stream.read(1 << 20):
                file.write(data)
        except OSError as error:  # such as a closed standard input
            raise Failed(f"{name}: cannot be read: {error.strerror}") from error
        yield stack.enter_context(BackupReader(file, name))


@contextmanager
def opened(place: str, on_progress: OnProgress | None = None) -> Iterator[Backend | BackupReader]:
    """Open a store or a backup: a URL or a TOML file is a store, any other file a backup."""
    is_file = _is_file(place) and not place.endswith(".toml")
    is_backup = place == "-" or is_file or Path(place).is_fifo()
    with backup_at(place, on_progress) if is_backup else store_at(place) as side:
        yield side


def keys(count: int) -> str:
    """Return "1 key", "2 keys"."""
    return f"{count} key{'' if count == 1 else 's'}"


def about_clients(source: int, target: int) -> str:
    """Return the warning that clients may take an old resource version for a new one."""
    ways = "" if target >= source else ", or repeat it with --replace --bump-by-writes"
    return (
        f"warning: TO is at revision {target}, FROM was at {source}: clients that go on from a "
        "resource version of FROM may miss changes; restart them, so that they list first" + ways
    )


def _is_file(place: str) -> bool:
    return "://" not in place and Path(place).is_file()
