"""Compaction, status and close that break a sentence of the contract."""

from __future__ import annotations

import attrs
import pytest

from revstore.errors import Closed
from revstore.memory import MemoryBackend


class CompactsNothing(MemoryBackend):
    def compact(self, revision, **options):
        return


class CompactionTakesARevision(MemoryBackend):
    def compact(self, revision, **options):
        super().compact(revision, **options)
        super().put(f"/compacted/{revision}", b"", expected_revision=0)


class CompactionTakesTheStateToo(MemoryBackend):
    """After a compaction the revision itself cannot be read."""

    def compact(self, revision, **options):
        if revision >= self.status().revision:
            return super().compact(revision, **options)
        super().compact(revision, **options)
        super().compact(revision + 1, **options)
        return None


class CompactedIsFine(MemoryBackend):
    """What was compacted may be compacted again."""

    def compact(self, revision, **options):
        if revision > self.status().compacted_revision:
            super().compact(revision, **options)


class StatusForgetsCompaction(MemoryBackend):
    def status(self, **options):
        return attrs.evolve(super().status(**options), compacted_revision=0)


class NewStoreEachTime(MemoryBackend):
    """Each status names another store."""

    def status(self, **options):
        found = super().status(**options)
        return attrs.evolve(found, store_id=f"{found.store_id}-{found.revision}")


class SizeOfNothing(MemoryBackend):
    def size(self, **options):
        return 0


class SizeAfterClose(MemoryBackend):
    """``size`` goes on after ``close``."""

    def size(self, **options):
        return 10**9


class CompactsAfterClose(MemoryBackend):
    """``compact`` does nothing after ``close``, in silence."""

    def compact(self, revision, **options):
        try:
            super().compact(revision, **options)
        except Closed:
            return


class WatchesOutliveTheStore(MemoryBackend):
    """Polls of a closed backend give None."""

    def watch(self, key, **options):
        watch = super().watch(key, **options)
        poll = watch.poll

        def bent(timeout=None):
            try:
                return poll(timeout)
            except Closed:
                return None

        watch.poll = bent
        return watch


class ClosedOnce(MemoryBackend):
    """A second ``close`` is refused."""

    def close(self):
        if self.__dict__.get("closed"):
            raise Closed("it is closed")
        self.closed = True
        super().close()


class ClaimsGoWithTheStore(MemoryBackend):
    """A closed backend claims nothing."""

    @property
    def capabilities(self):
        return frozenset() if self._shared.guard.ended else super().capabilities


FAULTS = [
    (CompactsNothing, "test_bounds"),
    (CompactionTakesARevision, "current_values_stay"),
    (CompactionTakesTheStateToo, "reads_around_the_compacted_revision"),
    (CompactedIsFine, "test_bounds"),
    (StatusForgetsCompaction, "test_bounds"),
    (NewStoreEachTime, "test_status"),
    (SizeOfNothing, "test_size"),
    (SizeAfterClose, "closed_backend"),
    (CompactsAfterClose, "closed_backend"),
    (WatchesOutliveTheStore, "watch_backend_close_wakes_polls"),
    (ClosedOnce, "closed_backend"),
    (ClaimsGoWithTheStore, "test_capabilities"),
]


@pytest.mark.parametrize(
    ("fault", "test"), FAULTS, ids=lambda each: getattr(each, "__name__", each)
)
def test_the_suite_catches_it(assert_caught, fault, test):
    """By the test that is there for it."""
    assert_caught(fault, test)
