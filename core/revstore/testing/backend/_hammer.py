"""``BackendTests``, part: many writers and watchers at once."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable

from revstore.backend import Backend, BackendWatch
from revstore.testing._support import PATIENCE, Keyspace, run_threads, wait_until
from revstore.testing.backend._base import BackendSuite
from revstore.values import KeyValue, WatchEventType

__all__ = ["HammerTests"]

# revision, name, value (None: deleted)
_Write = tuple[int, str, bytes | None]


class HammerTests(BackendSuite):
    """Guarantees that hold under concurrency."""

    def test_watch_hammer(self, backend: Backend, space: Keyspace) -> None:
        """With many writers, every watcher sees each event once, in revision order, with the right
        previous value (WATCH-15, BASE-1)."""
        writers, turns = 6, 60
        done: list[list[_Write]] = []

        def last() -> int | None:
            return max(each[-1][0] for each in done) if len(done) == writers else None

        def work(index: int) -> list[_Write]:
            if index < writers:
                done.append(_write(backend, space, index, turns))
                return []
            if index == writers:  # one that comes late reads all of it from history
                wait_until(lambda: last() is not None, "the writers finish", 3 * PATIENCE)
            with space.watch() as watch:
                return _follow(space, watch, last)

        followed = run_threads(writers + 3, work)[writers:]
        written = sorted((write for each in done for write in each), key=lambda write: write[0])

        assert followed == [written] * 3

    def test_a_list_goes_over_into_a_watch(self, backend: Backend, space: Keyspace) -> None:
        """With many writers, the state of a list plus the events of a watch after its revision give
        the final state (CACHE-18, WATCH-15)."""
        writers, turns = 4, 60
        done: list[list[_Write]] = []
        during_writes: list[None] = []
        failed = threading.Event()
        deadline = time.monotonic() + PATIENCE

        def more() -> bool:
            enough = len(during_writes) >= 2 * writers or failed.is_set()
            return not enough and time.monotonic() < deadline

        def work(index: int) -> None:
            if index < writers:
                done.append(_write(backend, space, index, turns, more=more))
                return
            try:
                while len(done) < writers:
                    if _follow_from_list(space):
                        during_writes.append(None)
                _follow_from_list(space)
            except BaseException:
                failed.set()
                raise

        run_threads(writers + 2, work)
        assert during_writes, "nothing was written between two lists"


def _follow_from_list(space: Keyspace) -> bool:
    """Build the state from a list and the events after it, up to what a second list shows. Return
    whether there were any."""
    first = space.list()
    state = {kv.key: kv for kv in first.kvs}
    with space.watch(after=first.revision) as watch:
        second = space.list()
        last = max([first.revision, *(kv.revision for kv in second.kvs)])
        deadline = time.monotonic() + PATIENCE
        while watch.position < last:
            batch = watch.poll(max(0.0, deadline - time.monotonic()))
            assert batch is not None, f"seen up to {watch.position}, not up to {last}"
            for event in batch.events:
                assert event.previous == state.pop(event.kv.key, None)
                if event.type is WatchEventType.PUT:
                    state[event.kv.key] = event.kv
    if watch.position == second.revision:
        assert tuple(state[key] for key in sorted(state)) == second.kvs
    return last > first.revision


def _write(
    backend: Backend,
    space: Keyspace,
    index: int,
    turns: int,
    *,
    more: Callable[[], bool] = lambda: False,
) -> list[_Write]:
    """Create, update and delete a few keys in competition; return what succeeded. After the
    ``turns`` go on as long as ``more`` returns True."""
    done: list[_Write] = []
    for turn in itertools.count():
        if turn >= turns and not more():
            break
        name = f"k{(turn * 7 + index) % 5}"
        current = backend.get(space.key(name)).kv
        expected = current.revision if current else 0
        if current and turn % 4 == 3:
            removed = backend.delete(space.key(name), expected_revision=expected)
            if removed.succeeded:
                done.append((removed.revision, name, None))
            continue
        value = b"%d-%d" % (index, turn)
        result = backend.put(space.key(name), value, expected_revision=expected)
        if result.succeeded:
            done.append((result.revision, name, value))
    # Each writer ends with a write of its own, so that the end is known.
    done.append((space.create(f"end{index}", b"end"), f"end{index}", b"end"))
    return done


def _follow(space: Keyspace, watch: BackendWatch, last: Callable[[], int | None]) -> list[_Write]:
    """Return all events up to the revision that ``last`` returns once it is known.

    Check that the events add up to the state.
    """
    state: dict[str, KeyValue] = {}
    seen: list[_Write] = []
    deadline = time.monotonic() + PATIENCE
    while (end := last()) is None or watch.position < end:
        assert time.monotonic() < deadline, f"seen up to {watch.position}, not up to {end}"
        batch = watch.poll(0.05)
        if batch is None:
            continue
        deadline = time.monotonic() + PATIENCE  # slow is allowed, standing still is not
        for event in batch.events:
            name = event.kv.key.removeprefix(space.prefix)
            assert event.previous == state.pop(name, None)
            if event.type is WatchEventType.PUT:
                state[name] = event.kv
            seen.append(
                (
                    event.kv.revision,
                    name,
                    event.kv.value if event.type is WatchEventType.PUT else None,
                )
            )
    return seen
