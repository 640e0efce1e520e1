"""``WatchTests``, part: many writers and watchers at once."""

from __future__ import annotations

import time
from collections.abc import Callable

from revstore.errors import KeyExists, KeyNotFound
from revstore.storage import ChangeBatch, Event, EventType, Watch
from revstore.testing._support import PATIENCE, run_threads, wait_until
from revstore.testing.storage._base import Pods, StorageSuite
from revstore.testing.storage._parts import Pod, name_of, on_node

__all__ = ["WatchHammerTests"]


class WatchHammerTests(StorageSuite):
    """Guarantees that hold under concurrency."""

    def test_watch_hammer(self, pods: Pods) -> None:
        """Four watchers see each change of many writers once, in order, with the right previous
        content. Two begin with history, one comes late, and one is a feed (WATCH-15, WATCH-11,
        WATCH-2, BASE-1)."""
        writers, turns = 4, 40
        ends: list[int] = []

        def last() -> int | None:
            return max(ends) if len(ends) == writers else None

        def work(index: int) -> list[tuple[str, str, str, str]]:
            if index < writers:
                ends.append(_write(pods, index, turns))
                return []
            if index == writers:
                return _follow_feed(pods, last)
            if index == writers + 1:
                wait_until(lambda: last() is not None, "the writers finish", 3 * PATIENCE)
            with pods.watch() as watch:
                return _follow(watch, last)

        followed = run_threads(writers + 4, work)[writers:]
        assert followed[1:] == followed[:1] * 3
        versions = [int(event[3]) for event in followed[0]]
        assert versions == sorted(set(versions)), "each revision once, in order"
        assert len(versions) > turns


def _write(pods: Pods, index: int, turns: int) -> int:
    """Create, update and delete a few objects in competition with other writers. Return the version
    of the last write, which is that of an object that only this writer has."""
    for turn in range(turns):
        name = f"k{(turn * 7 + index) % 5}"
        try:
            if turn % 4 == 3:
                pods.delete(name)
            else:
                _put(pods, name, f"{index}-{turn}")
        except (KeyExists, KeyNotFound):
            continue
    return int(pods.create(f"end{index}").metadata.resource_version)


def _put(pods: Pods, name: str, node: str) -> None:
    if pods.find(name) is None:
        pods.create(name, node)
    else:
        pods.update(name, node)


def _check(event: Event[Pod], state: dict[str, Pod]) -> tuple[str, str, str, str]:
    """Check one event against the state that the events before it built up."""
    obj, name = event.object, name_of(event.object)
    before = state.pop(name, None)
    if event.type is EventType.ADDED:
        assert before is None
    else:
        assert before is not None
    if event.type is EventType.DELETED and before is not None:
        assert on_node(obj, before.spec.node_name) == obj, "the content before"
    else:
        state[name] = obj
    return event.type.value, name, obj.spec.node_name, event.resource_version


def _follow(watch: Watch[Pod], last: Callable[[], int | None]) -> list[tuple[str, str, str, str]]:
    """Return all events up to the revision that ``last`` returns once it is known."""
    state: dict[str, Pod] = {}
    seen: list[tuple[str, str, str, str]] = []
    deadline = time.monotonic() + PATIENCE
    while (end := last()) is None or int(watch.resource_version) < end:
        assert time.monotonic() < deadline, f"seen up to {watch.resource_version}, not to {end}"
        events = watch.poll(0.05)
        if events:
            deadline = time.monotonic() + PATIENCE  # slow is allowed, standing still is not
            seen += [_check(event, state) for event in events]
    return seen


def _follow_feed(pods: Pods, last: Callable[[], int | None]) -> list[tuple[str, str, str, str]]:
    """Return the same as ``_follow``, from a feed, whose changes contain the previous object."""
    state: dict[str, Pod] = {}
    seen: list[tuple[str, str, str, str]] = []
    deadline = time.monotonic() + PATIENCE
    with pods.storage.changes(pods.prefix, after=pods.start) as changes:
        while (end := last()) is None or changes.revision < end:
            assert time.monotonic() < deadline, f"seen up to {changes.revision}, not to {end}"
            batch: ChangeBatch[Pod] | None = changes.poll(0.05)
            for change in batch.changes if batch else ():
                deadline = time.monotonic() + PATIENCE
                event = Event(change.type, change.load(), str(change.revision))
                assert change.load_previous() == state.get(name_of(event.object))
                assert change.revision == (batch.revision if batch else 0)
                seen.append(_check(event, state))
    return seen
