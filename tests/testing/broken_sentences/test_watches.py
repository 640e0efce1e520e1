"""Watches that break a sentence of the contract."""

from __future__ import annotations

import attrs
import msgspec
import pytest

from revstore.errors import Closed
from revstore.memory import MemoryBackend
from revstore.values import WatchBatch, WatchEventType


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


FAULTS = [
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
]


@pytest.mark.parametrize(
    ("fault", "test"), FAULTS, ids=lambda each: getattr(each, "__name__", each)
)
def test_the_suite_catches_it(assert_caught, fault, test):
    """By the test that is there for it."""
    assert_caught(fault, test)


# Faults of the table above that a recorded workload shows too, and by which checks.
HISTORY_FAULTS = [
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
def test_a_history_shows_it(assert_shown, fault, guarantees):
    """By the check that names it, in one of a few workloads."""
    assert_shown(fault, guarantees)
