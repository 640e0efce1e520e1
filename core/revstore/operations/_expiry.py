"""When the keys of a store expire, and which share a lease."""

from __future__ import annotations

import math
import time

import msgspec

from revstore.backend import Backend, Leases
from revstore.errors import LeaseNotFound, ReadOnly
from revstore.operations._file import Record
from revstore.values import Capability, KeyValue

__all__ = ["Expiries", "left_of"]

_MAX_TTL = (1 << 32) - 1


class Expiries:
    """The expiry of keys that were read, in seconds after ``began``."""

    def __init__(self, backend: Backend, *, timeout: float | None = None) -> None:
        self._backend = backend
        self._timeout = timeout
        self.began = time.monotonic()
        self._leases: Leases | None = None
        self._ids: frozenset[int] | None = None
        self._keys: dict[int, frozenset[str]] = {}
        self._ends: dict[int, float] = {}

    def of(self, kv: KeyValue) -> tuple[float | None, int]:
        """Return after how many seconds ``kv`` expires, None for never, and the id of its lease.

        The id is 0 if the key has a ttl of its own.

        Raises:
            Unsupported: the store does not say when its keys expire.
        """
        if not kv.lease:
            return None, 0
        if self._is_lease(kv):
            return self._end_of(kv.lease), kv.lease
        asked = time.monotonic()
        remaining = self._backend.remaining_ttl(kv.key, timeout=self._timeout)
        if remaining is None:
            # It was written again, or has ended. The store may name the ttl that it had.
            remaining = float(kv.lease) if 0 < kv.lease <= _MAX_TTL else 0.0
        return self._end(asked, remaining), 0

    def _is_lease(self, kv: KeyValue) -> bool:
        """Return whether ``kv.lease`` is the id of a lease, and not a ttl or anything else."""
        lease = kv.lease
        if self._ids is None:
            self._ids = self._open()
        if self._leases is None or lease not in self._ids:
            return False
        if not 0 < lease <= _MAX_TTL:
            return True
        if lease not in self._keys:
            try:
                found = self._leases.get(lease, keys=True, timeout=self._timeout).keys
            except LeaseNotFound:
                found = ()
            self._keys[lease] = frozenset(found)
        return kv.key in self._keys[lease]

    def _open(self) -> frozenset[int]:
        if Capability.LEASES not in self._backend.capabilities:
            return frozenset()
        try:
            self._leases = self._backend.leases(timeout=self._timeout)
        except ReadOnly:
            return frozenset()
        return frozenset(self._leases.list(timeout=self._timeout))

    def _end_of(self, lease: int) -> float:
        if lease not in self._ends:
            assert self._leases is not None
            asked = time.monotonic()
            try:
                remaining = self._leases.get(lease, timeout=self._timeout).remaining
            except LeaseNotFound:
                remaining = 0.0
            self._ends[lease] = self._end(asked, remaining)
        return self._ends[lease]

    def _end(self, asked: float, remaining: float) -> float:
        # From when it was asked, and rounded down: what is written gets whole seconds, rounded up.
        return math.floor((asked - self.began + remaining) * 1000) / 1000


def left_of(record: Record, began: float) -> Record:
    """Return the record with the seconds that are left now of those since ``began``."""
    if record.ttl is None:
        return record
    return msgspec.structs.replace(record, ttl=record.ttl - (time.monotonic() - began))
