"""Rewriting: objects that were stored in an outdated way are written again, without a change.

A page is read as it is now, and the next one begins behind its last key. Nothing is pinned to a
revision: an object that changes meanwhile was written by its writer in the current way, and the
store may be compacted at any time. What was rewritten is no longer stale, so a call after an
interruption has only the rest to do.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import attrs

from revstore import kinds
from revstore.deadlines import check_count, check_seconds
from revstore.errors import (
    CorruptObject,
    InternalError,
    InvalidArgument,
    InvalidObject,
    StorageError,
    ValueTooLarge,
)
from revstore.factory import StorageFactory
from revstore.kinds import ResourceInfo
from revstore.operations._marker import check_complete
from revstore.operations._pages import FIRST, next_size
from revstore.operations._progress import Meter, OnProgress
from revstore.plugins import open_transformer
from revstore.typed import TypedStorage

__all__ = ["RewriteResult", "rewrite"]

_MAX_ERRORS = 100


@attrs.frozen
class RewriteResult:
    """The objects that were ``seen``: ``rewritten``, ``current`` already, or ``failed``.

    ``errors`` has the reasons why objects failed, at most 100.
    """

    seen: int = 0
    rewritten: int = 0
    current: int = 0
    failed: int = 0
    errors: tuple[StorageError, ...] = ()


def rewrite(
    store: StorageFactory | TypedStorage[Any],
    resources: Sequence[ResourceInfo | str] = (),
    *,
    everything: bool = False,
    until: int = 0,
    rate: float = 0.0,
    timeout: float | None = None,
    on_progress: OnProgress | None = None,
) -> RewriteResult:
    """Write all stale objects again, each by an update that changes nothing.

    Stale is what was encrypted with an older key, or stored in an older version of its type.
    Readers and writers may go on meanwhile. Objects keep their ttl, and get a new resource version.
    If another writer comes first, the object is left as that one wrote it, unless it is still
    stale. After an interruption the same call goes on.

    ``store`` is a factory, whose ``resources`` are rewritten as the configuration handles them, by
    default all that are stored; or the storage of one type. With ``everything`` also objects that
    are not stale are rewritten, if they were last written at the revision ``until`` or before, by
    default at that at which the call begins. Give the same ``until`` to go on after an
    interruption. ``rate`` is the most objects to rewrite in a second; 0 is no limit. ``timeout`` is
    in seconds, for each request.

    An object that cannot be read, or not be stored anymore, is left as it is and counts as failed.

    Raises:
        InvalidArgument: ``until`` is given, and the resources are in several stores.
        StoreInUse: an operation that fills a store is unfinished.
    """
    check_count("until", until, 0)
    check_seconds("rate", rate)
    if isinstance(store, StorageFactory):
        storages = [_storage(store, resource) for resource in resources or _stored(store)]
    elif resources:
        raise InvalidArgument("resources", resources, "none: a storage has the objects of one")
    else:
        storages = [store]
    if until and len({id(each.backend) for each in storages}) > 1:
        expected = "none, or resources of one store: each store has revisions of its own"
        raise InvalidArgument("until", until, expected)
    for each in storages:
        check_complete(each.backend, each.stored_prefix, timeout=timeout)
    bounds = [
        until or each.current_revision(timeout=timeout) if everything else 0 for each in storages
    ]
    total = sum(each.count(each.resource_prefix, timeout=timeout) for each in storages)
    meter = Meter(on_progress, "rewriting", total)
    pace = _Pace(rate)
    counts = dict.fromkeys(("rewritten", "current", "failed"), 0)
    errors: list[StorageError] = []
    for storage, bound in zip(storages, bounds, strict=True):
        for kv in _stored_values(storage, timeout):
            try:
                written = storage.rewrite(kv, force=kv.revision <= bound, timeout=timeout)
            except (CorruptObject, InvalidObject, ValueTooLarge) as error:
                counts["failed"] += 1
                if len(errors) < _MAX_ERRORS:
                    errors.append(error)
            else:
                counts["rewritten" if written else "current"] += 1
                if written:
                    pace.wait()
            meter.add()
    meter.finish()
    return RewriteResult(seen=meter.done, **counts, errors=tuple(errors))


def _stored(factory: StorageFactory) -> Iterator[ResourceInfo]:
    for prefix in factory.stored_resources():
        yield kinds.for_prefix(prefix, factory.config.resources)


def _storage(factory: StorageFactory, resource: ResourceInfo | str) -> TypedStorage[Any]:
    """Return a storage of dicts, which nothing needs to close."""
    info = factory.info(dict, resource)
    config = factory.config.for_resource(info.qualified)
    return TypedStorage(
        factory.backend(info.qualified),
        factory.resource_type(dict, info),
        prefix=config.prefix,
        transformer=open_transformer(config, info.qualified),
    )


def _stored_values(storage: TypedStorage[Any], timeout: float | None) -> Iterator[Any]:
    start, limit = "", FIRST
    while True:
        page = storage.stored(start=start, limit=limit, timeout=timeout)
        yield from page.kvs
        if not page.more:
            return
        if not page.kvs:
            raise InternalError("the backend gave an empty page, with more to follow")
        start, limit = page.kvs[-1].key + "\0", next_size(page)


# Seconds; a machine cannot wait for any number of them.
_LONGEST = 1e6


class _Pace:
    """Waits, so that at most ``rate`` objects are rewritten in a second."""

    def __init__(self, rate: float) -> None:
        self._step = min(1 / rate, _LONGEST) if rate else 0.0
        self._next = time.monotonic()

    def wait(self) -> None:
        if not self._step:
            return
        now = time.monotonic()
        # A pause of the store is not made up for by a burst.
        self._next = max(self._next, now - self._step) + self._step
        if self._next > now:
            time.sleep(self._next - now)
