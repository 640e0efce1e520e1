"""Reads that break a sentence of the contract."""

from __future__ import annotations

import attrs
import msgspec
import pytest

from revstore.errors import Unsupported
from revstore.memory import MemoryBackend
from revstore.values import Capability


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
            kvs = super().list(key.rpartition("/")[0], limit=1).kvs
            return attrs.evolve(found, kv=kvs[0] if kvs else None)
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
]


@pytest.mark.parametrize(
    ("fault", "test"), FAULTS, ids=lambda each: getattr(each, "__name__", each)
)
def test_the_suite_catches_it(assert_caught, fault, test):
    """By the test that is there for it."""
    assert_caught(fault, test)


# Faults of the table above that a recorded workload shows too, and by which checks.
HISTORY_FAULTS = [
    (GetGivesTheNextKey, {"linearizable", "state"}),
    (GetGivesTheFirstKey, {"linearizable", "state"}),
]


@pytest.mark.parametrize(
    ("fault", "guarantees"), HISTORY_FAULTS, ids=lambda each: getattr(each, "__name__", "")
)
def test_a_history_shows_it(assert_shown, fault, guarantees):
    """By the check that names it, in one of a few workloads."""
    assert_shown(fault, guarantees)
