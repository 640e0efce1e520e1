"""``MemoryLeases``: the callers' view of the leases in a ``LeaseTable``."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from revstore.arguments import check_grant, check_lease, check_timeout
from revstore.backend import Leases
from revstore.errors import LeaseExists
from revstore.memory._lease_table import LeaseTable
from revstore.memory._watch import Shared
from revstore.values import LeaseInfo

__all__ = ["MemoryLeases"]


class MemoryLeases(Leases):
    """Leases in memory, see ``Leases``; no call waits for anything."""

    def __init__(
        self, shared: Shared, clock: Callable[[], float], start_sweeper: Callable[[], None]
    ) -> None:
        self._shared = shared
        self._clock = clock
        self._start_sweeper = start_sweeper

    def grant(self, ttl: int, *, lease: int = 0, timeout: float | None = None) -> LeaseInfo:
        check_grant(ttl, lease)
        check_timeout(timeout, 0.0)
        with self._shared.lock:
            self._shared.check_writable()
            table = self._shared.state.leases
            if lease in table:
                raise LeaseExists(lease)
            lease = lease or _unused(table)
            self._start_sweeper()
            table.add(lease, ttl, self._clock() + ttl)
            self._shared.sweeper_wake.set()
        return LeaseInfo(lease, ttl, float(ttl))

    def keep_alive(self, lease: int, *, timeout: float | None = None) -> LeaseInfo:
        check_lease(lease)
        check_timeout(timeout, 0.0)
        with self._shared.lock:
            self._shared.check_writable()
            found = self._shared.state.leases.find(lease)
            found.deadline = self._clock() + found.ttl
            return LeaseInfo(lease, found.ttl, float(found.ttl))

    def revoke(self, lease: int, *, timeout: float | None = None) -> int:
        check_lease(lease)
        check_timeout(timeout, 0.0)
        with self._shared.lock:
            self._shared.check_writable()
            self._shared.end_lease(lease)
            return self._shared.state.revision

    def get(self, lease: int, *, keys: bool = False, timeout: float | None = None) -> LeaseInfo:
        check_lease(lease)
        check_timeout(timeout, 0.0)
        with self._shared.lock:
            self._shared.check()
            found = self._shared.state.leases.find(lease)
            remaining = max(0.0, found.deadline - self._clock())
            attached = tuple(sorted(found.keys)) if keys else ()
            return LeaseInfo(lease, found.ttl, remaining, attached)

    def list(self, *, timeout: float | None = None) -> tuple[int, ...]:
        check_timeout(timeout, 0.0)
        with self._shared.lock:
            self._shared.check()
            return self._shared.state.leases.ids()


def _unused(table: LeaseTable) -> int:
    while not (lease := secrets.randbits(62)) or lease in table:
        pass
    return lease
