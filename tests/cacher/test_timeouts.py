"""How long calls last."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any

import pytest

from revstore.cacher import Cacher
from revstore.errors import (
    Closed,
    Timeout,
)
from revstore.storage import ObjectList, Storage
from revstore.testing.cacher._feed import ControlledStorage

Cache = Cacher[dict[str, Any]]


Open = Callable[..., Cache]


def put(cache: Cache, name: str, **labels: str) -> str:
    made = cache.create(f"/pods/{name}", {"metadata": {"name": name, "labels": labels}})
    return str(made["metadata"]["resourceVersion"])


@pytest.mark.parametrize("timeout", [math.inf, 1e12])
def test_any_number_is_a_timeout(open_dict_cache: Open, timeout: float) -> None:
    """Without end is a number too, and ``close`` ends such a wait as any other."""
    cache = open_dict_cache()
    version = put(cache, "a")
    assert len(cache.list("/pods", timeout=timeout)) == 1
    for options in ({}, {"timeout": timeout}):
        with cache.watch("/pods", resource_version=version, **options) as watch:
            closing = threading.Timer(0.1, watch.close)
            closing.start()
            with pytest.raises(Closed):
                watch.poll(timeout)
            closing.join()


class _Ahead(ControlledStorage):
    """Says that it is far ahead of its feed."""

    def __init__(self, inner: Storage[Any]) -> None:
        super().__init__(inner)
        self.given: list[float] = []

    def current_revision(self, **options: Any) -> int:
        return self.inner.current_revision(**options) + 1000

    def list(self, key: str, **options: Any) -> ObjectList[Any]:
        self.given.append(options["timeout"])
        return self.inner.list(key, **options)


def test_a_timeout_is_of_the_whole_call(open_dict_cache: Open) -> None:
    """A list that waits in vain for the cache leaves the store what is left of its time, and that
    is something. (CACHE-13)"""
    ahead: list[_Ahead] = []

    def wrapped(storage: Storage[Any]) -> Storage[Any]:
        ahead.append(_Ahead(storage))
        return ahead[0]

    cache = open_dict_cache(wrapped=wrapped)
    assert len(cache.list("/pods", timeout=4)) == 0
    (given,) = ahead[0].given
    assert 0 < given <= 2


def test_a_comparison_ends_in_time(open_dict_cache: Open) -> None:
    """``check_consistency`` reads nothing once its time is over. (CACHE-22)"""
    cache = open_dict_cache()
    with pytest.raises(Timeout):
        cache.check_consistency(timeout=0)
    assert cache.check_consistency(timeout=20).consistent
