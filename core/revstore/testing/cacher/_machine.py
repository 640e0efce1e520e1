"""A Hypothesis state machine that drives a cache and its store side by side. It writes, and
disturbs the feed."""

from __future__ import annotations

import contextlib
import itertools
import logging

import attrs
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from revstore.backend import Backend
from revstore.cacher import Cacher, CacherConfig
from revstore.objects import with_metadata
from revstore.testing._support import PATIENCE
from revstore.testing.cacher._base import SELECTIONS, CachedPods, Scribe
from revstore.testing.cacher._feed import ControlledStorage
from revstore.testing.cacher._history import Ask, History, Selection
from revstore.testing.storage._base import Pods
from revstore.testing.storage._parts import PODS, Pod
from revstore.typed import TypedStorage

__all__ = ["Asked", "CacherMachineBase", "asks", "names", "numbers"]

# "a" and "ab": a prefix that is no path segment. "a/p0/x": below another object.
_NAMES = [f"{space}/p{number}" for space in ("a", "ab", "b") for number in range(2)] + ["a/p0/x"]
# The most events that one revision has: a log that is full drops whole revisions.
_WIDEST = len(_NAMES)
# More events than a log of up to 64 events ever keeps.
_BURST = 200

#: Names of objects.
names = st.sampled_from(_NAMES)
_nodes = st.sampled_from(["", "n1", "n2"])
_labels = st.dictionaries(st.sampled_from(["app", "tier"]), st.sampled_from(["x", "y"]))
#: Picks one of several things by its number.
numbers = st.integers(0, 1 << 16)


@attrs.frozen
class Asked:
    """The scope of a list or watch, below the resource prefix."""

    name: str
    recursive: bool
    selection: Selection


#: Scopes and selections of every kind.
asks = st.builds(
    Asked, st.sampled_from(["", "", "a", "ab", "none"]), st.just(True), st.sampled_from(SELECTIONS)
) | st.builds(
    Asked,
    st.sampled_from(["a/p0", "ab/p1", "a"]),
    st.just(False),
    st.sampled_from(SELECTIONS[:2]),
)


class CacherMachineBase(RuleBasedStateMachine):
    """Writes go three ways: through the cache, past it, and by a separate handle on the store. The
    feed is cut, held back, and overtaken by compaction.

    The store must belong to the machine alone.
    """

    #: Seconds that a read may wait for a feed that is held.
    brief = 0.02

    def __init__(self) -> None:
        super().__init__()
        self.stack = contextlib.ExitStack()
        self.patch = self.stack.enter_context(pytest.MonkeyPatch.context())
        # It logs each cut, thousands of times.
        self.patch.setattr(logging.getLogger("revstore.cacher"), "disabled", True)
        self.backend, other = self.open_backends()
        self.raw = self.pods_of(self.backend)
        self.other = self.pods_of(other)
        self.expiring: set[str] = set()
        self.nodes = itertools.count()
        #: How often the cache may have been rebuilt, the store's revision at the last time, and the
        #: revision that the cache was seen to show.
        self.fillings = self.floor = self.shown = 0
        self.compacted = 0
        #: Whether the feed is held back, was overtaken by compaction, and so cannot go on.
        self.held = self.overtaken = self.refills = False

    def open_backends(self) -> tuple[Backend, Backend]:
        """Return the store, and another handle on it or the same one. ``stack`` closes them."""
        raise NotImplementedError

    def expire_all(self) -> int:
        """Expire all keys that have a TTL, in one revision, and return how many there were.
        Override it for stores that can do that."""
        raise NotImplementedError

    #: Whether the store can do that.
    can_expire = False

    def pods_of(self, backend: Backend) -> Pods:
        storage = TypedStorage(backend, PODS)
        return Pods(self.stack.enter_context(storage), backend, "/pods")

    @initialize(
        capacity=st.sampled_from([1, 16, 64, None]),
        indexed=st.sampled_from([(), ("spec.nodeName",), ("metadata.namespace", "spec.nodeName")]),
        interval=st.sampled_from([60.0, 0.001]),
        seed=numbers,
        count=st.sampled_from([20, 20, 0]),
    )
    def fill(
        self,
        capacity: int | None,
        indexed: tuple[str, ...],
        interval: float,
        seed: int,
        count: int,
    ) -> None:
        """Open the cache over a store with some objects."""
        before = Scribe(self.raw, self.other)
        before.scribble(count, seed, _NAMES)
        feed = ControlledStorage(TypedStorage(self.backend, PODS))
        config: CacherConfig[Pod] = CacherConfig(
            storage=feed,
            resource_type=PODS,
            capacity=capacity,
            indexed_fields=indexed,
            bookmark_interval=interval,
        )
        cache = self.stack.enter_context(Cacher(config))
        cache.wait_ready()
        self.cached = CachedPods(cache, feed, self.backend, "/pods")
        #: How many events the cache must remember.
        self.kept = 1 << 30 if capacity is None else capacity - _WIDEST
        self.floor = self.shown = self.revision
        history = History(self.revision, before.history.now)
        self.scribe = Scribe(self.cached, self.raw, self.other, history=history)

    @property
    def history(self) -> History:
        return self.scribe.history

    @property
    def revision(self) -> int:
        return self.raw.storage.current_revision()

    def settle(self) -> None:
        """Wait until the cache shows the store's revision, if it can."""
        if not self.held:
            self.shown = self.cached.settle()

    def ask(self, asked: Asked) -> Ask:
        return Ask(self.cached.key(asked.name).rstrip("/"), asked.recursive, asked.selection)

    def version(self, number: int) -> int:
        """Return a version at which answers may differ."""
        changes = self.history.changes
        found = [self.floor, self.shown, self.compacted, self.revision]
        found += [each.revision for each in (*changes[:20], *changes[-40:])]
        return max(found[number % len(found)], self.history.start)

    def remembered(self, revision: int) -> bool:
        """Return whether the cache must have all changes after ``revision``."""
        behind = len(self.history.between(revision, self.history.last))
        return revision >= self.floor and behind <= self.kept

    # --- writes --------------------------------------------------------------------------------

    @rule(name=names, node=st.none() | _nodes, labels=_labels)
    def write(self, name: str, node: str | None, labels: dict[str, str]) -> None:
        """Make at most one change."""
        if node is not None:
            self.scribe.put(name, node, **labels)
        elif self.scribe.has(name):
            self.scribe.drop(name)
            self.expiring.discard(self.raw.key(name))

    @rule(seed=numbers, count=st.integers(2, 12))
    def scribble(self, seed: int, count: int) -> None:
        """Make many changes at once."""
        before = len(self.history.changes)
        self.scribe.scribble(count, seed, _NAMES)
        dropped = {each.key for each in self.history.changes[before:] if each.new is None}
        self.expiring -= dropped

    @precondition(lambda self: self.can_expire)
    @rule(name=names, labels=_labels)
    def create_for_a_while(self, name: str, labels: dict[str, str]) -> None:
        if not self.scribe.has(name):
            obj = self.cached.create(name, labels=labels, ttl=10)
            self.history.put(self.raw.key(name), obj)
            self.expiring.add(self.raw.key(name))

    @precondition(lambda self: self.expiring)
    @rule()
    def expire(self) -> None:
        """Delete several keys in one revision."""
        assert self.expire_all() == len(self.expiring)
        version = str(self.revision)
        for key in sorted(self.expiring):
            gone = with_metadata(self.history.now[key], resource_version=version)
            self.history.drop(key, gone)
        self.expiring.clear()

    @rule(name=names)
    def burst(self, name: str) -> None:
        """Write so much that every watch that does not read falls behind."""
        for number in range(_BURST):
            self.scribe.put(name, turn=str(number))

    @rule()
    def write_elsewhere(self) -> None:
        """Take a revision for which the cache gets no event."""
        self.backend.put(f"/registry/nodes/{next(self.nodes)}", b"x", expected_revision=0)

    # --- what happens to the feed --------------------------------------------------------------

    @rule(number=numbers)
    def compact(self, number: int) -> None:
        self.settle()
        revision = self.version(number)
        if revision > self.compacted:
            self.raw.backend.compact(revision)
            self.compacted = revision
            self.overtaken |= revision > self.shown

    @rule(broken=st.booleans())
    def cut(self, broken: bool) -> None:
        """Break the feed, on the store's side or on the cache's."""
        if broken:
            self.cached.feed.cut()
        else:
            self.cached.cache._feed.cut()  # noqa: SLF001 - nothing public breaks it
        self.refills |= self.overtaken

    @precondition(lambda self: not self.held)
    @rule()
    def hold(self) -> None:
        self.settle()
        self.held = True
        self.cached.feed.hold()

    @precondition(lambda self: self.held)
    @rule()
    def release(self) -> None:
        self.held = False
        self.cached.feed.release()
        before = self.shown
        self.settle()
        self.fillings += self.overtaken
        if self.refills:
            self.filled_anew(before)
        if self.overtaken:
            self.floor = self.revision
        self.overtaken = self.refills = False

    def filled_anew(self, before: int) -> None:
        """Note that the cache was filled again, and had shown everything up to the revision
        ``before``."""

    # --- the end -------------------------------------------------------------------------------

    def teardown(self) -> None:
        with self.stack:
            if hasattr(self, "cached"):
                self.finish()

    def finish(self) -> None:
        """Check that cache and store agree in the end."""
        if self.held:
            self.release()
        self.settle()
        for selection in SELECTIONS:
            listed = self.cached.list(timeout=PATIENCE, **selection.options)
            assert listed == self.raw.list(**selection.options)
