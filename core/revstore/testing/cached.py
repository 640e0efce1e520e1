"""``CachedStorageTests`` and ``CachedWatchTests``: the suites of storages, behind the watch cache.

Used as ``StorageTests`` and ``WatchTests`` are, over the same ``backend`` fixture: a cache offers
what the storage does that it decorates.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest

from revstore.backend import Backend
from revstore.cacher import Cacher, CacherConfig
from revstore.errors import CorruptObjects, StorageError
from revstore.resource_type import ResourceType
from revstore.storage import ObjectList, Storage, Watch
from revstore.testing.storage import StorageTests
from revstore.testing.storage._base import StorageSuite
from revstore.testing.watch import WatchTests

__all__ = ["DIFFERENCES", "CachedStorageTests", "CachedWatchTests"]

#: Tests of the suites that hold for a raw storage only, by name or parameter: the row
#: and why. What holds of the cache instead is in ``CacherTests`` and the core's own tests.
DIFFERENCES: Mapping[str, str] = MappingProxyType(
    {
        "test_ready": "CACHE-9: ready means that the cache is filled",
        "test_functions_may_use_the_storage": "GU-19, DEL-15: a cached suggestion may cost a call",
        "test_delete_checks_fail_on_a_stale_suggestion": "DEL-15: the cache suggests",
        "test_delete_checks_pass_on_a_stale_suggestion_only": "DEL-15: the cache suggests",
        "test_expired_token": "DELEG-7: the cache remembers what the store has compacted",
        "test_expired_token_that_someone_made": "DELEG-7: as above",
        "test_update": "GU-19: of a cached suggestion the expiry is not known",
        "test_list_without_history": "LIST-8: the cache has pages where the store has none",
        "test_expiry_and_updates": "GU-19: of a cached suggestion the expiry is not known",
        "test_delete_validator": "DEL-15: a cached suggestion may cost a call",
        "test_list_after_compaction": "DELEG-5: the cache still remembers",
        "rv=compacted": "DELEG-5: the cache still remembers",
        "test_watch_compacted_version": "HIST-4: the cache still remembers",
        "test_watch_initial_state_is_compacted_away": "CWATCH-1: the state comes from memory",
        "test_list_attributes_are_computed_for_selectors_only": "CACHE-17: labels are indexed",
    }
)


class _Settled(Cacher[Any]):
    """Resource version "0" may show any state, N any from N on; so that the suites can tell
    which, it is that of all writes before."""

    def get(self, key: str, *, resource_version: str = "", **options: Any) -> Any:
        self._settle(resource_version)
        return super().get(key, resource_version=resource_version, **options)

    def list(self, key: str, *, resource_version: str = "", **options: Any) -> ObjectList[Any]:
        self._settle(resource_version)
        return super().list(key, resource_version=resource_version, **options)

    def watch(self, key: str, *, resource_version: str = "", **options: Any) -> Watch[Any]:
        self._settle(resource_version)
        return super().watch(key, resource_version=resource_version, **options)

    def _settle(self, resource_version: str) -> None:
        if resource_version:
            with contextlib.suppress(CorruptObjects):  # raised after the wait
                super().list(self._prefix, limit=1)


class _Cached(StorageSuite):
    """Every storage is decorated."""

    raw = False

    @pytest.fixture(autouse=True)
    def _same_as_raw(self, request: pytest.FixtureRequest) -> None:
        name = request.node.name
        for part, why in DIFFERENCES.items():
            if part == getattr(request.node, "originalname", name) or f"{part}-" in name:
                pytest.skip(f"differs: {why}")

    def make_storage(
        self, backend: Backend, resource_type: ResourceType[Any], **options: Any
    ) -> Storage[Any]:
        storage = super().make_storage(backend, resource_type, **options)
        config = CacherConfig(storage=storage, resource_type=resource_type, fresh_timeout=0.5)
        cacher = _Settled(config)
        # Filled at the state that the test begins with; some tests have stores that never are.
        with contextlib.suppress(StorageError):
            cacher.wait_ready(1)
        return cacher


class CachedStorageTests(_Cached, StorageTests):
    """Subclass it as ``Test...`` and override the fixture ``backend``, as for ``StorageTests``."""


class CachedWatchTests(_Cached, WatchTests):
    """Subclass it as ``Test...`` and override the fixture ``backend``, as for ``WatchTests``."""
