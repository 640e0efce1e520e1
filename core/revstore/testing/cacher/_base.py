"""The base of the parts of ``CacherTests``."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import pytest

from revstore.backend import Backend
from revstore.cacher import Cacher, CacherConfig
from revstore.resource_type import ResourceType
from revstore.testing._support import PATIENCE, wait_until
from revstore.testing.backend._base import OpenBackend
from revstore.testing.cacher._feed import ControlledStorage
from revstore.testing.cacher._history import EVERYTHING, Ask, History, Selection
from revstore.testing.cacher._replay import Replay
from revstore.testing.storage._base import Pods, StorageSuite
from revstore.testing.storage._parts import Pod, pod
from revstore.values import Capability

__all__ = ["INDEXED", "SELECTIONS", "CachedPods", "CacherSuite", "OpenCache", "Scribe", "labelled"]

#: ``CachedPods`` over the test's backend; keyword arguments are fields of ``CacherConfig``.
OpenCache = Callable[..., "CachedPods"]

#: The fields that the suite's caches index.
INDEXED = ("spec.nodeName",)


def labelled(name: str, value: str) -> Callable[[Pod], bool]:
    """Return a function that says whether a Pod has the label."""
    return lambda each: each.metadata.labels.get(name) == value


def _on(node: str) -> Callable[[Pod], bool]:
    return lambda each: each.spec.node_name == node


#: Indexed and not, of labels, of fields, and of both.
SELECTIONS = (
    EVERYTHING,
    Selection(label="app=x", matches=labelled("app", "x")),
    Selection(label="app!=x", matches=lambda each: not labelled("app", "x")(each)),
    Selection(label="tier", matches=lambda each: "tier" in each.metadata.labels),
    Selection(label="!app", matches=lambda each: "app" not in each.metadata.labels),
    Selection(field="spec.nodeName=n1", matches=_on("n1")),
    Selection(field="spec.nodeName=", matches=_on("")),
    Selection(field="spec.nodeName!=n1", matches=lambda each: not _on("n1")(each)),
    Selection(
        label="app in (x,y)",
        field="spec.nodeName=n2",
        matches=lambda each: each.metadata.labels.get("app") in ("x", "y") and _on("n2")(each),
    ),
    Selection(field="metadata.name=p1", matches=lambda each: each.metadata.name == "p1"),
    Selection(field="metadata.namespace=a", matches=lambda each: each.metadata.namespace == "a"),
)


_NAMES = [f"{space}/p{number}" for space in "ab" for number in range(5)]


class CachedPods(Pods):
    """Pods that are read through a cache; ``feed`` is the storage that the cache follows."""

    def __init__(
        self, cache: Cacher[Any], feed: ControlledStorage, backend: Backend, prefix: str
    ) -> None:
        super().__init__(cache, backend, prefix)
        self.cache = cache
        self.feed = feed

    def settle(self, revision: int = 0) -> int:
        """Wait until the cache shows ``revision``, or if 0 the store's revision of now; return that
        revision."""
        wanted = revision or self.feed.current_revision()

        def there() -> bool:
            listed = self.list("none", resource_version="0", timeout=PATIENCE)
            if int(listed.resource_version) >= wanted:
                return True
            self.list("none", timeout=PATIENCE)  # requests progress, if the store has it
            return False

        wait_until(there, f"the cache shows {wanted}")
        return wanted


class Scribe:
    """A writer of Pods. Each write goes through the next of ``ways`` and is noted in ``history``,
    by default a new one.

    Only one thread may use it, and nobody else may write to the same keys.
    """

    def __init__(self, *ways: Pods, history: History | None = None) -> None:
        self._ways = ways
        self._turn = 0
        self.history = history or History(ways[0].storage.current_revision())

    @property
    def _way(self) -> Pods:
        self._turn += 1
        return self._ways[self._turn % len(self._ways)]

    def put(self, name: str, node: str = "", **labels: str) -> str:
        """Create or replace a Pod; return its version."""
        way = self._way
        new = pod(name, node, labels=labels)
        obj = way.storage.guaranteed_update(
            way.key(name), lambda _found, _meta: new, ignore_not_found=True
        )
        self.history.put(way.key(name), obj)
        return obj.metadata.resource_version

    def drop(self, name: str) -> str:
        """Delete a Pod; return the deletion's version."""
        way = self._way
        gone = way.delete(name)
        self.history.drop(way.key(name), gone)
        return gone.metadata.resource_version

    def has(self, name: str) -> bool:
        """Return whether the Pod exists."""
        return self._ways[0].key(name) in self.history.now

    def scribble(self, count: int, seed: int = 0, names: Sequence[str] = _NAMES) -> None:
        """Write ``count`` times: Pods come, go, and begin and cease to match ``SELECTIONS``."""
        chance = random.Random(seed)
        for _ in range(count):
            name = chance.choice(names)
            if self.has(name) and chance.random() < 0.25:
                self.drop(name)
                continue
            labels = {
                label: chance.choice("xy") for label in ("app", "tier") if chance.random() < 0.6
            }
            self.put(name, chance.choice(["", "n1", "n2"]), **labels)


class CacherSuite(StorageSuite):
    """Base of the parts. See ``CacherTests`` for how to use them."""

    def make_cacher(self, config: CacherConfig[Any]) -> Cacher[Any]:
        """Return the cache under test. Override it to test another one."""
        return Cacher(config)

    @pytest.fixture
    def open_cache(self, backend: Backend, resource_prefix: str) -> Iterator[OpenCache]:
        """Yield a function that opens caches, which are closed after the test."""
        with ExitStack() as stack:

            def open_cache(object_type: type[Any] = Pod, **options: Any) -> CachedPods:
                resource_type = ResourceType(object_type, resource_prefix)
                feed = ControlledStorage(self.make_storage(backend, resource_type))
                config: CacherConfig[Any] = CacherConfig(
                    storage=feed,
                    resource_type=resource_type,
                    **{"indexed_fields": INDEXED, **options},
                )
                cache = stack.enter_context(self.make_cacher(config))
                cache.wait_ready(PATIENCE)
                return CachedPods(cache, feed, backend, resource_prefix)

            yield open_cache

    @pytest.fixture
    def cached(self, open_cache: OpenCache) -> CachedPods:
        """Return the cache under test, of Pods."""
        return open_cache()

    @pytest.fixture
    def elsewhere(
        self, backend: Backend, open_backend: OpenBackend | None, resource_prefix: str
    ) -> Iterator[Pods]:
        """Yield the same Pods without the cache. They have another handle on the store if
        ``open_backend`` is given and watches see the writes of other processes."""
        with ExitStack() as stack:
            handle = backend
            if Capability.CROSS_PROCESS_WATCH in backend.capabilities and open_backend is not None:
                handle = stack.enter_context(open_backend())
            storage = self.make_storage(handle, ResourceType(Pod, resource_prefix))
            yield Pods(stack.enter_context(storage), handle, resource_prefix)

    @pytest.fixture
    def scribe(self, cached: CachedPods, elsewhere: Pods) -> Scribe:
        """Return a writer that alternates between the cache and ``elsewhere``."""
        return Scribe(cached, elsewhere)

    def replay(
        self, pods: Pods, history: History, ask: Ask, version: str, **options: Any
    ) -> Replay:
        """Return a watch to be compared with ``history``. It begins with a state if its options say
        so."""
        initial = options.get("send_initial_events")
        if initial is None:
            initial = version in ("", "0")
        minimum: int | None = None
        if initial:
            minimum = int(version or pods.storage.current_revision())
            minimum = max(minimum, history.start)
        watch = pods.storage.watch(ask.key, resource_version=version, **ask.options, **options)
        return Replay(watch, history, ask, minimum=minimum)
