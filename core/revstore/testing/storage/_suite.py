"""``StorageTests``: the conformance suite of typed storage, over any backend."""

from __future__ import annotations

from revstore.testing.storage._corrupt import CorruptTests, TransformerTests
from revstore.testing.storage._delete import DeleteTests
from revstore.testing.storage._expired import ExpiredTokenTests
from revstore.testing.storage._keys import KeyTests
from revstore.testing.storage._life import ExpiryTests, LifeTests, StatsTests
from revstore.testing.storage._list import ListTests
from revstore.testing.storage._matrix import MatrixTests
from revstore.testing.storage._objects import CreateTests, GetTests
from revstore.testing.storage._paging import PagingTests
from revstore.testing.storage._suggested import SuggestedUpdateTests
from revstore.testing.storage._unreadable import UnreadableListTests
from revstore.testing.storage._update import UpdateTests

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
    UnreadableListTests,
    TransformerTests,
    ExpiryTests,
    StatsTests,
    LifeTests,
):
    """Subclass it as ``Test...`` and override the fixture ``backend``, as for ``BackendTests``.

    Override ``make_storage`` to test another storage than ``TypedStorage``. Class attributes are
    those of ``BackendTests``, and

    - ``raw = False``: the storage answers from a cache. Then the backend's reads are not counted.

    The store need not be empty: all objects lie under a random resource prefix, and tests compare
    revisions with the one at their start. Tests of capabilities that the backend does not have are
    skipped by name.
    """
