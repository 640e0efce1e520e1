"""The state machine's watches."""

from __future__ import annotations

import threading
import time
from typing import Any

import attrs
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from revstore.testing._support import PATIENCE
from revstore.testing.cacher._history import Ask
from revstore.testing.cacher._machine import Asked, CacherMachineBase, asks, numbers
from revstore.testing.cacher._replay import Replay

__all__ = ["WatchRules"]


@attrs.define(eq=False)
class _Watching:
    """A watch, the filling of the cache to which it belongs, and how far it has read the log."""

    replay: Replay
    filling: int
    read: int
    readable: threading.Event | None


class WatchRules(CacherMachineBase):
    """Watches that begin anywhere, are read now and then, lag, stop, and are resumed."""

    def __init__(self) -> None:
        super().__init__()
        self.watching: list[_Watching] = []

    @precondition(lambda self: len(self.watching) < 20)
    @rule(
        several=st.lists(asks, min_size=2, max_size=8),
        start=st.sampled_from(["", "0", "now", "old", "old", "future"]),
        number=numbers,
        initial=st.sampled_from([None, None, True, False]),
        bookmarks=st.booleans(),
        progress=st.booleans(),
        tells=st.booleans(),
        twice=st.booleans(),
    )
    def open_watch(
        self,
        several: list[Asked],
        start: str,
        number: int,
        initial: bool | None,
        bookmarks: bool,
        progress: bool,
        tells: bool,
        twice: bool,
    ) -> None:
        named = {"now": self.revision, "old": self.version(number), "future": self.revision + 3}
        version = str(named.get(start, start))
        minimum = None
        if initial or (initial is None and start in ("", "0")):
            minimum = max(self.shown, int(version or self.revision))
            if minimum > (self.shown if self.held else self.revision):
                return  # refused after a while, which the suite tests
        options = {
            "send_initial_events": initial,
            "allow_bookmarks": bookmarks,
            "progress_notify": progress,
        }
        # Watches of one scope and selection share the computed events.
        for asked in several * (1 + twice):
            self.watch(self.ask(asked), version, minimum, tells=tells, **options)

    def watch(
        self,
        ask: Ask,
        version: str,
        minimum: int | None = None,
        *,
        tells: bool = False,
        **options: Any,
    ) -> None:
        watch = self.cached.cache.watch(ask.key, resource_version=version, **ask.options, **options)
        replay = Replay(watch, self.history, ask, minimum=minimum)
        readable = threading.Event() if tells else None
        if readable is not None:
            watch.on_readable(readable.set)
        read = min(replay.cursor or minimum or 0, self.shown)
        self.watching.append(_Watching(replay, self.fillings, read, readable))

    @precondition(lambda self: self.watching)
    @rule(settled=st.booleans())
    def serve_all(self, settled: bool) -> None:
        """Poll every watch."""
        if settled:
            self.settle()
        for each in self.watching:
            self.serve(each)

    @precondition(lambda self: self.watching)
    @rule(number=numbers, settled=st.booleans())
    def serve_some(self, number: int, settled: bool) -> None:
        """Poll some watches; the others lag."""
        if settled:
            self.settle()
        for at, each in enumerate(self.watching):
            if number >> at & 1:
                self.serve(each)

    def serve(self, each: _Watching) -> None:
        """Check that all due events come, and that the callback runs for them if one was set."""
        replay = each.replay
        due = replay.cursor is not None and self.history.events(
            replay.ask, replay.cursor, self.shown
        )
        if not due or replay.ended is not None:
            self.take(each, 0)
        elif each.readable is None:
            assert self.take(each, PATIENCE), f"not within {PATIENCE} s: {due}"
        else:
            came = False
            while not came:
                assert each.readable.wait(PATIENCE), "the watch does not tell that it is readable"
                each.readable.clear()
                came = self.take(each, 0)

    def take(self, each: _Watching, timeout: float) -> bool:
        """Poll a watch; return whether anything came, an end included. An end needs a reason."""
        replay = each.replay
        before = replay.ended
        came = replay.take(timeout)
        if replay.ended is None:
            if replay.cursor is not None:
                each.read = min(replay.cursor, self.shown)
            return came
        if before is None:
            reason = each.filling < self.fillings or not self.remembered(each.read)
            assert reason, f"{replay.ended}, but it stood at {each.read}"
        return True

    @precondition(lambda self: self.watching)
    @rule(number=numbers, resume=st.booleans())
    def close_watch(self, number: int, resume: bool) -> None:
        """Close a watch, or resume it after what was seen; after Expired, from a new list."""
        each = self.watching.pop(number % len(self.watching))
        replay = each.replay
        version = replay.watch.resource_version
        replay.close()
        if not resume:
            return
        if replay.ended is not None or not version:
            listed = self.cached.list(resource_version="0", timeout=PATIENCE)
            version = listed.resource_version
        self.watch(replay.ask, version, tells=each.readable is not None)

    def filled_anew(self, before: int) -> None:
        """Check that watches show what the cache had received, and then end."""
        for each in self.watching:
            replay, deadline = each.replay, time.monotonic() + PATIENCE
            reads = replay.cursor is not None and replay.ended is None
            has_all = reads and self.remembered(each.read)
            while replay.ended is None:
                assert time.monotonic() < deadline, "a watch outlives its cache's filling"
                self.take(each, 0.05)
            missed = self.history.events(replay.ask, replay.cursor or before, before)
            assert not (has_all and missed), f"ended before it has shown {missed}"

    def finish(self) -> None:
        """Check that in the end every due event has come."""
        super().finish()
        self.scribe.scribble(20)
        self.settle()
        for each in self.watching:
            deadline = time.monotonic() + PATIENCE
            while each.replay.ended is None and (each.replay.cursor or 0) < self.shown:
                # Watches with progress report it when it is requested.
                self.cached.cache.request_progress()
                assert time.monotonic() < deadline, f"stands at {each.read}"
                self.take(each, 0.001)
        self.cached.cache.close()
        for each in self.watching:
            each.replay.close()
