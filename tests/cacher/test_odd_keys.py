"""One rule for keys, whether cache or store answers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revstore.cacher import Cacher, CacherConfig
from revstore.errors import StorageError
from revstore.memory import MemoryBackend
from revstore.storage import Storage
from revstore.testing._support import PATIENCE
from revstore.testing.storage._parts import PODS, name_of, pod
from revstore.typed import TypedStorage

KEYS = ("/pods/.ns/a", "/pods/ns/.b", "/pods/a..b/c", "/pods/...", "/pods/ns/x", "/pods/plain")
parts = st.lists(
    st.sampled_from(
        ["/", "pods", "ns", ".ns", ".", "..", "...", "a", ".b", "x", "\0", "\ud800", ""]
    ),
    max_size=6,
)


def answer(storage: Storage[Any], how: str, key: str, *, recursive: bool) -> Any:
    """What a reading of ``key`` shows, or how it is refused."""
    try:
        if how == "get":
            found = storage.get(key, ignore_not_found=True)
            return None if found is None else name_of(found)
        if how == "list":
            return [name_of(each) for each in storage.list(key, recursive=recursive)]
        with storage.watch(key, recursive=recursive) as watch:
            return [name_of(event.object) for event in watch.poll(0) or ()]
    except StorageError as error:
        return type(error)


@given(
    key=st.one_of(
        st.sampled_from([*KEYS, "/pods/", "/pods", "/pods/.ns", "/pods/ns/"]),
        parts.map(lambda found: "/pods/" + "".join(found)),
        parts.map("".join),
    ),
    recursive=st.booleans(),
    how=st.sampled_from(["get", "list", "watch"]),
)
def test_odd_keys_mean_the_same_cached_and_raw(key: str, recursive: bool, how: str) -> None:
    """The same objects, or the same refusal. (KEY-1 to KEY-8)"""
    with MemoryBackend() as backend, TypedStorage(backend, PODS) as raw:
        for each in KEYS:
            raw.create(each, pod(each.rsplit("/", 1)[-1]))
        config = CacherConfig(storage=TypedStorage(backend, PODS), resource_type=PODS)
        with Cacher(config) as cache:
            cache.wait_ready(PATIENCE)
            assert answer(cache, how, key, recursive=recursive) == answer(
                raw, how, key, recursive=recursive
            )


@pytest.mark.parametrize("key", ["/pods/.ns", "/pods/..."])
def test_names_that_begin_with_a_dot_are_served_by_the_cache(key: str) -> None:
    """They are names like others."""
    with MemoryBackend() as backend:
        config = CacherConfig(storage=TypedStorage(backend, PODS), resource_type=PODS)
        with Cacher(config) as cache:
            cache.create(key + "/a", pod("a"))
            assert [name_of(each) for each in cache.list(key)] == ["a"]
            assert cache.counters.served_by_store == 0
            with cache.watch(key) as watch:
                assert watch.poll(PATIENCE)
                watch.on_readable(None)  # which a raw one refuses
