"""The cache, over the memory backend so that the cache is what is measured.

Through the public interface, with the garbage collector on, as users run it.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import _cacher_costs, _cacher_fanout, _cacher_nodes, _cacher_parts, _cacher_reads
from benchmarks._figures import Figure
from benchmarks._pods import RESOURCE, Pod, cached, fill
from revstore.memory import MemoryBackend
from revstore.resource_type import ResourceType
from revstore.typed import TypedStorage

__all__ = ["figures"]

OBJECTS = 100_000


def figures() -> Iterator[Figure]:
    """All figures of this part."""
    with MemoryBackend() as backend:
        storage = TypedStorage(backend, ResourceType(Pod, RESOURCE))
        fill(storage, OBJECTS)
        with cached(storage) as cacher:
            yield from _cacher_reads.figures(cacher)
            yield from _cacher_fanout.figures(cacher)
            yield from _cacher_fanout.in_tasks(cacher)
    yield from _cacher_nodes.figures()
    yield from _cacher_parts.figures()
    yield from _cacher_costs.figures()
