"""What authors of backends test with (extra ``testing``): suites to subclass, and a model.

The suites are classes of pytest tests with fixtures to override. ``revstore.testing.model``
has a Hypothesis state machine that compares a backend with a plain model; import it from there.
"""

from __future__ import annotations

import pytest

# Before the suites are imported: else a failed assert in them shows no values.
pytest.register_assert_rewrite(
    "revstore.testing._backend_base",
    "revstore.testing._backend_compaction",
    "revstore.testing._backend_hammer",
    "revstore.testing._backend_life",
    "revstore.testing._backend_reads",
    "revstore.testing._backend_watch",
    "revstore.testing._backend_writes",
    "revstore.testing._cacher_base",
    "revstore.testing._cacher_feed",
    "revstore.testing._cacher_history",
    "revstore.testing._cacher_life",
    "revstore.testing._cacher_lists",
    "revstore.testing._cacher_machine",
    "revstore.testing._cacher_machine_reads",
    "revstore.testing._cacher_machine_watches",
    "revstore.testing._cacher_replay",
    "revstore.testing._cacher_watches",
    "revstore.testing._plain_model",
    "revstore.testing._storage_base",
    "revstore.testing._storage_corrupt",
    "revstore.testing._storage_delete",
    "revstore.testing._storage_expired",
    "revstore.testing._storage_keys",
    "revstore.testing._storage_life",
    "revstore.testing._storage_list",
    "revstore.testing._storage_matrix",
    "revstore.testing._storage_objects",
    "revstore.testing._storage_paging",
    "revstore.testing._storage_parts",
    "revstore.testing._storage_suggested",
    "revstore.testing._storage_update",
    "revstore.testing._support",
    "revstore.testing._watch_bookmarks",
    "revstore.testing._watch_changes",
    "revstore.testing._watch_end",
    "revstore.testing._watch_events",
    "revstore.testing._watch_hammer",
    "revstore.testing._watch_start",
    "revstore.testing._watch_support",
    "revstore.testing.backend",
    "revstore.testing.cached",
    "revstore.testing.cacher",
    "revstore.testing.model",
    "revstore.testing.storage",
    "revstore.testing.watch",
)

from revstore.testing._backend_base import OpenBackend, Stall  # noqa: E402 - see above
from revstore.testing.backend import BackendTests  # noqa: E402 - see above
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
    "Stall",
    "StorageTests",
    "WatchTests",
]
