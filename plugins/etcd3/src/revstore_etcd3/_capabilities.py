"""The capabilities of an etcd cluster."""

from __future__ import annotations

from revstore.values import Capability

__all__ = ["CAPABILITIES"]

#: Nobody but etcd counts its revisions, and nothing stops what expires there or what others write.
CAPABILITIES = frozenset(Capability) - {Capability.RAISE_REVISION, Capability.FENCE}
