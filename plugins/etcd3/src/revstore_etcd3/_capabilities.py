"""The capabilities of an etcd cluster."""

from __future__ import annotations

from revstore.values import Capability

__all__ = ["CAPABILITIES"]

#: Nobody but etcd counts its revisions.
CAPABILITIES = frozenset(Capability) - {Capability.RAISE_REVISION}
