"""Files that appear under their name once they are complete."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from revstore.errors import InvalidArgument

__all__ = ["naming", "new_file"]


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Put ``path`` into an OSError that names no file, as that of a write does not."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


@contextmanager
def new_file(path: Path) -> Iterator[IO[bytes]]:
    """Give a new file that gets the name ``path``, durably, unless an exception is raised."""
    try:
        given, path = path, path.resolve()
    except FileNotFoundError as error:  # of the working folder, which was deleted
        error.filename = str(path)
        raise
    if path.exists() and not path.is_file():
        # Such as /dev/null, which must not become a file.
        raise InvalidArgument("path", str(path), "the name of a new file, or of a regular one")
    temporary = path.with_name(f".revstore-{secrets.token_hex(8)}.part")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with naming(given), open(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename == str(temporary):
            error.filename = str(given)  # the other name says nothing to anybody
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
