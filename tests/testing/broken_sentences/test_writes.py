"""Writes that break a sentence of the contract, in what they do or in what they answer."""

from __future__ import annotations

import attrs
import msgspec
import pytest

from revstore.memory import MemoryBackend
from revstore.values import DeleteResult, PutResult


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


FAULTS = [
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
]


@pytest.mark.parametrize(
    ("fault", "test"), FAULTS, ids=lambda each: getattr(each, "__name__", each)
)
def test_the_suite_catches_it(assert_caught, fault, test):
    """By the test that is there for it."""
    assert_caught(fault, test)


# Faults of the table above that a recorded workload shows too, and by which checks.
HISTORY_FAULTS = [
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
]


@pytest.mark.parametrize(
    ("fault", "guarantees"), HISTORY_FAULTS, ids=lambda each: getattr(each, "__name__", "")
)
def test_a_history_shows_it(assert_shown, fault, guarantees):
    """By the check that names it, in one of a few workloads."""
    assert_shown(fault, guarantees)
