"""Tests for authors of backends (extra ``testing``): suites to subclass, and a model.

The suites are classes of pytest tests with fixtures to override. ``revstore.testing.model``
has a Hypothesis state machine that compares a backend with a plain model; import it from there.
"""

from __future__ import annotations

import pytest

# Before the suites are imported: else a failed assert in them shows no values.
pytest.register_assert_rewrite(
    "revstore.testing._support",
    "revstore.testing.backend",
    "revstore.testing.cached",
    "revstore.testing.cacher",
    "revstore.testing.model",
    "revstore.testing.storage",
    "revstore.testing.watch",
)

from revstore.testing.backend import BackendTests  # noqa: E402 - see above
from revstore.testing.backend._base import OpenBackend, Stall  # noqa: E402 - see above
from revstore.testing.backend._peers import Peer  # noqa: E402
from revstore.testing.cached import CachedStorageTests, CachedWatchTests  # noqa: E402
from revstore.testing.cacher import CacherTests  # noqa: E402
from revstore.testing.storage import StorageTests  # noqa: E402
from revstore.testing.watch import WatchTests  # noqa: E402

__all__ = [
    "BackendTests",
    "CachedStorageTests",
    "CachedWatchTests",
    "CacherTests",
    "OpenBackend",
    "Peer",
    "Stall",
    "StorageTests",
    "WatchTests",
]
