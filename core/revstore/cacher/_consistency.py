"""The comparison of a cache with its store."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import TypeVar

import attrs

from revstore.cacher._content import Content
from revstore.deadlines import Deadline
from revstore.errors import InternalError
from revstore.storage import Storage

__all__ = ["ConsistencyReport", "check_consistency"]

T = TypeVar("T")

#: Keys and the versions of their objects.
_Page = list[tuple[str, int]]

# How often the comparison starts over because the cache was rebuilt meanwhile.
_ATTEMPTS = 3


@attrs.frozen(kw_only=True)
class ConsistencyReport:
    """The result of a comparison of a cache with its store.

    ``consistent`` is None if this is unknown, because the cache had moved too far from the state
    that was read. ``first_difference`` is the first key that only one of them has, or that has
    different versions. ``digest`` is computed from the keys and versions at ``resource_version``:
    equal digests mean equal states, even of caches in different processes.
    """

    consistent: bool | None
    resource_version: str
    objects: int = 0
    first_difference: str = ""
    digest: str = ""


def check_consistency(
    storage: Storage[T], content: Content[T], prefix: str, timeout: float | None
) -> ConsistencyReport:
    """Read all keys and versions from the store, a page at a time, and compare them with the
    cache's for the same state. Rebuild a cache that differs. (CACHE-22)"""
    deadline = Deadline(timeout, prefix.rstrip("/"))
    report = ConsistencyReport(consistent=None, resource_version="")
    for _ in range(_ATTEMPTS):
        pages, revision = _read(storage, prefix, deadline)
        content.wait_ready(deadline.rest())
        if not content.wait_fresh(revision, deadline.rest()):
            continue
        cached = content.versions_at(revision)
        if cached is not None:
            report = _compare(pages, *cached, revision)
            break
    content.counting.consistency_checks.add()
    if report.consistent is False:
        content.counting.inconsistencies.add()
        content.feed.cut(
            InternalError(
                f"the cache differs from the store at {report.first_difference}, resource version "
                f"{report.resource_version}; the cache is rebuilt"
            )
        )
    return report


def _read(storage: Storage[T], prefix: str, deadline: Deadline) -> tuple[list[_Page], int]:
    pages: list[_Page] = []
    with storage.changes(prefix, timeout=deadline.left()) as changes:
        while True:
            batch = changes.poll(deadline.left())
            if batch is None:
                continue
            if not batch.initial:
                return pages, batch.revision
            pages.append([(change.key, change.revision) for change in batch.changes])


def _compare(
    pages: Sequence[_Page], cached: dict[str, int], unreadable: frozenset[str], revision: int
) -> ConsistencyReport:
    stored = blake2b(digest_size=16)
    different = ""
    count = 0
    for page in pages:
        readable = [pair for pair in page if pair[0] not in unreadable]
        ours = [(key, cached.pop(key, 0)) for key, _ in readable]
        stored.update(_digest(readable))
        count += len(readable)
        if not different and _digest(readable) != _digest(ours):
            different = next(a[0] for a, b in zip(readable, ours, strict=True) if a != b)
    different = different or min(cached, default="")
    return ConsistencyReport(
        consistent=not different,
        resource_version=str(revision),
        objects=count,
        first_difference=different,
        digest=stored.hexdigest(),
    )


def _digest(pairs: _Page) -> bytes:
    text = "".join([f"{key}\0{version}\n" for key, version in pairs])
    return blake2b(text.encode(), digest_size=16).digest()
