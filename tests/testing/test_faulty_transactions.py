"""Each breach of what contract 1.1 added is told by the tests that name it."""

from __future__ import annotations

import pytest
from tests.testing.test_faulty_stores import Reopened

from revstore.errors import OutcomeUnknown
from revstore.memory import MemoryBackend
from revstore.testing.conformance import Outcome, run_conformance
from revstore.values import Capability, TransactionResult


class TornBody(MemoryBackend):
    """A body that raises leaves what it wrote before."""

    def transactions(self, bodies, **options):
        def torn(body):
            def run(seen):
                try:
                    return body(seen), None
                except Exception as error:  # noqa: BLE001
                    return None, error

            return run

        found = super().transactions([torn(body) for body in bodies], **options)
        return [
            each
            if isinstance(each, Exception)
            else each.value[1] or TransactionResult(each.value[0], each.revision, each.wrote)
            for each in found
        ]


class TwoRevisions(MemoryBackend):
    """The keys of a body take a revision each."""

    def _run(self, body):
        write = self._state.write

        def one_by_one(changes, clock):
            for change in changes:
                write([change], clock)
                self._shared.finish()
            write([], clock)
            self._state.noted = None

        self._state.write = one_by_one
        finish = self._shared.finish
        self._shared.finish = lambda: finish() if self._state.noted is not None else None
        try:
            return super()._run(body)
        finally:
            del self._state.write, self._shared.finish


class OneCommitForAll(MemoryBackend):
    """One body that raises takes the others with it."""

    def transactions(self, bodies, **options):
        found = super().transactions(bodies, **options)
        if any(isinstance(each, Exception) for each in found) and len(found) > 1:
            return [OutcomeUnknown("", 0)] * len(found)
        return found


class ReadsTakeRevisions(MemoryBackend):
    """A body that writes nothing takes a revision all the same."""

    def transactions(self, bodies, **options):
        found = super().transactions(bodies, **options)
        self._state.revision += sum(
            not each.wrote for each in found if not isinstance(each, Exception)
        )
        return found


class LeavesAKey(MemoryBackend):
    """To revoke a lease leaves one of its keys."""

    def leases(self, **options):
        table = self._state.leases
        find = table.find

        def forgetful(lease):
            found = find(lease)
            if len(found.keys) > 1:
                found.keys.discard(max(found.keys))
            return found

        table.find = forgetful
        return super().leases(**options)


class EarlyLease(MemoryBackend):
    """A lease expires after half its time."""

    def leases(self, **options):
        table = self._state.leases
        add = table.add
        table.add = lambda lease, ttl, deadline: add(lease, ttl, deadline - ttl / 2)
        return super().leases(**options)


class DeafLease(MemoryBackend):
    """A lease that is kept alive expires all the same."""

    def leases(self, **options):
        leases = super().leases(**options)
        leases.keep_alive = lambda lease, **_: leases.get(lease)
        return leases


class KeepsLeases(Reopened):
    """A durable store whose leases are durable too."""

    def leases(self, **options):
        with self._shared.lock:
            self._start_sweeper()
        return super().leases(**options)


class LosesLeases(KeepsLeases):
    """A durable store that forgets its leases when it is closed."""

    def close(self):
        self._state.leases.of.clear()
        for lease in self._state.leases.ids():
            self._state.leases.drop(lease)
        super().close()


class OpenFence(MemoryBackend):
    """A fence that transactions go through."""

    def _run(self, body):
        fenced, self._state.fenced = self._state.fenced, ""
        try:
            return super()._run(body)
        finally:
            self._state.fenced = fenced


class UsesRevisionsTwice(MemoryBackend):
    """It takes no note of a raised revision."""

    def raise_revision(self, revision, **options):
        return None


class ClaimsNothing(MemoryBackend):
    """It does not claim what it does all the same."""

    @property
    def capabilities(self):
        return super().capabilities - {
            Capability.TRANSACTIONS,
            Capability.LEASES,
            Capability.REMAINING_TTL,
            Capability.RAISE_REVISION,
            Capability.FENCE,
        }


FAULTS = [
    (TornBody, "a_body_that_raises"),
    (TwoRevisions, "test_one_revision history_of_a_revision_of_many_keys two_counters"),
    (OneCommitForAll, "a_body_that_raises"),
    (ReadsTakeRevisions, "reads_take_no_revision"),
    (LeavesAKey, "test_revoke"),
    (EarlyLease, "expiry_of_a_lease"),
    (DeafLease, "test_keep_alive"),
    (LosesLeases, "leases_survive"),
    (OpenFence, "test_fence"),
    (UsesRevisionsTwice, "raised_revision"),
    (
        ClaimsNothing,
        "unclaimed_transactions unclaimed_leases remaining_ttl raised_revision test_fence",
    ),
]


@pytest.mark.parametrize(("fault", "tests"), FAULTS, ids=[fault.__name__ for fault, _ in FAULTS])
def test_every_fault_is_told(fault, tests):
    """By the tests of the suite that are named here, each of which passes for a right store."""
    names = tests.split()
    only = " or ".join(names)
    report = run_conformance(fault, histories=0, only=only)
    told = {each.name for each in report.failures}
    assert all(any(name in each for each in told) for name in names), report
    right = KeepsLeases if issubclass(fault, Reopened) else MemoryBackend
    passed = run_conformance(right, histories=0, only=only)
    assert Outcome.FAILED not in {each.outcome for each in passed.results}, passed
