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

from revstore.testing._storage_corrupt import CorruptTests, TransformerTests
from revstore.testing._storage_delete import DeleteTests
from revstore.testing._storage_expired import ExpiredTokenTests
from revstore.testing._storage_keys import KeyTests
from revstore.testing._storage_life import ExpiryTests, LifeTests, StatsTests
from revstore.testing._storage_list import ListTests
from revstore.testing._storage_matrix import MatrixTests
from revstore.testing._storage_objects import CreateTests, GetTests
from revstore.testing._storage_paging import PagingTests
from revstore.testing._storage_suggested import SuggestedUpdateTests
from revstore.testing._storage_update import UpdateTests

__all__ = ["StorageTests"]


class StorageTests(
    KeyTests,
    CreateTests,
    GetTests,
    MatrixTests,
    ListTests,
    PagingTests,
    ExpiredTokenTests,
    DeleteTests,
    UpdateTests,
    SuggestedUpdateTests,
    CorruptTests,
    TransformerTests,
    ExpiryTests,
    StatsTests,
    LifeTests,
):
    """Subclass it as ``Test...`` and override the fixture ``backend``, as for ``BackendTests``.

    Override ``make_storage`` to test another storage than ``TypedStorage``. Class attributes are
    those of ``BackendTests``, and

    - ``raw = False``: the storage answers from a cache. Then the backend's reads are not counted.

    The store need not be empty: all objects lie under a random resource prefix, and revisions are
    compared with that at the test's start. Tests of what the backend does not claim are skipped
    by name.
    """
