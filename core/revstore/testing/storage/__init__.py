"""``StorageTests``: the conformance suite of typed storage, over any backend.

In a test module::

    import pytest
    from revstore.testing import StorageTests

    class TestMyStorage(StorageTests):
        @pytest.fixture
        def backend(self, tmp_path):
            with open_my_backend(tmp_path) as backend:
                yield backend
"""

from __future__ import annotations

from revstore.testing.storage._suite import (
    StorageTests,
)

__all__ = [
    "StorageTests",
]
