"""What an etcd cluster can do."""

from __future__ import annotations

from revstore.values import Capability

__all__ = ["CAPABILITIES"]

CAPABILITIES = frozenset(Capability) - {
    Capability.TRANSACTIONS,
    Capability.LEASES,
    Capability.REMAINING_TTL,
    Capability.RAISE_REVISION,
    Capability.FENCE,
}
