"""``WatchTests``: the conformance suite of typed storage's watches and feeds, over any backend."""

from __future__ import annotations

from revstore.testing._watch_bookmarks import BookmarkTests
from revstore.testing._watch_changes import ChangesTests
from revstore.testing._watch_end import CorruptWatchTests, EndTests
from revstore.testing._watch_events import EventTests, ScopeTests
from revstore.testing._watch_hammer import WatchHammerTests
from revstore.testing._watch_start import StartTests

__all__ = ["WatchTests"]


class WatchTests(
    StartTests,
    BookmarkTests,
    EventTests,
    ScopeTests,
    EndTests,
    CorruptWatchTests,
    WatchHammerTests,
    ChangesTests,
):
    """Used as ``StorageTests``, of which it is the other half."""
