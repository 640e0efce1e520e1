"""A storage that begins with what a store holds, and goes on with what it is given.

So a cache is filled as users' caches are, and then only its own part of a write is measured.
"""

from __future__ import annotations

import itertools
import queue
from collections.abc import Iterable

import attrs

from benchmarks._growth_data import TYPE, member
from benchmarks._pods import RESOURCE, Pod, key_of
from benchmarks._serving import change_of
from revstore.backend import Backend
from revstore.cacher import Cacher, CacherConfig
from revstore.errors import Closed
from revstore.storage import ChangeBatch, Changes, EventType
from revstore.typed import TypedStorage

__all__ = ["Cached", "GivenStorage", "cache_over", "namespace_of", "touched"]

_images = itertools.count()


def touched(obj: Pod) -> Pod:
    """Return the pod with another image."""
    spec = attrs.evolve(obj.spec, containers=(f"image:{next(_images)}",))
    return attrs.evolve(obj, spec=spec)


def cache_over(storage: TypedStorage[Pod]) -> Cacher[Pod]:
    """Return a cache, filled."""
    config = CacherConfig(storage=storage, resource_type=TYPE, indexed_fields=("spec.nodeName",))
    cacher = Cacher(config)
    cacher.wait_ready(600)
    return cacher


class GivenStorage(TypedStorage[Pod]):
    """``give`` brings changes to the feed, which the store itself never sees."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend, TYPE)
        self._feed: _Continued | None = None  # the last one: a cache opens one to try first
        self._revision = backend.status().revision

    def batch(self, kind: EventType, objects: Iterable[Pod]) -> ChangeBatch[Pod]:
        """Return the next revision, with one kind of change of each of ``objects``."""
        self._revision += 1
        made = [change_of(kind, self._revision, obj) for obj in objects]
        return ChangeBatch(self._revision, tuple(sorted(made, key=lambda change: change.key)))

    def give(self, *batches: ChangeBatch[Pod]) -> None:
        """Let the feed bring them, in the order in which they were made."""
        assert self._feed is not None
        for batch in batches:
            self._feed.given.put(batch)

    def change(self, cacher: Cacher[Pod], obj: Pod) -> None:
        """Change a pod, and wait until the cache shows it."""
        batch = self.batch(EventType.MODIFIED, [touched(obj)])
        self.give(batch)
        cacher.get(key_of(obj), resource_version=str(batch.revision))

    def changes(
        self, key: str, *, after: int | None = None, timeout: float | None = None
    ) -> Changes[Pod]:
        """See ``Storage.changes``."""
        assert after is None
        self._feed = _Continued(super().changes(key, timeout=timeout))
        return self._feed


class _Continued(Changes[Pod]):
    """The state that ``first`` begins with, then what is given."""

    def __init__(self, first: Changes[Pod]) -> None:
        self.given: queue.SimpleQueue[ChangeBatch[Pod] | None] = queue.SimpleQueue()
        self._first: Changes[Pod] | None = first
        self._revision = 0

    def poll(self, timeout: float | None = None) -> ChangeBatch[Pod] | None:
        if self._first is not None:
            batch = self._first.poll(timeout)
            if batch is not None and not batch.initial:
                self._first.close()
                self._first = None
        else:
            try:
                batch = self.given.get(timeout=timeout)
            except queue.Empty:
                return None
            if batch is None:
                self.close()  # for the next poll
                raise Closed("the feed was closed")
        if batch is not None:
            self._revision = batch.revision
        return batch

    @property
    def revision(self) -> int:
        return self._revision

    def request_progress(self) -> None:
        """Nothing can be late here."""

    def close(self) -> None:
        if self._first is not None:
            self._first.close()
        self.given.put(None)


@attrs.frozen
class Cached:
    """A filled cache of ``count`` objects, and what writes to it."""

    cacher: Cacher[Pod]
    storage: GivenStorage
    count: int

    def member(self, number: int) -> Pod:
        """Return one of the objects."""
        return member(number, self.count)

    def change(self, number: int) -> None:
        """Change one of the objects, and wait until the cache shows it."""
        self.storage.change(self.cacher, self.member(number))


def namespace_of(obj: Pod) -> str:
    """Return the key below which the objects of its namespace are."""
    return f"{RESOURCE}/{obj.metadata.namespace}"
