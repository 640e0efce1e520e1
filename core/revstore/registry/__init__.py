"""The registry: objects by name and namespace instead of by key, with the metadata filled in that
an apiserver fills in. It is what most programs use, over any ``revstore.storage.Storage``.

What comes back from ``create`` and ``apply`` equals what went in, but for the metadata fields uid,
resourceVersion, creationTimestamp and generation, which are the registry's own whatever the
object says, and the namespace where it was absent.
"""

from __future__ import annotations

from revstore.registry._registry import (
    ApplyOutcome,
    ApplyResult,
    Registry,
)

__all__ = [
    "ApplyOutcome",
    "ApplyResult",
    "Registry",
]
