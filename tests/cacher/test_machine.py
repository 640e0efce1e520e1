"""A state machine that drives a cache beside its store and a history of every write.

``REVSTORE_TEST_LONG=20`` runs 20 times as many examples, and makes those that fail small.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings

from revstore.memory import MemoryBackend
from revstore.testing.cacher._machine_reads import ReadRules
from revstore.testing.cacher._machine_watches import WatchRules
from revstore_sqlite._backend import SQLiteBackend
from revstore_sqlite._options import SQLiteOptions

_LONG = int(os.environ.get("REVSTORE_TEST_LONG", "1"))


class CacherMachine(ReadRules, WatchRules):
    """On the memory backend, where keys also expire."""

    can_expire = True

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__()
        # A feed is back in a moment, and comes in pages.
        self.patch.setattr("revstore.cacher._feed._FIRST_RETRY", 0.001)
        self.patch.setattr("revstore.typed._watch._FEED_PAGE", 4)

    def open_backends(self):
        backend = MemoryBackend(clock=lambda: self.now)
        self.stack.callback(backend.close)
        return backend, backend

    def expire_all(self) -> int:
        self.now += 11
        return self.backend.sweep()


class SQLiteMachine(CacherMachine):
    """On a file, to which the third way writes by a handle of its own."""

    brief = 0.05
    can_expire = False

    def open_backends(self):
        folder = self.stack.enter_context(tempfile.TemporaryDirectory(prefix="revstore-machine-"))
        options = SQLiteOptions(path=str(Path(folder, "store.db")), poll_interval=0.002)
        return tuple(self.stack.enter_context(SQLiteBackend(options)) for _ in range(2))


pytestmark = [pytest.mark.slow, pytest.mark.timeout(120 * _LONG)]

_SETTINGS = settings(
    deadline=None,
    stateful_step_count=50,
    phases=[Phase.reuse, Phase.generate, *([Phase.shrink] if _LONG > 1 else [])],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


class TestMemoryMachine(CacherMachine.TestCase):
    """CACHE-15, CACHE-18, CWATCH-1: whatever happens, a list shows one state, one
    that was asked for; a watch's events replayed give the store's state at its version, or it has
    ended with Expired, for a reason."""

    settings = settings(_SETTINGS, max_examples=100 * _LONG)


class TestSQLiteMachine(SQLiteMachine.TestCase):
    """The same where others write through handles of their own."""

    settings = settings(_SETTINGS, max_examples=12 * _LONG)
