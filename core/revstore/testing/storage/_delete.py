"""``StorageTests``, part: delete with conditions and suggestions."""

from __future__ import annotations

from typing import Any

import pytest

from revstore.backend import Backend
from revstore.errors import InvalidObject, KeyNotFound, PreconditionFailed
from revstore.objects import with_metadata
from revstore.preconditions import Preconditions
from revstore.testing._support import run_threads
from revstore.testing.storage._base import OpenStorage, Pods, StorageSuite, elsewhere
from revstore.testing.storage._parts import Pod, SpyBackend

__all__ = ["DeleteTests"]


class _Refusal(Exception):
    """The error that the validators of these tests raise."""


class _Validator:
    """A validator that notes its arguments and refuses objects that are not on ``node``."""

    def __init__(self, node: str | None = None) -> None:
        self.node = node
        self.seen: list[Pod] = []

    def __call__(self, obj: Pod) -> None:
        self.seen.append(obj)
        if self.node is not None and obj.spec.node_name != self.node:
            raise _Refusal(f"is on {obj.spec.node_name!r}")


class DeleteTests(StorageSuite):
    """Delete."""

    def test_delete(self, pods: Pods) -> None:
        """A deletion returns the last content at its own version; then the object is gone (DEL-1,
        ERR-1, OLD-8)."""
        created = pods.create("a", "n1")
        other = pods.create("b")
        deleted = pods.delete("a")

        assert int(deleted.metadata.resource_version) > int(other.metadata.resource_version)
        assert with_metadata(deleted, resource_version="") == with_metadata(
            created, resource_version=""
        )
        assert pods.find("a") is None
        assert pods.list().items == (other,)
        with pytest.raises(KeyNotFound):
            pods.delete("a")

    def test_delete_preconditions(self, pods: Pods) -> None:
        """An object whose uid or version differs from the precondition is kept; None is not checked
        (DEL-3, ERR-3)."""
        created = pods.create("a", uid="A")
        version = created.metadata.resource_version
        for wrong in (
            Preconditions(uid="B"),
            Preconditions(uid=""),
            Preconditions(resource_version="1"),
            Preconditions(resource_version="0" + version),
            Preconditions(uid="A", resource_version="1"),
            Preconditions(uid="B", resource_version=version),
        ):
            with pytest.raises(PreconditionFailed) as caught:
                pods.storage.delete(pods.key("a"), preconditions=wrong)
            assert caught.value.key == pods.key("a")
            assert pods.read("a") == created
        both = Preconditions(uid="A", resource_version=version)
        for right in (both, None, Preconditions(), Preconditions(uid="A")):
            pods.storage.delete(pods.key("a"), preconditions=right)
            pods.create("a", uid="A")
        with pytest.raises(KeyNotFound):
            pods.storage.delete(pods.key("b"), preconditions=Preconditions(uid="A"))

    def test_delete_preconditions_without_metadata(
        self, pods: Pods, open_storage: OpenStorage
    ) -> None:
        """An object without metadata to compare is kept (DEL-3, ERR-6)."""
        pods.overwrite("a", b'{"x": 1}')
        dicts = open_storage(dict)
        with pytest.raises(InvalidObject):
            dicts.delete(pods.key("a"), preconditions=Preconditions(uid="A"))
        assert pods.stored("a").value == b'{"x": 1}'

    def test_delete_validator(self, pods: Pods) -> None:
        """The validator sees the object once. Its error is raised unchanged, and the object is kept
        (DEL-4, DEL-2)."""
        created = pods.create("a", "n1")
        refuse, accept = _Validator("n2"), _Validator("n1")
        with pytest.raises(_Refusal, match="is on 'n1'"):
            pods.storage.delete(pods.key("a"), validate=refuse)
        assert pods.read("a") == created
        pods.storage.delete(pods.key("a"), validate=accept)
        assert (refuse.seen, accept.seen) == ([created], [created])
        with pytest.raises(KeyNotFound):
            pods.storage.delete(pods.key("a"), validate=refuse)
        assert len(refuse.seen) == 1

    def test_delete_validator_runs_after_preconditions(self, pods: Pods) -> None:
        """If a precondition fails, the validator is not called (DEL-2)."""
        pods.create("a")
        validator = _Validator()
        with pytest.raises(PreconditionFailed):
            pods.storage.delete(
                pods.key("a"), preconditions=Preconditions(uid="B"), validate=validator
            )
        assert validator.seen == []

    def test_delete_conflict(self, pods: Pods) -> None:
        """If an update comes between validation and deletion, both checks run again on the newer
        object, which is then deleted and returned (DEL-2, DEL-5)."""
        created = pods.create("a", "n1", uid="A")
        seen: list[Pod] = []

        def validate(obj: Pod) -> None:
            seen.append(obj)
            if len(seen) == 1:
                elsewhere(lambda: pods.update("a", "n2"))

        deleted = pods.storage.delete(
            pods.key("a"), preconditions=Preconditions(uid="A"), validate=validate
        )
        assert [obj.spec.node_name for obj in seen] == ["n1", "n2"]
        assert seen[0] == created
        assert deleted.spec.node_name == "n2"
        assert int(deleted.metadata.resource_version) > int(seen[1].metadata.resource_version)
        assert pods.find("a") is None

    def test_delete_conflict_with_a_deletion(self, pods: Pods) -> None:
        """If the object is deleted between validation and deletion, KeyNotFound is raised; if it is
        created again, the new object is checked (DEL-2, DEL-5)."""
        for recreate in (False, True):
            pods.create("a", uid="A")

            def validate(_: Pod, recreate: bool = recreate) -> None:
                if pods.read("a").metadata.uid == "A":
                    pods.delete("a")
                    if recreate:
                        pods.create("a", uid="B")

            with pytest.raises(PreconditionFailed if recreate else KeyNotFound):
                pods.storage.delete(
                    pods.key("a"), preconditions=Preconditions(uid="A"), validate=validate
                )
        assert pods.read("a").metadata.uid == "B"

    def test_delete_race(self, pods: Pods) -> None:
        """Of several concurrent deletions exactly one returns the object (DEL-2)."""
        pods.create("a")

        def work(_: int) -> Pod | None:
            try:
                return pods.delete("a")
            except KeyNotFound:
                return None

        assert len([each for each in run_threads(8, work) if each is not None]) == 1

    # Suggestions

    def test_delete_suggestion_saves_a_read(
        self, pods: Pods, open_storage: OpenStorage, backend: Backend, reads_backend: None
    ) -> None:
        """With a fresh suggestion the deletion reads nothing first (DEL-6, OLD-11)."""
        spy = SpyBackend(backend)
        storage = open_storage(over=spy)
        created = pods.create("a", uid="A")
        validator = _Validator()
        deleted = storage.delete(
            pods.key("a"),
            suggestion=created,
            preconditions=Preconditions(uid="A"),
            validate=validator,
        )
        assert spy.named("get") == ()
        assert deleted.metadata.uid == "A"
        assert int(deleted.metadata.resource_version) > int(created.metadata.resource_version)
        assert validator.seen == [created]
        assert pods.find("a") is None

    def test_delete_stale_suggestion(self, pods: Pods) -> None:
        """A stale suggestion still deletes, and the newer content is returned (DEL-6)."""
        stale = pods.create("a", "n1")
        pods.update("a", "n2")
        deleted = pods.storage.delete(pods.key("a"), suggestion=stale)
        assert deleted.spec.node_name == "n2"
        assert pods.find("a") is None

    def test_delete_suggestion_of_what_is_gone(self, pods: Pods) -> None:
        """A suggestion of an object that is gone raises KeyNotFound; if the object was created
        again, the new one is deleted (DEL-6)."""
        gone = pods.create("a", "n1")
        pods.delete("a")
        with pytest.raises(KeyNotFound):
            pods.storage.delete(pods.key("a"), suggestion=gone)
        pods.create("a", "n2")
        assert pods.storage.delete(pods.key("a"), suggestion=gone).spec.node_name == "n2"

    def test_delete_suggestion_without_version(self, pods: Pods) -> None:
        """A suggestion without a version counts as none: a missing object is not reported as
        deleted (DEL-10, which differs)."""
        created = pods.create("a", "n1")
        for version in ("", "0"):
            bare = with_metadata(created, resource_version=version)
            with pytest.raises(KeyNotFound):
                pods.storage.delete(pods.key("b"), suggestion=bare)
            assert pods.storage.delete(pods.key("a"), suggestion=bare).spec.node_name == "n1"
            pods.create("a", "n1")

    def test_delete_checks_fail_on_a_fresh_suggestion(self, pods: Pods) -> None:
        """One read confirms that the suggestion is current. Then the error is raised, and the check
        does not run again (DEL-7)."""
        created = pods.create("a", "n1")
        validator = _Validator("n2")
        with pytest.raises(_Refusal):
            pods.storage.delete(pods.key("a"), suggestion=created, validate=validator)
        with pytest.raises(PreconditionFailed):
            pods.storage.delete(
                pods.key("a"), suggestion=created, preconditions=Preconditions(uid="B")
            )
        assert validator.seen == [created]
        assert pods.read("a") == created

    def test_delete_checks_fail_on_a_stale_suggestion(self, pods: Pods) -> None:
        """The checks run once more, on the newer object, and may pass (DEL-7)."""
        stale = pods.create("a", "n1", uid="A")
        updated = pods.update("a", "n2")
        version = updated.metadata.resource_version
        never, accept = _Validator("n3"), _Validator("n2")
        with pytest.raises(_Refusal, match="'n2'"):
            pods.storage.delete(pods.key("a"), suggestion=stale, validate=never)
        assert never.seen == [stale, updated]
        deleted = pods.storage.delete(
            pods.key("a"),
            suggestion=stale,
            preconditions=Preconditions(uid="A", resource_version=version),
            validate=accept,
        )
        assert accept.seen == [updated]
        assert deleted.spec.node_name == "n2"

    def test_delete_checks_pass_on_a_stale_suggestion_only(self, pods: Pods) -> None:
        """Checks that pass only on a stale suggestion delete nothing (DEL-8)."""
        stale = pods.create("a", "n1", uid="A")
        updated = pods.update("a", "n2")
        validator = _Validator("n1")
        with pytest.raises(_Refusal, match="'n2'"):
            pods.storage.delete(pods.key("a"), suggestion=stale, validate=validator)
        assert validator.seen == [stale, updated]
        conditions = Preconditions(resource_version=stale.metadata.resource_version)
        with pytest.raises(PreconditionFailed):
            pods.storage.delete(pods.key("a"), suggestion=stale, preconditions=conditions)
        assert pods.read("a") == updated

    def test_delete_leaves_the_suggestion_alone(
        self, pods: Pods, open_storage: OpenStorage
    ) -> None:
        """The caller's suggestion is left unchanged and is not the object that is returned
        (DEL-9)."""
        dicts = open_storage(dict)
        given: dict[str, Any] = {"metadata": {"name": "a", "labels": {"x": "y"}}}
        suggestion = dicts.create(pods.key("a"), given)
        before = repr(suggestion)

        def validate(obj: Any) -> None:
            obj["metadata"]["labels"].clear()

        deleted = dicts.delete(pods.key("a"), suggestion=suggestion, validate=validate)
        assert repr(suggestion) == before
        assert deleted["metadata"]["labels"] == {"x": "y"}
        assert deleted["metadata"]["resourceVersion"] != suggestion["metadata"]["resourceVersion"]
