"""``BackendTests``: the conformance suite that every backend runs.

In a test module of a backend's own distribution::

    import pytest
    from revstore.testing import BackendTests

    class TestMyBackend(BackendTests):
        @pytest.fixture
        def backend(self, tmp_path):
            with open_my_backend(tmp_path) as backend:
                yield backend
"""

from __future__ import annotations

from revstore.testing.backend._suite import (
    BackendTests,
)

__all__ = [
    "BackendTests",
]
