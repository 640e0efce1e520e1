"""Each sentence of the contract, broken on purpose, fails the test of the suite that names it."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from functools import partial

import attrs
import msgspec
import pytest

from revstore.errors import Closed, InvalidKey, Timeout, Unsupported
from revstore.memory import MemoryBackend
from revstore.testing import _support
from revstore.testing.backend._life import LifeTests
from revstore.testing.checks import check_history
from revstore.testing.conformance import run_conformance
from revstore.testing.workload import Workload
from revstore.values import Capability, DeleteResult, PutResult, WatchBatch, WatchEventType

# What calls answer


class GetGivesTheNextKey(MemoryBackend):
    """A key that is absent is answered with the next one, as by a range that has no end."""

    def get(self, key, **options):
        found = super().get(key, **options)
        if found.kv is None and not options.get("revision"):
            kvs = super().list("", start=key, limit=1).kvs
            return attrs.evolve(found, kv=kvs[0] if kvs else None)
        return found


class GetGivesTheFirstKey(MemoryBackend):
    """A key that exists is answered with the first of those that begin with it."""

    def get(self, key, **options):
        found = super().get(key, **options)
        if found.kv is not None and not options.get("revision"):
            return attrs.evolve(found, kv=super().list(key.rpartition("/")[0], limit=1).kvs[0])
        return found


class GetNamesThePast(MemoryBackend):
    """A read of the past names the revision that it was asked for, not the store's."""

    def get(self, key, *, revision=0, **options):
        found = super().get(key, revision=revision, **options)
        return attrs.evolve(found, revision=revision or found.revision)


class LimitIgnored(MemoryBackend):
    """A list is whole whatever its limit, and says that more follow."""

    def list(self, prefix, *, limit=0, **options):
        cut, whole = super().list(prefix, limit=limit, **options), super().list(prefix, **options)
        return attrs.evolve(whole, more=cut.more, remaining=cut.remaining)


class OneTooMany(MemoryBackend):
    """A page has one key more than its limit."""

    def list(self, prefix, *, limit=0, **options):
        return super().list(prefix, limit=limit and limit + 1, **options)


class PagesOverlap(MemoryBackend):
    """A page begins with the last key of the one before."""

    def list(self, prefix, *, start="", **options):
        return super().list(prefix, start=start.removesuffix("\0"), **options)


class PagesSkip(MemoryBackend):
    """A page leaves out the key that it was told to begin with."""

    def list(self, prefix, *, start="", **options):
        return super().list(prefix, start=start and start.removesuffix("\0") + "\0", **options)


class StartIgnored(MemoryBackend):
    def list(self, prefix, *, start="", **options):
        return super().list(prefix, **options)


class StartIgnoredInThePast(MemoryBackend):
    def list(self, prefix, *, start="", revision=0, **options):
        start = "" if revision else start
        return super().list(prefix, start=start, revision=revision, **options)


class MoreWhereNoneIs(MemoryBackend):
    """A page that ends with the last key says that more follow."""

    def list(self, prefix, *, limit=0, **options):
        found = super().list(prefix, limit=limit, **options)
        return attrs.evolve(found, more=found.more or 0 < limit == len(found.kvs))


class RemainingCountsAll(MemoryBackend):
    """``remaining`` counts the keys of the page too."""

    def list(self, prefix, *, remaining=False, **options):
        found = super().list(prefix, remaining=remaining, **options)
        return (
            attrs.evolve(found, remaining=found.remaining + len(found.kvs)) if remaining else found
        )


class RemainingIgnoresStart(MemoryBackend):
    def list(self, prefix, *, remaining=False, **options):
        found = super().list(prefix, remaining=remaining, **options)
        if not remaining:
            return found
        total = super().count(prefix, revision=options.get("revision", 0)).count
        return attrs.evolve(found, remaining=total - len(found.kvs))


class RemainingUnasked(MemoryBackend):
    def list(self, prefix, **options):
        return super().list(prefix, **{**options, "remaining": True})


class RemainingOfNow(MemoryBackend):
    """``remaining`` of a page of the past counts the keys of now."""

    def list(self, prefix, *, remaining=False, **options):
        found = super().list(prefix, remaining=remaining, **options)
        if not remaining or not options.pop("revision", 0):
            return found
        return attrs.evolve(
            found, remaining=super().list(prefix, remaining=True, **options).remaining
        )


class ValuesInKeysOnly(MemoryBackend):
    def list(self, prefix, *, keys_only=False, **options):
        return super().list(prefix, **options)


class ValuesInKeysOnlyOfThePast(MemoryBackend):
    def list(self, prefix, *, keys_only=False, revision=0, **options):
        return super().list(
            prefix, keys_only=keys_only and not revision, revision=revision, **options
        )


class KeysOnlyAndNothingElse(MemoryBackend):
    """With the values go the numbers."""

    def list(self, prefix, *, keys_only=False, **options):
        found = super().list(prefix, keys_only=keys_only, **options)
        if not keys_only:
            return found
        kvs = [msgspec.structs.replace(kv, version=0, create_revision=0) for kv in found.kvs]
        return attrs.evolve(found, kvs=tuple(kvs))


class NoExpiryInKeysOnly(MemoryBackend):
    def list(self, prefix, *, keys_only=False, **options):
        found = super().list(prefix, keys_only=keys_only, **options)
        if not keys_only:
            return found
        return attrs.evolve(
            found, kvs=tuple(msgspec.structs.replace(kv, lease=0) for kv in found.kvs)
        )


class ListBackwards(MemoryBackend):
    def list(self, prefix, **options):
        found = super().list(prefix, **options)
        return attrs.evolve(found, kvs=found.kvs[::-1])


class InOrderOfUtf16(MemoryBackend):
    def list(self, prefix, **options):
        found = super().list(prefix, **options)
        kvs = sorted(found.kvs, key=lambda kv: kv.key.encode("utf-16-be"))
        return attrs.evolve(found, kvs=tuple(kvs))


class PrefixIsAFolder(MemoryBackend):
    """The prefix "/a" does not match "/ab"."""

    def list(self, prefix, **options):
        found = super().list(prefix, **options)
        kvs = [
            kv
            for kv in found.kvs
            if prefix[-1:] in ("", "/") or kv.key[len(prefix) :][:1] in ("", "/")
        ]
        return attrs.evolve(found, kvs=tuple(kvs))


class CountOfFolders(MemoryBackend):
    """Count takes its prefix for a folder, as list does not."""

    def count(self, prefix, **options):
        found = super().count(prefix, **options)
        kvs = super().list(prefix, revision=options.get("revision", 0)).kvs
        count = sum(
            prefix[-1:] in ("", "/") or kv.key[len(prefix) :][:1] in ("", "/") for kv in kvs
        )
        return attrs.evolve(found, count=count)


class CountOfNow(MemoryBackend):
    """A count of the past is that of now."""

    def count(self, prefix, *, revision=0, **options):
        found = super().count(prefix, revision=revision, **options)
        return attrs.evolve(found, count=super().count(prefix).count)


class LocalReadsLag(MemoryBackend):
    """``linearizable=False`` may lag, though LOCAL_READS is not claimed."""

    def get(self, key, *, linearizable=True, **options):
        found = super().get(key, **options)
        known = self.__dict__.setdefault("known", {}).setdefault(key, found)
        return found if linearizable or options.get("revision") or known.kv is None else known


class LocalListsLag(MemoryBackend):
    def list(self, prefix, *, linearizable=True, **options):
        found = super().list(prefix, **options)
        known = self.__dict__.setdefault("known", {}).setdefault(prefix, found)
        return found if linearizable or options.get("revision") or not known.kvs else known


class NoHistory(MemoryBackend):
    """A right backend that has no history."""

    @property
    def capabilities(self):
        return super().capabilities - {Capability.HISTORICAL_READS}

    def check(self, revision, current):
        if 0 < revision < current:
            raise Unsupported(Capability.HISTORICAL_READS, "there is none")

    def get(self, key, *, revision=0, **options):
        self.check(revision, super().status().revision)
        return super().get(key, revision=revision, **options)

    def list(self, prefix, *, revision=0, **options):
        self.check(revision, super().status().revision)
        return super().list(prefix, revision=revision, **options)

    def count(self, prefix, *, revision=0, **options):
        self.check(revision, super().status().revision)
        return super().count(prefix, revision=revision, **options)


class NoReadAtTheCurrentRevision(NoHistory):
    """Without history even the current revision is refused."""

    def check(self, revision, current):
        if 0 < revision <= current:
            raise Unsupported(Capability.HISTORICAL_READS, "there is none")


# What writes do, and what they answer


class CreateOverwrites(MemoryBackend):
    def put(self, key, value, *, expected_revision, **options):
        current = super().get(key).kv
        if expected_revision == 0 and current is not None:
            expected_revision = current.revision
        return super().put(key, value, expected_revision=expected_revision, **options)


class UpdateCreates(MemoryBackend):
    """An update of a key that is absent creates it."""

    def put(self, key, value, *, expected_revision, **options):
        if super().get(key).kv is None:
            expected_revision = 0
        return super().put(key, value, expected_revision=expected_revision, **options)


class FutureExpectationWins(MemoryBackend):
    """A write wins that expects a revision above the key's."""

    def put(self, key, value, *, expected_revision, **options):
        current = super().get(key).kv
        if current is not None:
            expected_revision = min(expected_revision, current.revision)
        return super().put(key, value, expected_revision=expected_revision, **options)


class EqualValueIsNoWrite(MemoryBackend):
    def put(self, key, value, *, expected_revision, **options):
        current = super().get(key).kv
        if current is not None and (current.revision, current.value) == (expected_revision, value):
            return PutResult(True, current.revision)
        return super().put(key, value, expected_revision=expected_revision, **options)


class RefusedPut(MemoryBackend):
    """A put that loses is bent."""

    def put(self, key, value, **options):
        found = super().put(key, value, **options)
        return found if found.succeeded else self.bend(found, options["expected_revision"])


class NoRevisionInAConflict(RefusedPut):
    """A put that loses names the key's revision, 0 for a key that is absent."""

    def bend(self, found, expected):
        return attrs.evolve(found, revision=found.current.revision if found.current else 0)


class FutureRevisionInAConflict(RefusedPut):
    def bend(self, found, expected):
        return attrs.evolve(found, revision=found.revision + 1)


class NothingInAConflict(RefusedPut):
    """A put that loses does not say to what, unless it was to create."""

    def bend(self, found, expected):
        return attrs.evolve(found, current=None) if expected else found


class NothingInAnExistingKey(RefusedPut):
    def bend(self, found, expected):
        return found if expected else attrs.evolve(found, current=None)


class OldKeyInAConflict(MemoryBackend):
    """A put that loses shows the key as it was before."""

    def put(self, key, value, *, expected_revision, **options):
        found = super().put(key, value, expected_revision=expected_revision, **options)
        if found.current is None:
            return found
        before = super().get(key, revision=found.current.revision - 1).kv
        return attrs.evolve(found, current=before or found.current)


class PutShowsWhatItReplaced(MemoryBackend):
    """A put that was made says what was there before."""

    def put(self, key, value, **options):
        current = super().get(key).kv
        found = super().put(key, value, **options)
        return attrs.evolve(found, current=current) if found.succeeded else found


class RefusedWriteTakesARevision(MemoryBackend):
    def put(self, key, value, **options):
        found = super().put(key, value, **options)
        if not found.succeeded:
            super().put("/other", b"", expected_revision=self.other())
        return found

    def other(self):
        kv = super().get("/other").kv
        return kv.revision if kv else 0


class BentDelete(MemoryBackend):
    def delete(self, key, **options):
        current = super().get(key).kv
        found = super().delete(key, **options)
        return self.bend(found, current)


class NothingFromADeletion(BentDelete):
    """A deletion does not say what it removed."""

    def bend(self, found, current):
        return attrs.evolve(found, kv=None) if found.succeeded else found


class NoValueFromADeletion(BentDelete):
    def bend(self, found, current):
        if not found.succeeded:
            return found
        return attrs.evolve(found, kv=msgspec.structs.replace(found.kv, value=b""))


class DeletionHasTheKeysRevision(BentDelete):
    """A deletion names the revision of what it removed."""

    def bend(self, found, current):
        return attrs.evolve(found, revision=current.revision) if found.succeeded else found


class NothingFromALostDeletion(BentDelete):
    def bend(self, found, current):
        return found if found.succeeded else attrs.evolve(found, kv=None)


class NoRevisionFromALostDeletion(BentDelete):
    """A deletion that loses names the key's revision, 0 for a key that is absent."""

    def bend(self, found, current):
        if found.succeeded:
            return found
        return attrs.evolve(found, revision=current.revision if current else 0)


class AbsentKeyIsDeleted(BentDelete):
    """The deletion of a key that is absent succeeds."""

    def bend(self, found, current):
        return found if current else DeleteResult(True, found.revision)


class DeleteIgnoresTheRevision(MemoryBackend):
    def delete(self, key, *, expected_revision, **options):
        current = super().get(key).kv
        if current is not None:
            expected_revision = current.revision
        return super().delete(key, expected_revision=expected_revision, **options)


class DeletesWhatIsBelow(MemoryBackend):
    """A deletion takes the keys below its key along."""

    def delete(self, key, **options):
        found = super().delete(key, **options)
        if found.succeeded:
            for kv in super().list(f"{key}/").kvs:
                super().delete(kv.key, expected_revision=kv.revision)
        return found


class CreationForgotten(MemoryBackend):
    """Each write counts as a creation."""

    def get(self, key, **options):
        found = super().get(key, **options)
        if found.kv is None:
            return found
        kv = msgspec.structs.replace(found.kv, create_revision=found.kv.revision)
        return attrs.evolve(found, kv=kv)


class VersionGoesOn(MemoryBackend):
    """A key created again counts on from where it was deleted."""

    def get(self, key, **options):
        found = super().get(key, **options)
        deleted = self.__dict__.get("deleted", {})
        if found.kv is None or key not in deleted:
            return found
        kv = msgspec.structs.replace(found.kv, version=found.kv.version + deleted[key])
        return attrs.evolve(found, kv=kv)

    def delete(self, key, **options):
        found = super().delete(key, **options)
        if found.succeeded:
            self.__dict__.setdefault("deleted", {})[key] = found.kv.version
        return found


# Expiry


class TtlDroppedAtUpdate(MemoryBackend):
    """A ttl counts for a creation only; an update keeps what there is."""

    def put(self, key, value, *, expected_revision, ttl=0, **options):
        ttl = ttl if not expected_revision else None
        return super().put(key, value, expected_revision=expected_revision, ttl=ttl, **options)


class UpdateEndsTheExpiry(MemoryBackend):
    """``ttl=None`` does what ``ttl=0`` does."""

    def put(self, key, value, *, ttl=0, **options):
        return super().put(key, value, ttl=ttl or 0, **options)


class NoExpiry(MemoryBackend):
    """A ttl is taken note of, and nothing expires."""

    def _start_sweeper(self):
        pass


class EarlyExpiry(MemoryBackend):
    """A key expires up to half a second before its time."""

    def __init__(self):
        super().__init__()
        put = self._state.put
        self._state.put = lambda key, value, ttl, clock: put(key, value, ttl, lambda: clock() - 0.5)


class HiddenBeforeItExpires(MemoryBackend):
    """A key whose time has come is hidden, and deleted a moment later."""

    def get(self, key, **options):
        found = super().get(key, **options)
        times = self.__dict__.get("times", {})
        gone = found.kv is not None and self._clock() > times.get(key, 1e300)
        return attrs.evolve(found, kv=None) if gone and not options.get("revision") else found

    def put(self, key, value, *, ttl=0, **options):
        found = super().put(key, value, ttl=ttl and ttl + 1, **options)
        if found.succeeded and ttl:
            self.__dict__.setdefault("times", {})[key] = self._clock() + ttl
        return found


class OldTimer(MemoryBackend):
    """An expiry goes by the key's name, and strikes whoever has it then."""

    def put(self, key, value, *, ttl=0, **options):
        found = super().put(key, value, ttl=ttl, **options)
        old = self.__dict__.setdefault("old", {})
        if ttl:
            old[key] = self._state._deadlines[key]
        elif found.succeeded and key in old and not options["expected_revision"]:
            self._state._expire_at(key, old[key])
        return found


# Watches


class BentWatches(MemoryBackend):
    """Each batch of each watch is bent."""

    def watch(self, key, **options):
        watch = super().watch(key, **self.opened(**options))
        poll = watch.poll

        def bent(timeout=None):
            batch = poll(timeout)
            return None if batch is None else self.bend(batch)

        watch.poll = bent
        return watch

    def opened(self, **options):
        return options

    def bend(self, batch):
        return batch


class RepeatsEvents(BentWatches):
    """The second poll brings the first batch once more."""

    def watch(self, key, **options):
        watch = MemoryBackend.watch(self, key, **options)
        poll, seen = watch.poll, []

        def bent(timeout=None):
            if len(seen) == 1:
                return seen[0] if seen.append(None) is None else None
            batch = poll(timeout)
            if batch is not None and batch.events:
                seen.append(batch)
            return batch

        watch.poll = bent
        return watch


class SwapsEvents(BentWatches):
    """Two batches that are there come in the wrong order."""

    def watch(self, key, **options):
        watch = MemoryBackend.watch(self, key, **options)
        poll, ready = watch.poll, []

        def bent(timeout=None):
            if ready:
                return ready.pop()
            batch = poll(timeout)
            other = poll(0) if batch is not None else None
            if other is None:
                return batch
            ready.append(batch)
            return other

        watch.poll = bent
        return watch


class WatchBeginsAtItsRevision(BentWatches):
    """A watch delivers the event of the revision that it begins after."""

    def opened(self, *, after_revision, **options):
        return {"after_revision": max(0, after_revision - 1), **options}


class WatchBeginsNow(BentWatches):
    """A watch delivers no history."""

    def opened(self, *, after_revision, **options):
        return {"after_revision": max(after_revision, self.status().revision), **options}


class RecursiveAlways(BentWatches):
    def opened(self, *, recursive, **options):
        return {"recursive": True, **options}


class WatchOfAFolder(MemoryBackend):
    """A recursive watch of "a" sees "a/b", not "ab"."""

    def watch(self, key, *, recursive, **options):
        watch = super().watch(key, recursive=recursive, **options)
        if recursive and key and key[-1] != "/":
            covers = watch._covers
            watch._covers = lambda name: covers(name) and name[len(key) :][:1] in ("", "/")
        return watch


class NoPrevious(BentWatches):
    def bend(self, batch):
        events = (msgspec.structs.replace(event, previous=None) for event in batch.events)
        return attrs.evolve(batch, events=tuple(events))


class NoPreviousOfADeletion(BentWatches):
    def bend(self, batch):
        events = (
            msgspec.structs.replace(event, previous=None)
            if event.type is WatchEventType.DELETED
            else event
            for event in batch.events
        )
        return attrs.evolve(batch, events=tuple(events))


class DeletionWithItsValue(BentWatches):
    """The key in a deletion is as it was before, not empty."""

    def bend(self, batch):
        events = (
            msgspec.structs.replace(
                event, kv=msgspec.structs.replace(event.previous, revision=event.kv.revision)
            )
            if event.type is WatchEventType.DELETED
            else event
            for event in batch.events
        )
        return attrs.evolve(batch, events=tuple(events))


class DeletionAtTheOldRevision(BentWatches):
    """The key in a deletion has its last revision, not that of the deletion."""

    def bend(self, batch):
        events = (
            msgspec.structs.replace(
                event, kv=msgspec.structs.replace(event.kv, revision=event.previous.revision)
            )
            if event.type is WatchEventType.DELETED
            else event
            for event in batch.events
        )
        return attrs.evolve(batch, events=tuple(events))


class MarksUnasked(MemoryBackend):
    """A watch with ``progress=False`` delivers a mark after each write of others."""

    def watch(self, key, *, progress=True, **options):
        watch = super().watch(key, progress=progress, **options)
        poll = watch.poll

        def bent(timeout=None):
            batch = poll(timeout)
            revision = self.status().revision
            if batch is None and revision > watch.position:
                watch._position = revision
                return WatchBatch(revision)
            return batch

        watch.poll = bent
        return watch


class MarksNever(BentWatches):
    """A watch with ``progress=False`` heeds no request for a mark."""

    def watch(self, key, *, progress=True, **options):
        watch = super().watch(key, progress=progress, **options)
        if not progress:
            watch.request_progress = lambda: None
        return watch


class PositionStays(MemoryBackend):
    """The position is that from which the watch began."""

    def watch(self, key, **options):
        watch = super().watch(key, **options)

        class Standing(type(watch)):
            position = options["after_revision"]

        watch.__class__ = Standing
        return watch


class PositionAhead(MemoryBackend):
    """The position is the store's revision at the opening, whatever is to come."""

    def watch(self, key, **options):
        watch = super().watch(key, **options)
        ahead = self.status().revision
        position = type(watch).position.fget

        class Ahead(type(watch)):
            @property
            def position(self):
                return max(ahead, position(self))

        watch.__class__ = Ahead
        return watch


class WatchGoesOnAfterItsError(MemoryBackend):
    """A watch raises ``Compacted`` once, and then nothing."""

    def watch(self, key, **options):
        watch = super().watch(key, **options)
        poll = watch.poll

        def bent(timeout=None):
            if watch._error is not None:
                error, watch._error = watch._error, None
                watch._position = self.status().revision
                raise error
            return poll(timeout)

        watch.poll = bent
        return watch


class CompactedAtOnce(MemoryBackend):
    """``watch`` itself raises ``Compacted``."""

    def watch(self, key, **options):
        watch = super().watch(key, **options)
        if watch._error is not None:
            raise watch._error
        return watch


class SkipsWhatIsCompacted(MemoryBackend):
    """A watch from below the compacted revision begins at it, in silence."""

    def watch(self, key, *, after_revision, **options):
        after = max(after_revision, self.status().compacted_revision)
        return super().watch(key, after_revision=after, **options)


class ClosedWatchEnds(MemoryBackend):
    """A poll of a closed watch gives None."""

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


class PollWaitsForAnEvent(MemoryBackend):
    """A poll ignores its timeout."""

    def watch(self, key, **options):
        watch = super().watch(key, **options)
        poll = watch.poll
        watch.poll = lambda timeout=None: poll(30)
        return watch


class PollDoesNotWait(MemoryBackend):
    """A poll gives None at once if there is nothing."""

    def watch(self, key, **options):
        watch = super().watch(key, **options)
        poll = watch.poll
        watch.poll = lambda timeout=None: poll(0)
        return watch


# Compaction, status, close


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

    watch = ClosedWatchEnds.watch


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


# Arguments


class BadStartIsServed(MemoryBackend):
    """A ``start`` that is no key is served."""

    def list(self, prefix, *, start="", **options):
        try:
            return super().list(prefix, start=start, **options)
        except InvalidKey:
            return super().list(prefix, **options)


class BytearrayIsAValue(MemoryBackend):
    def put(self, key, value, **options):
        return super().put(key, bytes(value) if isinstance(value, bytearray) else value, **options)


class CompactsZero(MemoryBackend):
    def compact(self, revision, **options):
        if revision != 0:
            super().compact(revision, **options)


class TimeoutOfCompactIsServed(MemoryBackend):
    """``compact`` does not look at its timeout."""

    def compact(self, revision, *, timeout=None):
        super().compact(revision)


class KeysAreTrimmed(MemoryBackend):
    """A key's trailing blanks and slashes are left out."""

    def put(self, key, value, **options):
        return super().put(key.rstrip(" /") or key, value, **options)


FAULTS = [
    (GetGivesTheNextKey, "get_of_absent_key"),
    (GetGivesTheFirstKey, "list_equals_gets"),
    (GetNamesThePast, "numbers_of_the_past"),
    (LimitIgnored, "limit"),
    (OneTooMany, "limit"),
    (PagesOverlap, "test_start"),
    (PagesSkip, "test_start"),
    (StartIgnored, "test_start"),
    (StartIgnoredInThePast, "pages_of_the_past"),
    (MoreWhereNoneIs, "limit_and_remaining"),
    (RemainingCountsAll, "limit_and_remaining"),
    (RemainingIgnoresStart, "limit_and_remaining"),
    (RemainingUnasked, "list_equals_gets"),
    (RemainingOfNow, "pages_of_the_past"),
    (ValuesInKeysOnly, "keys_only"),
    (ValuesInKeysOnlyOfThePast, "keys_only"),
    (KeysOnlyAndNothingElse, "keys_only"),
    (NoExpiryInKeysOnly, "keys_only"),
    (ListBackwards, "byte_order"),
    (InOrderOfUtf16, "byte_order"),
    (PrefixIsAFolder, "prefix_is_a_plain_string"),
    (CountOfFolders, "prefix_is_a_plain_string"),
    (CountOfNow, "reads_of_the_past"),
    (LocalReadsLag, "reads_that_may_lag"),
    (LocalListsLag, "reads_that_may_lag"),
    (NoReadAtTheCurrentRevision, "past_without_history"),
    (CreateOverwrites, "create_of_existing_key_loses"),
    (UpdateCreates, "update_of_absent_key_loses"),
    (FutureExpectationWins, "update_with_wrong_revision_loses"),
    (EqualValueIsNoWrite, "equal_value_is_written"),
    (NoRevisionInAConflict, "update_of_absent_key_loses"),
    (FutureRevisionInAConflict, "update_with_wrong_revision_loses"),
    (NothingInAConflict, "update_with_wrong_revision_loses"),
    (NothingInAnExistingKey, "create_of_existing_key_loses"),
    (OldKeyInAConflict, "update_with_wrong_revision_loses"),
    (PutShowsWhatItReplaced, "update_with_right_revision"),
    (RefusedWriteTakesARevision, "refused_writes_and_reads_take_no_revision"),
    (NothingFromADeletion, "delete_with_right_revision"),
    (NoValueFromADeletion, "delete_with_right_revision"),
    (DeletionHasTheKeysRevision, "delete_with_right_revision"),
    (NothingFromALostDeletion, "delete_with_wrong_revision_loses"),
    (NoRevisionFromALostDeletion, "delete_of_absent_key_loses"),
    (AbsentKeyIsDeleted, "delete_of_absent_key_loses"),
    (DeleteIgnoresTheRevision, "delete_with_wrong_revision_loses"),
    (DeletesWhatIsBelow, "nested_keys"),
    (CreationForgotten, "update_with_right_revision"),
    (VersionGoesOn, "versions"),
    (TtlDroppedAtUpdate, "ttl_none_keeps"),
    (UpdateEndsTheExpiry, "ttl_none_keeps"),
    (NoExpiry, "expiry_in_reads"),
    (EarlyExpiry, "test_expiry"),
    (HiddenBeforeItExpires, "expiry_in_reads"),
    (OldTimer, "deleted_key_does_not_expire"),
    (RepeatsEvents, "watch_history_then_live"),
    (SwapsEvents, "watch_history_then_live"),
    (WatchBeginsAtItsRevision, "watch_start_revision"),
    (WatchBeginsNow, "watch_history_then_live"),
    (RecursiveAlways, "watch_exact_key"),
    (WatchOfAFolder, "watch_recursive_is_a_plain_prefix"),
    (NoPrevious, "whole_key_values"),
    (NoPreviousOfADeletion, "whole_key_values"),
    (DeletionWithItsValue, "whole_key_values"),
    (DeletionAtTheOldRevision, "whole_key_values"),
    (MarksUnasked, "watch_without_progress"),
    (MarksNever, "watch_progress_mark"),
    (PositionStays, "watch_position_resumes"),
    (PositionAhead, "watch_start_revision"),
    (WatchGoesOnAfterItsError, "watch_below_the_compacted_revision"),
    (CompactedAtOnce, "watch_below_the_compacted_revision"),
    (SkipsWhatIsCompacted, "watch_below_the_compacted_revision"),
    (ClosedWatchEnds, "watch_close_ends_the_watch"),
    (PollWaitsForAnEvent, "watch_poll_zero_does_not_wait"),
    (PollDoesNotWait, "watch_poll_zero_does_not_wait"),
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
    (BadStartIsServed, "invalid_keys"),
    (BytearrayIsAValue, "invalid_arguments"),
    (CompactsZero, "test_bounds"),
    (TimeoutOfCompactIsServed, "timeouts_out_of_range"),
    (KeysAreTrimmed, "keys_need_no_slash"),
]


@pytest.mark.parametrize(
    ("fault", "test"), FAULTS, ids=lambda each: getattr(each, "__name__", each)
)
def test_the_suite_catches_it(monkeypatch, fault, test):
    """By the test that is there for it."""
    monkeypatch.setattr(_support, "PATIENCE", 4.0)
    report = run_conformance(fault, histories=0, only=test, own=True)
    assert [each.name for each in report.failures if test in each.name], fault


# Faults of the table above that a recorded workload shows too, and by which checks.
HISTORY_FAULTS = [
    (GetGivesTheNextKey, {"linearizable", "state"}),
    (GetGivesTheFirstKey, {"linearizable", "state"}),
    (CreateOverwrites, {"linearizable"}),
    (UpdateCreates, {"linearizable"}),
    (NoRevisionInAConflict, {"revisions"}),
    (FutureRevisionInAConflict, {"revisions"}),
    (NothingInAConflict, {"linearizable"}),
    (OldKeyInAConflict, {"linearizable"}),
    (NothingFromADeletion, {"linearizable"}),
    (NoValueFromADeletion, {"linearizable"}),
    (DeletionHasTheKeysRevision, {"revisions"}),
    (NothingFromALostDeletion, {"linearizable"}),
    (AbsentKeyIsDeleted, {"linearizable"}),
    (DeleteIgnoresTheRevision, {"linearizable"}),
    (RepeatsEvents, {"unique"}),
    (SwapsEvents, {"ordered"}),
    (WatchBeginsAtItsRevision, {"ordered"}),
    (WatchBeginsNow, {"reliable", "resumable"}),
    (NoPrevious, {"previous"}),
    (DeletionAtTheOldRevision, {"atomic"}),
    (PositionAhead, {"reliable"}),
]


@pytest.mark.parametrize(
    ("fault", "guarantees"), HISTORY_FAULTS, ids=lambda each: getattr(each, "__name__", "")
)
def test_a_history_shows_it(monkeypatch, fault, guarantees):
    """By the check that names it, in one of five workloads."""
    found = set()
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for seed in range(5):
            with fault() as backend:
                plan = Workload(prefix="/t/", seed=seed, writers=3, watchers=2, turns=200, keys=2)
                history = plan.run(lambda _, backend=backend: backend)
            found |= {violation.guarantee for violation in check_history(history)}
            if guarantees <= found:
                return
    finally:
        sys.setswitchinterval(before)
    raise AssertionError(found)


class Stalling(MemoryBackend):
    """A right backend whose calls wait while it is stalled; those of ``hanging`` without an end."""

    timed = frozenset({"status", "get", "list", "count", "put", "delete", "size", "compact"})
    hanging = frozenset()

    def __init__(self):
        super().__init__()
        self.flows = threading.Event()
        self.flows.set()
        self.ended = threading.Event()

    @contextlib.contextmanager
    def stalled(self):
        self.flows.clear()
        try:
            yield
        finally:
            self.flows.set()

    def __getattribute__(self, name):
        found = super().__getattribute__(name)
        if name in Stalling.timed:
            return partial(self._wait, name, found)
        return partial(self._hang, found) if name in type(self).hanging else found

    def size(self, *, timeout=None):
        self.status(timeout=timeout)
        return 1 << 30

    def close(self):
        self.ended.set()
        super().close()

    def _wait(self, name, call, *args, timeout=30.0, **options):
        if name in self.hanging:
            self.flows.wait()
        end = time.monotonic() + timeout
        while not self.flows.wait(0.01):
            if self.ended.is_set():
                raise Closed("it was closed")
            if time.monotonic() > end:
                raise Timeout("the store is stalled")
        return call(*args, timeout=timeout, **options)

    def _hang(self, call, *args, **options):
        self.flows.wait()
        return call(*args, **options)


class HangingWatch(Stalling):
    hanging = frozenset({"watch"})


class HangingPoll(Stalling):
    """A poll waits without an end while the store is stalled."""

    def watch(self, key, **options):
        watch = super().watch(key, **options)
        for name in self.hung:
            setattr(watch, name, partial(self._hang, getattr(watch, name)))
        return watch

    hung = ("poll",)


class HangingProgress(HangingPoll):
    hung = ("request_progress",)


HANGING = [
    type(f"Hanging{name.title()}", (Stalling,), {"hanging": frozenset({name})})
    for name in sorted(Stalling.timed)
]


@pytest.mark.parametrize("test", ["test_deadlines", "test_close_of_a_stalled_store"])
def test_a_right_backend_passes_stalled(test):
    """No false alarm."""
    _try_stalled(Stalling, test)


def _try_stalled(fault, test):
    with fault() as backend:
        space = _support.Keyspace(backend, "/t/")
        getattr(LifeTests(), test)(backend, space, backend.stalled)


@pytest.mark.slow
@pytest.mark.parametrize("fault", [*HANGING, HangingWatch, HangingPoll, HangingProgress])
def test_the_suite_catches_a_timeout_that_is_ignored(fault):
    """By the test of deadlines, which does not hang itself."""
    with pytest.raises(AssertionError, match="a thread hangs"):
        _try_stalled(fault, "test_deadlines")


class ClosesWhenItFlows(Stalling):
    """``close`` waits for the store."""

    def close(self):
        self.flows.wait()
        super().close()


class LeavesCallsWaiting(Stalling):
    """``close`` does not wake calls that wait."""

    def close(self):
        MemoryBackend.close(self)


@pytest.mark.parametrize("fault", [ClosesWhenItFlows, LeavesCallsWaiting])
def test_the_suite_catches_a_close_that_waits(fault):
    """Whether it waits itself, or calls do."""
    with pytest.raises(AssertionError, match="a thread hangs"):
        _try_stalled(fault, "test_close_of_a_stalled_store")
