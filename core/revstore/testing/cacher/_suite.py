"""``CacherTests``: the conformance suite of cached storage, over any backend."""

from __future__ import annotations

from revstore.testing.cacher._life import CachedLifeTests
from revstore.testing.cacher._lists import CachedReadTests
from revstore.testing.cacher._watches import CachedWatchTests

__all__ = ["CacherTests"]


class CacherTests(CachedReadTests, CachedWatchTests, CachedLifeTests):
    """Subclass it as ``Test...`` and override the fixture ``backend``, as for ``BackendTests``.

    It asks what a backend must do for a cache to be right over it: writes from elsewhere are
    seen, a feed that breaks goes on without a gap, history that was compacted meanwhile is
    noticed. Writes come through the cache and past it; with ``open_backend`` past it means a
    separate handle, which plays another process.

    Class attributes are those of ``BackendTests``. Override ``make_cacher`` to test another
    cache, ``make_storage`` to have it decorate another storage. The store need not be empty. Tests
    of what the backend does not claim are skipped by name.
    """
