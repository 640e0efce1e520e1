"""``MemoryBackend``: everything in the memory of one process."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Sequence
from itertools import islice
from typing import TypeVar

from revstore.arguments import (
    check_compact,
    check_delete,
    check_fence,
    check_get,
    check_key,
    check_list,
    check_put,
    check_raise_revision,
    check_timeout,
    check_transactions,
    check_watch,
)
from revstore.backend import Backend, BackendWatch, Leases, Transaction
from revstore.backend_tools import let_out
from revstore.deadlines import check_seconds
from revstore.errors import Compacted, FutureRevision
from revstore.memory._leases import MemoryLeases
from revstore.memory._state import State
from revstore.memory._transactions import Body
from revstore.memory._watch import MemoryWatch, Shared
from revstore.threads import start_thread
from revstore.values import (
    BackendStatus,
    Capability,
    CountResult,
    DeleteResult,
    GetResult,
    KeyValue,
    ListResult,
    PutResult,
    TransactionResult,
)

__all__ = ["MemoryBackend"]

T = TypeVar("T")

_CAPABILITIES = frozenset(
    {
        Capability.HISTORICAL_READS,
        Capability.TTL,
        Capability.PROGRESS,
        Capability.COMPACTION,
        Capability.VERSIONS,
        Capability.NESTED_KEYS,
        Capability.TRANSACTIONS,
        Capability.LEASES,
        Capability.REMAINING_TTL,
        Capability.RAISE_REVISION,
        Capability.FENCE,
    }
)

# How many keys are deleted while the lock is held, and for how many seconds it is then free: a lock
# is not fair, and a thread that waits for it would hardly get it otherwise.
_TURN = 500
_BETWEEN_TURNS = 0.001
# Seconds between two checks for leases that expire: a check goes through all of them.
_BETWEEN_LEASES = 0.1


class MemoryBackend(Backend):
    """A store in memory that lives until ``close``; see ``Backend`` for what its methods do.

    Keys expire by real time: a thread that starts once a key has a ttl sweeps them. Your own
    ``clock`` returns seconds that never go back; then there is no thread, and keys expire when you
    call ``sweep``. ``progress_interval``: after this many seconds without a batch, a watch with
    ``progress`` delivers a progress mark if the store has moved on meanwhile. No operation waits
    for anything, so timeouts never pass.
    """

    def __init__(
        self, *, clock: Callable[[], float] | None = None, progress_interval: float = 5.0
    ) -> None:
        check_seconds("progress_interval", progress_interval, above=True)
        self._clock = clock or time.monotonic
        self._own_clock = clock is not None
        self._store_id = uuid.uuid4().hex
        self._shared = Shared(progress_interval)
        self._state = self._shared.state
        self._sweeper: threading.Thread | None = None  # guarded by the shared lock
        self._leases = MemoryLeases(self._shared, self._clock, self._start_sweeper)

    @property
    def capabilities(self) -> frozenset[Capability]:
        return _CAPABILITIES

    def status(self, *, timeout: float | None = None) -> BackendStatus:
        if timeout is not None:
            check_timeout(timeout, 0.0)
        with self._shared.lock:
            self._shared.check()
            return BackendStatus(
                store_id=self._store_id,
                revision=self._state.revision,
                compacted_revision=self._state.compacted,
                server="memory",
            )

    def get(
        self,
        key: str,
        *,
        revision: int = 0,
        linearizable: bool = True,
        timeout: float | None = None,
    ) -> GetResult:
        check_get(key, revision)
        if timeout is not None:
            check_timeout(timeout, 0.0)
        state = self._state
        with self._shared.lock:
            self._shared.check()
            if not revision:
                return GetResult(state.revision, state.current.get(key))
            state.check_revision(revision)
            return GetResult(state.revision, state.at(key, revision))

    def list(
        self,
        prefix: str,
        *,
        start: str = "",
        limit: int = 0,
        revision: int = 0,
        keys_only: bool = False,
        remaining: bool = False,
        linearizable: bool = True,
        timeout: float | None = None,
    ) -> ListResult:
        check_list(prefix, revision, start=start, limit=limit)
        if timeout is not None:
            check_timeout(timeout, 0.0)
        state = self._state
        with self._shared.lock:
            self._shared.check()
            state.check_revision(revision or state.revision)
            at = revision or state.revision
            if at == state.revision:
                kvs, left = state.page(prefix, start, limit)
            else:
                rest = state.walk(prefix, start, at)
                kvs = [*islice(rest, limit or None)]
                # One further key shows whether more follow; to count them, all must be read.
                left = sum(1 for _ in (rest if remaining else islice(rest, 1)))
        if keys_only:
            kvs = [_without_value(kv) for kv in kvs]
        return ListResult(at, tuple(kvs), left > 0, left if remaining else None)

    def count(self, prefix: str, *, revision: int = 0, timeout: float | None = None) -> CountResult:
        check_list(prefix, revision)
        if timeout is not None:
            check_timeout(timeout, 0.0)
        state = self._state
        with self._shared.lock:
            self._shared.check()
            state.check_revision(revision or state.revision)
            if revision in {0, state.revision}:
                return CountResult(state.revision, state.count(prefix))
            return CountResult(revision, sum(1 for _ in state.walk(prefix, "", revision)))

    def put(
        self,
        key: str,
        value: bytes,
        *,
        expected_revision: int,
        ttl: int | None = 0,
        timeout: float | None = None,
    ) -> PutResult:
        check_put(key, value, expected_revision, ttl)
        if timeout is not None:
            check_timeout(timeout, 0.0)
        shared, state = self._shared, self._state
        with shared.lock:
            shared.check_writable()
            current = state.current.get(key)
            if (current.revision if current is not None else 0) != expected_revision:
                return PutResult(False, state.revision, current)
            if ttl:
                self._start_sweeper()
            kv = state.put(key, value, ttl, self._clock)
            shared.finish()
            return PutResult(True, kv.revision)

    def delete(
        self, key: str, *, expected_revision: int, timeout: float | None = None
    ) -> DeleteResult:
        check_delete(key, expected_revision)
        if timeout is not None:
            check_timeout(timeout, 0.0)
        shared, state = self._shared, self._state
        with shared.lock:
            shared.check_writable()
            current = state.current.get(key)
            if current is None or current.revision != expected_revision:
                return DeleteResult(False, state.revision, current)
            state.delete([key])
            shared.finish()
            return DeleteResult(True, state.revision, current)

    def watch(
        self, key: str, *, recursive: bool, after_revision: int, progress: bool = True
    ) -> BackendWatch:
        check_watch(key, recursive=recursive, after_revision=after_revision)
        with self._shared.lock:
            self._shared.check()
            return MemoryWatch(self._shared, key, recursive, after_revision, progress)

    def compact(self, revision: int, *, timeout: float | None = None) -> None:
        check_compact(revision)
        if timeout is not None:
            check_timeout(timeout, 0.0)
        shared, state = self._shared, self._state
        with shared.lock:
            shared.check()
            if revision > state.revision:
                raise FutureRevision(revision, state.revision)
            if revision <= state.compacted:
                raise Compacted(state.compacted, state.revision)
            # No event has woken a watch that waits, so it misses none.
            for watch in shared.waiting:
                watch.skip_to_end()
            state.compact(revision)

    def transactions(
        self, bodies: Sequence[Callable[[Transaction], T]], *, timeout: float | None = None
    ) -> Sequence[TransactionResult[T] | Exception]:
        check_transactions(bodies)
        check_timeout(timeout, 0.0)
        results: list[TransactionResult[T] | Exception] = []
        for body in bodies:
            with self._shared.lock:
                self._shared.check()
                try:
                    results.append(self._run(body))
                except Exception as error:  # noqa: BLE001 - the error is the body's result
                    let_out(error)
                    results.append(error)
        return results

    def _run(self, body: Callable[[Transaction], T]) -> TransactionResult[T]:
        seen = Body(self._state)
        value = seen.run(body)
        changes = seen.changes()
        if changes:
            if any(change.ttl for change in changes):
                self._start_sweeper()
            self._state.write(changes, self._clock)
            self._shared.finish()
        return TransactionResult(value, self._state.revision, bool(changes))

    def leases(self, *, grace: float = 10.0, timeout: float | None = None) -> Leases:
        check_seconds("grace", grace)
        check_timeout(timeout, 0.0)
        # No lease is older than this object, so none has to be extended.
        self._shared.guard.check()
        return self._leases

    def remaining_ttl(self, key: str, *, timeout: float | None = None) -> float | None:
        check_key(key)
        check_timeout(timeout, 0.0)
        with self._shared.lock:
            self._shared.check()
            return self._state.remaining(key, self._clock())

    def raise_revision(self, revision: int, *, timeout: float | None = None) -> None:
        check_raise_revision(revision)
        check_timeout(timeout, 0.0)
        with self._shared.lock:
            self._shared.check()
            self._state.revision = max(self._state.revision, revision)

    def fence(self, reason: str, *, timeout: float | None = None) -> None:
        check_fence(reason)
        self._fence(reason, timeout)

    def unfence(self, *, timeout: float | None = None) -> None:
        self._fence("", timeout)

    def _fence(self, reason: str, timeout: float | None) -> None:
        check_timeout(timeout, 0.0)
        with self._shared.lock:
            self._shared.check()
            self._state.fenced = reason
            self._shared.sweeper_wake.set()

    def sweep(self) -> int:
        """Delete the keys that have expired by now, and return how many.

        One revision deletes up to 500 keys, or all keys of one expired lease. Call it if you have
        your own ``clock``; in real time the backend calls it by itself.
        """
        swept, turn = 0, _TURN
        while turn >= _TURN:
            if swept:
                time.sleep(_BETWEEN_TURNS)
            with self._shared.lock:
                self._shared.check()
                turn = self._sweep()
            swept += turn
        return swept

    def _sweep(self) -> int:
        """Delete as many keys as other threads can wait for, and end the leases that are due."""
        if self._state.noted is not None:
            self._shared.finish()
        if self._state.fenced:
            return 0
        keys = self._state.due(self._clock(), _TURN)
        if keys:
            self._state.delete(keys)
            self._shared.finish()
        ended = self._state.leases.due(self._clock())
        return len(keys) + sum(self._shared.end_lease(lease) for lease in ended)

    def _start_sweeper(self) -> None:
        if not self._own_clock and self._sweeper is None:
            self._sweeper = start_thread(self._sweep_until_closed, "revstore-memory-sweeper")

    def _sweep_until_closed(self) -> None:
        shared = self._shared
        while True:
            with shared.lock:
                if shared.guard.ended:
                    break
                self._sweep()
                wait = self._until_next()
            shared.sweeper_wake.wait(wait)
        shared.sweeper_wake.set()  # an interrupted start may have left another

    def _until_next(self) -> float | None:
        """Return the seconds until something is to be swept; None: not before the sweeper is
        woken."""
        state, now = self._state, self._clock()
        if state.fenced:
            return None
        waits = [
            max(least, deadline - now)
            for least, deadline in (
                (_BETWEEN_TURNS, state.next_deadline),
                (_BETWEEN_LEASES, state.leases.next_deadline),
            )
            if deadline is not None
        ]
        return min(waits, default=None)

    def close(self) -> None:
        """End watches and the sweeper and forget all data. Idempotent."""
        shared = self._shared
        with shared.guard.closing():
            if shared.guard.inherited:
                return
            # All of it may be repeated, since an interrupted close is.
            with shared.lock:
                for watch in list(shared.waiting):
                    watch.wake()
                shared.sweeper_wake.set()
                sweeper = self._sweeper
                self._state = shared.state = State()
            if sweeper is not None:
                sweeper.join()


def _without_value(kv: KeyValue) -> KeyValue:
    return KeyValue(kv.key, b"", kv.revision, kv.create_revision, kv.version, kv.lease)
