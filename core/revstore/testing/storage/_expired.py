"""``StorageTests``, part: pages whose state is compacted."""

from __future__ import annotations

from typing import Any

import pytest

from revstore.backend import Backend
from revstore.continue_token import encode_continue
from revstore.errors import Expired, Unreachable
from revstore.testing.storage._base import OpenStorage, Pods, StorageSuite
from revstore.testing.storage._paging import read_token
from revstore.testing.storage._parts import SpyBackend, name_of

__all__ = ["ExpiredTokenTests"]


class ExpiredTokenTests(StorageSuite):
    """Pages whose state is compacted."""

    @pytest.fixture
    def seeded(self, pods: Pods) -> Pods:
        """Store six objects, of which every other one is on a node."""
        for number in range(6):
            pods.create(f"k{number}", f"n{number % 2}")
        return pods

    @pytest.mark.usefixtures("compactable")
    def test_expired_token(self, seeded: Pods) -> None:
        """A token of a compacted state raises Expired with a new token. The new token gives the
        rest of the latest state, and the pages after it keep to that one state (LIST-18, LISTRV-14,
        LISTRV-17, ERR-8)."""
        first = seeded.list(limit=2)
        seeded.update("k0", "new")
        seeded.delete("k3")
        seeded.create("k6")
        seeded.backend.compact(seeded.storage.current_revision())
        with pytest.raises(Expired, match="continue parameter is too old") as caught:
            seeded.list(limit=2, continue_token=first.continue_token)
        token = caught.value.continue_token
        assert read_token(token)["rv"] == -1

        second = seeded.list(limit=2, continue_token=token)
        seeded.create("k7")
        third = seeded.list(limit=2, continue_token=second.continue_token)
        assert [name_of(item) for item in (*second, *third)] == ["k2", "k4", "k5", "k6"]
        assert third.continue_token == ""
        assert second.resource_version == third.resource_version
        assert int(second.resource_version) > int(first.resource_version)

    @pytest.mark.usefixtures("compactable")
    def test_expired_between_the_reads_of_one_call(
        self,
        seeded: Pods,
        open_storage: OpenStorage,
        backend: Backend,
        reads_backend: None,
    ) -> None:
        """Compaction while a call looks for matches loses none: the new token begins where the
        client's page began. Without a client's token there is no new one (LIST-19; the original
        loses what it had collected)."""
        spy = SpyBackend(backend)
        storage = open_storage(over=spy)

        def interfere(name: str, turn: int) -> None:
            if name == "list" and turn == due:
                seeded.update("k0", "newer")
                backend.compact(seeded.storage.current_revision())

        def names(**options: Any) -> list[str]:
            listed = storage.list(
                seeded.prefix, field_selector="spec.nodeName=n1", limit=2, **options
            )
            return [name_of(item) for item in listed]

        due, spy.before = 2, interfere
        with pytest.raises(Expired) as plain:
            names()
        assert plain.value.continue_token == ""
        assert seeded.names(field_selector="spec.nodeName=n1") == ["k1", "k3", "k5"]

        token = seeded.list(limit=1).continue_token
        due = len(spy.named("list")) + 2
        with pytest.raises(Expired) as paged:
            names(continue_token=token)
        due = 0
        assert read_token(paged.value.continue_token) == {
            "v": "meta.k8s.io/v1",
            "rv": -1,
            "start": "k0\0",
        }
        assert names(continue_token=paged.value.continue_token) == ["k1", "k3"]

    @pytest.mark.usefixtures("compactable")
    def test_expired_token_at_the_compacted_revision(self, seeded: Pods) -> None:
        """A token of exactly the compacted revision still works (LIST-20)."""
        first = seeded.list(limit=2)
        seeded.delete("k3")
        seeded.backend.compact(int(first.resource_version))
        rest = seeded.list(continue_token=first.continue_token)
        assert [name_of(item) for item in rest] == ["k2", "k3", "k4", "k5"]

    @pytest.mark.usefixtures("compactable")
    def test_expired_token_that_someone_made(self, seeded: Pods) -> None:
        """A token may come from elsewhere if it has the format (LIST-17)."""
        seeded.backend.compact(seeded.storage.current_revision())
        token = encode_continue(seeded.key("k3"), seeded.key(), 1)
        with pytest.raises(Expired) as caught:
            seeded.list(continue_token=token)
        assert [
            name_of(item) for item in seeded.list(continue_token=caught.value.continue_token)
        ] == ["k3", "k4", "k5"]

    @pytest.mark.usefixtures("compactable")
    def test_broken_read_ends_the_list(
        self,
        seeded: Pods,
        open_storage: OpenStorage,
        backend: Backend,
        reads_backend: None,
    ) -> None:
        """A backend's error between two reads of a list is raised unchanged, whether or not there
        are unreadable objects (LIST-23)."""
        seeded.overwrite("k0")
        spy = SpyBackend(backend)
        storage = open_storage(over=spy)

        def interfere(name: str, turn: int) -> None:
            if name == "list" and turn == 2:
                raise Unreachable("gone")

        spy.before = interfere
        with pytest.raises(Unreachable, match="gone"):
            storage.list(seeded.prefix, limit=4)
