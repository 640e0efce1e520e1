"""A store filled from a backup."""

from __future__ import annotations

import datetime
import os
import time
from collections.abc import Iterator

import attrs

from revstore.backend import Backend
from revstore.deadlines import check_count
from revstore.errors import InvalidArgument, StoreInUse, StoresDiffer
from revstore.operations._backup import denied
from revstore.operations._compare import differences, in_backup, in_store
from revstore.operations._expiry import left_of
from revstore.operations._file import BackupReader, Record
from revstore.operations._marker import (
    Marker,
    check_complete,
    clear_marker,
    find_begun,
    first_key,
    marker_key,
    read_marker,
    set_marker,
)
from revstore.operations._progress import Meter, OnProgress
from revstore.operations._revision import raise_above
from revstore.operations._target import Merge, Target, batches, check_fits

__all__ = ["RestoreResult", "open_backup", "restore"]


@attrs.frozen
class RestoreResult:
    """What a restore did.

    Of ``keys`` in the backup it wrote ``written``; the others were there. ``resumed`` says that it
    finished an earlier one, or found it finished. ``backup_revision`` is that of the old store,
    ``revision`` that of the restored one. ``old_versions_expire`` says that a client gets
    ``Expired`` for each resource version up to ``backup_revision``; otherwise the store may take
    one for its own.
    """

    keys: int
    written: int
    resumed: bool
    backup_revision: int
    revision: int
    old_versions_expire: bool


def open_backup(
    path: str | os.PathLike[str], *, on_progress: OnProgress | None = None
) -> BackupReader:
    """Open and check the backup in the file ``path``.

    Raises:
        InvalidBackup: it was cut or altered, is not a backup, or is one of an unknown version.
        OSError: the file cannot be read.
        Unsupported: it is compressed by zstd, and zstandard is not installed.
    """
    file = open(path, "rb")  # noqa: SIM115 - the reader closes it
    try:
        size = os.fstat(file.fileno()).st_size
        meter = Meter(on_progress, "checking", size)
        reader = BackupReader(file, os.fspath(path), on_bytes=meter.add)
        meter.finish()
    except BaseException:
        file.close()
        raise
    return reader


def restore(
    backend: Backend,
    source: BackupReader,
    *,
    prefix: str | None = None,
    merge: Merge | None = None,
    leases: bool = True,
    bump: int | None = None,
    bump_by_writes: bool = False,
    timeout: float | None = None,
    on_progress: OnProgress | None = None,
) -> RestoreResult:
    """Write the keys of a backup to a store, and compare the two.

    ``prefix`` restricts it to some of the keys; None means all of the backup. The store must have
    no keys with this prefix, unless ``merge`` says what happens to keys that both have. After an
    interruption the same call goes on. Until then a key that ends in "/revstore.unfinished", which
    no reader of objects sees, says that the store is incomplete. Without ``leases``, keys that
    shared a lease get a ttl each.

    At the end the store's revision is raised to ``bump`` above that of the backup, by default a
    billion, and lower ones are compacted, so that clients of the old store get ``Expired``. A store
    without RAISE_REVISION gets there by writes, one for each revision, and only with
    ``bump_by_writes``; ``bump`` is then 0 by default.

    Raises:
        StoreInUse: the store has keys, or another operation is unfinished in it.
        StoresDiffer: others have changed the store meanwhile.
        InvalidArgument: the backup does not have all keys with ``prefix``, or ``bump`` is no number
            from 0 on.
        AccessDenied: the user may not use all keys with ``prefix``.
        Unsupported: the store cannot hold a key, such as one that expires.
        ValueTooLarge: the store does not take a value.
    """
    if prefix is None:
        prefix = source.header.prefix
    if not prefix.startswith(source.header.prefix):
        expected = f"a prefix that begins with {source.header.prefix!r}, as the backup's"
        raise InvalidArgument("prefix", prefix, expected)
    if bump is not None:
        check_count("bump", bump, 0)
    work = _Restore(
        backend, source, prefix, None if merge is None else Merge(merge), timeout, on_progress
    )
    with denied(prefix):
        if work.is_done():
            return work.result_of_before()
        resumed = work.begin()
        written = work.write(resumed=resumed, leases=leases)
        keys = work.compare(resumed=resumed)
        expire = raise_above(
            backend,
            prefix,
            source.header.revision,
            bump,
            by_writes=bump_by_writes,
            timeout=timeout,
            on_progress=on_progress,
        )
        clear_marker(backend, prefix, timeout=timeout)
        revision = backend.status(timeout=timeout).revision
    return RestoreResult(keys, written, resumed, source.header.revision, revision, expire)


@attrs.frozen
class _Restore:
    backend: Backend
    source: BackupReader
    prefix: str
    merge: Merge | None
    timeout: float | None
    on_progress: OnProgress | None
    began: float = attrs.field(factory=time.monotonic)

    def is_done(self) -> bool:
        """Return whether the store already holds the backup and nothing else.

        So it is if the process was killed just before it could say so.
        """
        if self.merge is not None or not first_key(self.backend, self.prefix, timeout=self.timeout):
            return False
        if read_marker(self.backend, self.prefix, timeout=self.timeout) is not None:
            return False
        try:
            self.compare(resumed=True)
        except StoresDiffer:
            return False
        return True

    def result_of_before(self) -> RestoreResult:
        """Return the result if ``is_done``."""
        status = self.backend.status(timeout=self.timeout)
        before = self.source.header.revision
        # In the store of the backup itself they are what they were, unless it was put back to an
        # older state.
        same = status.store_id == self.source.header.store_id and status.revision >= before
        expire = same or status.compacted_revision >= before
        return RestoreResult(self.source.count, 0, True, before, status.revision, expire)

    def begin(self) -> bool:
        """Mark the store as incomplete; return whether an earlier restore had begun."""
        details = {"prefix": self.prefix, "merge": self.merge or ""}
        found = find_begun(self.backend, self.prefix, timeout=self.timeout)
        if found is not None:
            ours = ("restore", self.source.sha256, details)
            if (found.operation, found.source, found.details) == ours:
                return True
            message = (
                f"the store is incomplete: the operation {found.operation!r} from {found.source}, "
                f"begun at {found.began} with {found.details}, is unfinished; run it again, or "
                "choose an empty store"
            )
            raise StoreInUse(message, key=marker_key(self.prefix))
        check_fits(self._records(), self.backend)
        check_complete(self.backend, self.prefix, timeout=self.timeout)
        key = (
            first_key(self.backend, self.prefix, timeout=self.timeout) if self.merge is None else ""
        )
        if key:
            message = (
                f"the store is not empty: it has {key!r}; choose an empty one, or say what happens "
                "to keys that both have (merge: skip or overwrite)"
            )
            raise StoreInUse(message, key=key)
        now = datetime.datetime.fromtimestamp(time.time(), datetime.UTC)
        marker = Marker("restore", self.source.sha256, now.isoformat(timespec="seconds"), details)
        empty = self.merge is None
        set_marker(self.backend, self.prefix, marker, empty=empty, timeout=self.timeout)
        return False

    def write(self, *, resumed: bool, leases: bool) -> int:
        """Write the keys; return the number of those that were not there."""
        # What was written before an interruption is only written again where it differs.
        merge = Merge.OVERWRITE if resumed and self.merge is None else self.merge
        target = Target(self.backend, merge=merge, leases=leases, timeout=self.timeout)
        meter = Meter(self.on_progress, "writing", self.source.count)
        for batch in batches(self._records()):
            target.write([left_of(each, self.began) for each in batch])
            meter.add(len(batch))
        meter.finish()
        return target.written

    def compare(self, *, resumed: bool) -> int:
        """Check that the store holds the backup's keys; return their number."""
        meter = Meter(self.on_progress, "comparing", self.source.count)
        source = in_backup(self._records())
        target = in_store(self.backend, self.prefix, ttl=False, timeout=self.timeout)
        for what, left, right in differences(source, target, ttl=False, on_equal=meter.add):
            if left is not None:
                meter.add()
            if not what or (self.merge is not None and what == "extra"):
                continue
            if self.merge is Merge.SKIP and what != "missing":
                continue
            if what == "missing" and left is not None and self._may_have_expired(left, resumed):
                continue
            found = left or right
            assert found is not None
            message = f"the store differs from the backup: {found.key!r}: {what}"
            raise StoresDiffer(message, key=found.key)
        meter.finish()
        return meter.done

    def _may_have_expired(self, record: Record, resumed: bool) -> bool:
        if record.ttl is None:
            return False
        # If it was written before an interruption, nobody knows when.
        return resumed or time.monotonic() - self.began >= record.ttl

    def _records(self) -> Iterator[Record]:
        return (each for each in self.source.records() if each.key.startswith(self.prefix))
