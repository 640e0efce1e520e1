import pytest
from revstore.testing import BackendTests
from revstore_tiny._store import TinyBackend


class TestTiny(BackendTests):
    starts_at_one = True  # each test gets a store of its own, which begins at revision 1

    @pytest.fixture
    def backend(self):
        with TinyBackend() as backend:
            yield backend
