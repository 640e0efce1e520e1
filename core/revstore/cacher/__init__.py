"""The watch cache: a storage that answers lists, watches and gets from memory (Cacher)."""

from __future__ import annotations

from revstore.cacher._cacher import (
    Cacher,
    CacherConfig,
    CacherCounters,
    ConsistencyReport,
)

__all__ = [
    "Cacher",
    "CacherConfig",
    "CacherCounters",
    "ConsistencyReport",
]
