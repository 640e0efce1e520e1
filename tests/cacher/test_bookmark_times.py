"""When bookmarks are due."""

from __future__ import annotations

import queue
from functools import partial

import attrs
import pytest

from revstore.errors import Closed
from revstore.objects import ObjectMeta
from revstore.storage import EventType
from revstore.testing._support import wait_until


@attrs.frozen(kw_only=True)
class Pod:
    metadata: ObjectMeta
    node_name: str = ""


def pod(name: str, namespace: str = "a", node: str = "", **labels: str) -> Pod:
    return Pod(metadata=ObjectMeta(name=name, namespace=namespace, labels=labels), node_name=node)


def put(cache, key, new):
    written = cache.guaranteed_update(key, lambda _, __: new, ignore_not_found=True)
    return written.metadata.resource_version


def settle(cache, version):
    cache.list("/pods", resource_version=version, limit=1, resource_version_match="NotOlderThan")


def test_bookmarks_come_to_those_who_wait_to_be_told(open_cache):
    """BOOK-1, BOOK-2, BOOK-5: a watch that is served by callback gets its bookmarks, and is told
    when its time is over, without anybody polling it in between."""
    cache = open_cache(bookmark_interval=0.2)
    version = put(cache, "/pods/a/1", pod("1"))
    settle(cache, version)
    told: queue.SimpleQueue[None] = queue.SimpleQueue()
    watch = cache.watch("/pods", resource_version=version, allow_bookmarks=True)
    watch.on_readable(partial(told.put, None))
    told.get(timeout=10)
    (bookmark,) = watch.poll(0)
    assert (bookmark.type, bookmark.resource_version) == (EventType.BOOKMARK, version)
    watch.close()
    brief = cache.watch("/pods", resource_version=version, timeout=0.2)
    ended: queue.SimpleQueue[None] = queue.SimpleQueue()
    brief.on_readable(partial(ended.put, None))
    ended.get(timeout=10)
    with pytest.raises(Closed):
        brief.poll(0)
    wait_until(lambda: not cache._content.generation._timers, "no timer left")


def test_a_bookmark_before_the_end(open_cache):
    """BOOK-1: a watch that ends before its next bookmark is due gets one two seconds before, and
    none after that."""
    cache = open_cache()
    version = put(cache, "/pods/a/1", pod("1"))
    settle(cache, version)
    with cache.watch("/pods", resource_version=version, allow_bookmarks=True, timeout=2.2) as watch:
        assert watch._bookmark_due == watch._deadline - 2
        (bookmark,) = watch.poll(10)
        assert bookmark.type is EventType.BOOKMARK
        with pytest.raises(Closed):
            watch.poll(10)
