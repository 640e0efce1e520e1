"""A watch whose events are all compared with the history of the store."""

from __future__ import annotations

import time
from collections.abc import Sequence

from revstore.errors import Closed, Expired, StorageError
from revstore.storage import Event, EventType, Watch
from revstore.testing.cacher._history import Ask, History
from revstore.testing.storage._parts import Pod

__all__ = ["Replay", "keyed"]


def keyed(objects: Sequence[Pod]) -> dict[tuple[str, str], Pod]:
    """Return Pods by namespace and name."""
    return {(each.metadata.namespace, each.metadata.name): each for each in objects}


class Replay:
    """Replays a watch's events over the state with which it began.

    After each answer the state must be that of the store at ``cursor``, the watch's resource
    version. The events must be exactly those between the two cursors, in order: none lost, none
    twice.

    A watch may begin with a state not older than ``minimum``. That state may be of any revision up
    to the first cursor, but must be the whole state of one revision. ``start`` is the watch's
    version at its opening, if it was polled since.
    """

    def __init__(
        self,
        watch: Watch[Pod],
        history: History,
        ask: Ask,
        *,
        minimum: int | None = None,
        start: int = 0,
    ) -> None:
        self.watch = watch
        self.history = history
        self.ask = ask
        self.minimum = minimum
        #: The revision up to which all was shown; None while the initial state is outstanding.
        self.cursor: int | None = None
        #: How the watch ended.
        self.ended: StorageError | None = None
        self.seen: list[Event[Pod]] = []
        self._initial: list[Event[Pod]] = []
        self._state: dict[tuple[str, str], Pod] | None = {}
        if minimum is None:
            self.cursor = start or int(watch.resource_version)
            self._state = None  # that at the cursor, which may be in the future

    def take(self, timeout: float) -> bool:
        """Poll once; return whether anything came. An end by ``Expired`` is noted in ``ended``;
        other errors are raised."""
        try:
            events = self.watch.poll(timeout)
        except Expired as error:
            self.end(error)
            return False
        assert self.ended is None, f"{events} after {self.ended}"
        self.check(events or (), self.watch.resource_version)
        return bool(events)

    def end(self, error: Expired) -> None:
        """Note that the watch ended. The state that it has shown does not change."""
        if self.ended is not None:
            assert str(error) == str(self.ended)
        self.ended = error

    def drain(self, upto: int, patience: float) -> None:
        """Poll until everything up to ``upto`` was shown or the watch ended."""
        deadline = time.monotonic() + patience
        pause = 0.0
        while self.ended is None and (self.cursor is None or self.cursor < upto):
            assert time.monotonic() < deadline, (
                f"stands at {self.cursor}, {upto} does not come; the last were {self.seen[-3:]}"
            )
            self.take(pause)
            pause = min(0.05, pause * 2 + 0.001)

    def close(self) -> None:
        """Close the watch, and check that it reports that, or how it had ended before."""
        self.watch.close()
        try:
            self.watch.poll(0)
        except (Closed, Expired):
            return
        raise AssertionError("a closed watch can be polled")

    def check(self, events: Sequence[Event[Pod]], version: str) -> None:
        """Compare an answer, after which the watch was at ``version``, with the history."""
        self.seen += events
        if version == "":
            assert self.cursor is None, "the initial events were over"
            self._initial += events
            return
        cursor = int(version)
        if self.cursor is None:
            self._check_first([*self._initial, *events], cursor)
        else:
            assert cursor >= self.cursor, "the resource version went back"
            shown = _without_bookmarks(events, self.cursor, cursor)
            assert shown == self.history.events(self.ask, self.cursor, cursor)
            if cursor == self.cursor:
                return
            if self._state is None:
                self._state = keyed(self.ask.among(self.history.at(self.cursor)))
            self._replay(shown)
        self.cursor = cursor
        assert self._state == keyed(self.ask.among(self.history.at(cursor)))

    def _check_first(self, events: Sequence[Event[Pod]], cursor: int) -> None:
        """Check the first complete state, and the events after it."""
        ends = [at for at, event in enumerate(events) if event.initial_events_end]
        assert self.minimum is not None
        assert cursor >= self.minimum, f"a state at {cursor}, asked for {self.minimum}"
        if ends:
            (end,) = ends
            begin = int(events[end].resource_version)
            assert self.minimum <= begin <= cursor
            assert list(events[:end]) == self.history.initial(self.ask, begin)
            rest = _without_bookmarks(events[end + 1 :], begin, cursor)
            assert rest == self.history.events(self.ask, begin, cursor)
            shown = [*events[:end], *rest]
        else:
            shown = _without_bookmarks(events, 0, cursor)
            begins = {change.revision for change in self.history.between(self.minimum, cursor)}
            assert any(
                shown
                == self.history.initial(self.ask, begin)
                + self.history.events(self.ask, begin, cursor)
                for begin in sorted(begins | {self.minimum, cursor}, reverse=True)
            ), f"{shown} is no state from {self.minimum} to {cursor} with what followed it"
        self._replay(shown)

    def _replay(self, events: Sequence[Event[Pod]]) -> None:
        assert self._state is not None
        for event in events:
            assert event.resource_version == event.object.metadata.resource_version
            name = (event.object.metadata.namespace, event.object.metadata.name)
            assert (name in self._state) is (event.type is not EventType.ADDED), event
            if event.type is EventType.DELETED:
                del self._state[name]
            else:
                self._state[name] = event.object


def _without_bookmarks(events: Sequence[Event[Pod]], after: int, upto: int) -> list[Event[Pod]]:
    """Return the other events. A bookmark must say that everything up to it was shown, and nothing
    after it."""
    shown = []
    last, marked = after, -1
    for event in events:
        version = int(event.resource_version)
        if event.type is EventType.BOOKMARK:
            assert last <= version <= upto, f"{event} after {last}, before {upto}"
            last = marked = version
            continue
        assert version > marked, f"{event} after a bookmark at {marked}"
        last = max(last, version)
        shown.append(event)
    return shown
