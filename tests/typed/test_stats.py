"""What the statistics of a storage cost and say."""

from __future__ import annotations

from revstore.memory import MemoryBackend
from revstore.resource_type import ResourceType
from revstore.storage import Stats
from revstore.typed import TypedStorage


def test_the_size_is_that_of_the_first_objects():
    """STAT-2: nothing is remembered of lists and watches; 500 objects are looked at."""
    with MemoryBackend() as backend, TypedStorage(backend, ResourceType(dict, "/pods")) as store:
        for number in range(501):
            size = 10 if number < 500 else 10_000
            backend.put(f"/registry/pods/{number:03}", b"x" * size, expected_revision=0)

        assert store.stats() == Stats(501, 10)
