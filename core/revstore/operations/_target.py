"""Writing many keys to a store: in transactions where it has them, else one by one."""

from __future__ import annotations

import enum
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from time import monotonic

from revstore.backend import Backend, Transaction
from revstore.errors import (
    KeyExists,
    LeaseNotFound,
    OutcomeUnknown,
    TransactionTooLarge,
    Unsupported,
    ValueTooLarge,
)
from revstore.operations._file import Record
from revstore.operations._leasing import Leasing
from revstore.values import Capability, KeyValue

__all__ = [
    "TRANSACTION_BYTES",
    "TRANSACTION_KEYS",
    "Check",
    "Merge",
    "Target",
    "batches",
    "check_fits",
    "is_enough",
    "keys_in",
]

# How many keys to give to ``Target.write`` at a time, and bytes of their values.
_ENOUGH, _ENOUGH_BYTES = 500, 4 << 20

#: How much to write in one transaction. An etcd server takes 128 operations and 1.5 MiB by default.
TRANSACTION_KEYS, TRANSACTION_BYTES = 100, 1 << 20


#: Raises an error if the store must not be written; it is given a function that reads a key.
Check = Callable[[Callable[[str], KeyValue | None]], None]


def is_enough(keys: int, size: int) -> bool:
    """Return whether to write what was collected so far: ``keys`` with values of ``size`` bytes."""
    return keys >= _ENOUGH or size >= _ENOUGH_BYTES


def batches(records: Iterable[Record]) -> Iterator[list[Record]]:
    """Yield the records in lists that are to be written at a time."""
    batch: list[Record] = []
    size = 0
    for record in records:
        batch.append(record)
        size += len(record.value)
        if is_enough(len(batch), size):
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def keys_in(
    transaction: Transaction, keys: Sequence[str], *, keys_only: bool
) -> Callable[[str], KeyValue | None]:
    """Return a function that reads each of ``keys``, which are in order, in a transaction.

    One read is for all of them, after which a store such as etcd needs none for each write.
    """
    # Of characters, not of segments: these are no paths.
    stem = os.path.commonprefix([keys[0], keys[-1]])  # noqa: RUF071
    kvs = transaction.list(stem, start=keys[0], limit=len(keys), keys_only=keys_only)
    found = {kv.key: kv for kv in kvs}
    last = kvs[-1].key if len(kvs) == len(keys) else ""
    return lambda key: transaction.get(key) if last and key > last else found.get(key)


class Merge(enum.StrEnum):
    """What to do with a key that the target already has: leave it, or write the other value."""

    SKIP = "skip"
    OVERWRITE = "overwrite"


class Target:
    """A store that is being filled."""

    def __init__(
        self,
        backend: Backend,
        *,
        merge: Merge | None = None,
        force: bool = False,
        leases: bool = True,
        check: Check | None = None,
        timeout: float | None = None,
    ) -> None:
        """Fill ``backend``.

        Without ``merge`` no key is expected to be there, and none is looked at. With ``force``
        every key is written, even one that has the value, so that its expiry is new too. Without
        ``leases`` each key that shares a lease gets a ttl of its own. ``check`` is called in each
        transaction with a function that reads a key, and may raise an error; in a store without
        transactions, before each call. ``timeout`` is in seconds, for each request.
        """
        self.backend = backend
        self.merge = merge
        self._force = force
        self._check = check
        #: How many keys were written.
        self.written = 0
        self._timeout = timeout
        self._leasing = Leasing(backend, keep=leases, timeout=timeout)
        #: When the ttls of the records that are being written began to count.
        self._began = monotonic()
        self._together = Capability.TRANSACTIONS in backend.capabilities
        self._size = TRANSACTION_KEYS

    def write(self, records: Sequence[Record]) -> None:
        """Write records, of different keys. Their ttls count from this call.

        What was written before is found again, so that a repetition after an error does no harm.

        Raises:
            KeyExists: without ``merge``, a store without TRANSACTIONS has a key.
            LeaseNotFound: a lease expired twice before its keys were written.
            Unsupported: see ``check_fits``.
            ValueTooLarge: the store does not take a value.
        """
        self._began = monotonic()
        if self._leasing.ttl_is_lease is None:
            records = self._find_out(records)
        if not self._together:
            self._check_store()
            for each in records:
                self._put(each)
            return
        at = 0
        while at < len(records):
            batch = self._batch(records, at)
            try:
                self._write_batch(batch)
            except TransactionTooLarge as error:
                if len(batch) == 1:
                    raise ValueTooLarge(str(error), key=batch[0].key) from error
                self._size = max(1, len(batch) // 2)
                continue
            at += len(batch)

    def delete(self, keys: Sequence[str]) -> None:
        """Delete keys, whatever they hold; do nothing about those that are not there."""
        if not self._together:
            self._check_store()
            for key in keys:
                self._delete(key)
            return
        for at in range(0, len(keys), TRANSACTION_KEYS):
            batch = keys[at : at + TRANSACTION_KEYS]

            def body(transaction: Transaction, batch: Sequence[str] = batch) -> None:
                if self._check is not None:
                    self._check(transaction.get)
                for key in batch:
                    transaction.delete(key)

            try:
                self.backend.transaction(body, timeout=self._timeout)
            except OutcomeUnknown:
                self.backend.transaction(body, timeout=self._timeout)

    def _check_store(self) -> None:
        if self._check is not None:
            self._check(lambda key: self.backend.get(key, timeout=self._timeout).kv)

    def _delete(self, key: str) -> None:
        kv = self.backend.get(key, timeout=self._timeout).kv
        while kv is not None:
            try:
                deleted = self.backend.delete(
                    key, expected_revision=kv.revision, timeout=self._timeout
                )
            except OutcomeUnknown:
                kv = self.backend.get(key, timeout=self._timeout).kv
                continue
            kv = None if deleted.succeeded else deleted.kv

    def end_lease(self, lease: int) -> None:
        """Delete the lease with this id and all its keys; the next write grants it again."""
        if self.keeps_leases:
            self._check_store()
            self._leasing.revoke(lease)

    @property
    def keeps_leases(self) -> bool:
        """Whether keys that share a lease share one with the same id here."""
        return self._leasing.keeps

    def _batch(self, records: Sequence[Record], at: int) -> Sequence[Record]:
        size, end = 0, at
        while end < len(records) and end - at < self._size:
            size += len(records[end].key) + len(records[end].value)
            if size > TRANSACTION_BYTES and end > at:
                break
            end += 1
        return records[at:end]

    def _write_batch(self, batch: Sequence[Record], *, again: bool = False) -> None:
        expiries = [self._expiry(each) for each in batch]
        keys = [each.key for each in batch]
        compared = not self._force and (again or self.merge is not None)

        def body(transaction: Transaction) -> int:
            if self._check is not None:
                self._check(transaction.get)
            read = None if self._force else keys_in(transaction, keys, keys_only=False)
            written = 0
            for each, (ttl, lease) in zip(batch, expiries, strict=True):
                if compared and read is not None and self._is_done(each, read(each.key)):
                    continue
                transaction.put(each.key, each.value, ttl=ttl, lease=lease)
                written += 1
            return written

        try:
            result = self.backend.transaction(body, timeout=self._timeout)
        except OutcomeUnknown:
            if again:
                raise
            self._write_batch(batch, again=True)
        except LeaseNotFound:
            # It has expired since it was granted.
            if again:
                raise
            self._leasing.forget()
            self._write_batch(batch, again=True)
        else:
            self.written += result.value

    def _put(self, each: Record) -> None:
        """Write one key of a store without transactions."""
        current: KeyValue | None = None
        if self.merge is not None:
            current = self.backend.get(each.key, timeout=self._timeout).kv
        ttl, _ = self._expiry(each)
        while not self._is_done(each, current):
            if current is not None and self.merge is None and not self._force:
                raise KeyExists(each.key)
            try:
                put = self.backend.put(
                    each.key,
                    each.value,
                    expected_revision=current.revision if current else 0,
                    ttl=ttl,
                    timeout=self._timeout,
                )
            except OutcomeUnknown:
                current = self.backend.get(each.key, timeout=self._timeout).kv
                if _is_same(each, current):
                    self.written += 1
                    return
                continue
            if put.succeeded:
                self.written += 1
                return
            current = put.current

    def _is_done(self, each: Record, current: KeyValue | None) -> bool:
        """Return whether the key needs no write. One that expires does: its time may be wrong."""
        if current is None or self._force:
            return False
        return self.merge is Merge.SKIP or (each.ttl is None and _is_same(each, current))

    def _expiry(self, each: Record) -> tuple[int, int]:
        """Return the ttl and the lease to write a key with."""
        if each.ttl is None:
            return 0, 0
        return self._leasing.choose(self._began + each.ttl, each.lease)

    def _find_out(self, records: Sequence[Record]) -> Sequence[Record]:
        """Write the first key with a ttl of its own, and look at its lease; return the others."""
        for at, each in enumerate(records):
            if each.ttl is None or (each.lease and self.keeps_leases):
                continue
            before = self.written
            self._write_batch([each]) if self._together else self._put(each)
            if self.written == before:
                continue  # the key was there, perhaps without expiry
            self._leasing.find_out(self.backend.get(each.key, timeout=self._timeout).kv)
            if self._leasing.ttl_is_lease:
                # Once more, with the exact ttl.
                merge, self.merge = self.merge, None
                self._write_batch([each])
                self.merge, self.written = merge, before + 1
            return [*records[:at], *records[at + 1 :]]
        return records


def _is_same(each: Record, current: KeyValue | None) -> bool:
    return (
        current is not None
        and current.value == each.value
        and bool(current.lease) == (each.ttl is not None)
    )


def check_fits(records: Iterable[Record], backend: Backend) -> None:
    """Check that a store can hold ``records``, which are in order.

    Raises:
        Unsupported: a key expires, and the store has no TTL; or it needs NESTED_KEYS.
    """
    lives = Capability.TTL in backend.capabilities
    nests = Capability.NESTED_KEYS in backend.capabilities
    if lives and nests:
        return
    above: list[str] = []  # the keys that the last one begins with
    for each in records:
        key = each.key
        if not lives and each.ttl is not None:
            raise Unsupported(Capability.TTL, f"{key!r} expires, and the store has no ttl")
        if nests:
            continue
        while above and not key.startswith(above[-1]):
            above.pop()
        for other in above:
            if key[len(other)] == "/":
                message = f"{key!r} is below {other!r}, and the store cannot hold both"
                raise Unsupported(Capability.NESTED_KEYS, message)
        above.append(key)
