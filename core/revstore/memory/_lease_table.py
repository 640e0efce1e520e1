"""The leases of a ``MemoryBackend``, as data."""

from __future__ import annotations

import attrs

from revstore.errors import LeaseNotFound

__all__ = ["LeaseTable"]


@attrs.define
class _Lease:
    ttl: int
    deadline: float
    keys: set[str] = attrs.field(factory=set)


class LeaseTable:
    """The leases and which keys are attached to them. Each method may be repeated after an
    exception of a signal handler."""

    def __init__(self) -> None:
        #: The lease of each key that has one.
        self.of: dict[str, int] = {}
        self._leases: dict[int, _Lease] = {}

    def __contains__(self, lease: int) -> bool:
        return lease in self._leases

    def find(self, lease: int) -> _Lease:
        """Return the lease.

        Raises:
            LeaseNotFound: there is no such lease.
        """
        found = self._leases.get(lease)
        if found is None:
            raise LeaseNotFound(lease)
        return found

    def ids(self) -> tuple[int, ...]:
        """Return the ids, in order."""
        return tuple(sorted(self._leases))

    def add(self, lease: int, ttl: int, deadline: float) -> None:
        """Create a lease."""
        self._leases[lease] = _Lease(ttl, deadline)

    def drop(self, lease: int) -> None:
        """Forget a lease, to which no key is attached."""
        self._leases.pop(lease, None)

    def attach(self, key: str, lease: int) -> None:
        """Attach a key to ``lease`` and to no other one; 0: to none."""
        before = self.of.get(key)
        if before is not None and before != lease and before in self._leases:
            self._leases[before].keys.discard(key)
        if lease:
            self.of[key] = lease
            self._leases[lease].keys.add(key)
        else:
            self.of.pop(key, None)

    @property
    def next_deadline(self) -> float | None:
        """The time at which the next lease expires."""
        return min((lease.deadline for lease in self._leases.values()), default=None)

    def due(self, now: float) -> list[int]:
        """Return the leases that have expired."""
        return [id_ for id_, lease in self._leases.items() if lease.deadline <= now]
