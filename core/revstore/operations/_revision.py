"""The revision of a store that was filled: above that of the store that its keys came from."""

from __future__ import annotations

import contextlib

import msgspec

from revstore.backend import Backend
from revstore.errors import Compacted, StoreInUse
from revstore.operations._marker import marker_key
from revstore.operations._progress import Meter, OnProgress
from revstore.values import Capability

__all__ = ["BUMP", "raise_above"]

#: How far a store's revision is raised above that of its source: clients may have seen the
#: revisions of writes that came later.
BUMP = 1_000_000_000
_HIGHEST = (1 << 43) - 1


def raise_above(
    backend: Backend,
    prefix: str,
    before: int,
    bump: int | None,
    *,
    by_writes: bool,
    timeout: float | None,
    on_progress: OnProgress | None,
) -> bool:
    """Raise the revision to ``bump`` above ``before``, by default a billion, and compact.

    Return whether all resource versions up to ``before`` expire. A store without RAISE_REVISION
    gets there by writing the marker of ``prefix``, and only with ``by_writes``; ``bump`` is then 0
    by default.
    """
    abilities = backend.capabilities
    if Capability.RAISE_REVISION in abilities:
        wanted = min(before + (BUMP if bump is None else bump), _HIGHEST)
        backend.raise_revision(wanted, timeout=timeout)
    elif by_writes:
        _write_up_to(backend, prefix, before + (bump or 0), timeout, on_progress)
    if Capability.COMPACTION not in abilities:
        return False
    revision = backend.status(timeout=timeout).revision
    # After an interruption, this may have been done already.
    with contextlib.suppress(Compacted):
        backend.compact(revision, timeout=timeout)
    return revision >= before


def _write_up_to(
    backend: Backend,
    prefix: str,
    wanted: int,
    timeout: float | None,
    on_progress: OnProgress | None,
) -> None:
    """Write the marker until the store is at the revision ``wanted``."""
    key = marker_key(prefix)
    got = backend.get(key, timeout=timeout)
    kv, revision = got.kv, got.revision
    meter = Meter(on_progress, "raising the revision", wanted, done=min(revision, wanted))
    while kv is not None and revision < wanted:
        put = backend.put(key, kv.value, expected_revision=kv.revision, timeout=timeout)
        if not put.succeeded:
            raise StoreInUse("another operation fills this store", key=key)
        meter.add(put.revision - revision)
        revision = put.revision
        kv = msgspec.structs.replace(kv, revision=revision)
    meter.finish()
