"""What is larger than a message of the usual size."""

from __future__ import annotations

import hashlib
import random

from revstore.testing._support import collect
from revstore_etcd3._requests import watch_request

COUNT, SIZE = 60, 1 << 20


def test_large_values_arrive_whole(server, open_store):
    """WATCH-12: values of 1 MB each, 60 MB in all, come through a watch that is open
    and through one that reads them from history, all, once, in order and whole."""
    backend, late = open_store(), open_store()
    start = backend.status().revision
    choose = random.Random(server.address)
    with backend.watch("/large/", recursive=True, after_revision=start) as live:
        written = []
        for number in range(COUNT):
            value = choose.randbytes(SIZE)
            put = backend.put(f"/large/{number}", value, expected_revision=0)
            written.append((f"/large/{number}", put.revision, digest(value)))
        assert seen(live) == written
    with late.watch("/large/", recursive=True, after_revision=start) as history:
        assert seen(history) == written
        assert late._hub.log.floor >= written[-1][1], "they came by the stream of the rest"
    for key, revision, _ in written:
        backend.delete(key, expected_revision=revision)


def digest(value):
    return hashlib.sha256(value).digest()


def seen(watch):
    """Keys, revisions and digests of what it brings."""
    return [
        (event.kv.key, event.kv.revision, digest(event.kv.value)) for event in collect(watch, COUNT)
    ]


def test_no_fragments_are_asked_for():
    """A server fragments only if it is asked to, which is never done: each response
    is whole."""
    request = watch_request(1).create_request
    assert not getattr(request, "fragment", False)
