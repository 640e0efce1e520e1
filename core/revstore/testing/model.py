"""A Hypothesis state machine that drives a backend and a plain model of it side by side.

::

    from revstore.testing.model import backend_machine

    TestMyMachine = backend_machine(open_an_empty_store).TestCase
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any, TypeVar

import attrs
import msgspec
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from revstore.backend import Backend, BackendWatch
from revstore.errors import BackendError, Compacted, FutureRevision, Unsupported
from revstore.testing._machine_steps import StepRules
from revstore.testing._plain_model import PlainModel, plain, plain_event
from revstore.testing._support import PATIENCE
from revstore.values import Capability, WatchBatch

__all__ = ["BackendMachine", "backend_machine"]

R = TypeVar("R")

_NAMES = ["a", "ab", "a/", "a/b", "a/b/c", "a-b", "b", "é", "😀"]
_names = st.sampled_from(_NAMES)
_prefixes = st.sampled_from(["", "a", "a/", "a/b", "ab", "b", "c", "é", "😀"])
_starts = st.sampled_from(["", *_NAMES, "a\0", "a/b\0", "😀\0", "0", "z"])
_limits = st.integers(0, 6)
# Which of the revisions that make a difference; see BackendMachine.pick.
_picks = st.integers(0, 1 << 16)
_expectations = st.sampled_from(["right", "right", "right", "zero", "old", "future"])


@attrs.define(eq=False)
class _OpenWatch:
    """A watch and what the model knows of it. ``expired``: every poll must raise Compacted."""

    watch: BackendWatch
    key: str
    recursive: bool
    position: int
    expired: bool


class BackendMachine(StepRules):
    """Puts, deletes, reads of every kind, compaction and watches, in any order; and transactions,
    leases and raised revisions where the backend has them.

    Make one with ``backend_machine``. The store must belong to the machine alone, for the
    model knows every revision; it need not be new.
    """

    open_backend: Callable[[], Backend]

    def __init__(self) -> None:
        super().__init__()
        self.backend = type(self).open_backend()
        self.can = self.backend.capabilities
        mine = uuid.uuid4()
        self.prefix = f"/machine-{mine.hex}/"
        self.first_lease = mine.int >> 66
        status = self.backend.status()
        self.model = PlainModel(status.revision, Capability.VERSIONS in self.can)
        self.model.compacted = status.compacted_revision
        self.watches: list[_OpenWatch] = []

    def teardown(self) -> None:
        try:
            for each in self.watches:
                self.drain(each)
        finally:
            self.backend.close()

    def key(self, name: str) -> str:
        return self.prefix + name

    def pick(self, number: int) -> int:
        """Return one of: now (0), every revision since the start, between, and above."""
        known = [revision for revision, _state in self.model.states]
        top = self.model.revision
        choices = [0, *known, *(known[-1:] + known[-3:]), top + 1, top + 4]
        return choices[number % len(choices)]

    def expected(self, name: str, how: str) -> int:
        """Return a revision to expect of the key: the right one, or a wrong one."""
        kv = self.model.now.get(self.key(name))
        right = kv.revision if kv else 0
        return {"right": right, "zero": 0, "old": right - 1, "future": right + 100}[how]

    def refusal(self, revision: int) -> type[BackendError] | None:
        """Return the error that a read at ``revision`` must raise."""
        if revision > self.model.revision:
            return FutureRevision
        if not revision or revision == self.model.revision:
            return None
        if Capability.HISTORICAL_READS not in self.can:
            return Unsupported
        return Compacted if revision < self.model.compacted else None

    def read(self, revision: int, call: Callable[[], R]) -> R | None:
        """Return what ``call`` reads at ``revision``; None if it had to be refused, and was."""
        refusal = self.refusal(revision)
        if refusal is None:
            return call()
        error = _refused(refusal, call)
        if isinstance(error, Compacted):
            assert error.compacted == self.model.compacted
        if isinstance(error, FutureRevision):
            assert (error.wanted, error.current) == (revision, self.model.revision)
        return None

    # Writes

    def blocked(self, key: str) -> bool:
        """Return whether a key above or below it is in its way."""
        return Capability.NESTED_KEYS not in self.can and any(
            other.startswith(f"{key}/") or key.startswith(f"{other}/") for other in self.model.now
        )

    @rule(
        name=_names,
        value=st.binary(max_size=3),
        how=_expectations,
        ttl=st.sampled_from([0, None, 1000]),
    )
    def put(self, name: str, value: bytes, how: str, ttl: int | None) -> None:
        key, before = self.key(name), self.model.now.get(self.key(name))
        if Capability.TTL not in self.can:
            ttl = 0
        expected = max(0, self.expected(name, how))
        if not expected and before is None and self.blocked(key):
            with pytest.raises(Unsupported):
                self.backend.put(key, value, expected_revision=0, ttl=ttl)
            return
        result = self.backend.put(key, value, expected_revision=expected, ttl=ttl)

        assert result.succeeded == (expected == (before.revision if before else 0))
        if result.succeeded:
            assert result.revision > self.model.revision
            assert result.current is None
            self.model.put(key, value, result.revision, ttl)
        else:
            assert (result.revision, plain(result.current)) == (self.model.revision, before)

    @rule(name=_names, how=_expectations)
    def delete(self, name: str, how: str) -> None:
        key, before = self.key(name), self.model.now.get(self.key(name))
        expected = max(1, self.expected(name, how))
        result = self.backend.delete(key, expected_revision=expected)

        assert result.succeeded == (before is not None and before.revision == expected)
        assert plain(result.kv) == before
        if result.succeeded:
            assert result.revision > self.model.revision
            self.model.delete(key, result.revision)
        else:
            assert result.revision == self.model.revision

    @rule(at=_picks)
    def compact(self, at: int) -> None:
        revision = self.pick(at) or self.model.revision
        wanted: type[BackendError] | None = None
        if Capability.COMPACTION not in self.can:
            wanted = Unsupported
        elif revision > self.model.revision:
            wanted = FutureRevision
        elif revision <= self.model.compacted:
            wanted = Compacted
        if wanted:
            _refused(wanted, lambda: self.backend.compact(revision))
        else:
            self.backend.compact(revision)
            self.model.compacted = revision

    # Reads

    @rule(name=_names, at=_picks)
    def get(self, name: str, at: int) -> None:
        key, revision = self.key(name), self.pick(at)
        result = self.read(revision, lambda: self.backend.get(key, revision=revision))
        if result is not None:
            assert plain(result.kv) == self.model.at(revision).get(key)
            assert result.revision == self.model.revision

    @rule(prefix=_prefixes, at=_picks)
    def count(self, prefix: str, at: int) -> None:
        prefix, revision = self.key(prefix), self.pick(at)
        result = self.read(revision, lambda: self.backend.count(prefix, revision=revision))
        if result is not None:
            assert result.count == len(self.model.range(prefix, revision=revision))
            assert result.revision == (revision or self.model.revision)

    @rule(
        prefix=_prefixes,
        start=_starts,
        limit=_limits,
        at=_picks,
        keys_only=st.booleans(),
        remaining=st.booleans(),
    )
    def list(
        self, prefix: str, start: str, limit: int, at: int, keys_only: bool, remaining: bool
    ) -> None:
        revision = self.pick(at)
        prefix, start = self.key(prefix), self.key(start) if start else ""
        options: dict[str, Any] = {"keys_only": keys_only, "remaining": remaining}
        options |= {"start": start, "limit": limit, "revision": revision}
        result = self.read(revision, lambda: self.backend.list(prefix, **options))
        if result is None:
            return
        expected = self.model.range(prefix, start, revision)
        if not limit or len(result.kvs) > limit:  # a backend need not page
            limit = len(expected)
        left = max(0, len(expected) - limit)
        if keys_only:
            expected = [msgspec.structs.replace(kv, value=b"") for kv in expected]

        assert [plain(kv) for kv in result.kvs] == expected[:limit]
        assert result.more == (left > 0)
        assert result.remaining == (left if remaining else None)
        assert result.revision == (revision or self.model.revision)

    # Watches

    @precondition(lambda self: len(self.watches) < 6)
    @rule(name=_prefixes, recursive=st.booleans(), at=_picks, progress=st.booleans())
    def open_watch(self, name: str, recursive: bool, at: int, progress: bool) -> None:
        key = self.key(name)
        after = self.pick(at) or self.model.revision
        watch = self.backend.watch(
            key, recursive=recursive, after_revision=after, progress=progress
        )
        expired = after < self.model.compacted
        self.watches.append(_OpenWatch(watch, key, recursive, after, expired))

    @precondition(lambda self: self.watches)
    @rule(number=_picks)
    def poll(self, number: int) -> None:
        """Take one batch if there must be one, else look that there is none."""
        self.take(self.watches[number % len(self.watches)])

    @precondition(lambda self: self.watches and Capability.PROGRESS in self.can)
    @rule(number=_picks)
    def progress(self, number: int) -> None:
        each = self.watches[number % len(self.watches)]
        if each.expired or each.position > self.model.revision:
            return
        try:
            each.watch.request_progress()
        except Compacted:
            self.expire(each)
            return
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            batch = self.next_batch(each, PATIENCE)
            if each.expired or (
                batch and not batch.events and batch.revision == self.model.revision
            ):
                return
        raise AssertionError("no progress mark came")

    @precondition(lambda self: self.watches)
    @rule(number=_picks)
    def close_watch(self, number: int) -> None:
        each = self.watches.pop(number % len(self.watches))
        self.drain(each)

    def drain(self, each: _OpenWatch) -> None:
        """Check that everything that the watch owes comes; then close it."""
        while not each.expired and self.pending(each):
            self.take(each)
        self.take(each)
        each.watch.close()

    def pending(self, each: _OpenWatch) -> Any:
        return self.model.pending(each.key, each.recursive, each.position)

    def take(self, each: _OpenWatch) -> None:
        owed = bool(self.pending(each)) or each.expired
        deadline = time.monotonic() + PATIENCE
        while True:
            batch = self.next_batch(each, max(0.0, deadline - time.monotonic()) if owed else 0)
            if each.expired or not owed or (batch and batch.events):
                return
            assert batch is not None, "an event that must come does not come"

    def expire(self, each: _OpenWatch) -> None:
        """Take note of Compacted, which a watch that was up to date must not raise."""
        assert each.expired or each.position < self.model.compacted
        each.expired = True

    def next_batch(self, each: _OpenWatch, timeout: float) -> WatchBatch | None:
        """Poll once and hold what comes against the model."""
        pending = self.pending(each)
        try:
            batch = each.watch.poll(timeout)
        except Compacted:
            self.expire(each)
            return None
        assert not each.expired, f"{batch} instead of Compacted"
        if batch is None:
            return None
        if batch.events:
            assert batch.revision == pending[0].kv.revision
            due = [event for event in pending if event.kv.revision == batch.revision]
            assert [plain_event(event) for event in batch.events] == due
        else:
            assert each.position <= batch.revision <= self.model.revision
            assert not pending or batch.revision < pending[0].kv.revision, "a mark ahead of events"
        each.position = batch.revision
        assert each.watch.position == each.position
        return batch

    @invariant()
    def status_agrees(self) -> None:
        status = self.backend.status()
        assert status.revision == self.model.revision
        assert status.compacted_revision == self.model.compacted


def _refused(wanted: type[BackendError], call: Callable[[], object]) -> BackendError:
    with pytest.raises(wanted) as caught:
        call()
    return caught.value


def backend_machine(open_backend: Callable[[], Backend]) -> type[BackendMachine]:
    """Return the machine for a kind of backend; pytest collects its ``TestCase``.

    ``open_backend`` is called for every run and returns a store that nobody else writes to; the
    machine closes it.
    """
    return type("Machine", (BackendMachine,), {"open_backend": staticmethod(open_backend)})
