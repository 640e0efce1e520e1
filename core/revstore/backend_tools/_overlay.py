"""The body of a transaction over any store: it reads through its own writes, and collects them."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from typing import TypeVar

import attrs
import msgspec

from revstore.arguments import check_key, check_list, check_transaction_put
from revstore.backend import Transaction
from revstore.errors import Closed, InvalidArgument, TransactionTooLarge, Unsupported
from revstore.values import Capability, KeyValue

__all__ = ["Change", "Overlay"]

T = TypeVar("T")
_MOST = 1 << 20


@attrs.frozen
class Change:
    """One write of a body. ``value`` None: a deletion. ``previous``: the key before, None if it did
    not exist. ``keep``: the key keeps its expiry or its lease; else ``ttl`` and ``lease`` are its
    new ones, 0 for none."""

    key: str
    value: bytes | None
    previous: KeyValue | None
    keep: bool = False
    ttl: int = 0
    lease: int = 0


class Overlay(Transaction):
    """A ``Transaction`` that collects writes instead of executing them.

    A subclass defines how to read the store, always at one state. ``run`` runs the body. Afterwards
    ``changes`` are what the backend has to write in one step, if the state that was read is still
    current. So a body that raises has written nothing. Create an overlay for each run, so that a
    body that runs again starts from nothing. All arguments are checked here.
    """

    def __init__(self, revision: int, *, versions: bool = True) -> None:
        """Begin a body at the store's ``revision``; ``versions`` says whether the store has
        VERSIONS."""
        self._revision = revision
        self._versions = versions
        self._changes: dict[str, Change] = {}
        self._written: dict[str, KeyValue] = {}
        self._over = False

    @abc.abstractmethod
    def stored(self, key: str) -> KeyValue | None:
        """Read a key from the store."""

    @abc.abstractmethod
    def stored_range(
        self, prefix: str, start: str, limit: int, *, keys_only: bool
    ) -> Sequence[KeyValue]:
        """Read keys from the store, in order; at most ``limit`` of them, all if it is 0."""

    def check_writable(self) -> None:
        """Check that the store takes writes. Unless it is overridden, it always does.

        Raises:
            ReadOnly: it does not.
        """
        return

    def check_lease(self, lease: int) -> None:
        """Check that the store has the lease.

        Raises:
            LeaseNotFound: it does not.
            Unsupported: without LEASES; unless this is overridden, always.
        """
        raise Unsupported(Capability.LEASES)

    def run(self, body: Callable[[Transaction], T]) -> T:
        """Run ``body`` on this overlay, which cannot be used afterwards."""
        try:
            return body(self)
        finally:
            self._over = True

    def changes(self) -> list[Change]:
        """Return the changes that the body wrote, in key order, each key once."""
        return [self._changes[key] for key in sorted(self._changes)]

    @property
    def revision(self) -> int:
        return self._revision

    def get(self, key: str) -> KeyValue | None:
        self._check_use()
        return self._get(check_key(key))

    def _get(self, key: str) -> KeyValue | None:
        return self._written.get(key) if key in self._changes else self.stored(key)

    def list(
        self, prefix: str, *, start: str = "", limit: int = 0, keys_only: bool = False
    ) -> tuple[KeyValue, ...]:
        self._check_use()
        check_list(prefix, 0, start=start, limit=limit)
        ours = [key for key in self._changes if key.startswith(prefix) and key >= start]
        # Keys that the body has changed may be among the first.
        wanted = limit + len(ours) if limit else 0
        found = self.stored_range(prefix, start, wanted, keys_only=keys_only)
        if ours:
            merged = {kv.key: kv for kv in found}
            for key in ours:
                merged.pop(key, None)
                written = self._written.get(key)
                if written is not None:
                    merged[key] = (
                        msgspec.structs.replace(written, value=b"") if keys_only else written
                    )
            found = [merged[key] for key in sorted(merged)]
        return tuple(found[:limit] if limit else found)

    def put(
        self, key: str, value: bytes, *, ttl: int | None = 0, lease: int | None = 0
    ) -> KeyValue:
        self._check_use()
        check_transaction_put(key, value, ttl, lease)
        self._check_first(key)
        self.check_writable()
        if lease:
            self.check_lease(lease)
        previous = self.stored(key)
        keep = ttl is None or lease is None
        kv = KeyValue(
            key,
            value,
            0,
            previous.create_revision if previous else 0,
            (previous.version if previous else 0) + 1 if self._versions else 0,
            previous.lease if keep and previous else lease or 0,
        )
        self._add(Change(key, value, previous, keep, ttl or 0, lease or 0))
        self._written[key] = kv
        return kv

    def delete(self, key: str) -> KeyValue | None:
        self._check_use()
        check_key(key)
        if key in self._written:
            self._check_first(key)
        self.check_writable()
        previous = self._get(key)
        if previous is not None:
            self._add(Change(key, None, previous))
        return previous

    def _check_use(self) -> None:
        if self._over:
            raise Closed("the body of the transaction has returned")

    def _check_first(self, key: str) -> None:
        if key in self._changes:
            expected = "a key that this body has not put or deleted"
            raise InvalidArgument("key", key, expected, key=key)

    def _add(self, change: Change) -> None:
        if len(self._changes) == _MOST:
            raise TransactionTooLarge(f"a transaction writes at most {_MOST} keys")
        self._changes[change.key] = change
