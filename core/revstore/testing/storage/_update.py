"""``StorageTests``, part: guaranteed update."""

from __future__ import annotations

from typing import Any

import pytest

from revstore.errors import (
    InvalidArgument,
    InvalidObject,
    KeyNotFound,
    PreconditionFailed,
)
from revstore.objects import with_metadata
from revstore.preconditions import Preconditions
from revstore.storage import EventType, ResponseMeta, UpdateFunc, WithTTL
from revstore.testing._support import run_threads
from revstore.testing.storage._base import OpenStorage, Pods, StorageSuite, elsewhere
from revstore.testing.storage._parts import MarkingTransformer, Pod, on_node, pod
from revstore.testing.watch._support import gather

__all__ = ["NodeUpdate", "Refusal", "UpdateTests"]


class Refusal(Exception):
    """The error that the update functions of these tests raise."""


class NodeUpdate:
    """An update function that notes its arguments and puts the Pod on ``node``."""

    def __init__(self, node: str, *, refuse: str | None = None) -> None:
        self.node = node
        self.refuse = refuse
        self.seen: list[Any] = []
        self.metas: list[ResponseMeta] = []

    def __call__(self, found: Pod | None, meta: ResponseMeta) -> Pod:
        self.seen.append(found)
        self.metas.append(meta)
        node = found.spec.node_name if found else ""
        if node == self.refuse:
            raise Refusal(f"is on {node!r}")
        return on_node(found or pod("a"), self.node)

    @property
    def nodes(self) -> list[str | None]:
        """Return the nodes of the objects that the function got."""
        return [each.spec.node_name if each else None for each in self.seen]


def _always(result: Any) -> UpdateFunc:
    return lambda _found, _meta: result


class UpdateTests(StorageSuite):
    """``guaranteed_update`` without a suggestion."""

    def test_update(self, pods: Pods) -> None:
        """The function gets the object and its version. The result is stored and returned at a
        higher version (GU-1)."""
        created = pods.create("a", "n1")
        update = NodeUpdate("n2")
        updated = pods.storage.guaranteed_update(pods.key("a"), update)
        version = created.metadata.resource_version

        assert update.seen == [created]
        assert update.metas == [ResponseMeta(version, expires=False)]
        assert int(updated.metadata.resource_version) > int(version)
        assert updated.spec.node_name == "n2"
        assert pods.read("a") == updated

    def test_update_missing(self, pods: Pods) -> None:
        """A missing object is KeyNotFound without a call. With ``ignore_not_found`` the function
        gets None and its result is created (GU-2, ERR-1)."""
        update = NodeUpdate("n1")
        with pytest.raises(KeyNotFound):
            pods.storage.guaranteed_update(pods.key("a"), update)
        assert update.seen == []
        made = pods.storage.guaranteed_update(pods.key("a"), update, ignore_not_found=True)
        assert (update.seen, update.metas) == ([None], [ResponseMeta("", expires=False)])
        assert pods.read("a") == made
        with pods.watch() as watch:
            assert gather(watch, 1)[0].type is EventType.ADDED

    def test_update_without_change(self, pods: Pods) -> None:
        """A result whose bytes are equal is not written: no new version and no event. The version
        within the result does not count (GU-3, WATCH-13)."""
        created = pods.create("a", "n1")
        results = [
            pods.storage.guaranteed_update(pods.key("a"), lambda found, _: found),
            pods.storage.guaranteed_update(
                pods.key("a"), lambda found, _: with_metadata(found, resource_version="99")
            ),
            pods.storage.guaranteed_update(
                pods.key("a"), lambda found, _: with_metadata(found, resource_version="")
            ),
            pods.storage.guaranteed_update(
                pods.key("a"), lambda found, _: found, ignore_not_found=True
            ),
        ]
        changed = pods.update("a", "n2")
        with pods.watch() as watch:
            events = gather(watch, 2)

        assert results == [created] * 4
        assert [event.object for event in events] == [created, changed]

    def test_update_selflink_is_not_stored(self, pods: Pods, open_storage: OpenStorage) -> None:
        """A result that differs by its selfLink only is not written (GU-3, GU-17)."""
        dicts = open_storage(dict)
        created = dicts.create(pods.key("a"), {"metadata": {"name": "a"}})
        again = dicts.guaranteed_update(
            pods.key("a"), lambda found, _: with_metadata(found, self_link="/a")
        )
        assert again == created

    def test_update_of_stale_bytes(self, pods: Pods, open_storage: OpenStorage) -> None:
        """Bytes that the transformer calls stale are rewritten, even if equal (GU-4, XF-5)."""
        transformer = MarkingTransformer()
        storage = open_storage(transformer=transformer)
        created = storage.create(pods.key("a"), pod("a"))
        transformer.stale = True
        rewritten = storage.guaranteed_update(pods.key("a"), lambda found, _: found)
        transformer.stale = False
        kept = storage.guaranteed_update(pods.key("a"), lambda found, _: found)
        versions = [int(each.metadata.resource_version) for each in (created, rewritten, kept)]
        assert versions[0] < versions[1] == versions[2]

    def test_update_of_other_bytes(self, pods: Pods) -> None:
        """Bytes that differ from the codec's own encoding are rewritten (GU-5)."""
        pods.create("a")
        canonical = pods.stored("a").value
        revision = pods.overwrite("a", canonical.replace(b":", b" : "))
        assert int(pods.read("a").metadata.resource_version) == revision
        rewritten = pods.storage.guaranteed_update(pods.key("a"), lambda found, _: found)
        assert int(rewritten.metadata.resource_version) > revision
        assert pods.stored("a").value == canonical

    def test_update_preconditions(self, pods: Pods) -> None:
        """Preconditions are checked before the function is called, and a missing object meets none
        (GU-7, ERR-3)."""
        created = pods.create("a", uid="A")
        update = NodeUpdate("n1")
        for wrong in (Preconditions(uid="B"), Preconditions(resource_version="1")):
            with pytest.raises(PreconditionFailed):
                pods.storage.guaranteed_update(pods.key("a"), update, preconditions=wrong)
            with pytest.raises(PreconditionFailed):
                pods.storage.guaranteed_update(
                    pods.key("b"), update, preconditions=wrong, ignore_not_found=True
                )
        assert update.seen == []
        right = Preconditions(uid="A", resource_version=created.metadata.resource_version)
        updated = pods.storage.guaranteed_update(pods.key("a"), update, preconditions=right)
        assert pods.read("a") == updated
        assert pods.find("b") is None

    def test_update_function_raises(self, pods: Pods) -> None:
        """On fresh data the function's error is raised after one call, and nothing changes
        (GU-8)."""
        created = pods.create("a", "n1")
        update = NodeUpdate("n2", refuse="n1")
        with pytest.raises(Refusal):
            pods.storage.guaranteed_update(pods.key("a"), update)
        assert len(update.seen) == 1
        assert pods.read("a") == created

    def test_update_conflict(self, pods: Pods) -> None:
        """If another write comes between, the function is called again on the newer object (GU-9,
        GU-16)."""
        pods.create("a", "n1")
        seen: list[Pod] = []

        def update(found: Pod, _meta: ResponseMeta) -> Pod:
            seen.append(found)
            if len(seen) < 4:
                elsewhere(lambda: pods.update("a", f"other{len(seen)}"))
            return on_node(found, found.spec.node_name + "+mine")

        updated = pods.storage.guaranteed_update(pods.key("a"), update)
        assert [each.spec.node_name for each in seen] == ["n1", "other1", "other2", "other3"]
        assert updated.spec.node_name == "other3+mine"
        assert pods.read("a") == updated

    def test_update_conflict_rechecks_preconditions(self, pods: Pods) -> None:
        """If another write breaks a precondition, the update fails (GU-7, GU-9)."""
        pods.create("a", uid="A")

        def update(found: Pod, _meta: ResponseMeta) -> Pod:
            pods.delete("a")
            pods.create("a", uid="B")
            return on_node(found, "n1")

        with pytest.raises(PreconditionFailed):
            pods.storage.guaranteed_update(
                pods.key("a"), update, preconditions=Preconditions(uid="A")
            )
        assert (pods.read("a").metadata.uid, pods.read("a").spec.node_name) == ("B", "")

    def test_update_of_what_vanishes(self, pods: Pods) -> None:
        """If the object is deleted meanwhile, KeyNotFound is raised. With ``ignore_not_found`` the
        function gets None and creates (GU-10)."""
        for ignore_not_found in (False, True):
            pods.create("a", "n1")
            seen: list[Pod | None] = []

            def update(
                found: Pod | None, _meta: ResponseMeta, seen: list[Pod | None] = seen
            ) -> Pod:
                seen.append(found)
                if found is not None:
                    pods.delete("a")
                return pod("a", f"call{len(seen)}")

            if not ignore_not_found:
                with pytest.raises(KeyNotFound):
                    pods.storage.guaranteed_update(pods.key("a"), update)
                assert len(seen) == 1
                continue
            made = pods.storage.guaranteed_update(pods.key("a"), update, ignore_not_found=True)
            assert (len(seen), seen[1]) == (2, None)
            assert made.spec.node_name == "call2"
            assert pods.read("a") == made

    def test_update_that_creates_meets_another_creator(self, pods: Pods) -> None:
        """The function is called again on the other creator's object, and overwrites nothing that
        it has not seen (GU-11)."""
        update = NodeUpdate("mine")
        calls: list[object] = []

        def racing(found: Pod | None, meta: ResponseMeta) -> Pod:
            if not calls:
                calls.append(pods.create("a", "others", uid="A"))
            return update(found, meta)

        made = pods.storage.guaranteed_update(pods.key("a"), racing, ignore_not_found=True)
        assert update.nodes == [None, "others"]
        assert (made.metadata.uid, made.spec.node_name) == ("A", "mine")

    def test_update_may_change_in_place(self, pods: Pods, open_storage: OpenStorage) -> None:
        """Each call gets an object of its own, so changes of a lost attempt leave no trace. The
        caller owns the result (GU-16)."""
        # Fields that typed objects have too: a cache of those may follow the same keys.
        dicts = open_storage(dict)
        dicts.create(pods.key("a"), {"metadata": {"name": "a", "finalizers": []}})
        other: list[object] = []

        def update(found: Any, _meta: ResponseMeta) -> Any:
            found["metadata"]["finalizers"].append("mine")
            if not other:
                other.append(dicts.guaranteed_update(pods.key("a"), add_others))
            return found

        def add_others(found: Any, _meta: ResponseMeta) -> Any:
            found["metadata"]["finalizers"].append("others")
            return found

        updated = dicts.guaranteed_update(pods.key("a"), update)
        assert updated["metadata"]["finalizers"] == ["others", "mine"]
        updated["metadata"]["finalizers"].clear()
        assert dicts.get(pods.key("a"))["metadata"]["finalizers"] == ["others", "mine"]

    def test_update_bad_results(self, pods: Pods) -> None:
        """A result without metadata, of another type or with a bad TTL is refused, and nothing is
        written (GU-17)."""
        created = pods.create("a")
        bad: list[Any] = [None, "text", {"metadata": {}}, object()]
        for result in bad:
            with pytest.raises(InvalidObject):
                pods.storage.guaranteed_update(pods.key("a"), _always(result))
        ttls: list[Any] = [-1, 1.5, True]
        for ttl in ttls:
            with pytest.raises(InvalidArgument):
                pods.storage.guaranteed_update(pods.key("a"), _always(WithTTL(created, ttl)))
        assert pods.read("a") == created

    def test_update_counter(self, pods: Pods) -> None:
        """Eight threads that increment one counter lose no increment (GU-9, GU-11)."""
        threads, turns = 8, 25

        def count_up(found: Pod | None, _meta: ResponseMeta) -> Pod:
            return on_node(
                found or pod("a"), str(int(found.spec.node_name or 0) + 1 if found else 1)
            )

        def work(_: int) -> list[int]:
            return [
                int(
                    pods.storage.guaranteed_update(
                        pods.key("a"), count_up, ignore_not_found=True
                    ).spec.node_name
                )
                for _ in range(turns)
            ]

        counted = [count for each in run_threads(threads, work) for count in each]
        assert sorted(counted) == list(range(1, threads * turns + 1))
        assert pods.read("a").spec.node_name == str(threads * turns)
