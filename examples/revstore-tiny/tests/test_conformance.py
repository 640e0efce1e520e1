import pytest
from revstore.testing import (
    BackendTests,
    CachedStorageTests,
    CachedWatchTests,
    CacherTests,
    StorageTests,
    WatchTests,
)
from revstore.testing.model import backend_machine
from revstore_tiny._store import TinyBackend


class Fixtures:
    starts_at_one = True  # each test gets a store of its own, which begins at revision 1

    @pytest.fixture
    def backend(self):
        with TinyBackend() as backend:
            yield backend


class TestBackend(Fixtures, BackendTests):
    """Bytes: the contract itself."""


class TestStorage(Fixtures, StorageTests):
    """Objects."""


class TestWatch(Fixtures, WatchTests):
    """Watches of objects."""


class TestCacher(Fixtures, CacherTests):
    """The watch cache over it."""


class TestCachedStorage(Fixtures, CachedStorageTests):
    """Objects, behind the cache."""


class TestCachedWatch(Fixtures, CachedWatchTests):
    """Watches of objects, behind the cache."""


TestMachine = backend_machine(TinyBackend).TestCase
