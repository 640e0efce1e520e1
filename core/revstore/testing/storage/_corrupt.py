"""``StorageTests``, part: value transformers, and objects that cannot be read."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from revstore.backend import Backend
from revstore.errors import (
    CorruptObject,
    CorruptObjects,
    InternalError,
    InvalidArgument,
    KeyNotFound,
    PreconditionFailed,
    StorageError,
)
from revstore.preconditions import Preconditions
from revstore.storage import EventType, Storage
from revstore.testing.storage._base import OpenStorage, Pods, StorageSuite, elsewhere
from revstore.testing.storage._parts import (
    GARBAGE,
    MarkingTransformer,
    Pod,
    SpyBackend,
    name_of,
    on_node,
    pod,
)
from revstore.testing.watch._support import gather

__all__ = ["CorruptTests", "TransformerTests"]


class CorruptTests(StorageSuite):
    """Bytes that cannot be decoded."""

    @pytest.mark.parametrize(
        "value",
        [GARBAGE, b"", b"[]", b'{"metadata": 1}', b'{"spec": {"nodeName": 1}}', b"k8s:enc:x"],
    )
    def test_corrupt_get(self, pods: Pods, value: bytes) -> None:
        """A ``get`` raises CorruptObject with key, version and cause; a list of that one object
        raises CorruptObjects with one such error (GET-5, GET-6, ERR-4, XF-2)."""
        pods.create("a")
        revision = pods.overwrite("a", value)
        with pytest.raises(CorruptObject) as caught:
            pods.read("a")
        error = caught.value
        assert (error.key, error.resource_version) == (pods.key("a"), str(revision))
        assert error.__cause__ is not None
        assert str(error.__cause__) in str(error)
        with pytest.raises(CorruptObjects) as listed:
            pods.list("a", recursive=False)
        assert [each.key for each in listed.value.errors] == [pods.key("a")]

    def test_corrupt_list(self, pods: Pods) -> None:
        """A list names all unreadable objects at once, in key order, each with its key and version
        (LIST-21, LIST-22, ERR-4, OLD-7)."""
        for name in ("a", "b", "c", "d"):
            pods.create(name)
        revisions = {name: pods.overwrite(name) for name in ("d", "b")}
        for options in ({}, {"limit": 10}, {"field_selector": "metadata.name=a"}):
            with pytest.raises(CorruptObjects) as caught:
                pods.list("", **options)
            errors = caught.value.errors
            assert [each.key for each in errors] == [pods.key("b"), pods.key("d")]
            assert [each.resource_version for each in errors] == [
                str(revisions["b"]),
                str(revisions["d"]),
            ]
            assert not caught.value.truncated
            assert str(errors[0]) in str(caught.value)

    def test_corrupt_list_stops_at_a_hundred(self, pods: Pods) -> None:
        """The error names at most 100 objects; at 100 it says that more may follow (LIST-24)."""
        for number in range(101):
            pods.overwrite(f"k{number:03}")
            if number < 98:
                continue
            with pytest.raises(CorruptObjects) as caught:
                pods.list()
            assert len(caught.value.errors) == min(number + 1, 100)
            assert caught.value.truncated == (number >= 99)

    def test_corrupt_delete(self, pods: Pods) -> None:
        """A plain deletion keeps an unreadable object (DEL-11, OLD-9)."""
        pods.create("a")
        pods.overwrite("a")
        for preconditions in (None, Preconditions(uid="1")):
            with pytest.raises(CorruptObject):
                pods.storage.delete(pods.key("a"), preconditions=preconditions)
        assert pods.stored("a").value == GARBAGE

    def test_corrupt_delete_on_demand(self, pods: Pods) -> None:
        """``even_if_corrupt`` removes an unreadable object and returns None. A condition beside it
        is refused, and a missing object is KeyNotFound (DEL-12)."""
        key = pods.key("a")
        pods.overwrite("a")
        with pytest.raises(InvalidArgument):
            pods.storage.delete(key, preconditions=Preconditions(uid="1"), even_if_corrupt=True)
        assert pods.stored("a").value == GARBAGE
        assert pods.storage.delete(key, even_if_corrupt=True) is None
        assert pods.find("a") is None
        with pytest.raises(KeyNotFound):
            pods.storage.delete(key, even_if_corrupt=True)
        assert pods.create("a") == pods.read("a")

    def test_corrupt_delete_of_what_can_be_read(self, pods: Pods) -> None:
        """``even_if_corrupt`` does not remove an object that can be read, with or without a
        suggestion (DEL-13, ERR-3)."""
        created = pods.create("a")
        for suggestion in (None, created):
            with pytest.raises(PreconditionFailed):
                pods.storage.delete(pods.key("a"), suggestion=suggestion, even_if_corrupt=True)
        assert pods.read("a") == created

    def test_corrupt_delete_mended_meanwhile(
        self, pods: Pods, open_storage: OpenStorage, backend: Backend, reads_backend: None
    ) -> None:
        """An object that becomes readable before its deletion is kept (DEL-13)."""
        good = pods.create("a")
        value = pods.stored("a").value
        pods.overwrite("a")
        spy = SpyBackend(backend)
        storage = open_storage(over=spy)

        def interfere(name: str, turn: int) -> None:
            if (name, turn) == ("delete", 1):
                pods.overwrite("a", value)

        spy.before = interfere
        with pytest.raises(PreconditionFailed):
            storage.delete(pods.key("a"), even_if_corrupt=True)
        assert pods.read("a").spec == good.spec

    def test_corrupt_update(self, pods: Pods) -> None:
        """Without a suggestion, an update of an unreadable object does not overwrite it and does
        not call the function (GU-15)."""
        pods.overwrite("a")
        called: list[object] = []
        for ignore_not_found in (True, False):
            with pytest.raises(CorruptObject):
                pods.storage.guaranteed_update(
                    pods.key("a"),
                    lambda found, _: called.append(found),
                    ignore_not_found=ignore_not_found,
                )
        assert called == []
        assert pods.stored("a").value == GARBAGE

    def test_corrupt_update_with_a_suggestion(self, pods: Pods) -> None:
        """With a suggestion of the stored version, a change overwrites an unreadable object. If the
        function changes nothing, a read finds that the object is unreadable (GU-6, GU-15)."""
        created = pods.create("a")
        suggestion = pod("a", resource_version=str(pods.overwrite("a")))
        with pytest.raises(CorruptObject):
            pods.storage.guaranteed_update(
                pods.key("a"), lambda found, _: found, suggestion=suggestion
            )
        with pytest.raises(CorruptObject):
            pods.storage.guaranteed_update(
                pods.key("a"), lambda found, _: on_node(found, "n1"), suggestion=created
            )
        if not self.raw:
            return
        written = pods.storage.guaranteed_update(
            pods.key("a"), lambda found, _: on_node(found, "n1"), suggestion=suggestion
        )
        assert pods.read("a") == written


class TransformerTests(StorageSuite):
    """The use of a transformer by the storage."""

    @pytest.fixture
    def transformer(self) -> MarkingTransformer:
        """Return the transformer of ``marked``."""
        return MarkingTransformer()

    @pytest.fixture
    def marked(
        self, pods: Pods, open_storage: OpenStorage, transformer: MarkingTransformer
    ) -> Pods:
        """Return a storage with ``transformer``."""
        return Pods(open_storage(transformer=transformer, cache_size=0), pods.backend, pods.prefix)

    def test_transformer_context(self, marked: Pods, transformer: MarkingTransformer) -> None:
        """On every read and write the context is the physical key (XF-1)."""
        context = marked.physical("a").encode()
        with marked.watch() as watch:
            marked.create("a")
            marked.update("a", "n1")
            assert transformer.writes == [context] * 2
            for read in (marked.read, lambda _: marked.list(), lambda _: gather(watch, 2)):
                transformer.reads.clear()
                read("a")
                assert set(transformer.reads) <= {context}
                assert transformer.reads or not self.raw
            marked.delete("a")
            gather(watch, 1)
        assert set(transformer.reads) == {context}
        assert len(transformer.writes) == 2

    def test_transformer_binds_a_value_to_its_key(
        self, marked: Pods, open_storage: OpenStorage
    ) -> None:
        """A value that was copied to another key cannot be read (XF-1)."""
        marked.create("a")
        marked.overwrite("b", marked.stored("a").value)
        assert name_of(marked.read("a")) == "a"
        with pytest.raises(CorruptObject) as caught:
            marked.read("b")
        assert isinstance(caught.value.__cause__, ValueError)

    def test_transformer_identity_refuses_ciphertext(
        self, pods: Pods, open_storage: OpenStorage
    ) -> None:
        """Without a transformer, encrypted values are refused (XF-2)."""
        encrypting = open_storage(transformer=MarkingTransformer(b"k8s:enc:test:"))
        encrypting.create(pods.key("a"), pod("a"))
        with pytest.raises(CorruptObject, match="encrypted"):
            pods.read("a")

    def test_transformer_read_failure(self, marked: Pods, transformer: MarkingTransformer) -> None:
        """Every kind of read raises CorruptObject, and a list CorruptObjects. Nothing is changed,
        and once the transformer works again, so do the reads (XF-10, GET-5, DEL-11, GU-15)."""
        if not self.raw:
            pytest.skip("a cache has read the objects before")
        created = marked.create("a")
        watch = marked.watch()
        transformer.broken = True
        reads: list[tuple[Callable[[], object], type[StorageError]]] = [
            (lambda: marked.read("a"), CorruptObject),
            (lambda: marked.update("a", "n1"), CorruptObject),
            (lambda: marked.delete("a"), CorruptObject),
            (marked.list, CorruptObjects),
            (lambda: gather(watch, 1), CorruptObject),
        ]
        for read, error in reads:
            with pytest.raises(error, match="does not open"):
                read()
        transformer.broken = False
        assert marked.read("a") == created
        watch.close()
        with marked.watch() as again:
            assert [event.type for event in gather(again, 1)] == [EventType.ADDED]

    def test_transformer_write_failure(self, marked: Pods, transformer: MarkingTransformer) -> None:
        """A write raises InternalError with the cause, and nothing is written (XF-10, GU-17,
        ERR-6)."""
        created = marked.create("a")

        def update(found: Pod, _meta: object) -> Pod:
            transformer.broken = True
            return on_node(found, "n1")

        with pytest.raises(InternalError, match="does not close") as caught:
            marked.storage.guaranteed_update(marked.key("a"), update)
        assert isinstance(caught.value.__cause__, ValueError)
        transformer.broken = False
        assert marked.read("a") == created

    def test_transformer_may_use_the_storage(self, pods: Pods, open_storage: OpenStorage) -> None:
        """No lock is held while the transformer runs: another thread, for which it waits, can read
        and write the storage (XF-1)."""
        created = pods.create("seen")
        found: list[object] = []

        class Curious:
            def transform_from_storage(self, data: bytes, context: bytes) -> tuple[bytes, bool]:
                found.append(elsewhere(lambda: pods.read("seen")))
                return data, False

            def transform_to_storage(self, data: bytes, context: bytes) -> bytes:
                found.append(elsewhere(lambda: pods.read("seen")))
                return data

        storage: Storage[Pod] = open_storage(transformer=Curious())
        curious = Pods(storage, pods.backend, pods.prefix)
        with curious.watch() as watch:
            curious.create("a")
            curious.update("a", "n1")
            curious.list()
            curious.delete("a")
            gather(watch, 3)
        assert found
        assert all(each == created for each in found)
