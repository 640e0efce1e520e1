"""``CacherTests``: the conformance suite of cached storage, over any backend."""

from __future__ import annotations

from revstore.testing.cacher._life import CachedLifeTests
from revstore.testing.cacher._lists import CachedReadTests
from revstore.testing.cacher._watches import CachedWatchTests

__all__ = ["CacherTests"]


class CacherTests(CachedReadTests, CachedWatchTests, CachedLifeTests):
    """Subclass it as ``Test...`` and override the fixture ``backend``, as for ``BackendTests``.

    The suite checks the properties of a backend that a cache needs. A cache sees writes from
    elsewhere. A feed that breaks goes on without a gap. History that was compacted meanwhile is
    noticed. Writes go through the cache and past it. If ``open_backend`` is given, writes past the
    cache use a separate handle, which plays another process.

    Class attributes are those of ``BackendTests``. Override ``make_cacher`` to test another cache,
    and ``make_storage`` to have the cache follow another storage. The store need not be empty.
    Tests of capabilities that the backend does not have are skipped by name.
    """
