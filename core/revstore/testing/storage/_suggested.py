"""``StorageTests``, part: guaranteed update that begins with a cached copy."""

from __future__ import annotations

from typing import Any

import pytest

from revstore.errors import (
    KeyNotFound,
    PreconditionFailed,
)
from revstore.objects import with_metadata
from revstore.preconditions import Preconditions
from revstore.storage import ResponseMeta
from revstore.testing.storage._base import OpenStorage, Pods, StorageSuite
from revstore.testing.storage._parts import MarkingTransformer, on_node, pod
from revstore.testing.storage._update import NodeUpdate, Refusal

__all__ = ["SuggestedUpdateTests"]


class SuggestedUpdateTests(StorageSuite):
    """Updates that begin with a cached copy."""

    def test_update_suggestion(self, pods: Pods) -> None:
        """The function gets the suggestion, without knowing its expiry. The write compares the
        suggestion's version (GU-1, GU-14)."""
        created = pods.create("a", "n1")
        update = NodeUpdate("n2")
        updated = pods.storage.guaranteed_update(pods.key("a"), update, suggestion=created)
        assert update.seen == [created]
        assert update.metas[0].resource_version == created.metadata.resource_version
        assert not update.metas[0].expires
        assert pods.read("a") == updated

    def test_update_stale_suggestion(self, pods: Pods) -> None:
        """A stale suggestion costs a second call, on the newer object, and loses nothing (GU-9)."""
        stale = pods.create("a", "n1", labels={"x": "y"})
        pods.storage.guaranteed_update(
            pods.key("a"), lambda found, _: with_metadata(found, labels={"x": "z"})
        )
        update = NodeUpdate("n2")
        updated = pods.storage.guaranteed_update(pods.key("a"), update, suggestion=stale)
        assert updated.metadata.labels == {"x": "z"}
        assert updated.spec.node_name == "n2"
        assert len(update.seen) <= 2

    def test_update_suggestion_of_what_is_gone(self, pods: Pods) -> None:
        """A suggestion of an object that is gone raises KeyNotFound, or with ``ignore_not_found``
        the function gets None and creates (GU-2, GU-10)."""
        gone = pods.create("a", "n1")
        pods.delete("a")
        update = NodeUpdate("n2")
        with pytest.raises(KeyNotFound):
            pods.storage.guaranteed_update(pods.key("a"), update, suggestion=gone)
        assert pods.find("a") is None
        made = pods.storage.guaranteed_update(
            pods.key("a"), update, suggestion=gone, ignore_not_found=True
        )
        assert update.seen[-1] is None
        assert pods.read("a") == made

    def test_update_suggestion_without_version(self, pods: Pods) -> None:
        """A suggestion without a version counts as none and creates nothing (GU-18, which
        differs)."""
        created = pods.create("a", "n1")
        for version in ("", "0"):
            bare = on_node(with_metadata(created, resource_version=version), "never seen")
            update = NodeUpdate("n2")
            with pytest.raises(KeyNotFound):
                pods.storage.guaranteed_update(pods.key("b"), update, suggestion=bare)
            pods.storage.guaranteed_update(pods.key("a"), update, suggestion=bare)
            assert "never seen" not in update.nodes
        assert pods.find("b") is None

    def test_update_no_change_to_a_stale_suggestion(self, pods: Pods) -> None:
        """If a result equals the suggestion, a read of bytes and staleness decides whether it is
        written (GU-6)."""
        stale = pods.create("a", "n1")
        pods.update("a", "n2")
        again = pods.storage.guaranteed_update(
            pods.key("a"), lambda found, _: on_node(found, "n1"), suggestion=stale
        )
        assert int(again.metadata.resource_version) > int(stale.metadata.resource_version)
        assert pods.read("a") == again
        assert again.spec.node_name == "n1"

    def test_update_no_change_to_a_fresh_suggestion(
        self, pods: Pods, open_storage: OpenStorage
    ) -> None:
        """A fresh suggestion hides neither stale bytes nor bytes of another encoding (GU-4, GU-5,
        GU-6)."""
        transformer = MarkingTransformer()
        storage = open_storage(transformer=transformer)
        created = storage.create(pods.key("a"), pod("a"))
        same = storage.guaranteed_update(pods.key("a"), lambda found, _: found, suggestion=created)
        assert same == created
        transformer.stale = True
        rewritten = storage.guaranteed_update(
            pods.key("a"), lambda found, _: found, suggestion=created
        )
        assert int(rewritten.metadata.resource_version) > int(created.metadata.resource_version)

        pods.create("b")
        canonical = pods.stored("b").value
        odd = pods.overwrite("b", canonical + b" ")
        written = pods.storage.guaranteed_update(
            pods.key("b"), lambda found, _: found, suggestion=pods.read("b")
        )
        assert int(written.metadata.resource_version) > odd
        assert pods.stored("b").value == canonical

    def test_update_precondition_fails_on_a_suggestion(self, pods: Pods) -> None:
        """A precondition that fails on a suggestion is checked on fresh data before it is reported
        (GU-7)."""
        stale = pods.create("a", "n1", uid="A")
        newer = pods.update("a", "n2")
        update = NodeUpdate("n3")
        right = Preconditions(resource_version=newer.metadata.resource_version)
        updated = pods.storage.guaranteed_update(
            pods.key("a"), update, preconditions=right, suggestion=stale
        )
        assert update.seen == [newer]
        with pytest.raises(PreconditionFailed):
            pods.storage.guaranteed_update(
                pods.key("a"), update, preconditions=right, suggestion=updated
            )
        with pytest.raises(PreconditionFailed):  # right for the suggestion, wrong for the object
            pods.storage.guaranteed_update(
                pods.key("a"), update, preconditions=right, suggestion=newer
            )
        assert pods.read("a") == updated
        wrong = with_metadata(updated, uid="B")  # but of the right version
        again = pods.storage.guaranteed_update(
            pods.key("a"), NodeUpdate("n4"), preconditions=Preconditions(uid="A"), suggestion=wrong
        )
        assert (again.metadata.uid, again.spec.node_name) == ("A", "n4")

    def test_update_function_raises_on_a_suggestion(self, pods: Pods) -> None:
        """On a current suggestion the function's error is raised. On a stale one the function is
        called once more, so twice at most (GU-8)."""
        stale = pods.create("a", "n1")
        update = NodeUpdate("n2", refuse="n1")
        with pytest.raises(Refusal):
            pods.storage.guaranteed_update(pods.key("a"), update, suggestion=stale)
        assert update.seen == [stale]

        newer = pods.update("a", "n5")
        update = NodeUpdate("n2", refuse="n1")
        pods.storage.guaranteed_update(pods.key("a"), update, suggestion=stale)
        assert update.seen in ([stale, newer], [newer])
        update = NodeUpdate("n3", refuse="n2")
        with pytest.raises(Refusal):
            pods.storage.guaranteed_update(pods.key("a"), update, suggestion=stale)
        assert len(update.seen) <= 2
        assert pods.read("a").spec.node_name == "n2"

    def test_update_leaves_the_suggestion_alone(
        self, pods: Pods, open_storage: OpenStorage
    ) -> None:
        """A function that changes its argument in place does not change the caller's suggestion
        (GU-16, which differs)."""
        dicts = open_storage(dict)
        suggestion = dicts.create(pods.key("a"), {"metadata": {"name": "a"}, "spec": {"list": []}})
        before = repr(suggestion)

        def update(found: Any, _meta: ResponseMeta) -> Any:
            found["spec"]["list"].append("mine")
            return found

        updated = dicts.guaranteed_update(pods.key("a"), update, suggestion=suggestion)
        assert repr(suggestion) == before
        assert updated["spec"]["list"] == ["mine"]
