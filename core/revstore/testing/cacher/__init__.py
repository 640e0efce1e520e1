"""``CacherTests``: the conformance suite of cached storage, over any backend.

In a test module::

    import pytest
    from revstore.testing import CacherTests

    class TestMyBackendCached(CacherTests):
        @pytest.fixture
        def backend(self, tmp_path):
            with open_my_backend(tmp_path) as backend:
                yield backend
"""

from __future__ import annotations

from revstore.testing.cacher._suite import (
    CacherTests,
)

__all__ = [
    "CacherTests",
]
