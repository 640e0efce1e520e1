"""One rule for every timeout: which numbers are one, wherever one is given."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from typing import Any

import pytest

from revstore import aio
from revstore.cacher import Cacher, CacherConfig
from revstore.errors import InvalidArgument, Timeout
from revstore.memory import MemoryBackend
from revstore.resource_type import ResourceType
from revstore.storage import Storage
from revstore.typed import TypedStorage
from revstore.watch_selector import WatchSelector

#: Longer than a float can be.
HUGE = 10**400


@pytest.fixture(params=["raw", "cached"])
def storage(request: pytest.FixtureRequest) -> Iterator[Storage[dict[str, Any]]]:
    with MemoryBackend() as backend:
        pods = ResourceType(dict, "/pods")
        storage: Storage[dict[str, Any]] = TypedStorage(backend, pods)
        if request.param == "cached":
            storage = Cacher(CacherConfig(storage=storage, resource_type=pods))
        with storage:
            yield storage


@pytest.mark.parametrize("timeout", [math.nan, "1", True, 1j])
def test_what_is_no_number_of_seconds_is_refused(
    storage: Storage[dict[str, Any]], timeout: Any
) -> None:
    """Calls, the life of a watch, and polls of every kind name the timeout that they refuse."""

    async def poll_for(seconds: Any) -> None:
        async with aio.AsyncStorage(storage).watch("/pods") as watch:
            await watch.poll(seconds)

    with storage.watch("/pods") as watch, WatchSelector() as selector:
        for call in (
            lambda: storage.get("/pods/a", timeout=timeout),
            lambda: storage.list("/pods", timeout=timeout),
            lambda: storage.watch("/pods", timeout=timeout),
            lambda: watch.poll(timeout),
            lambda: selector.select(timeout),
            lambda: asyncio.run(poll_for(timeout)),
        ):
            with pytest.raises(InvalidArgument) as raised:
                call()
            assert raised.value.field == "timeout"


def test_a_number_may_be_longer_than_a_float(storage: Storage[dict[str, Any]]) -> None:
    """A whole number of any length is a timeout: below 0 it is over, above a million it is one."""
    assert list(storage.list("/pods", timeout=HUGE)) == []
    with pytest.raises(Timeout):
        storage.current_revision(timeout=-HUGE)
    with storage.watch("/pods", timeout=HUGE) as watch, WatchSelector() as selector:
        assert watch.poll(-HUGE) is None
        assert selector.select(-HUGE) == []
        storage.create("/pods/a", {"metadata": {"name": "a"}})
        (event,) = watch.poll(HUGE) or ()
        assert event.object["metadata"]["name"] == "a"
