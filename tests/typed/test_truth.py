"""What counts as false, being empty or saying so, is not taken for what is missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import attrs
import pytest

from revstore.cacher import Cacher, CacherConfig
from revstore.memory import MemoryBackend
from revstore.objects import ObjectMeta
from revstore.resource_type import ResourceType
from revstore.storage import EventType, Storage
from revstore.testing._support import PATIENCE
from revstore.transform import IdentityTransformer
from revstore.typed import TypedStorage


@attrs.frozen
class Bag:
    """An object that counts as false, as an empty container does."""

    metadata: ObjectMeta = attrs.field(factory=ObjectMeta)
    colour: str = ""

    def __len__(self) -> int:
        return 0


class Unwilling(Mapping[str, str]):
    """A mapping that refuses to be tested and compared as a whole, as arrays do."""

    def __init__(self, items: dict[str, str]) -> None:
        self._items = items

    def __getitem__(self, key: str) -> str:
        return self._items[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __bool__(self) -> bool:
        raise ValueError("the truth value is ambiguous")

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise ValueError("the truth value is ambiguous")


BAGS: ResourceType[Bag] = ResourceType(
    Bag,
    "/bags",
    labels=lambda bag: Unwilling({"colour": bag.colour}),
    fields=lambda bag, path: bag.colour,
)


@pytest.fixture(params=["raw", "cached"])
def storage(request: pytest.FixtureRequest) -> Iterator[Storage[Bag]]:
    with MemoryBackend() as backend:
        raw = TypedStorage(backend, BAGS)
        if request.param == "raw":
            with raw:
                yield raw
        else:
            config = CacherConfig(storage=raw, resource_type=BAGS, indexed_fields=("colour",))
            with Cacher(config) as cache:
                yield cache


def bag(name: str, colour: str) -> Bag:
    return Bag(ObjectMeta(name=name), colour)


def test_objects_that_count_as_false_are_objects(storage: Storage[Bag]) -> None:
    """They are created, read, listed, selected, watched, updated and deleted as others are."""
    made = storage.create("/bags/a", bag("a", "red"))
    version = made.metadata.resource_version
    assert not made
    for asked in ("", version, "0"):  # in this order: "0" may be any state
        found = storage.get("/bags/a", resource_version=asked, ignore_not_found=True)
        assert found is not None
    for selectors in (
        {},
        {"label_selector": "colour=red"},
        {"label_selector": "colour in (red, blue)"},
        {"field_selector": "colour=red"},
    ):
        for asked in ("", version):
            options: dict[str, Any] = {**selectors, "resource_version": asked}
            assert storage.list("/bags", **options).items == (made,)
    with storage.watch("/bags", label_selector="colour=red") as watch:
        (event,) = watch.poll(PATIENCE) or ()
        assert (event.type, event.object) == (EventType.ADDED, made)
        storage.guaranteed_update("/bags/a", lambda found, _: attrs.evolve(found, colour="blue"))
        (event,) = watch.poll(PATIENCE) or ()
        assert (event.type, event.object.colour) == (EventType.DELETED, "red")
    last = storage.delete("/bags/a", suggestion=made)
    assert last is not None
    assert last.colour == "blue"


def test_a_transformer_that_counts_as_false_transforms() -> None:
    """One that has a length, such as a ring of no keys yet, is not left out."""

    class Ring(IdentityTransformer):
        def __len__(self) -> int:
            return 0

        def transform_to_storage(self, data: bytes, context: bytes) -> bytes:
            return b"ring:" + data

        def transform_from_storage(self, data: bytes, context: bytes) -> tuple[bytes, bool]:
            return data.removeprefix(b"ring:"), False

    with MemoryBackend() as backend, TypedStorage(backend, BAGS, transformer=Ring()) as storage:
        storage.create("/bags/a", bag("a", "red"))
        found = backend.get("/registry/bags/a").kv
        assert found is not None
        assert found.value.startswith(b"ring:")
        assert storage.get("/bags/a").colour == "red"
