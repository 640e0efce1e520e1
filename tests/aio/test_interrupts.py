"""Exceptions at any line of a poll: no event is lost between a watch, its thread and the loop."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest

from revstore import aio
from revstore.aio import _threads, _watch
from revstore.aio._threads import ThreadedWatch
from revstore.cacher import Cacher, CacherConfig
from revstore.errors import InvalidArgument
from revstore.memory import MemoryBackend
from revstore.resource_type import ResourceType
from revstore.storage import Storage
from revstore.testing._support import PATIENCE, wait_until
from revstore.testing.interrupts import Interrupted, _Strike, interrupt_every_line
from revstore.typed import TypedStorage

PODS: ResourceType[dict[str, Any]] = ResourceType(dict, "/pods")
_FILES = {_threads.__file__, _watch.__file__}


def where(code: Any) -> bool:
    return code.co_filename in _FILES


def storage_of(kind: str, backend: MemoryBackend) -> Storage[dict[str, Any]]:
    storage: Storage[dict[str, Any]] = TypedStorage(backend, PODS)
    if kind == "cached":
        storage = Cacher(CacherConfig(storage=storage, resource_type=PODS))
    return storage


def writer(storage: Storage[dict[str, Any]]) -> tuple[list[str], Callable[[], None]]:
    """The names written so far, and what writes one more."""
    names: list[str] = []
    numbers = itertools.count()

    def write() -> None:
        names.append(f"n{next(numbers):05}")
        storage.create(f"/pods/{names[-1]}", {"metadata": {"name": names[-1]}})

    return names, write


def test_an_interrupted_poll_of_a_threaded_watch() -> None:
    """Each event comes once, in order."""
    with MemoryBackend() as backend, storage_of("raw", backend) as storage:
        names, write = writer(storage)
        watch = ThreadedWatch(storage.watch("/pods"))
        seen: list[str] = []

        def take() -> None:
            seen.extend(event.object["metadata"]["name"] for event in watch.poll(0) or ())

        def attempt() -> None:
            wait_until(lambda: watch._found is not None, "something is found")
            take()

        def after(spot: str) -> None:
            wait_until(lambda: bool(take() or len(seen) >= len(names)), f"all comes: {spot}")
            assert seen == names, spot
            write()

        write()
        assert interrupt_every_line(attempt, where=where, after=after, visits=1) > 5
        watch.close()
        watch.join()


@pytest.mark.parametrize("kind", ["raw", "cached"])
@pytest.mark.parametrize("iterated", [False, True], ids=["polled", "iterated"])
def test_an_interrupted_poll_of_a_task(kind: str, iterated: bool) -> None:
    """Who polls next gets what the interrupted poll had taken."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with MemoryBackend() as backend:
            storage = storage_of(kind, backend)
            names, write = writer(storage)
            seen: list[str] = []
            async with aio.AsyncStorage(storage) as facade, facade.watch("/pods") as watch:

                async def take() -> None:
                    if iterated:
                        seen.append((await anext(watch)).object["metadata"]["name"])
                        return
                    found = await watch.poll(PATIENCE)
                    seen.extend(event.object["metadata"]["name"] for event in found or ())

                def attempt() -> None:
                    step = take()
                    try:
                        while True:  # as the loop would, which must not see the exception
                            waits = step.send(None)
                            if waits is not None:
                                waits._asyncio_future_blocking = False
                                return
                    except StopIteration:
                        pass
                    finally:
                        step.close()

                def after(spot: str) -> None:
                    spots.append(spot)

                spots: list[str] = []
                for number in range(1000):
                    write()
                    write()
                    while not watch._told:
                        await asyncio.sleep(0.001)
                    before = len(spots)
                    _strike(attempt, number, after)
                    if len(spots) == before:
                        break
                    while len(seen) < len(names):
                        await asyncio.wait_for(take(), PATIENCE)
                    assert seen == names, spots[-1]
                assert len(spots) > 5
            assert loop.is_running()

    asyncio.run(main())


def _strike(attempt: Callable[[], None], number: int, after: Callable[[str], None]) -> None:
    """One run of ``interrupt_every_line``."""
    strike = _Strike(number, where, Interrupted, 1)
    caught = strike.run(attempt)
    if strike.spot:
        assert caught is strike.raised, f"{strike.spot}: the interrupt became {caught!r}"
        after(strike.spot)


def test_a_poll_that_is_refused_takes_nothing() -> None:
    """The events are the next poll's."""

    async def main() -> None:
        with MemoryBackend() as backend:
            storage = storage_of("cached", backend)
            _, write = writer(storage)
            async with aio.AsyncStorage(storage) as facade, facade.watch("/pods") as watch:
                write()
                while not watch._told:
                    await asyncio.sleep(0.001)
                with pytest.raises(InvalidArgument):
                    await watch.poll(math.nan)
                assert await watch.poll(PATIENCE)

    asyncio.run(main())
