"""``WatchTests``: the conformance suite of typed storage's watches and feeds, over any backend."""

from __future__ import annotations

from revstore.testing.watch._suite import (
    WatchTests,
)

__all__ = [
    "WatchTests",
]
