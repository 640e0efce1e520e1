"""One rule for the numbers that parts are made with."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from revstore import aio
from revstore.cacher import CacherConfig
from revstore.compactor import Compactor
from revstore.errors import InvalidArgument
from revstore.health import HealthCheck
from revstore.memory import MemoryBackend
from revstore.metrics import Collector
from revstore.resource_type import ResourceType
from revstore.typed import TypedStorage

PODS: ResourceType[dict[str, Any]] = ResourceType(dict, "/pods")


def config(name: str) -> Callable[[Any], object]:
    storage = TypedStorage(MemoryBackend(), PODS)
    return lambda value: CacherConfig(storage=storage, resource_type=PODS, **{name: value})


SECONDS: dict[str, Callable[[Any], object]] = {
    "event_history_window": config("event_history_window"),
    "fresh_timeout": config("fresh_timeout"),
    "bookmark_interval": config("bookmark_interval"),
    "compaction_interval": lambda v: Compactor(MemoryBackend(), interval=v).close(),
    "timeout": lambda v: HealthCheck(lambda: None, timeout=v),
    "progress_interval": lambda v: MemoryBackend(progress_interval=v).close(),
    "count_period": lambda v: Collector(count_period=v),
    "ready_timeout": lambda v: TypedStorage(MemoryBackend(), PODS, ready_timeout=v),
}
SECONDS |= {"timeout of a scrape": lambda v: Collector(timeout=v)}
COUNTS: dict[str, Callable[[Any], object]] = {
    "capacity": config("capacity"),
    "cache_size": lambda v: TypedStorage(MemoryBackend(), PODS, cache_size=v),
    "threads": lambda v: aio.AsyncStorage(TypedStorage(MemoryBackend(), PODS), threads=v),
}
ODD = [math.nan, -math.inf, -1, -(10**400), 10**400, True, "1", b"1", 1j, [1]]


@pytest.mark.parametrize("value", ODD, ids=[str(each)[:9] for each in ODD])
@pytest.mark.parametrize("name", [*SECONDS, *COUNTS])
def test_what_is_no_such_number_is_refused(name: str, value: Any) -> None:
    """By name, when it is given."""
    with pytest.raises(InvalidArgument) as raised:
        (SECONDS | COUNTS)[name](value)
    assert raised.value.field == name.partition(" ")[0]


@pytest.mark.parametrize("value", [75, 75.5, 1e12, math.inf])
@pytest.mark.parametrize("name", SECONDS)
def test_any_number_of_seconds_will_do(name: str, value: float) -> None:
    """Without end too."""
    SECONDS[name](value)


@pytest.mark.parametrize("value", [0.5, math.inf])
@pytest.mark.parametrize("name", COUNTS)
def test_no_fraction_is_a_count(name: str, value: float) -> None:
    """Nor is infinity."""
    with pytest.raises(InvalidArgument):
        COUNTS[name](value)
