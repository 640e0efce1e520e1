"""A backup: everything that a store holds at one revision, in one file."""

from __future__ import annotations

import datetime
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import attrs

from revstore.backend import Backend
from revstore.errors import AccessDenied, Compacted, StoreInUse
from revstore.operations._expiry import Expiries
from revstore.operations._file import (
    FORMAT,
    VERSION,
    BackupWriter,
    Compression,
    Header,
    check_compression,
)
from revstore.operations._marker import markers_in
from revstore.operations._new_file import new_file
from revstore.operations._pages import pages
from revstore.operations._progress import Meter, OnProgress
from revstore.values import BackendStatus, KeyValue

__all__ = ["BackupResult", "backup", "backup_to", "denied"]

# A store that compacts every few minutes may do so while a long backup runs.
_TRIES = 3


@attrs.frozen
class BackupResult:
    """What a backup holds: ``keys`` at ``revision`` of the store ``store_id``.

    The file has ``size`` bytes, and ``sha256`` names it. ``foreign_keys`` counts the keys that are
    not UTF-8, which are left out.
    """

    keys: int
    revision: int
    store_id: str
    size: int
    sha256: str
    compression: Compression
    foreign_keys: int


def backup(
    backend: Backend,
    path: str | os.PathLike[str],
    *,
    prefix: str = "",
    compression: Compression | None = None,
    timeout: float | None = None,
    on_progress: OnProgress | None = None,
) -> BackupResult:
    """Write all keys with ``prefix``, as they are at one revision, to the file ``path``.

    The store may be in use. Only the owner can read and write the file. It gets the name ``path``
    once it is complete, and replaces a file of that name. If this function fails, there is no file.
    If the store compacts the revision meanwhile, the backup begins again, twice at most.

    ``compression`` is "zstd", "gzip" or "none"; None is zstd if it is installed, else gzip.
    ``timeout`` is in seconds, for each request.

    Raises:
        Compacted: the store compacts faster than it can be read.
        AccessDenied: the user may not read all keys with ``prefix``.
        CorruptObject: the stored bytes of a key do not fit their checksum.
        InvalidArgument: ``path`` is neither new nor a regular file.
        StoreInUse: a restore or another operation is unfinished in the store.
        OSError: the file cannot be written.
        Unsupported: a key expires, and the store does not say when; or zstandard is missing.
    """
    compression = check_compression(compression)
    for tries in range(_TRIES):
        try:
            with new_file(Path(path)) as stream:
                return backup_to(
                    backend,
                    stream,
                    prefix=prefix,
                    compression=compression,
                    timeout=timeout,
                    on_progress=on_progress,
                )
        except Compacted:
            if tries == _TRIES - 1:
                raise
    raise AssertionError("unreachable")


def backup_to(
    backend: Backend,
    stream: IO[bytes],
    *,
    prefix: str = "",
    compression: Compression | None = None,
    timeout: float | None = None,
    on_progress: OnProgress | None = None,
) -> BackupResult:
    """Write a backup to ``stream``, as ``backup`` does, but do not begin again.

    After an error the stream has the beginning of a backup, which is refused by all readers.
    """
    compression = check_compression(compression)
    with denied(prefix):
        status = backend.status(timeout=timeout)
        total = backend.count(prefix, timeout=timeout).count
        began = datetime.datetime.fromtimestamp(time.time(), datetime.UTC)
        expiries = Expiries(backend, timeout=timeout)
        meter = Meter(on_progress, "backing up", total)
        with ExitStack() as stack:
            writer: BackupWriter | None = None
            for page in pages(backend, prefix, timeout=timeout):
                if writer is None:
                    header = _header(status, page.revision, prefix, compression, began)
                    writer = BackupWriter(stream, header)
                    stack.callback(writer.stop)
                _check_complete(page.kvs)
                writer.write(page.kvs, expiries.of)
                meter.add(len(page.kvs))
            assert writer is not None
            digest = writer.finish()
    meter.finish()
    return BackupResult(
        writer.count,
        page.revision,
        status.store_id,
        writer.size,
        digest,
        compression,
        status.foreign_keys,
    )


def _check_complete(kvs: Sequence[KeyValue]) -> None:
    for key in markers_in([kv.key for kv in kvs]):
        message = f"the store is incomplete, as {key!r} says: finish what fills it first"
        raise StoreInUse(message, key=key)


@contextmanager
def denied(prefix: str) -> Iterator[None]:
    """Say in errors about access which keys were asked for."""
    try:
        yield
    except AccessDenied as error:
        asked = f"the keys with the prefix {prefix!r}" if prefix else "all keys"
        message = f"{error}; it needs {asked}: a prefix restricts it to those that a role may use"
        raise AccessDenied(message) from error


def _header(
    status: BackendStatus,
    revision: int,
    prefix: str,
    compression: Compression,
    began: datetime.datetime,
) -> Header:
    return Header(
        FORMAT,
        VERSION,
        status.store_id,
        status.server,
        revision,
        prefix,
        began.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        compression,
    )
