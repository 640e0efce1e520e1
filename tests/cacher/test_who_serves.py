"""What the cache answers, what it hands to the store, and how long it waits for that."""

from __future__ import annotations

import time
from typing import Any

import pytest

from revstore.continue_token import decode_continue
from revstore.errors import (
    Expired,
    KeyNotFound,
    TooLargeResourceVersion,
)
from revstore.memory import MemoryBackend
from revstore.storage import ObjectList
from revstore.testing.storage._parts import ForwardingBackend, name_of, on_node, pod


def names(listed: ObjectList[Any]) -> list[str]:
    return [name_of(each) for each in listed]


def test_what_goes_to_the_store_whatever_the_cache_shows(open_parts):
    """DELEG-12, CREATE-7, GET-7: writes, gets without a version, counts and revisions are the
    store's at once; gets with a version and watches are the cache's, which sees writes through its
    feed only."""
    parts = open_parts()
    cache = parts.cache
    parts.settle()
    parts.feed.hold()
    created = cache.create("/pods/a/1", pod("a/1"))
    assert cache.get("/pods/a/1") == created
    assert cache.get("/pods/a/1", resource_version="0", ignore_not_found=True) is None
    assert names(cache.list("/pods", resource_version="0")) == []
    watch = cache.watch("/pods", resource_version="0")
    assert watch.poll(0.01) is None
    assert cache.count("/pods") == cache.stats().object_count == 1
    moved = cache.guaranteed_update("/pods/a/1", lambda found, _: on_node(found, "n1"))
    assert cache.current_revision() == int(moved.metadata.resource_version)
    cache.delete("/pods/a/1")
    assert cache.get("/pods/a/1", ignore_not_found=True) is None
    assert cache.counters.events_received == 0
    parts.feed.release()
    seen = []
    while len(seen) < 3:
        seen += [str(event.type) for event in watch.poll(20)]
    assert seen == ["ADDED", "MODIFIED", "DELETED"]


def test_what_the_store_has_compacted(open_parts):
    """CACHE-23: ``compact_revision`` is the store's, also while the cache remembers more."""
    parts = open_parts()
    first = parts.put("a/1")
    parts.put("a/1", "n1")
    last = parts.settle()
    parts.backend.compact(int(last))
    assert parts.cache.compact_revision() == int(last)
    exact = parts.cache.list("/pods", resource_version=first, resource_version_match="Exact")
    assert exact.resource_version == first
    assert exact[0].spec.node_name == ""


def test_a_miss_tells_the_caches_version(open_parts):
    """GET-8, GET-3: and a hit is the one object that all readers share."""
    parts = open_parts()
    parts.put("a/1")
    last = parts.settle()
    with pytest.raises(KeyNotFound) as caught:
        parts.cache.get("/pods/a/2", resource_version="0")
    assert caught.value.resource_version == last
    assert caught.value.key == "/pods/a/2"
    assert parts.cache.get("/pods/a/2", resource_version="0", ignore_not_found=True) is None
    hits = [parts.cache.get("/pods/a/1", resource_version=each) for each in ("0", last)]
    assert hits[0] is hits[1] is parts.cache.list("/pods")[0]


def test_versions_of_the_future(open_parts):
    """GET-2, CACHE-10: the store refuses at once with no hint, the cache once it has waited, with
    one; a version that is not there yet goes before a key that is not."""
    parts = open_parts(fresh_timeout=0.3)
    parts.put("a/1")
    last = int(parts.settle())
    for key in ("/pods/a/1", "/pods/a/none"):
        with pytest.raises(TooLargeResourceVersion) as raw:
            parts.store.get(key, resource_version=str(last + 5))
        began = time.monotonic()
        with pytest.raises(TooLargeResourceVersion) as cached:
            parts.cache.get(key, resource_version=str(last + 5))
        assert time.monotonic() - began >= 0.3
        assert (raw.value.retry_after, cached.value.retry_after) == (0, 1)
        assert (cached.value.wanted, cached.value.current) == (last + 5, last)
    with pytest.raises(TooLargeResourceVersion):
        parts.cache.list("/pods", resource_version=str(last + 5), timeout=0.01)


class CountsRequests(ForwardingBackend):
    """Counts how often progress was asked for."""

    requests = 0

    def watch(self, key, **options):
        watch = super().watch(key, **options)
        ask = watch.request_progress

        def request_progress() -> None:
            self.requests += 1
            ask()

        watch.request_progress = request_progress
        return watch


def test_progress_is_asked_for_while_somebody_waits(open_parts):
    """CACHE-11: about every 100 ms, not before and not after, nor for reads that need none."""
    parts = open_parts(CountsRequests(MemoryBackend()), fresh_timeout=1.05)
    parts.settle()
    parts.feed.hold()
    parts.put("a/1")
    asked = parts.backend.requests
    for _ in range(50):
        parts.cache.list("/pods", resource_version="0")
    assert parts.backend.requests == asked
    assert names(parts.cache.list("/pods")) == ["a/1"]  # waits in vain, then asks the store
    assert 2 <= parts.backend.requests - asked <= 12
    asked = parts.backend.requests
    for _ in range(50):
        parts.cache.list("/pods", resource_version="0")
    assert parts.backend.requests == asked


def test_pages_with_a_selector(open_parts):
    """CACHE-16, LIST-10: a page goes on after its last match, iff any object follows it."""
    parts = open_parts()
    for number, node in enumerate(["n1", "", "n1", "n1", ""]):
        parts.put(f"a/{number}", node)
    parts.settle()
    seen, token = [], ""
    while True:
        page = parts.cache.list(
            "/pods", limit=1, field_selector="spec.nodeName=n1", continue_token=token
        )
        seen += names(page)
        assert page.remaining_item_count is None
        token = page.continue_token
        if not token:
            break
        if page.items:
            assert decode_continue(token, "/pods/").start == f"/pods/{seen[-1]}\0"
    assert seen == ["a/0", "a/2", "a/3"]


def test_states_that_the_log_has_forgotten(open_parts):
    """DELEG-10, CACHE-20: exact lists and pages go to the store then; where it has forgotten as
    well, they are Expired, pages with a token that goes on."""
    parts = open_parts(capacity=100)
    for number in range(3):
        first = parts.put(f"a/{number}")
    token = parts.cache.list("/pods", limit=1).continue_token
    for number in range(400):
        parts.put("a/0", f"n{number}")
    last = parts.settle()
    ask = {"resource_version": first, "resource_version_match": "Exact"}
    served = parts.cache.counters.served_by_store
    assert parts.cache.list("/pods", **ask) == parts.store.list("/pods", **ask)
    assert names(parts.cache.list("/pods", continue_token=token)) == ["a/1", "a/2"]
    assert parts.cache.counters.served_by_store == served + 2
    parts.backend.compact(int(last))
    with pytest.raises(Expired):
        parts.cache.list("/pods", **ask)
    with pytest.raises(Expired) as caught:
        parts.cache.list("/pods", continue_token=token)
    rest = parts.cache.list("/pods", continue_token=caught.value.continue_token)
    assert (names(rest), rest.resource_version) == (["a/1", "a/2"], last)
