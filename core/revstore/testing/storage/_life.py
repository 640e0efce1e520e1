"""``StorageTests``, part: expiry, counts, readiness, close."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from revstore.backend import Backend
from revstore.errors import (
    Closed,
    KeyNotFound,
    NotReady,
    OutcomeUnknown,
    Timeout,
    Unreachable,
    Unsupported,
)
from revstore.storage import EventType, ResponseMeta, Stats, WithTTL
from revstore.testing._support import wait_until
from revstore.testing.backend._base import OpenBackend
from revstore.testing.storage._base import OpenStorage, Pods, StorageSuite, elsewhere
from revstore.testing.storage._parts import (
    ForwardingBackend,
    Pod,
    SpyBackend,
    name_of,
    on_node,
    pod,
)
from revstore.testing.watch._support import gather
from revstore.values import BackendStatus, Capability

__all__ = ["ExpiryTests", "LifeTests", "StatsTests"]


class ExpiryTests(StorageSuite):
    """Objects that the store deletes when their time is over. The tests check that none goes too
    early; for a deletion that is due they wait patiently."""

    @pytest.mark.usefixtures("ttl")
    def test_expiry(self, pods: Pods) -> None:
        """An object is deleted after its time, and watches see a deletion with the last content.
        Objects without a TTL stay, and the key is free again (TTL-1, CREATE-5)."""
        with pods.watch() as watch:
            began = time.monotonic()
            stays = pods.create("b")
            created = pods.create("a", "n1", ttl=1)
            assert pods.read("a") == created
            events = gather(watch, 3)
            took = time.monotonic() - began
        (deleted,) = (event for event in events if event.type is EventType.DELETED)
        assert took >= 0.95
        assert deleted is events[-1]
        assert (deleted.object.metadata.name, deleted.object.spec.node_name) == ("a", "n1")
        assert int(deleted.resource_version) > int(created.metadata.resource_version)
        assert pods.find("a") is None
        assert pods.list().items == (stays,)
        with pytest.raises(KeyNotFound):
            pods.delete("a")
        pods.create("a", "n2")

    @pytest.mark.usefixtures("ttl")
    def test_expiry_and_updates(self, pods: Pods) -> None:
        """An update without a TTL keeps the expiry, 0 removes it, n restarts it. The function gets
        whether there is an expiry (GU-12, GU-14, OLD-12)."""
        told: dict[str, bool | None] = {}

        def update(name: str, ttl: int | None) -> None:
            def change(found: Pod, meta: ResponseMeta) -> Any:
                told[name] = meta.expires
                changed = on_node(found, "n2")
                return changed if ttl is None else WithTTL(changed, ttl)

            pods.storage.guaranteed_update(pods.key(name), change)

        for name in ("kept", "removed", "restarted"):
            pods.create(name, ttl=2)
        pods.create("given")
        pods.create("plain")
        began = time.monotonic()
        for name, ttl in (
            ("kept", None),
            ("removed", 0),
            ("restarted", 3),
            ("given", 1),
            ("plain", None),
        ):
            update(name, ttl)
        for name in ("given", "kept", "restarted"):
            wait_until(lambda name=name: pods.find(name) is None, f"{name} expires")  # type: ignore[misc]
        took = time.monotonic() - began

        expected = {"kept": True, "removed": True, "restarted": True}
        assert told == {**expected, "given": False, "plain": False}
        assert took >= 2.95
        assert pods.names() == ["plain", "removed"]

    @pytest.mark.usefixtures("ttl")
    def test_expiry_alone_is_a_write(self, pods: Pods) -> None:
        """A new TTL is written although the bytes are equal; the removal of an expiry that does not
        exist is not. A suggestion changes neither (GU-13, OLD-13)."""
        created = pods.create("a")
        same = pods.storage.guaranteed_update(pods.key("a"), lambda found, _: WithTTL(found, 0))
        assert same == created
        for suggestion in (None, created):
            given = pods.storage.guaranteed_update(
                pods.key("a"), lambda found, _: WithTTL(found, 600), suggestion=suggestion
            )
            assert pods.stored("a").lease != 0
            removed = pods.storage.guaranteed_update(
                pods.key("a"), lambda found, _: WithTTL(found, 0), suggestion=given
            )
            assert pods.stored("a").lease == 0
            versions = [int(each.metadata.resource_version) for each in (created, given, removed)]
            assert versions == sorted(set(versions))
            created = removed

    @pytest.mark.usefixtures("ttl")
    def test_expiry_of_what_an_update_creates(self, pods: Pods) -> None:
        """``WithTTL`` also works for an update that creates (GU-2, GU-12)."""
        made = pods.storage.guaranteed_update(
            pods.key("a"), lambda _found, _meta: WithTTL(pod("a"), 1), ignore_not_found=True
        )
        assert pods.stored("a").lease != 0
        with pods.watch(resource_version=made.metadata.resource_version) as watch:
            (gone,) = gather(watch, 1)
        assert gone.type is EventType.DELETED

    @pytest.mark.usefixtures("ttl")
    def test_expiry_of_many(self, pods: Pods) -> None:
        """Objects that expire together are deleted once each, whether or not they share revisions
        (TTL-6)."""
        names = {f"k{number}" for number in range(12)}
        with pods.watch() as watch:
            for name in names:
                pods.create(name, ttl=1)
            events = gather(watch, 24)
        gone = [name_of(event.object) for event in events if event.type is EventType.DELETED]
        assert sorted(gone) == sorted(names)
        assert pods.list().items == ()


class StatsTests(StorageSuite):
    """Numbers and sizes of objects."""

    def test_stats(self, pods: Pods, open_storage: OpenStorage) -> None:
        """The count is that of the keys below the resource prefix and a slash. The size is the mean
        of the stored values, or 0 without objects. Failed deletions change neither (STAT-1)."""
        neighbour = open_storage(resource_prefix=pods.prefix + "key")
        neighbour.create(pods.prefix + "key/a", pod("a"))
        assert pods.storage.stats() == Stats(0, 0)
        pods.create("a")
        pods.create("ns/b", "a rather long name of a node")
        sizes = [len(pods.stored(name).value) for name in ("a", "ns/b")]
        assert pods.storage.stats() == Stats(2, sum(sizes) // 2)
        with pytest.raises(KeyNotFound):
            pods.delete("c")
        pods.delete("a")
        assert pods.storage.stats() == Stats(1, sizes[1])
        neighbour.delete(pods.prefix + "key/a")

    def test_count(self, backend: Backend, pods: Pods) -> None:
        """``count`` counts the keys below the key and a slash (STAT-1, KEY-5)."""
        for name in ("a/b", "a/c/d", "ab", "b"):
            pods.create(name)
        more = len(self.storable(backend, ("a/b", "a"))) - 1
        if more:
            pods.create("a")
        counts = {name: pods.storage.count(pods.key(name)) for name in ("", "a", "a/", "ab", "x")}
        assert counts == {"": 4 + more, "a": 2, "a/": 2, "ab": 0, "x": 0}
        assert pods.storage.count(pods.prefix) == 4 + more


class LifeTests(StorageSuite):
    """Readiness, closing, deadlines, and other storages on the same backend."""

    def test_ready(self, open_storage: OpenStorage, backend: Backend) -> None:
        """The storage is ready while the backend answers; otherwise ``ready`` raises NotReady with
        the cause (ERR-2)."""

        class Unplugged(ForwardingBackend):
            plugged = True

            def status(self, **options: Any) -> BackendStatus:
                if not self.plugged:
                    raise Unreachable("nobody there")
                return super().status(**options)

        unplugged = Unplugged(backend)
        storage = open_storage(over=unplugged)
        for plugged in (True, False, True):
            unplugged.plugged = plugged
            if plugged:
                storage.ready()
                storage.ready(timeout=5)
                assert storage.compact_revision() >= 0
                continue
            with pytest.raises(NotReady, match="nobody there") as caught:
                storage.ready()
            assert caught.value.retry_after > 0
            assert isinstance(caught.value.__cause__, Unreachable)

    def test_backend_closed_under_it(self, pods: Pods, backend: Backend) -> None:
        """If the backend is closed, every call raises Closed and none hangs (BASE-1)."""
        pods.create("a")
        backend.close()
        calls: list[Callable[[], object]] = [
            lambda: pods.update("a", "n"),
            lambda: pods.create("b"),
            pods.storage.current_revision,
        ]
        for call in calls:
            with pytest.raises(Closed):
                call()

    def test_close_ends_its_own_watches_only(self, pods: Pods, open_storage: OpenStorage) -> None:
        """Watches of another storage on the same backend go on (WATCH-25)."""
        other = Pods(open_storage(), pods.backend, pods.prefix)
        mine, others = pods.watch(), other.watch()
        pods.create("a")
        pods.storage.close()
        with pytest.raises(Closed):
            mine.poll(0)
        assert [name_of(event.object) for event in gather(others, 1)] == ["a"]
        assert other.update("a", "n1") == other.read("a")

    def test_deadline(self, pods: Pods) -> None:
        """``timeout`` bounds the whole call, loops included (GU-9)."""
        pods.create("a", "n1")

        def update(found: Pod, _meta: ResponseMeta) -> Pod:
            pods.update("a", found.spec.node_name + "x")
            return on_node(found, "never")

        began = time.monotonic()
        with pytest.raises(Timeout):
            pods.storage.guaranteed_update(pods.key("a"), update, timeout=0.2)
        assert time.monotonic() - began < 10
        assert "never" not in pods.read("a").spec.node_name

    def test_deadline_is_passed_on(
        self, pods: Pods, open_storage: OpenStorage, backend: Backend, reads_backend: None
    ) -> None:
        """Each request of a call gets what is left of the call's time; None stays None
        (LIST-12)."""
        spy = SpyBackend(backend)
        seen = Pods(open_storage(over=spy), backend, pods.prefix)
        for timeout in (5.0, None):
            spy.calls.clear()
            seen.storage.create(seen.key("a"), pod("a"), timeout=timeout)
            seen.storage.get(seen.key("a"), timeout=timeout)
            seen.storage.list(seen.prefix, timeout=timeout)
            seen.storage.guaranteed_update(
                seen.key("a"), lambda found, _: on_node(found, "n"), timeout=timeout
            )
            seen.storage.delete(seen.key("a"), timeout=timeout)
            given = [options["timeout"] for _, options in spy.calls]
            assert len(given) >= 5
            if timeout is None:
                assert set(given) == {None}
            else:
                assert all(0 < each <= timeout for each in given)

    def test_unknown_outcome(self, pods: Pods, open_storage: OpenStorage, backend: Backend) -> None:
        """A write with an unknown outcome is not repeated, and no read guesses the outcome
        (GU-9)."""
        spy = SpyBackend(backend)
        storage = open_storage(over=spy)
        created = pods.create("a", "n1")

        def interfere(name: str, turn: int) -> None:
            if name in ("put", "delete"):
                raise OutcomeUnknown(pods.physical("a"), 1)

        spy.before = interfere
        calls: list[Callable[[], object]] = [
            lambda: storage.create(pods.key("b"), pod("b")),
            lambda: storage.delete(pods.key("a")),
            lambda: storage.guaranteed_update(pods.key("a"), lambda found, _: on_node(found, "n2")),
        ]
        for number, call in enumerate(calls, 1):
            with pytest.raises(OutcomeUnknown):
                call()
            assert len(spy.named("put")) + len(spy.named("delete")) == number
        assert pods.list().items == (created,)

    def test_functions_may_use_the_storage(self, pods: Pods) -> None:
        """No lock is held while a validator or update function runs: both write to the storage,
        from their own thread and from another (GU-1, DEL-4)."""
        pods.create("a")
        pods.create("log", "")

        def note(what: str) -> None:
            pods.update("log", pods.read("log").spec.node_name + what)
            elsewhere(lambda: pods.update("log", pods.read("log").spec.node_name + what))

        def update(found: Pod, _meta: ResponseMeta) -> Pod:
            note("u")
            return on_node(found, "n1")

        pods.storage.guaranteed_update(pods.key("a"), update)
        pods.storage.delete(pods.key("a"), validate=lambda _: note("v"))
        assert pods.read("log").spec.node_name == "uuvv"

    def test_second_handle(
        self,
        pods: Pods,
        open_backend: OpenBackend | None,
        open_storage: OpenStorage,
    ) -> None:
        """A storage on another handle of the store sees the same objects, and its watch sees the
        writes of the first storage (BASE-1, WATCH-2)."""
        if open_backend is None:
            pytest.skip("the store has one handle")
        with open_backend() as second:
            other = Pods(open_storage(over=second), second, pods.prefix)
            created = pods.create("a", "n1")
            assert other.read("a") == created
            updated = other.update("a", "n2")
            assert pods.read("a") == updated
            if self.claims(second, Capability.CROSS_PROCESS_WATCH):
                with other.watch(resource_version=str(pods.start)) as watch:
                    deleted = pods.delete("a")
                    objects = [event.object for event in gather(watch, 3)]
                assert objects == [created, updated, deleted]

    def test_request_progress(self, pods: Pods, backend: Backend) -> None:
        """The progress reaches the watches; a backend without progress raises Unsupported
        (WATCH-20)."""
        with pods.watch("quiet") as watch:
            if not self.claims(backend, Capability.PROGRESS):
                with pytest.raises(Unsupported):
                    pods.storage.request_progress()
                watch.close()
                with pytest.raises(Unsupported):
                    pods.storage.request_progress()
                return
            written = int(pods.create("a").metadata.resource_version)

            def reached() -> bool:
                pods.storage.request_progress()
                watch.poll(0.05)
                return int(watch.resource_version) >= written

            wait_until(reached, "the watch has passed the write")
