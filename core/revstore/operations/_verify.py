"""Whether two stores, or a store and a backup, hold the same."""

from __future__ import annotations

import attrs

from revstore.backend import Backend
from revstore.operations._backup import denied
from revstore.operations._compare import Difference, Side, differences, in_backup, in_store
from revstore.operations._file import BackupReader
from revstore.operations._progress import Meter, OnProgress

__all__ = ["Verification", "verify"]

_MOST_NAMED = 100


@attrs.frozen
class Verification:
    """The result of a comparison of ``keys`` keys, of which ``different`` differ.

    ``differences`` has the first of them, 100 at most.
    """

    keys: int
    different: int
    differences: tuple[Difference, ...]

    @property
    def equal(self) -> bool:
        """Whether nothing differs."""
        return not self.different


def verify(
    source: Backend | BackupReader,
    target: Backend | BackupReader,
    *,
    prefix: str | None = None,
    timeout: float | None = None,
    on_progress: OnProgress | None = None,
) -> Verification:
    """Compare the keys with ``prefix``: their values, and when they expire.

    None means all keys, or those with the prefix of the backup.

    Each store is read at one revision. Revisions, versions and the ids of leases may differ. Two
    moments of expiry are equal if they are within two seconds. A backup does not say when its keys
    expire after they are restored, so it only counts whether they expire.

    Raises:
        AccessDenied: the user may not read all keys with ``prefix``.
        Compacted: a store compacts faster than it can be read.
        CorruptObject: the stored bytes of a key do not fit their checksum.
    """
    if prefix is None:
        backups = [each for each in (source, target) if isinstance(each, BackupReader)]
        prefix = max((each.header.prefix for each in backups), key=len, default="")
    ttl = not isinstance(source, BackupReader) and not isinstance(target, BackupReader)
    meter = Meter(on_progress, "comparing", _count(source, prefix, timeout))
    named: list[Difference] = []
    different = 0
    with denied(prefix):
        for what, left, right in differences(
            _side(source, prefix, timeout, ttl=ttl),
            _side(target, prefix, timeout, ttl=ttl),
            ttl=ttl,
            on_equal=meter.add,
        ):
            meter.add()
            found = left or right
            if what and found is not None:
                different += 1
                if len(named) < _MOST_NAMED:
                    named.append(Difference(found.key, what))
    meter.finish()
    return Verification(meter.done, different, tuple(named))


def _count(side: Backend | BackupReader, prefix: str, timeout: float | None) -> int | None:
    if isinstance(side, BackupReader):
        return side.count if prefix == side.header.prefix else None
    with denied(prefix):
        return side.count(prefix, timeout=timeout).count


def _side(side: Backend | BackupReader, prefix: str, timeout: float | None, *, ttl: bool) -> Side:
    if isinstance(side, BackupReader):
        return in_backup(each for each in side.records() if each.key.startswith(prefix))
    return in_store(side, prefix, ttl=ttl, timeout=timeout)
