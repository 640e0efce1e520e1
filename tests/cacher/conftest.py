"""Caches over a memory backend, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import attrs
import pytest

from revstore.backend import Backend
from revstore.cacher import Cacher, CacherConfig
from revstore.memory import MemoryBackend
from revstore.resource_type import ResourceType
from revstore.storage import Storage
from revstore.testing._support import wait_until
from revstore.testing.cacher._feed import ControlledStorage
from revstore.testing.storage._parts import PODS, pod
from revstore.typed import TypedStorage


@pytest.fixture
def backend() -> Iterator[MemoryBackend]:
    with MemoryBackend() as backend:
        yield backend


@attrs.frozen
class Parts:
    """A cache, the feed it follows, and the store under both."""

    cache: Cacher[Any]
    feed: ControlledStorage
    store: Storage[Any]
    backend: Backend

    def settle(self) -> str:
        """Wait until the cache shows all there is; the revision."""
        return self.cache.list("/pods", timeout=20).resource_version

    def put(self, name: str, node: str = "", prefix: str = "/pods", **metadata: Any) -> str:
        """Write to the store, past the cache; the version."""
        new = pod(name, node, **metadata)
        store = attrs.evolve(PODS, resource_prefix=prefix)
        written = TypedStorage(self.backend, store).guaranteed_update(
            f"{prefix}/{name}", lambda _, __: new, ignore_not_found=True
        )
        return written.metadata.resource_version


@pytest.fixture
def open_parts() -> Iterator[Callable[..., Parts]]:
    """Opens caches whose feeds can be held back; of the Pods of the suites, or of another type."""
    with ExitStack() as stack:

        def open_parts(
            backend: Backend | None = None,
            resource_type: ResourceType[Any] = PODS,
            *,
            held: bool = False,
            **options: Any,
        ) -> Parts:
            backend = stack.enter_context(backend or MemoryBackend())
            store = TypedStorage(backend, resource_type)
            feed = ControlledStorage(store)
            if held:
                feed.hold()
            config = CacherConfig(storage=feed, resource_type=resource_type, **options)
            cache = stack.enter_context(Cacher(config))
            stack.callback(feed.release)
            if held:
                wait_until(lambda: feed.followed, "there is a feed to be cut")
            else:
                cache.wait_ready()
            return Parts(cache, feed, store, backend)

        yield open_parts


@pytest.fixture
def open_cache(
    backend: MemoryBackend, request: pytest.FixtureRequest
) -> Iterator[Callable[..., Cacher[Any]]]:
    """Opens caches of the test module's ``Pod``, indexed by ``nodeName``, or of another type."""
    with ExitStack() as stack:

        def open_cache(object_type: type[Any] | None = None, **options: Any) -> Cacher[Any]:
            resource_type = ResourceType(object_type or request.module.Pod, "/pods")
            config = CacherConfig(
                storage=TypedStorage(backend, resource_type),
                resource_type=resource_type,
                **{"indexed_fields": ("nodeName",), **options},
            )
            cache = stack.enter_context(Cacher(config))
            cache.wait_ready()
            return cache

        yield open_cache


@pytest.fixture
def open_dict_cache() -> Iterator[Callable[..., Cacher[dict[str, Any]]]]:
    """Opens caches of plain dicts, over what ``wrapped`` makes of the storage."""
    with ExitStack() as stack:

        def open_dict_cache(
            wrapped: Callable[[Storage[Any]], Storage[Any]] = lambda storage: storage,
            **options: Any,
        ) -> Cacher[dict[str, Any]]:
            dicts: ResourceType[dict[str, Any]] = ResourceType(dict, "/pods")
            backend = stack.enter_context(MemoryBackend())
            storage = wrapped(TypedStorage(backend, dicts))
            cache = Cacher(CacherConfig(storage=storage, resource_type=dicts, **options))
            stack.enter_context(cache).wait_ready()
            return cache

        yield open_dict_cache
