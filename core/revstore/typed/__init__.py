"""Typed storage over a backend: objects for bytes, resource versions for revisions.

The counterpart of Kubernetes' etcd3 store; it works over any ``revstore.backend.Backend``.
"""

from __future__ import annotations

from revstore.typed._storage import (
    TypedStorage,
)

__all__ = [
    "TypedStorage",
]
