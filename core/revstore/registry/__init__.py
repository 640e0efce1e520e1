"""The registry: objects by name and namespace instead of by key. It fills in the metadata that an
apiserver fills in. Most programs use it, over any ``revstore.storage.Storage``.

The objects that ``create`` and ``apply`` return equal those passed in, except for the metadata
fields uid, resourceVersion, creationTimestamp and generation, which the registry sets whatever the
object says, and the namespace if it was absent.
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
