"""What typed storage says of bad arguments, and what it does with no time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from revstore.errors import (
    InvalidArgument,
    InvalidObject,
    InvalidResourceVersion,
    InvalidSelector,
    Timeout,
    TooLargeResourceVersion,
)
from revstore.memory import MemoryBackend
from revstore.typed import TypedStorage

KEY = "/pods/default/web"
Store = TypedStorage[dict[str, Any]]


@pytest.fixture
def storage() -> Iterator[Store]:
    with MemoryBackend() as backend, TypedStorage(backend, dict, resource_prefix="/pods") as store:
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


@pytest.mark.parametrize("timeout", [0, -1])
@pytest.mark.parametrize(
    "call",
    [
        lambda s, t: s.create(KEY, {"metadata": {}}, timeout=t),
        lambda s, t: s.get(KEY, timeout=t),
        lambda s, t: s.list(KEY, timeout=t),
        lambda s, t: s.count(KEY, timeout=t),
        lambda s, t: s.delete(KEY, timeout=t),
        lambda s, t: s.guaranteed_update(KEY, lambda obj, _: obj, timeout=t),
    ],
)
def test_no_time_is_a_timeout(
    storage: Store, call: Callable[[Store, float], object], timeout: float
) -> None:
    """A call that was given no time raises ``Timeout``, whatever the backend."""
    with pytest.raises(Timeout) as raised:
        call(storage, timeout)
    assert raised.value.key.rstrip("/") == KEY


def test_watch_errors_name_the_key(storage: Store) -> None:
    """A watch from a version that the store does not have names its key. (WATCH-7)"""
    with storage.watch(KEY, recursive=False, resource_version="99", send_initial_events=True) as w:
        with pytest.raises(TooLargeResourceVersion) as raised:
            w.poll(1)
        assert raised.value.key == KEY
