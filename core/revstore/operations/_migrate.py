"""A store moved into another, while programs use it until the last moment."""

from __future__ import annotations

import threading
import time

import attrs

from revstore.arguments import check_fence
from revstore.backend import Backend, BackendWatch
from revstore.errors import InvalidArgument, StoreInUse
from revstore.operations._backup import denied
from revstore.operations._copy import Copying
from revstore.operations._progress import OnProgress
from revstore.values import Capability, WatchEventType

__all__ = ["DEFAULT_REASON", "MigrationResult", "migrate"]

#: The default reason of the fence, which every writer's error shows.
DEFAULT_REASON = "the store is being moved to another one; use that one as soon as it is ready"
# Seconds in which changes are followed before the fence, and after it. A store without progress
# marks does not show when there are no more.
_CATCH_UP = 30.0
_QUIET = 1.0
# The number of comparisons after which the source is taken to be in use.
_ROUNDS = 20


@attrs.frozen
class MigrationResult:
    """What a migration did.

    The target has all ``keys`` of the source as they were at its last revision,
    ``source_revision``. ``fenced`` says that a fence keeps programs from writing to the source.
    ``resumed`` says that an earlier call had begun. ``moved`` says that something wrote to the
    source after it was fenced: a program that does not use revstore, or an expiry. It was copied,
    but a later one would not be. ``revision`` is the target's. ``old_versions_expire`` says that a
    client of the source gets ``Expired`` from the target for each older resource version, and
    misses nothing; otherwise the target may take one for its own.
    """

    keys: int
    resumed: bool
    fenced: bool
    moved: bool
    source_revision: int
    revision: int
    old_versions_expire: bool


def migrate(
    source: Backend,
    target: Backend,
    *,
    prefix: str = "",
    replace: bool = False,
    leases: bool = True,
    reason: str = DEFAULT_REASON,
    writers_stopped: bool = False,
    bump_by_writes: bool = False,
    timeout: float | None = None,
    on_progress: OnProgress | None = None,
) -> MigrationResult:
    """Copy ``source`` to ``target`` while it is in use, then fence it, and complete the copy.

    Programs can write until the copy has caught up. From then on they get ``ReadOnly`` with
    ``reason`` from the source. The call copies what is left, and compares the two stores until
    nothing differs. So every write that was acknowledged is in the target, and later ones were
    refused. Then it raises the target's revision to that of the source, and compacts it: a client
    that goes on from its last resource version misses nothing. The source stays fenced.

    A store without FENCE cannot stop its writers: stop them, and pass ``writers_stopped``. The call
    checks by the revision that nothing moved. After an interruption, the same call goes on; to give
    up instead, call ``source.unfence()``. ``prefix``, ``replace``, ``leases`` and
    ``bump_by_writes`` are as in ``copy``; a store is fenced as a whole, whatever the prefix.

    Raises:
        InvalidArgument: the source has no FENCE, and ``writers_stopped`` is false; or ``reason`` is
            empty or not valid UTF-8.
        StoreInUse: as in ``copy``; or something goes on writing to the source.
        ReadOnly: the user may not fence the source.
        AccessDenied: the user may not use all keys with ``prefix``, or the fence.
        CorruptObject: the stored bytes of a key do not fit their checksum.
        Unsupported: the target cannot hold a key, such as one that expires.
        ValueTooLarge: the target does not take a value.
    """
    check_fence(reason)
    fences = Capability.FENCE in source.capabilities
    if not fences and not writers_stopped:
        raise InvalidArgument(
            "writers_stopped",
            writers_stopped,
            "True, once all writers are stopped, as this store cannot be fenced",
        )
    with denied(prefix):
        work = Copying(source, target, prefix, timeout, on_progress, leases)
        work.begin(replace=replace)
        revision = work.synchronize("copying")
        if fences:
            # Most of what comes meanwhile is copied before writers are stopped.
            now = source.status(timeout=timeout).revision
            revision = work.follow(revision, threading.Event(), until=now, patience=_CATCH_UP)
            source.fence(reason, timeout=timeout)
        last, moved = _settle(work, revision)
        expire = work.finish(last, 0, by_writes=bump_by_writes)
    return MigrationResult(
        work.keys,
        work.resumed,
        fences,
        moved,
        last,
        target.status(timeout=timeout).revision,
        expire,
    )


def _settle(work: Copying, revision: int) -> tuple[int, bool]:
    """Copy what is left until nothing differs; return the source's revision, and whether it moved.

    Raises:
        StoreInUse: something goes on writing to the source.
    """
    source = work.source
    patience = _CATCH_UP if Capability.PROGRESS in source.capabilities else _QUIET
    fenced = now = source.status(timeout=work.timeout).revision
    for _ in range(_ROUNDS):
        work.follow(revision, threading.Event(), until=now, patience=patience)
        revision = now
        work.tend_leases(everyone=True)
        differed = work.compare_once("verifying")
        now = source.status(timeout=work.timeout).revision
        if differed == 0 and (now == revision or _only_expiries(work, revision, now)):
            return now, now != fenced
    message = (
        f"something goes on writing to the source: its revision was {fenced}, and is {now}; stop "
        "it, and run this again"
    )
    raise StoreInUse(message)


def _only_expiries(work: Copying, after: int, upto: int) -> bool:
    """Return whether nothing but expiries changed the keys from ``after`` to ``upto``."""
    with work.source.watch(work.prefix, recursive=True, after_revision=after) as watch:
        if Capability.PROGRESS in work.source.capabilities:
            watch.request_progress()
        return _shows_only_expiries(watch, upto)


def _shows_only_expiries(watch: BackendWatch, upto: int) -> bool:
    deadline = time.monotonic() + _QUIET
    while watch.position < upto and time.monotonic() < deadline:
        batch = watch.poll(0.1)
        for event in batch.events if batch else ():
            before = event.previous
            if event.type == WatchEventType.PUT or before is None or not before.lease:
                return False
    return watch.position >= upto
