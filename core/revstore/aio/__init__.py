"""The same storages, registries and watches for asyncio.

::

    async with aio.open_registry("sqlite:///cluster.db", Node, cached=True) as nodes:
        await nodes.create(Node(metadata=ObjectMeta(name="n1"), zone="a"))
        async with nodes.watch() as watch:
            async for event in watch:
                print(event.type, event.object.metadata.name)

This is a facade: each method takes the arguments of the method of the same name of
``revstore.storage.Storage`` or ``revstore.registry.Registry``, calls it in a thread, and returns or
raises what that method does.

*Cancellation.* A call that is cancelled returns at once. If it has not started in a thread yet, it
never starts. Otherwise it runs on in its thread, where nothing can stop it, until it is done or its
``timeout``, or the backend's own deadline, has passed: a write may still land. If the call opens
something, that is closed.
A task that waits on a watch can be cancelled without losing an event, see ``AsyncWatch``.

*Threads.* Watches of a cached storage need no threads: ten thousand tasks may wait on as many
watches. Without a cache each watch has a thread, so open the storage ``cached`` for more than a
few.
"""

from __future__ import annotations

from revstore.aio._facade import (
    AsyncRegistry,
    AsyncStorage,
    AsyncWatch,
    Opening,
    open_registry,
    open_storage,
)

__all__ = [
    "AsyncRegistry",
    "AsyncStorage",
    "AsyncWatch",
    "Opening",
    "open_registry",
    "open_storage",
]
