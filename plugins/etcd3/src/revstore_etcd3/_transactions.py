"""Transactions of several keys, by compare and retry.

A body reads at one revision and collects its writes. One transaction of etcd then makes them if
what was read is unchanged: it compares the revision of each key, and checks that each range has
nothing newer, and that the store is not fenced. A range does not show deletions, so each key of a
range is compared as well. If a comparison fails, the body runs again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from random import random
from typing import Any, TypeVar

from revstore.backend import Transaction
from revstore.backend_tools import Change, Overlay, let_out
from revstore.errors import (
    BackendError,
    CorruptStore,
    LeaseNotFound,
    OutcomeUnknown,
    Timeout,
    TransactionTooLarge,
    ValueTooLarge,
)
from revstore.values import KeyValue, ListResult, TransactionResult
from revstore_etcd3._answers import check_refusal, check_written, one_of
from revstore_etcd3._calls import MainThreadCalls
from revstore_etcd3._client import left_of
from revstore_etcd3._lease_service import LeaseService
from revstore_etcd3._leases import LeaseManager
from revstore_etcd3._reader import Reader
from revstore_etcd3._requests import change_operation, range_request, transaction_request
from revstore_etcd3._wire import rpc_pb2

__all__ = ["Transactions", "Write"]

T = TypeVar("T")
# Seconds before another try: a random part of the first, doubled with each try up to the second.
_PAUSE = 0.0005
_LONGEST = 0.05
#: Sends a transaction: the request, the seconds, and what ``OutcomeUnknown`` names.
Write = Callable[[Any, float, str, int], Any]


class _Body(Overlay):
    """The view of one run of a body: the store at the revision of its first read."""

    def __init__(self, store: Transactions, deadline: float) -> None:
        super().__init__(0)
        self._store = store
        self._deadline = deadline
        self._known: dict[str, KeyValue | None] = {}
        self._leases: set[int] = set()
        #: The revision of each key that was read, 0 if it was not there.
        self.keys: dict[str, int] = {}
        #: Each range that was read: its first key, and the one behind its last, as etcd has it.
        self.ranges: set[tuple[bytes, bytes]] = set()
        # Those of ``ranges`` whose values were read: any other key in them is missing.
        self._whole: set[tuple[bytes, bytes]] = set()
        #: The error of the store, even if the body caught it.
        self.failure: Exception | None = None

    def _ask(self, work: Callable[[float], T]) -> T:
        try:
            return self._store.calls.run(lambda: work(self._deadline))
        except Exception as error:
            let_out(error)
            self.failure = error
            raise

    @property
    def revision(self) -> int:
        if not self._revision:
            self._revision = self._ask(self._store.current)
        return self._revision

    def stored(self, key: str) -> KeyValue | None:
        if key not in self._known:
            name = key.encode()
            if any(first <= name < end for first, end in self._whole):
                return None
            request = rpc_pb2.RangeRequest(key=name, revision=self._revision)

            def read(deadline: float) -> tuple[int, KeyValue | None]:
                response = self._store.reader.range(request, left_of(deadline))
                upto = response.header.revision
                return upto, one_of(response.kvs, name, upto)

            upto, found = self._ask(read)
            self._revision = self._revision or upto
            self.keys[key] = found.revision if found else 0
            self._known[key] = found
        return self._known[key]

    def stored_range(
        self, prefix: str, start: str, limit: int, *, keys_only: bool
    ) -> Sequence[KeyValue]:
        def read(deadline: float) -> ListResult:
            return self._store.reader.read_pages(
                prefix,
                start,
                limit=limit,
                revision=self._revision,
                keys_only=keys_only,
                remaining=False,
                serializable=False,
                deadline=deadline,
            )

        result = self._ask(read)
        kvs = result.kvs
        self._revision = self._revision or result.revision
        bounds = range_request(prefix, start.encode())
        full = limit and len(kvs) >= limit
        covered = bounds.key, kvs[-1].key.encode() + b"\0" if full else bounds.range_end
        self.ranges.add(covered)
        if not keys_only:
            self._whole.add(covered)
        for kv in kvs:
            self.keys[kv.key] = kv.revision
            if not keys_only:
                self._known[kv.key] = kv
        return kvs

    def check_writable(self) -> None:
        self._store.check_size(len(self.keys) + len(self.ranges))

    def check_lease(self, lease: int) -> None:
        if lease not in self._leases:
            if self._ask(lambda deadline: self._store.leases.find(lease, deadline)) is None:
                raise LeaseNotFound(lease)
            self._leases.add(lease)


class Transactions:
    """Needs no lock. Bodies run in the thread of their caller."""

    def __init__(
        self,
        reader: Reader,
        leases: LeaseService,
        shared: LeaseManager,
        calls: MainThreadCalls,
        write: Write,
        *,
        max_txn_ops: int,
    ) -> None:
        self.reader = reader
        self.leases = leases
        self.calls = calls
        self._shared = shared
        self._write = write
        self._max = max_txn_ops

    def current(self, deadline: float) -> int:
        """Read the store's revision."""
        return int(self.reader.header(left_of(deadline)).revision)

    def check_size(self, compares: int) -> None:
        """Check that etcd compares so many keys and ranges at once.

        Raises:
            TransactionTooLarge: it does not.
        """
        if compares >= self._max:
            raise TransactionTooLarge(
                f"a transaction that writes compares {compares} keys and ranges that it read or "
                f"wrote, and the fence, and etcd compares {self._max} at most (max_txn_ops)"
            )

    def run(
        self, body: Callable[[Transaction], T], deadline: float
    ) -> TransactionResult[T] | Exception:
        """Run ``body`` until its writes land. If they do not, return the error that takes
        its place."""
        tries = 0
        try:
            while True:
                result = self._attempt(body, deadline)
                if result is not None:
                    return result
                tries += 1
                pause = random() * min(_LONGEST, _PAUSE * (1 << min(tries, 10)))  # noqa: S311
                if time.monotonic() + pause >= deadline:
                    raise Timeout(f"other writers changed what the transaction read, {tries} times")
                time.sleep(pause)
        except Exception as error:  # noqa: BLE001 - the error is the body's result
            let_out(error)
            return error

    def _attempt(
        self, body: Callable[[Transaction], T], deadline: float
    ) -> TransactionResult[T] | None:
        """Run ``body`` once; None if it has to be run again."""
        seen = _Body(self, deadline)
        try:
            value = seen.run(body)
            revision = seen.revision
        except Exception as error:
            let_out(error)
            if seen.failure is None:
                raise
        if seen.failure is not None:
            if "has been compacted" in str(seen.failure):
                return None
            raise seen.failure
        changes = seen.changes()
        if not changes:
            return TransactionResult(value, revision, False)
        self.check_size(len(seen.keys) + len(seen.ranges))
        written = self.calls.run(lambda: self._commit(seen, changes, deadline))
        return TransactionResult(value, written, True) if written else None

    def _commit(self, seen: _Body, changes: Sequence[Change], deadline: float) -> int:
        """Write the changes if what the body saw is still so; return the revision, or 0."""
        ttls = {change.ttl for change in changes if change.ttl}
        leases = {ttl: self._shared.get(ttl, left_of(deadline)) for ttl in ttls}
        request = transaction_request(
            seen.keys,
            seen.ranges,
            seen.revision,
            [change_operation(change, leases.get(change.ttl, change.lease)) for change in changes],
        )
        first = changes[0]
        expected = first.previous.revision if first.previous else 0
        try:
            response = self._write(request, left_of(deadline), first.key, expected)
        except OutcomeUnknown:
            raise
        except BackendError as error:
            too_large = _too_large(error, len(changes))
            if too_large is not None:
                raise too_large from error
            if "lease not found" not in str(error):
                raise
            # A shared one is replaced. If it is another, the body gets the error when it runs next.
            for lease in leases.values():
                self._shared.forget(lease)
            return 0
        try:
            if not response.succeeded:
                check_refusal(response)
                return 0
            return check_written(
                response, [change.value is None for change in changes], seen.revision
            )
        except CorruptStore as error:
            raise OutcomeUnknown(first.key, expected, str(error)) from error


def _too_large(error: BackendError, changes: int) -> TransactionTooLarge | None:
    """Translate the server's ``error`` if it is about the size of the transaction, else None."""
    if "too many operations" in str(error):
        return TransactionTooLarge(f"{error}: see its --max-txn-ops")
    if changes > 1 and isinstance(error, ValueTooLarge):
        return TransactionTooLarge(f"{error}: see its --max-request-bytes")
    return None
