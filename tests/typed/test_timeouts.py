"""How long calls last."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from revstore.errors import (
    InvalidArgument,
    NotReady,
    Timeout,
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
    assert raised.value.key == KEY


@pytest.mark.parametrize("timeout", [0, -1])
def test_no_time_is_a_timeout_of_what_needs_no_key(storage: Store, timeout: float) -> None:
    """The same holds of calls about the whole resource; readiness says so its own way. (CMP-4)"""
    for call in (storage.current_revision, storage.compact_revision, storage.stats):
        with pytest.raises(Timeout) as raised:
            call(timeout=timeout)
        assert raised.value.key == "/pods"
    with pytest.raises(NotReady):
        storage.ready(timeout=timeout)


def test_any_number_is_a_timeout(storage: Store) -> None:
    """Without end is a number too; what is no number is refused."""
    assert len(storage.list("/pods", timeout=math.inf)) == 0
    assert storage.current_revision(timeout=1e12) > 0
    with pytest.raises(InvalidArgument, match="timeout"):
        storage.list("/pods", timeout=math.nan)
