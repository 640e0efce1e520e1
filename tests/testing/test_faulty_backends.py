"""Each breach of the contract is caught by the check that is named after it."""

from __future__ import annotations

import contextlib
import sys
import threading
import time

import attrs
import pytest

from revstore.backend import BackendWatch
from revstore.errors import Closed, Compacted, OutcomeUnknown, Timeout
from revstore.memory import MemoryBackend
from revstore.testing.checks import CHECKS, check_history
from revstore.testing.conformance import Outcome, run_conformance
from revstore.testing.workload import Workload
from revstore.values import (
    DeleteResult,
    GetResult,
    KeyValue,
    PutResult,
    WatchBatch,
    WatchEvent,
    WatchEventType,
)


class Faulty(MemoryBackend):
    """A right backend whose watches can be bent."""

    def bend(self, batches: list[WatchBatch]) -> list[WatchBatch]:
        """What becomes of the batches that are at hand, in order."""
        return batches

    def watch(self, key, *, recursive, after_revision, progress=True):
        watch = super().watch(
            key, recursive=recursive, after_revision=after_revision, progress=progress
        )
        return BentWatch(watch, self)


class BentWatch(BackendWatch):
    """Takes three batches at a time from a right watch."""

    def __init__(self, watch, backend):
        self._watch, self._backend = watch, backend
        self._ready: list[WatchBatch] = []
        self._position = watch.position

    @property
    def position(self):
        return self._position

    def poll(self, timeout=None):
        if not self._ready:
            batches = []
            while len(batches) < 3:
                batch = self._watch.poll(timeout if not batches else 0.01)
                if batch is None:
                    break
                batches.append(batch)
            self._ready = self._backend.bend(batches)
        if not self._ready:
            return None
        batch = self._ready.pop(0)
        self._position = max(self._position, batch.revision)
        return batch

    def request_progress(self):
        self._watch.request_progress()

    def close(self):
        self._watch.close()


def rarely(backend) -> bool:
    """Every seventh time."""
    backend.count_of_chances = getattr(backend, "count_of_chances", 0) + 1
    return backend.count_of_chances % 7 == 0


class LostEvent(Faulty):
    def bend(self, batches):
        return [each for each in batches if not each.events or not rarely(self)]


class DoubledEvent(Faulty):
    def bend(self, batches):
        return [each for batch in batches for each in ([batch] * (1 + rarely(self)))]


class Reordered(Faulty):
    def bend(self, batches):
        return batches[::-1] if rarely(self) else batches


class MergedRevisions(Faulty):
    """Events of several revisions come in one batch."""

    def bend(self, batches):
        if len(batches) < 2 or not rarely(self):
            return batches
        events = tuple(event for batch in batches for event in batch.events)
        return [WatchBatch(batches[-1].revision, events)]


class ProgressAhead(Faulty):
    """A mark tells that all is delivered, and is not right."""

    def bend(self, batches):
        if not batches or not rarely(self):
            return batches
        return [WatchBatch(batches[-1].revision), *batches]


class WrongPrevious(Faulty):
    def bend(self, batches):
        if not rarely(self):
            return batches
        return [
            WatchBatch(
                batch.revision,
                tuple(
                    WatchEvent(event.type, event.kv, KeyValue(event.kv.key, b"other", 1))
                    for event in batch.events
                ),
            )
            for batch in batches
        ]


class OutOfScope(Faulty):
    def bend(self, batches):
        if not rarely(self):
            return batches
        return [
            WatchBatch(
                batch.revision,
                (
                    *batch.events,
                    WatchEvent(WatchEventType.PUT, KeyValue("/elsewhere", b"x", batch.revision)),
                )
                if batch.events
                else (),
            )
            for batch in batches
        ]


class Phantom(Faulty):
    """An event that nobody caused."""

    def bend(self, batches):
        if not rarely(self):
            return batches
        return [
            WatchBatch(
                batch.revision,
                tuple(
                    WatchEvent(event.type, attrs_like(event.kv, value=b"made up"), event.previous)
                    for event in batch.events
                ),
            )
            for batch in batches
        ]


def attrs_like(kv: KeyValue, **changes) -> KeyValue:
    fields = {name: getattr(kv, name) for name in KeyValue.__struct_fields__}
    return KeyValue(**{**fields, **changes})


class LeakedError(Faulty):
    """A watch ends with an error of the driver's own."""

    def bend(self, batches):
        if rarely(self):
            raise ConnectionResetError("reset by peer")
        return batches


class NotResumable(MemoryBackend):
    """A watch that goes on from where another ended passes over the event behind it."""

    def watch(self, key, *, recursive, after_revision, progress=True):
        after = after_revision + (after_revision > 1)
        return super().watch(key, recursive=recursive, after_revision=after, progress=progress)


class StaleRead(MemoryBackend):
    """Now and then a read shows what it showed before."""

    def get(self, key, **options):
        result = super().get(key, **options)
        before = self.__dict__.setdefault("before", {})
        stale = before.get(key, result)
        before[key] = result
        return stale if rarely(self) else result


class StaleHeader(MemoryBackend):
    """Now and then a read is answered with a revision from before."""

    def get(self, key, **options):
        result = super().get(key, **options)
        return GetResult(1, result.kv) if rarely(self) and result.revision > 50 else result


class LostUpdate(MemoryBackend):
    """A write that expects an older revision wins."""

    def put(self, key, value, *, expected_revision, **options):
        result = super().put(key, value, expected_revision=expected_revision, **options)
        if result.succeeded or result.current is None:
            return result
        return super().put(key, value, expected_revision=result.current.revision, **options)


class Forgotten(MemoryBackend):
    """A write is acknowledged that never was made."""

    def put(self, key, value, *, expected_revision, **options):
        if rarely(self):
            current = super().get(key).kv
            if (current.revision if current else 0) == expected_revision:
                return PutResult(True, super().status().revision)
        return super().put(key, value, expected_revision=expected_revision, **options)


class ReusedRevision(MemoryBackend):
    """Two writes are told one revision."""

    def put(self, key, value, *, expected_revision, **options):
        result = super().put(key, value, expected_revision=expected_revision, **options)
        if result.succeeded and rarely(self):
            return PutResult(True, result.revision - 1)
        return result


class UndeadKey(MemoryBackend):
    """A deletion is acknowledged that did nothing."""

    def delete(self, key, *, expected_revision, **options):
        current = super().get(key).kv
        if current is not None and current.revision == expected_revision and rarely(self):
            return DeleteResult(True, super().status().revision, current)
        return super().delete(key, expected_revision=expected_revision, **options)


class StaleStatus(MemoryBackend):
    """The status is up to 3 ms old for writes of other threads."""

    def put(self, key, value, **options):
        result = super().put(key, value, **options)
        self.__dict__.setdefault("own", {})[threading.get_ident()] = result.revision
        return result

    def status(self, **options):
        found = super().status(**options)
        known, at = self.__dict__.setdefault("known", (found, time.monotonic()))
        if time.monotonic() > at + 0.003:
            self.known = known, _ = found, time.monotonic()
        own = self.__dict__.get("own", {}).get(threading.get_ident(), 0)
        return attrs.evolve(known, revision=max(known.revision, own))


class ListAhead(MemoryBackend):
    """A list names a revision that is newer than what it shows."""

    def list(self, prefix, **options):
        found = super().list(prefix, **options)
        before = self.__dict__.setdefault("before", found)
        self.before = found
        return attrs.evolve(found, kvs=before.kvs)


class ListBehind(MemoryBackend):
    """A list names a revision that is older than what it shows."""

    def list(self, prefix, **options):
        found = super().list(prefix, **options)
        before = self.__dict__.setdefault("before", found)
        self.before = found
        return attrs.evolve(found, revision=before.revision)


class ListLacksKeys(MemoryBackend):
    """A list leaves out its last key now and then."""

    def list(self, prefix, **options):
        found = super().list(prefix, **options)
        return attrs.evolve(found, kvs=found.kvs[:-1]) if rarely(self) else found


class ListShowsTheDead(MemoryBackend):
    """A list has a key that was deleted a moment ago."""

    def list(self, prefix, **options):
        found = super().list(prefix, **options)
        before = self.__dict__.setdefault("before", found)
        self.before = found
        kvs = {kv.key: kv for kv in (*before.kvs, *found.kvs)}
        return attrs.evolve(found, kvs=tuple(kvs[key] for key in sorted(kvs)))


class WrongCount(MemoryBackend):
    def count(self, prefix, **options):
        found = super().count(prefix, **options)
        return attrs.evolve(found, count=found.count + 1) if rarely(self) else found


class GetAhead(MemoryBackend):
    """A read names a revision that is newer than what it shows."""

    def get(self, key, **options):
        found = super().get(key, **options)
        before = self.__dict__.setdefault("before", {})
        shown, before[key] = before.get(key, found), found
        return attrs.evolve(found, kv=shown.kv)


class EndsAsIfLate(Faulty):
    """A watch ends with an error that is a call's, not a watch's."""

    def bend(self, batches):
        if rarely(self):
            raise Timeout("too late")
        return batches


class EndsAsIfCompacted(Faulty):
    """A watch ends by a compaction that it had passed."""

    def bend(self, batches):
        if batches and rarely(self):
            raise Compacted(1)
        return batches


class HalfABody(MemoryBackend):
    """What breaks down in the middle of a transaction leaves a part of it."""

    def _run(self, body):
        if not rarely(self):
            return super()._run(body)
        write = self._state.write
        self._state.write = lambda changes, clock: write(changes[:1], clock)
        try:
            super()._run(body)
        finally:
            del self._state.write
        raise OutcomeUnknown("", 0)


class StaleBody(MemoryBackend):
    """A body sees a key as one before saw it, and writes it all the same."""

    def _run(self, body):
        return super()._run(lambda seen: body(StaleView(seen, self.__dict__)))


class StaleView:
    def __init__(self, seen, shown):
        self._seen, self._shown = seen, shown.setdefault("shown", {})

    def get(self, key):
        found = self._seen.get(key)
        before, self._shown[key] = self._shown.get(key, found), found
        return before

    def __getattr__(self, name):
        return getattr(self._seen, name)


class HalfALease(MemoryBackend):
    """The end of a lease leaves one of its keys."""

    def leases(self, **options):
        leases = super().leases(**options)

        def revoke(lease, **options):
            self._state.leases.find(lease).keys.pop()
            return type(leases).revoke(leases, lease, **options)

        leases.revoke = revoke
        return leases


FAULTS = [
    (HalfABody, {"whole"}),
    (StaleBody, {"linearizable"}),
    (HalfALease, {"state", "reliable"}),
    (StaleStatus, {"revisions"}),
    (ListAhead, {"state"}),
    (ListBehind, {"state"}),
    (ListLacksKeys, {"state"}),
    (ListShowsTheDead, {"state"}),
    (WrongCount, {"state"}),
    (GetAhead, {"state"}),
    (EndsAsIfLate, {"end"}),
    (EndsAsIfCompacted, {"end"}),
    (LostEvent, {"reliable", "resumable"}),
    (DoubledEvent, {"unique"}),
    (Reordered, {"ordered"}),
    (MergedRevisions, {"atomic"}),
    (ProgressAhead, {"bookmarkable"}),
    (WrongPrevious, {"previous"}),
    (OutOfScope, {"filtered"}),
    (Phantom, {"reliable"}),
    (LeakedError, {"end"}),
    (NotResumable, {"reliable", "resumable"}),
    (StaleRead, {"linearizable"}),
    (StaleHeader, {"revisions"}),
    (LostUpdate, {"linearizable"}),
    (Forgotten, {"linearizable", "reliable"}),
    (ReusedRevision, {"revisions"}),
    (UndeadKey, {"linearizable"}),
]


@pytest.fixture(autouse=True)
def _threads_take_turns():
    """Often enough that calls overlap."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize(
    ("fault", "guarantees"), FAULTS, ids=lambda each: getattr(each, "__name__", "")
)
def test_every_fault_is_caught(fault, guarantees):
    """By the check that names it, whatever else shows."""
    with fault() as backend:
        plan = Workload(prefix="/t/", seed=1, writers=3, watchers=2, turns=200, keys=2, patience=5)
        try:
            history = plan.run(lambda _: backend)
        except TimeoutError:
            pytest.fail("the watchers did not get to the end")
    found = {violation.guarantee for violation in check_history(history)}
    assert guarantees <= found, found


@pytest.mark.parametrize(
    ("fault", "guarantees"), FAULTS, ids=lambda each: getattr(each, "__name__", "")
)
def test_every_fault_is_told_by_the_runner(fault, guarantees):
    """What ``revstore conformance`` runs fails for each of them."""
    report = run_conformance(fault, suite=False, histories=2)
    assert not report.passed
    assert {each.outcome for each in report.failures} == {Outcome.FAILED}
    assert all(each.detail for each in report.failures)


class CutAt(MemoryBackend):
    """A list is cut, and does not say so."""

    at = 1000

    def list(self, prefix, *, limit=0, **options):
        found = super().list(prefix, limit=min(limit or self.at, self.at), **options)
        return attrs.evolve(found, more=False) if limit in (0, self.at + 1) else found


class CutAtTenThousand(CutAt):
    at = 10_000


class CutByBytes(MemoryBackend):
    """A list ends with the last value that its message has room for."""

    def list(self, prefix, **options):
        found, room = super().list(prefix, **options), 4 << 20
        kvs = []
        for kv in found.kvs:
            room -= len(kv.value)
            if room < 0:
                return attrs.evolve(found, kvs=tuple(kvs))
            kvs.append(kv)
        return found


class PollsByTheWallClock(MemoryBackend):
    """Who waits does so until a time of day."""

    def watch(self, key, **options):
        watch = super().watch(key, **options)
        poll = watch.poll

        def poll_until(timeout=None):
            until = time.time() + (timeout if timeout is not None else 1e9)
            batch = None
            with contextlib.suppress(Closed):  # by then the suite has seen enough
                while (batch := poll(0.01)) is None and time.time() < until:
                    pass
            return batch

        watch.poll = poll_until
        return watch


class TakesAHandlerForTheStore(MemoryBackend):
    """What a signal's handler raises becomes an error of the store."""

    def get(self, key, **options):
        try:
            return super().get(key, **options)
        except TimeoutError as error:
            raise Timeout("no answer in time") from error


# Faults that a workload does not meet or may miss, and the test of the suite that is there for it.
SUITE_FAULTS = [
    (CutAt, "long_list"),
    (CutAtTenThousand, "long_list"),
    (CutByBytes, "long_list"),
    (StaleStatus, "others_were_told"),
    (ListAhead, "goes_over_into_a_watch"),
    (PollsByTheWallClock, "clock_is_set_in_a_wait"),
    (TakesAHandlerForTheStore, "interrupted_reads"),
]


@pytest.mark.parametrize(
    ("fault", "test"), SUITE_FAULTS, ids=lambda each: getattr(each, "__name__", each)
)
def test_the_suite_catches_it(fault, test):
    """By the test that is there for it."""
    report = run_conformance(fault, histories=0, only=test, own=True)
    assert [each.name for each in report.failures if test in each.name], fault


@pytest.mark.parametrize("seed", range(3))
def test_a_right_backend_shows_no_breach(seed):
    """WATCH-15: no false alarm."""
    with MemoryBackend() as backend:
        history = Workload(prefix="/t/", seed=seed, turns=150).run(lambda _: backend)
    assert check_history(history) == []
    assert len(history.operations) > 300
    assert any(operation.succeeded for operation in history.operations)
    assert any(operation.succeeded is False for operation in history.operations)
    assert sum(len(watch.batches) for watch in history.watches) > 100


def test_every_check_has_a_fault():
    """No check is there that was never seen to catch something."""
    assert set(CHECKS) == {guarantee for _, guarantees in FAULTS for guarantee in guarantees}


def test_a_right_backend_keeps_its_promises_however_threads_take_turns(fault_seed):
    """WATCH-15: many of them, preempted as often as the interpreter can."""
    sys.setswitchinterval(1e-6)
    plan = Workload(prefix="/t/", seed=fault_seed, writers=8, watchers=4, turns=200, keys=3)
    with MemoryBackend() as backend:
        assert check_history(plan.run(lambda _: backend)) == []
