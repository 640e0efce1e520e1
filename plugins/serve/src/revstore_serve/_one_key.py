"""Bodies on a store without transactions, as far as one comparison and write of a key can do them.

It is enough for all that Kubernetes asks, and for transactions that only read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from revstore.backend import Backend, Transaction
from revstore.backend_tools import Change, Overlay
from revstore.errors import Unsupported
from revstore.values import Capability, KeyValue, TransactionResult

__all__ = ["run_one_by_one"]

T = TypeVar("T")


class _AtRevision(Overlay):
    """Reads at one revision, and notes of which keys."""

    def __init__(self, backend: Backend, revision: int) -> None:
        versions = Capability.VERSIONS in backend.capabilities
        super().__init__(revision, versions=versions)
        self._backend = backend
        self.read: set[str] = set()
        self.listed = False

    def stored(self, key: str) -> KeyValue | None:
        self.read.add(key)
        return self._backend.get(key, revision=self._revision).kv

    def stored_range(
        self, prefix: str, start: str, limit: int, *, keys_only: bool
    ) -> Sequence[KeyValue]:
        self.listed = True
        return self._backend.list(
            prefix, start=start, limit=limit, revision=self._revision, keys_only=keys_only
        ).kvs

    def change(self) -> Change | None:
        """Return the write to make, if any.

        Raises:
            Unsupported: the write depends on more than its own key, or there are several.
        """
        changes = self.changes()
        if not changes:
            return None
        if len(changes) > 1 or self.listed or self.read - {changes[0].key}:
            raise Unsupported(
                Capability.TRANSACTIONS,
                "this store cannot write several keys in one revision (capability transactions)",
            )
        return changes[0]


def run_one_by_one(
    backend: Backend, bodies: Sequence[Callable[[Transaction], T]]
) -> list[TransactionResult[T] | Exception]:
    """Run bodies as ``Backend.transactions`` does; each writes one key at most, and if it does,
    it reads no other."""
    results: list[TransactionResult[T] | Exception] = []
    for body in bodies:
        try:
            results.append(_run(backend, body))
        except Exception as error:  # noqa: BLE001 - the error is the body's result
            results.append(error)
    return results


def _run(backend: Backend, body: Callable[[Transaction], T]) -> TransactionResult[T]:
    while True:
        seen = _AtRevision(backend, backend.status().revision)
        value = seen.run(body)
        change = seen.change()
        if change is None:
            return TransactionResult(value, seen.revision, False)
        revision = _write(backend, change)
        if revision:
            return TransactionResult(value, revision, True)


def _write(backend: Backend, change: Change) -> int:
    """Write a change and return its revision; 0 if another came first."""
    expected = change.previous.revision if change.previous else 0
    if change.value is None:
        deleted = backend.delete(change.key, expected_revision=expected)
        return deleted.revision if deleted.succeeded else 0
    put = backend.put(
        change.key,
        change.value,
        expected_revision=expected,
        ttl=None if change.keep else change.ttl,
    )
    return put.revision if put.succeeded else 0
