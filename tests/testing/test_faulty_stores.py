"""Breaches of the contract that show in what a store does, rather than in a history of writers and
watchers: each is caught by the test of the suite that is named after it, as ``revstore
conformance`` runs it."""

from __future__ import annotations

import time
from bisect import insort

import pytest

from revstore.errors import BackendError, Closed, Compacted, FutureRevision, InvalidKey
from revstore.memory import MemoryBackend
from revstore.memory._watch import MemoryWatch
from revstore.testing.checks import check_history
from revstore.testing.clock import FakeClock
from revstore.testing.conformance import Outcome, run_conformance
from revstore.testing.history import Recorder
from revstore.values import (
    Capability,
    CountResult,
    GetResult,
    KeyValue,
    ListResult,
    PutResult,
    WatchBatch,
)

pytestmark = pytest.mark.slow

# Time


class SplitBatch(MemoryBackend):
    """The events of one revision come in several batches."""

    def __init__(self, **options):
        super().__init__(**options)
        if not options:  # so that keys expire together, the clock goes by whole seconds
            self._clock = lambda: float(int(time.monotonic()))

    def watch(self, key, *, recursive, after_revision, progress=True):
        return SplittingWatch(self._shared, key, recursive, after_revision, progress)


class SplittingWatch(MemoryWatch):
    def poll(self, timeout=None):
        waiting = self.__dict__.setdefault("parts", [])
        if not waiting and (batch := super().poll(timeout)):
            parts = [(event,) for event in batch.events] or [()]
            waiting += [WatchBatch(batch.revision, part) for part in parts]
        return waiting.pop(0) if waiting else None


class Vanishing(MemoryBackend):
    """An expired key is gone without a deletion that has a revision."""

    def _sweep(self):
        keys = self._state.due(self._clock())
        for key in keys:
            del self._state.current[key]
            self._state._keys.remove(key)
        return len(keys)


class TooEarly(MemoryBackend):
    """A key expires when half of its time is over."""

    def put(self, key, value, *, ttl=0, **options):
        result = super().put(key, value, ttl=ttl, **options)
        with self._shared.lock:
            if ttl and result.succeeded:
                self._state._expire_at(key, self._clock() + ttl / 2)
                self._shared.sweeper_wake.notify()
        return result


class UndyingExpiry(MemoryBackend):
    """An expiry goes on after its key was deleted, and hits the next of its name."""

    def delete(self, key, *, expected_revision, **options):
        due = self._state._deadlines.get(key)
        result = super().delete(key, expected_revision=expected_revision, **options)
        if due is not None:
            self._state._deadlines[key] = due
        return result


# History


class NoPast(MemoryBackend):
    """Reads of the past show the present."""

    def get(self, key, *, revision=0, **options):
        super().get(key, revision=revision)
        return super().get(key, **options)

    def list(self, prefix, *, revision=0, **options):
        super().list(prefix, revision=revision)
        found = super().list(prefix, **options)
        return ListResult(revision or found.revision, found.kvs, found.more, found.remaining)


class OpenFuture(MemoryBackend):
    """Reads of the future show the present."""

    def get(self, key, *, revision=0, **options):
        try:
            return super().get(key, revision=revision, **options)
        except FutureRevision:
            return super().get(key, **options)


class PhantomAfterCompaction(MemoryBackend):
    """Compaction forgets deletions before what they deleted."""

    def compact(self, revision, **options):
        state = self._state
        lost = {event.kv.key: event.previous for event in state.log.items}
        super().compact(revision, **options)
        for key, previous in lost.items():
            if key not in state.current and previous is not None:
                state.current[key] = previous
                insort(state._keys, key)


class EatenByCompaction(MemoryBackend):
    """Compaction takes values that are current, since they were written long ago."""

    def compact(self, revision, **options):
        super().compact(revision, **options)
        for key, kv in [*self._state.current.items()]:
            if kv.revision < revision // 2:
                del self._state.current[key]
                self._state._keys.remove(key)


class CompactionIsAWrite(MemoryBackend):
    """Compaction takes a revision."""

    def compact(self, revision, **options):
        super().compact(revision, **options)
        self._state.revision += 1


class PastCompaction(MemoryBackend):
    """What is compacted can still be read, somehow."""

    def get(self, key, *, revision=0, **options):
        try:
            return super().get(key, revision=revision, **options)
        except Compacted:
            return super().get(key, **options)


class SilentGap(MemoryBackend):
    """A watch from before the compacted revision begins at it, and says nothing."""

    def watch(self, key, *, recursive, after_revision, progress=True):
        after = max(after_revision, self._state.compacted)
        return super().watch(key, recursive=recursive, after_revision=after, progress=progress)


class ShortLog(MemoryBackend):
    """Of what happened it remembers the last thousand events, and says nothing of the rest."""

    def put(self, key, value, **options):
        result = super().put(key, value, **options)
        with self._shared.lock:
            log = self._state.log
            if len(log.items) > 1000:
                self._state.log = log.without(100, log.items[99].kv.revision)
        return result


# Opened again


class Reopened(MemoryBackend):
    """What all openings share is in the class, as in a file."""

    files: dict = {}  # noqa: RUF012 - shared on purpose

    def __init__(self):
        super().__init__()
        if type(self) in self.files:
            self._state = self._shared.state = self.files[type(self)]
            self._store_id = type(self).__name__
            self.forget()
        self._store_id = type(self).__name__
        self.files[type(self)] = self._state

    @property
    def capabilities(self):
        return super().capabilities | {Capability.DURABLE}

    def forget(self):
        """What is lost of it when it is opened again."""


class ReusedRevision(Reopened):
    """It counts on from the keys that it finds, and deleted ones are not among them."""

    def forget(self):
        revisions = [kv.revision for kv in self._state.current.values()]
        self._state.revision = max(revisions, default=1)


class LostOnClosing(Reopened):
    """The last write is not in the file."""

    def forget(self):
        if self._state.log.items:
            event = self._state.log.items[-1]
            if event.previous is not None:
                self._state.current[event.kv.key] = event.previous
                insort(self._state._keys, event.kv.key)


# Reads


class FoldersOnly(MemoryBackend):
    """A prefix is a folder."""

    def list(self, prefix, **options):
        found = super().list(prefix, **options)
        below = prefix.rstrip("/") + "/"
        kvs = tuple(kv for kv in found.kvs if kv.key == prefix or kv.key.startswith(below))
        return ListResult(found.revision, kvs, found.more, found.remaining)


class OrderOfUTF16(MemoryBackend):
    """Keys are in the order of another encoding."""

    def list(self, prefix, **options):
        found = super().list(prefix, **options)
        kvs = sorted(found.kvs, key=lambda kv: kv.key.encode("utf-16-be"))
        return ListResult(found.revision, tuple(kvs), found.more, found.remaining)


class EndsEarly(MemoryBackend):
    """A page does not tell that more follow."""

    def list(self, prefix, **options):
        found = super().list(prefix, **options)
        return ListResult(found.revision, found.kvs, False, found.remaining)


class TornList(MemoryBackend):
    """A list reads key by key."""

    def list(self, prefix, **options):
        found = super().list(prefix, **options)
        kvs = []
        for kv in found.kvs:
            time.sleep(0)
            now = super().get(kv.key).kv
            kvs += [now] if now is not None else []
        return ListResult(found.revision, tuple(kvs), found.more, found.remaining)


class BareOfExpiry(MemoryBackend):
    """Without values a list has no leases either."""

    def list(self, prefix, *, keys_only=False, **options):
        found = super().list(prefix, keys_only=keys_only, **options)
        numbers = [(kv.revision, kv.create_revision, kv.version) for kv in found.kvs]
        bare = [KeyValue(kv.key, b"", *of) for kv, of in zip(found.kvs, numbers, strict=True)]
        kvs = tuple(bare) if keys_only else found.kvs
        return ListResult(found.revision, kvs, found.more, found.remaining)


class WrongCount(MemoryBackend):
    """What was deleted counts."""

    def count(self, prefix, **options):
        found = super().count(prefix, **options)
        deleted = [event for event in self._state.log.items if not event.kv.create_revision]
        gone = {event.kv.key for event in deleted if event.kv.key.startswith(prefix)}
        return CountResult(found.revision, found.count + len(gone))


# Writes


class BareLoser(MemoryBackend):
    """Who loses is not told to what."""

    def put(self, key, value, *, expected_revision, **options):
        result = super().put(key, value, expected_revision=expected_revision, **options)
        return PutResult(result.succeeded, result.revision)


class EqualIsNothing(MemoryBackend):
    """An equal value is not written."""

    def put(self, key, value, *, expected_revision, **options):
        kv = super().get(key).kv
        if kv is not None and (kv.value, kv.revision) == (value, expected_revision):
            return PutResult(True, kv.revision)
        return super().put(key, value, expected_revision=expected_revision, **options)


class RefusalsCount(MemoryBackend):
    """A refused write takes a revision."""

    def put(self, key, value, *, expected_revision, **options):
        result = super().put(key, value, expected_revision=expected_revision, **options)
        self._state.revision += not result.succeeded
        return result


class TakesAnyKey(MemoryBackend):
    """Keys that no store could hold read as missing."""

    def get(self, key, **options):
        try:
            return super().get(key, **options)
        except InvalidKey:
            return GetResult(self._state.revision, None)


class WrongVersion(MemoryBackend):
    """Versions go on after a deletion."""

    def get(self, key, **options):
        found = super().get(key, **options)
        if found.kv is None:
            return found
        history = [event for event in self._state.log.items if event.kv.key == key]
        fields = {name: getattr(found.kv, name) for name in KeyValue.__struct_fields__}
        return GetResult(found.revision, KeyValue(**{**fields, "version": len(history)}))


# Claims, watches and ends


class HiddenTtl(MemoryBackend):
    """It does not claim what it takes all the same."""

    @property
    def capabilities(self):
        return super().capabilities - {Capability.TTL}


class StartsAtItself(MemoryBackend):
    """A watch after a revision begins with it."""

    def watch(self, key, *, recursive, after_revision, progress=True):
        after = max(0, after_revision - 1)
        return super().watch(key, recursive=recursive, after_revision=after, progress=progress)


class SeesChildren(MemoryBackend):
    """A watch of one key has those below it as well."""

    def watch(self, key, *, recursive, after_revision, progress=True):
        return super().watch(key, recursive=True, after_revision=after_revision, progress=progress)


class OwnErrors(MemoryBackend):
    """Closed, it fails as its driver does."""

    def get(self, key, **options):
        try:
            return super().get(key, **options)
        except Closed as error:
            raise BackendError("connection is None") from error


FAULTS = [
    (SplitBatch, "keys_that_expire_together"),
    (Vanishing, "expiry_in_reads"),
    (TooEarly, "test_expiry"),
    (UndyingExpiry, "deleted_key_does_not_expire"),
    (NoPast, "reads_of_the_past numbers_of_the_past"),
    (OpenFuture, "future_revision"),
    (PhantomAfterCompaction, "reads_around_the_compacted_revision current_values_stay"),
    (EatenByCompaction, "current_values_stay"),
    (CompactionIsAWrite, "current_values_stay"),
    (PastCompaction, "reads_around_the_compacted_revision"),
    (SilentGap, "watch_below_the_compacted_revision"),
    (ShortLog, "watch_far_behind"),
    (ReusedRevision, "durable"),
    (LostOnClosing, "durable"),
    (FoldersOnly, "prefix_is_a_plain_string"),
    (OrderOfUTF16, "byte_order"),
    (EndsEarly, "limit_never_loses"),
    (TornList, "list_is_one_state"),
    (BareOfExpiry, "keys_only"),
    (WrongCount, "test_count"),
    (BareLoser, "create_of_existing_key_loses"),
    (EqualIsNothing, "equal_value_is_written"),
    (RefusalsCount, "refused_writes_and_reads_take_no_revision"),
    (TakesAnyKey, "invalid_keys"),
    (WrongVersion, "test_versions"),
    (HiddenTtl, "unclaimed_ttl"),
    (StartsAtItself, "watch_start_revision"),
    (SeesChildren, "watch_exact_key"),
    (OwnErrors, "closed_backend"),
]


@pytest.mark.parametrize(("fault", "tests"), FAULTS, ids=[fault.__name__ for fault, _ in FAULTS])
def test_every_fault_is_told_by_the_runner(fault, tests):
    """By the tests of the suite that are named here, each of which passes for a right store."""
    names = tests.split()
    only = " or ".join(names)
    report = run_conformance(fault, histories=0, only=only)
    told = {each.name for each in report.failures}
    assert all(any(name in each for each in told) for name in names), report
    assert all(each.detail for each in report.failures)
    right = Reopened if issubclass(fault, Reopened) else MemoryBackend
    passed = run_conformance(right, histories=0, only=only)
    assert {each.outcome for each in passed.results} <= {Outcome.PASSED, Outcome.NOT_RUN}, passed


def test_a_split_batch_is_caught_in_a_history():
    """WATCH-15: by the check that names it, where a store changes several keys in one step."""
    found = []
    for kind in (SplitBatch, MemoryBackend):
        clock = FakeClock()
        with kind(clock=clock) as backend:
            clock.on_change(backend.sweep)
            recorder = Recorder(backend)
            with recorder.watch("/", recursive=True, after_revision=1) as watch:
                for name in "ab":
                    backend.put(f"/{name}", b"", expected_revision=0, ttl=5)
                clock.advance(5)
                while watch.poll(0):
                    pass
        found.append({violation.guarantee for violation in check_history(recorder.history)})
    assert "atomic" in found[0]
    assert "atomic" not in found[1]


def test_a_reused_revision_is_caught_across_openings():
    """BASE-1: one history may go over several openings of a store."""
    found = []
    for kind in (ReusedRevision, Reopened):
        recorder = None
        for _ in range(2):
            backend = kind()
            recorder = Recorder(backend, recorder and recorder.history)
            put = recorder.put("/reused", b"1", expected_revision=0)
            recorder.delete("/reused", expected_revision=put.revision)
        found.append({violation.guarantee for violation in check_history(recorder.history)})
    assert found == [{"revisions"}, set()]


class Shared(Reopened):
    """A right store that all openings share, though it is not durable."""

    @property
    def capabilities(self):
        return super().capabilities - {Capability.DURABLE}


@pytest.mark.parametrize("kind", [Shared, Reopened])
def test_a_store_of_others_is_not_compacted(kind):
    """Only a store that each opening has to itself is: else the history is somebody's."""
    report = run_conformance(kind, histories=0, only="current_values_stay")
    assert [each.outcome for each in report.results] == [Outcome.NOT_RUN]
    status = kind().status()
    assert status.compacted_revision == 0
    assert kind().list("").kvs == ()
    (own,) = run_conformance(MemoryBackend, histories=0, only="current_values_stay").results
    assert own.outcome is Outcome.PASSED
