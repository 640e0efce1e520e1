"""The shared suites on real servers, raw and under the cache."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from revstore.backend import Backend
from revstore.testing import (
    BackendTests,
    CachedStorageTests,
    CachedWatchTests,
    CacherTests,
    StorageTests,
    WatchTests,
)

#: Tests of the shared suites that use a key and another one below it, "a" and "a/b". etcd v2 has
#: either a key or a folder (OLD-19): such a key is refused, see test_keys.py.
NESTED = {
    "test_bookmark_of_one_object",
    "test_byte_order",
    "test_count",
    "test_key_unicode",
    "test_list_scopes",
    "test_prefix_is_a_plain_string",
    "test_scope_of_a_namespace",
    "test_scope_of_one_object",
    "test_watch_exact_key",
    "test_watch_recursive_is_a_plain_prefix",
}

#: Tests of the raw suites that the cache answers otherwise.
CACHED = {
    "test_update": "GU-19: of a cached suggestion the expiry is not known",
    "test_list_without_history": "LIST-8: the cache pages where v2 cannot",
}


class OnEtcd:
    """A server that all tests share: keys of their own."""

    ephemeral = False
    large_value = 1 << 20
    not_nested: frozenset[str] = frozenset()

    @pytest.fixture(autouse=True)
    def _no_nested_keys(self, request):
        if request.node.originalname in NESTED - self.not_nested:
            pytest.skip("differs: OLD-19: a key cannot be a folder")

    @pytest.fixture
    def backend(self, open_store) -> Iterator[Backend]:
        return open_store()

    @pytest.fixture
    def open_backend(self, open_store):
        return open_store


class TestBackend(OnEtcd, BackendTests):
    """Bytes."""

    not_nested = frozenset({"test_count"})


class TestStorage(OnEtcd, StorageTests):
    """Objects."""


class TestWatch(OnEtcd, WatchTests):
    """Watches of objects."""


class TestCacher(OnEtcd, CacherTests):
    """The cache over it."""


class TestCachedStorage(OnEtcd, CachedStorageTests):
    """Objects, under the cache."""

    @pytest.fixture(autouse=True)
    def _differs(self, request):
        if request.node.originalname in CACHED:
            pytest.skip(f"differs: {CACHED[request.node.originalname]}")


class TestCachedWatch(OnEtcd, CachedWatchTests):
    """Watches of objects, under the cache."""
