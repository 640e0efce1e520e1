"""``WatchTests``: the conformance suite of typed storage's watches and feeds, over any backend."""

from __future__ import annotations

from revstore.testing.watch._bookmarks import BookmarkTests
from revstore.testing.watch._changes import ChangesTests
from revstore.testing.watch._end import CorruptWatchTests, EndTests
from revstore.testing.watch._events import EventTests, ScopeTests
from revstore.testing.watch._hammer import WatchHammerTests
from revstore.testing.watch._start import StartTests
from revstore.testing.watch._unreadable import UnreadableWatchTests

__all__ = ["WatchTests"]


class WatchTests(
    StartTests,
    BookmarkTests,
    EventTests,
    ScopeTests,
    EndTests,
    CorruptWatchTests,
    UnreadableWatchTests,
    WatchHammerTests,
    ChangesTests,
):
    """Subclass it as ``Test...`` and set it up like ``StorageTests``, of which it is the other
    half."""
