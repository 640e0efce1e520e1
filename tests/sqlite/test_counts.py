"""Counts are exact at every revision, and cost no more than they have to."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from revstore.errors import Compacted
from revstore_sqlite import _reader
from revstore_sqlite._backend import SQLiteBackend

Open = Callable[..., SQLiteBackend]


@pytest.mark.parametrize("few", [1000, 0], ids=["back-from-now", "key-by-key"])
def test_a_count_is_that_of_its_list(
    open_store: Open, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    """At each revision that can be read, before and after a compaction, in every prefix, and what
    remains behind a page too."""
    monkeypatch.setattr(_reader, "_FEW", few)
    monkeypatch.setattr(_reader, "_KEY_COST", 0)
    backend = open_store()
    dice = random.Random(3)
    for _ in range(150):
        key = f"/{dice.choice('ab')}/{dice.randrange(6)}"
        kv = backend.get(key).kv
        if kv is not None and dice.random() < 0.5:
            backend.delete(key, expected_revision=kv.revision)
        else:
            backend.put(key, b"v", expected_revision=kv.revision if kv else 0)
    last = backend.status().revision
    for compacted in (0, 70):
        if compacted:
            backend.compact(compacted)
            with pytest.raises(Compacted):
                backend.count("/", revision=compacted - 1)
        for revision in range(compacted or 1, last + 1):
            for prefix in ("/", "/a/", "/b/", "/c/"):
                kvs = backend.list(prefix, revision=revision).kvs
                assert backend.count(prefix, revision=revision).count == len(kvs)
                page = backend.list(prefix, revision=revision, limit=2, remaining=True)
                assert page.remaining == max(0, len(kvs) - 2)


def test_a_count_of_a_revision_just_past(open_store: Open) -> None:
    """It costs about what one of now costs, not a walk through the history of every key."""
    backend = open_store()
    for number in range(2000):
        backend.put(f"/{number:05}", b"v", expected_revision=0)
    backend.put("/new", b"v", expected_revision=0)

    def steps(**at: int) -> int:
        backend.count("/", **at)
        (link,) = backend._reader._idle
        looks = [0]

        def look() -> bool:
            looks[0] += 1
            return False

        link.raw.set_progress_handler(look, 100)
        backend.count("/", **at)
        return looks[0]

    assert steps(revision=2001) < 2 * steps() + 20
