"""The ttl or the lease to write a key with, so that it expires within the second it should."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from time import monotonic

from revstore.backend import Backend, Leases
from revstore.errors import LeaseExists, LeaseNotFound
from revstore.values import Capability, KeyValue

__all__ = ["Leasing"]

_MAX_TTL = (1 << 32) - 1
# How often a lease is granted again because the server's answer came late.
_TRIES = 3


class Leasing:
    """Chooses how keys of ``backend`` expire: not before their end, and less than a second later.

    Contract and etcd count a ttl in whole seconds, so a second is what they allow. With ``keep``,
    keys that share a lease share one with the same id.
    """

    def __init__(self, backend: Backend, *, keep: bool, timeout: float | None = None) -> None:
        self._backend = backend
        self._timeout = timeout
        self._leases: Leases | None = None
        self._has_leases = Capability.LEASES in backend.capabilities
        #: Whether keys that share a lease share one with the same id here.
        self.keeps = keep and self._has_leases
        #: Whether a ttl is a lease in this store too, as in etcd, None if that is not known. Then
        #: it is granted here, since the store may share one among keys of nearly the same ttl.
        self.ttl_is_lease: bool | None = None if self._has_leases else False
        self._granted: dict[int, int] = {}
        #: The leases granted for ttls, by the whole second in which they end at the earliest.
        self._ending: dict[int, list[tuple[float, int]]] = {}

    def forget(self) -> None:
        """Forget all leases, so that they are granted again."""
        self._granted.clear()
        self._ending.clear()

    def choose(self, end: float, lease: int) -> tuple[int, int]:
        """Return the ttl and the lease for a key that ends at ``end`` of the monotonic clock, and
        has shared ``lease``, which may be 0."""
        now = monotonic()
        end = max(end, now)  # one that has ended ends soon
        if lease and self.keeps:
            if lease not in self._granted:
                self._granted[lease] = self._grant(end, lease)[1]
            return 0, self._granted[lease]
        if not self.ttl_is_lease:
            return _seconds(end - now), 0
        for found, shared in self._near(end):
            if end <= found < end + 1:
                return 0, shared
        found, shared = self._grant(end, 0)
        self._ending.setdefault(math.floor(found), []).append((found, shared))
        return 0, shared

    def find_out(self, kv: KeyValue | None) -> None:
        """See in a key that was written with a ttl whether the ttl is a lease."""
        self.ttl_is_lease = (
            kv is not None
            and kv.lease > _MAX_TTL
            and kv.lease in self._open().list(timeout=self._timeout)
        )

    def revoke(self, lease: int) -> None:
        """Delete the lease with this id and all its keys; the next key has it granted again."""
        self._granted.pop(lease, None)
        with contextlib.suppress(LeaseNotFound):
            self._open().revoke(lease, timeout=self._timeout)

    def _near(self, end: float) -> Iterator[tuple[float, int]]:
        second = math.floor(end)
        yield from self._ending.get(second, ())
        yield from self._ending.get(second + 1, ())

    def _grant(self, end: float, lease: int) -> tuple[float, int]:
        """Grant a lease that ends at ``end`` or less than a second later; return its earliest end,
        and its id."""
        leases = self._open()
        for last in range(_TRIES):
            asked = monotonic()
            seconds = _seconds(end - asked)
            try:
                found = leases.grant(seconds, lease=lease, timeout=self._timeout).id
            except LeaseExists:
                # From before an interruption, or this is the store that the keys came from.
                return asked + seconds, lease
            # It counts from some moment between the request and its answer.
            if last == _TRIES - 1 or seconds == 1 or monotonic() + seconds <= end + 1:
                break
            with contextlib.suppress(LeaseNotFound):
                leases.revoke(found, timeout=self._timeout)
        return asked + seconds, found

    def _open(self) -> Leases:
        if self._leases is None:
            self._leases = self._backend.leases(timeout=self._timeout)
        return self._leases


def _seconds(left: float) -> int:
    """Return the least ttl with which a key that is written now lives for ``left`` seconds."""
    return min(max(1, math.ceil(left)), _MAX_TTL)
