"""The leases of a store: rows of a table, which the writer changes and the reader reads."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

from revstore.arguments import check_grant, check_lease
from revstore.backend import Leases
from revstore.errors import LeaseExists, LeaseNotFound
from revstore.values import LeaseInfo
from revstore_sqlite import _sql
from revstore_sqlite._ops import Operation, Transaction, expiry, time_left
from revstore_sqlite._reader import Reader
from revstore_sqlite._writer import Writer

__all__ = ["ExpireLeases", "LiftLeases", "SQLiteLeases"]

#: Seconds that one transaction ends leases, before other writes have their turn.
_TURN = 0.005


class _Grant(Operation[int]):
    """Create a lease; the result is its id."""

    __slots__ = ("clock", "lease", "ttl")

    def __init__(self, ttl: int, lease: int, clock: Callable[[], float]) -> None:
        self.ttl = ttl
        self.lease = lease
        self.clock = clock

    def run(self, txn: Transaction) -> int:
        txn.check_writable()
        expires_at = expiry(self.clock, self.ttl)
        while True:
            lease = self.lease or secrets.randbits(62) or 1
            if txn.raw.execute(_sql.INSERT_LEASE, (lease, self.ttl, expires_at)).rowcount:
                return lease
            if self.lease:
                raise LeaseExists(lease)


class _KeepAlive(Operation[int]):
    """Start a lease's ttl again; the result is its ttl."""

    __slots__ = ("clock", "lease")

    def __init__(self, lease: int, clock: Callable[[], float]) -> None:
        self.lease = lease
        self.clock = clock

    def run(self, txn: Transaction) -> int:
        txn.check_writable()
        row = txn.raw.execute(_sql.LEASE, (self.lease,)).fetchone()
        if row is None:
            raise LeaseNotFound(self.lease)
        txn.raw.execute(_sql.SET_LEASE, (expiry(self.clock, row[0]), self.lease))
        return int(row[0])


class _Revoke(Operation[int]):
    """End a lease; the result is the revision."""

    __slots__ = ("lease",)

    def __init__(self, lease: int) -> None:
        self.lease = lease

    def run(self, txn: Transaction) -> int:
        txn.check_writable()
        if txn.raw.execute(_sql.LEASE, (self.lease,)).fetchone() is None:
            raise LeaseNotFound(self.lease)
        _end(txn, self.lease)
        return txn.revision


class ExpireLeases(Operation[int]):
    """End expired leases; the result is their number. If there are many, not all are ended.

    The transaction itself decides which are due, so that a lease that was just kept alive stays.
    """

    __slots__ = ("clock", "limit")

    def __init__(self, limit: int, clock: Callable[[], float]) -> None:
        self.limit = limit
        self.clock = clock

    def run(self, txn: Transaction) -> int:
        if txn.fence:
            return 0
        now = int(self.clock() * 1000)
        gone = 0
        until = time.monotonic() + _TURN
        for (lease,) in txn.raw.execute(_sql.DUE_LEASES, (now, self.limit)).fetchall():
            if gone and time.monotonic() > until:
                break
            _end(txn, lease)
            gone += 1
        return gone


class LiftLeases(Operation[None]):
    """Let no lease expire within ``grace`` seconds, or within its ttl if that is less."""

    __slots__ = ("clock", "grace")

    def __init__(self, grace: float, clock: Callable[[], float]) -> None:
        self.grace = grace
        self.clock = clock

    def run(self, txn: Transaction) -> None:
        grace = int(min(self.grace, 1e10) * 1000)
        txn.raw.execute(_sql.LIFT_LEASES, (expiry(self.clock, 0), grace))


def _end(txn: Transaction, lease: int) -> None:
    """Delete a lease, and its keys in one revision."""
    txn.remove([key for (key,) in txn.raw.execute(_sql.LEASE_KEYS, (lease,)).fetchall()])
    txn.raw.execute(_sql.DELETE_LEASE, (lease,))


class SQLiteLeases(Leases):
    """Leases in a store's file, see ``Leases``."""

    def __init__(
        self,
        reader: Reader,
        writer: Writer,
        clock: Callable[[], float],
        wait: Callable[[float | None], float],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._clock = clock
        self._wait = wait

    def grant(self, ttl: int, *, lease: int = 0, timeout: float | None = None) -> LeaseInfo:
        check_grant(ttl, lease)
        granted = self._writer.submit(_Grant(ttl, lease, self._clock), self._wait(timeout))
        return LeaseInfo(granted, ttl, float(ttl))

    def keep_alive(self, lease: int, *, timeout: float | None = None) -> LeaseInfo:
        check_lease(lease)
        ttl = self._writer.submit(_KeepAlive(lease, self._clock), self._wait(timeout))
        return LeaseInfo(lease, ttl, float(ttl))

    def revoke(self, lease: int, *, timeout: float | None = None) -> int:
        check_lease(lease)
        return self._writer.submit(_Revoke(lease), self._wait(timeout))

    def get(self, lease: int, *, keys: bool = False, timeout: float | None = None) -> LeaseInfo:
        check_lease(lease)
        found = self._reader.lease(lease, keys=keys, timeout=self._wait(timeout))
        if found is None:
            raise LeaseNotFound(lease)
        ttl, expires_at, attached = found
        return LeaseInfo(lease, ttl, time_left(expires_at, self._clock()), attached)

    def list(self, *, timeout: float | None = None) -> tuple[int, ...]:
        return self._reader.leases(self._wait(timeout))
