"""``StorageTests``, part: create and get."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest

from revstore.backend import Backend
from revstore.codec import json_codec
from revstore.errors import (
    Closed,
    InternalError,
    InvalidArgument,
    InvalidKey,
    InvalidObject,
    InvalidResourceVersion,
    KeyExists,
    KeyNotFound,
    ResourceVersionSet,
    TooLargeResourceVersion,
    Unsupported,
)
from revstore.objects import ObjectMeta, with_metadata
from revstore.storage import WithTTL
from revstore.testing._support import run_threads
from revstore.testing.storage._base import FAR, OpenStorage, Pods, StorageSuite
from revstore.testing.storage._parts import MarkingTransformer, Pod, pod
from revstore.values import Capability

__all__ = ["CreateTests", "GetTests"]


_BAD_VERSIONS = ["a", " ", "-1", "+1", "1.0", "1_0", " 1", "٣", str(2**64), "9" * 100]


class CreateTests(StorageSuite):
    """Create."""

    def test_create(self, pods: Pods) -> None:
        """``create`` and ``get`` return the stored object with the write's version (CREATE-1)."""
        created = pods.create("ns/a", "n1", labels={"app": "x"})

        assert int(created.metadata.resource_version) > pods.start
        assert with_metadata(created, resource_version="") == pod("ns/a", "n1", labels={"app": "x"})
        assert pods.read("ns/a") == created
        assert str(pods.stored("ns/a").revision) == created.metadata.resource_version

    def test_create_with_a_version(self, pods: Pods, open_storage: OpenStorage) -> None:
        """An object with a version other than "" and "0" is refused; a version that is no number is
        cleared (CREATE-2, ERR-9)."""
        with pytest.raises(ResourceVersionSet, match="should not be set") as caught:
            pods.create("a", resource_version="5")
        assert caught.value.key == pods.key("a")
        assert pods.find("a") is None
        dicts = open_storage(dict)
        for number, version in enumerate(("", "0", "junk")):
            name = f"ok{number}"
            made = dicts.create(
                pods.key(name), {"metadata": {"name": name, "resourceVersion": version}}
            )
            assert made["metadata"]["resourceVersion"] == str(pods.stored(name).revision)

    def test_create_where_something_is(self, pods: Pods) -> None:
        """A taken key is KeyExists, even for an equal object, and the stored object is kept
        (CREATE-3, ERR-1)."""
        created = pods.create("a", "n1")
        for node in ("n1", "n2"):
            with pytest.raises(KeyExists):
                pods.create("a", node)
        assert pods.read("a") == created

    def test_create_race(self, pods: Pods) -> None:
        """Of several concurrent creations exactly one succeeds (CREATE-3)."""

        def work(index: int) -> Pod | None:
            try:
                return pods.create("a", f"n{index}")
            except KeyExists:
                return None

        made = [each for each in run_threads(8, work) if each is not None]
        assert made == [pods.read("a")]

    def test_create_leaves_the_callers_object_alone(
        self, pods: Pods, open_storage: OpenStorage
    ) -> None:
        """The caller's object is left unchanged and is not shared with the store (CREATE-4, where
        the original blanks the version)."""
        dicts = open_storage(dict)
        metadata = {"name": "a", "resourceVersion": "0", "selfLink": "/a", "labels": {"x": "y"}}
        given = {"metadata": metadata}
        created = dicts.create(pods.key("a"), given)
        assert given == {"metadata": metadata}
        assert metadata["resourceVersion"] == "0"

        given["metadata"]["labels"] = {}
        created["metadata"]["labels"]["x"] = "changed"
        dicts.get(pods.key("a"))["metadata"]["labels"].clear()
        assert dicts.get(pods.key("a"))["metadata"]["labels"] == {"x": "y"}

    def test_create_keeps_unknown_fields(self, pods: Pods, open_storage: OpenStorage) -> None:
        """A dict comes back unchanged, except for the version (CREATE-1)."""
        dicts = open_storage(dict)
        given = {
            "apiVersion": "v1",
            "metadata": {"name": "a", "managedFields": [{"x": 1}], "annotations": {"é": "😀"}},
            "spec": {"deep": [[{}], None, True, 1.5, "", {"": []}]},
        }
        created = dicts.create(pods.key("a"), given)
        version = created["metadata"].pop("resourceVersion")
        assert created == given
        assert version == str(pods.stored("a").revision)

    def test_create_refuses_what_it_cannot_store(
        self, pods: Pods, open_storage: OpenStorage
    ) -> None:
        """An object without metadata, of another type or without an encoding is InvalidObject, and
        nothing is written (CREATE-6, GU-17)."""
        key = pods.key("a")
        dicts = open_storage(dict)
        bad: list[Any] = [{}, {"metadata": None}, {"metadata": {}, "x": object()}, 5, None]
        for obj in bad:
            with pytest.raises(InvalidObject):
                dicts.create(key, obj)
        bad = [None, "text", {"metadata": {}}, ObjectMeta(name="a")]
        for obj in bad:
            with pytest.raises(InvalidObject):
                pods.storage.create(key, obj)
        assert pods.find("a") is None

    def test_create_bad_ttl(self, pods: Pods) -> None:
        """A TTL must be a whole number of at least 0 (CREATE-5)."""
        bad: list[Any] = [-1, 1.5, "1", True, None]
        for ttl in bad:
            with pytest.raises(InvalidArgument) as caught:
                pods.create("a", ttl=ttl)
            assert caught.value.field == "ttl"
        assert pods.find("a") is None

    def test_create_without_ttl_support(self, pods: Pods, backend: Backend) -> None:
        """A backend without TTL refuses a TTL and writes nothing; everything else works (CREATE-5,
        GU-12)."""
        if self.claims(backend, Capability.TTL):
            pytest.skip("claims ttl, which other tests check")
        with pytest.raises(Unsupported):
            pods.create("a", ttl=1)
        assert pods.find("a") is None
        created = pods.create("a")
        with pytest.raises(Unsupported):
            pods.storage.guaranteed_update(pods.key("a"), lambda found, _: WithTTL(found, 1))
        assert pods.read("a") == created
        again = pods.storage.guaranteed_update(pods.key("a"), lambda found, _: WithTTL(found, 0))
        assert again == created
        assert pods.update("a", "n1") == pods.read("a")

    def test_create_when_the_transformer_fails(self, pods: Pods, open_storage: OpenStorage) -> None:
        """A transformer that fails raises InternalError with the cause, and nothing is written
        (CREATE-6, XF-10, ERR-6)."""
        transformer = MarkingTransformer()
        storage = open_storage(transformer=transformer)
        transformer.broken = True
        with pytest.raises(InternalError, match="does not close") as caught:
            storage.create(pods.key("a"), pod("a"))
        assert isinstance(caught.value.__cause__, ValueError)
        assert caught.value.key == pods.key("a")
        assert pods.find("a") is None

    def test_create_order_of_checks(self, pods: Pods, open_storage: OpenStorage) -> None:
        """Checks run in the order key, version, encoding, existence (CREATE-6)."""
        transformer = MarkingTransformer()
        transformer.broken = True
        storage = open_storage(transformer=transformer)
        pods.create("a")
        versioned = pod("a", resource_version="5")
        unencodable: Any = pod("a", labels={"a": object()})
        with pytest.raises(InvalidKey):
            storage.create("/elsewhere", versioned)
        with pytest.raises(ResourceVersionSet):
            storage.create(pods.key("a"), attrs.evolve(unencodable, metadata=versioned.metadata))
        with pytest.raises(InvalidObject):
            storage.create(pods.key("a"), unencodable)
        with pytest.raises(InternalError):
            storage.create(pods.key("a"), pod("a"))


class GetTests(StorageSuite):
    """``get``, and versions as strings."""

    def test_get_versions(self, pods: Pods) -> None:
        """ "" and any version that the store has reached give the latest object, "0" any state
        (GET-1)."""
        first = pods.create("a", "n1")
        second = pods.update("a", "n2")
        for version in ("", str(pods.start), first.metadata.resource_version):
            assert pods.storage.get(pods.key("a"), resource_version=version) == second
        newest = second.metadata.resource_version
        assert pods.storage.get(pods.key("a"), resource_version=newest) == second
        assert pods.storage.get(pods.key("a"), resource_version="000" + newest) == second
        if self.raw:
            assert pods.storage.get(pods.key("a"), resource_version="0") == second

    def test_get_version_of_another_write(self, pods: Pods, open_storage: OpenStorage) -> None:
        """The version may be higher than the object's, since it is compared with the store's
        (GET-1, GET-9)."""
        created = pods.create("a")
        later = pods.create("b").metadata.resource_version
        assert pods.storage.get(pods.key("a"), resource_version=later) == created

    def test_get_future_version(self, pods: Pods) -> None:
        """A version above the store's is TooLargeResourceVersion with both versions, even where no
        object is (GET-2, ERR-7)."""
        pods.create("a")
        wanted = pods.start + FAR
        for name in ("a", "absent"):
            with pytest.raises(TooLargeResourceVersion, match="too large") as caught:
                pods.storage.get(
                    pods.key(name), resource_version=str(wanted), ignore_not_found=True
                )
            assert caught.value.wanted == wanted
            assert pods.start < caught.value.current < wanted
            if self.raw:
                assert caught.value.retry_after == 0

    def test_get_missing(self, pods: Pods) -> None:
        """A missing object is KeyNotFound, or None with ``ignore_not_found``. The same holds after
        a deletion, and for a key that is only the beginning of other keys (GET-3, ERR-1)."""
        pods.create("gone")
        pods.create("ns/a")
        pods.delete("gone")
        for name in ("absent", "gone", "ns"):
            with pytest.raises(KeyNotFound, match="not found"):
                pods.read(name)
            assert pods.find(name) is None

    @pytest.mark.parametrize("version", _BAD_VERSIONS)
    def test_get_bad_version(self, pods: Pods, version: str) -> None:
        """A version that is no decimal number of 64 bits is refused (GET-4, VER-2, ERR-6)."""
        pods.create("a")
        for name in ("a", "absent"):
            with pytest.raises(InvalidResourceVersion) as caught:
                pods.storage.get(pods.key(name), resource_version=version)
            assert (caught.value.field, caught.value.value) == ("resourceVersion", version)
        with pytest.raises(InvalidResourceVersion):
            pods.list(resource_version=version)
        with pytest.raises(InvalidResourceVersion):
            pods.watch(resource_version=version)

    def test_get_current_revision(self, pods: Pods) -> None:
        """The current revision is at least that of every earlier write (GET-9)."""
        for number in range(3):
            version = int(pods.create(f"k{number}").metadata.resource_version)
            assert pods.storage.current_revision() >= version

    def test_get_with_a_cache_of_decoded_objects(
        self, backend: Backend, open_storage: OpenStorage, resource_prefix: str
    ) -> None:
        """``cache_size`` changes no answer, and callers cannot change the cached objects (GET-1,
        OLD-15)."""
        transformer = MarkingTransformer()
        dicts = open_storage(dict, cache_size=2, transformer=transformer)
        keys = [f"{resource_prefix}/{number}" for number in range(4)]
        for key in keys:
            dicts.create(key, {"metadata": {"name": key}, "spec": {"n": 0}})
        for turn in range(3):
            for key in keys:
                found = dicts.get(key)
                assert found["spec"] == {"n": turn}
                found["spec"]["n"] = 77
                assert dicts.get(key)["spec"] == {"n": turn}
                dicts.guaranteed_update(key, _raise_n)
            for item in dicts.list(resource_prefix):
                assert item["spec"] == {"n": turn + 1}
                item["spec"].clear()

    def test_get_own_parts(self, open_storage: OpenStorage, resource_prefix: str) -> None:
        """Callers can replace codec, versioner and copier (VER-1)."""

        class Reversed:
            inner = json_codec(dict)

            def encode(self, obj: Any) -> bytes:
                return bytes(self.inner.encode(obj)[::-1])

            def decode(self, data: bytes) -> Any:
                return self.inner.decode(data[::-1])

        class Numbered:
            def object_resource_version(self, obj: Any) -> int:
                return int(obj.get("n", 0))

            def update_object(self, obj: Any, revision: int) -> Any:
                return {**obj, "n": revision}

            def stamp(self, obj: Any, revision: int) -> Any:
                return self.update_object(obj, revision)

            def prepare_object_for_storage(self, obj: Any) -> Any:
                return {name: value for name, value in obj.items() if name != "n"}

        storage = open_storage(dict, codec=Reversed(), versioner=Numbered())
        key = resource_prefix + "/a"
        created = storage.create(key, {"x": 1})
        assert created == {"x": 1, "n": created["n"]}
        assert created["n"] > 0
        assert storage.get(key) == created
        updated = storage.guaranteed_update(key, lambda found, _: {**found, "x": 2})
        assert updated["n"] > created["n"]
        assert storage.delete(key)["x"] == 2

    def test_get_after_close(self, pods: Pods, backend: Backend) -> None:
        """A closed storage raises Closed everywhere; the backend stays open."""
        created = pods.create("a")
        storage = pods.storage
        storage.close()
        storage.close()
        calls: list[Callable[[], object]] = [
            lambda: pods.read("a"),
            lambda: pods.create("b"),
            lambda: pods.update("a", "n1"),
            lambda: pods.delete("a"),
            pods.list,
            pods.watch,
            lambda: storage.changes(pods.prefix),
            lambda: storage.count(pods.prefix),
            storage.stats,
            storage.current_revision,
            storage.compact_revision,
            storage.request_progress,
            storage.ready,
        ]
        for call in calls:
            with pytest.raises(Closed):
                call()
        assert str(pods.stored("a").revision) == created.metadata.resource_version


def _raise_n(found: Any, _meta: object) -> Any:
    found["spec"]["n"] += 1
    return found
