"""A configuration that cannot be is refused when the cache is made."""

from __future__ import annotations

import threading

import pytest

from revstore.cacher import Cacher, CacherConfig
from revstore.errors import (
    InvalidArgument,
)
from revstore.memory import MemoryBackend
from revstore.resource_type import ResourceType
from revstore.testing.storage._parts import Pod
from revstore.typed import TypedStorage


@pytest.mark.parametrize(
    ("field", "value"), [("event_history_window", 60), ("capacity", 0), ("capacity", -1)]
)
def test_bad_configuration(field, value, backend):
    """CACHE-1: refused by name."""
    storage = TypedStorage(backend, ResourceType(Pod, "/pods"))
    with pytest.raises(InvalidArgument, match=field):
        CacherConfig(storage=storage, resource_type=ResourceType(Pod, "/pods"), **{field: value})


@pytest.mark.parametrize(
    ("options", "capacity"),
    [
        ({}, 102_400),
        ({"event_history_window": 75}, 102_400),
        ({"event_history_window": 76}, 204_800),
        ({"event_history_window": 150}, 204_800),
        ({"event_history_window": 151}, 409_600),
        ({"event_history_window": 1e12}, 102_400 << 14),
        ({"event_history_window": 1e12, "capacity": 7}, 7),
    ],
)
def test_capacity(open_parts, options, capacity):
    """HIST-1: the upper bound doubles with the window; an explicit one goes over it."""
    assert open_parts(**options).cache.counters.log_capacity == capacity


@pytest.mark.parametrize("prefix", ["", "/", "pods", "/other"])
def test_a_prefix_that_is_not_the_storages(prefix):
    """CACHE-1, KEY-8: refused when the cache is made, by name."""
    with MemoryBackend() as backend:
        storage = TypedStorage(backend, ResourceType(dict, "/pods"))
        with pytest.raises(InvalidArgument):
            Cacher(CacherConfig(storage=storage, resource_type=ResourceType(dict, prefix)))
    assert not [each for each in threading.enumerate() if each.name == "revstore-cacher"]
