"""Errors name the key of the call, as it was given."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from revstore.errors import (
    InvalidArgument,
    InvalidKey,
    InvalidObject,
    InvalidResourceVersion,
    InvalidSelector,
    TooLargeResourceVersion,
)
from revstore.memory import MemoryBackend
from revstore.resource_type import ResourceType
from revstore.typed import TypedStorage

KEY = "/pods/default/web"


Store = TypedStorage[dict[str, Any]]


@pytest.fixture
def storage() -> Iterator[Store]:
    with MemoryBackend() as backend, TypedStorage(backend, ResourceType(dict, "/pods")) as store:
        yield store


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (lambda s: s.create(KEY, {}), InvalidObject),
        (lambda s: s.create(KEY, {"metadata": {}}, ttl=-1), InvalidArgument),
        (
            lambda s: s.guaranteed_update(KEY, lambda *_: {}, ignore_not_found=True),
            InvalidObject,
        ),
        (lambda s: s.get(KEY, resource_version="x"), InvalidResourceVersion),
        (lambda s: s.list(KEY, resource_version="x"), InvalidResourceVersion),
        (lambda s: s.list(KEY, resource_version="99"), TooLargeResourceVersion),
        (lambda s: s.list(KEY, label_selector="a in"), InvalidSelector),
        (lambda s: s.watch(KEY, resource_version="x"), InvalidResourceVersion),
        (lambda s: s.watch(KEY, label_selector="a in"), InvalidSelector),
    ],
)
def test_errors_name_the_key(
    storage: Store, call: Callable[[Store], object], kind: type[Exception]
) -> None:
    """What is wrong with an argument is told with the key of the call. (LISTRV-12, GET-4)"""
    with pytest.raises(kind) as raised:
        call(storage)
    assert raised.value.key == KEY  # type: ignore[attr-defined]


@pytest.mark.parametrize("key", ["/pods//x", "/pods/a//x", "/pods/a//"])
def test_keys_have_no_empty_segments(storage: Store, key: str) -> None:
    """A list in pages could not go on behind such a key. (LIST-15, KEY-2)"""
    for call in (
        lambda: storage.create(key, {"metadata": {}}),
        lambda: storage.get(key),
        lambda: storage.list(key),
        lambda: storage.watch(key),
    ):
        with pytest.raises(InvalidKey):
            call()


def test_watch_errors_name_the_key(storage: Store) -> None:
    """A watch from a version that the store does not have names its key. (WATCH-7)"""
    with storage.watch(KEY, recursive=False, resource_version="99", send_initial_events=True) as w:
        with pytest.raises(TooLargeResourceVersion) as raised:
            w.poll(1)
        assert raised.value.key == KEY
