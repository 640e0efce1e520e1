"""Keys that are refused, found, and named by errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from revstore.cacher import Cacher
from revstore.errors import (
    Expired,
    InvalidContinueToken,
    InvalidKey,
    InvalidResourceVersion,
    InvalidSelector,
    Timeout,
    TooLargeResourceVersion,
)
from revstore.storage import Storage

Cache = Cacher[dict[str, Any]]


Open = Callable[..., Cache]


def put(cache: Cache, name: str, **labels: str) -> str:
    made = cache.create(f"/pods/{name}", {"metadata": {"name": name, "labels": labels}})
    return str(made["metadata"]["resourceVersion"])


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (lambda c: c.get("/pods/a", resource_version="x"), InvalidResourceVersion),
        (lambda c: c.list("/pods/a", resource_version="x"), InvalidResourceVersion),
        (lambda c: c.list("/pods/a", label_selector="a in"), InvalidSelector),
        (lambda c: c.list("/pods/a", continue_token="x"), InvalidContinueToken),
        (lambda c: c.list("/pods/a", resource_version="99", timeout=0.1), TooLargeResourceVersion),
        (lambda c: c.watch("/pods/a", resource_version="x"), InvalidResourceVersion),
        (lambda c: c.watch("/pods/a", field_selector="a"), InvalidSelector),
        (lambda c: c.watch("/pods/a", resource_version="1").poll(0), Expired),
        (lambda c: c.list("/pods/a", timeout=0), Timeout),
        (lambda c: c.get("/pods/a", timeout=0), Timeout),
    ],
)
def test_errors_name_the_key(
    open_dict_cache: Open, call: Callable[[Cache], object], kind: type[Exception]
) -> None:
    """The key of the call, as without a cache. (KEY-11, LISTRV-12)"""
    cache = open_dict_cache(wrapped=_with_a_past)
    with pytest.raises(kind) as raised:
        call(cache)
    assert raised.value.key == "/pods/a"  # type: ignore[attr-defined]


def _with_a_past(storage: Storage[Any]) -> Storage[Any]:
    """Something has happened before the cache begins."""
    storage.create("/pods/x", {"metadata": {"name": "x"}})
    return storage


@pytest.mark.parametrize("key", ["/pods/a\0", "/pods/\ud800", "/pods//a", "/pods/a/../b"])
def test_bad_keys_are_refused_from_memory_too(open_dict_cache: Open, key: str) -> None:
    """They are no absent objects. (KEY-2, KEY-6)"""
    cache = open_dict_cache()
    for call in (
        lambda: cache.get(key, resource_version="0"),
        lambda: cache.list(key, resource_version="0"),
        lambda: cache.watch(key),
    ):
        with pytest.raises(InvalidKey):
            call()


def test_keys_of_any_script_are_found(open_dict_cache: Open) -> None:
    """What is text is a key."""
    cache = open_dict_cache()
    version = put(cache, "größe")
    assert cache.get("/pods/größe", resource_version=version)["metadata"]["name"] == "größe"
