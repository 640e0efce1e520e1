"""``CacherTests``, part: lists and gets."""

from __future__ import annotations

from typing import Any

import pytest

from revstore.backend import Backend
from revstore.errors import KeyNotFound, TooLargeResourceVersion
from revstore.storage import ObjectList
from revstore.testing._support import PATIENCE, promptly
from revstore.testing.cacher._base import SELECTIONS, CachedPods, CacherSuite, OpenCache, Scribe
from revstore.testing.cacher._history import EVERYTHING, Ask, History
from revstore.testing.storage._base import FAR, Pods
from revstore.testing.storage._parts import Pod, name_of
from revstore.values import Capability

__all__ = ["CachedReadTests"]


class CachedReadTests(CacherSuite):
    """A cache answers reads as the store does."""

    def test_cached_list_after_a_write_elsewhere(self, cached: CachedPods, elsewhere: Pods) -> None:
        """A list without a version shows every write acknowledged before it, through whichever
        handle it was written (CACHE-13, DELEG-1)."""
        for number in range(30):
            written = elsewhere.create(f"a/{number}")
            listed = cached.list("a")
            assert written in listed.items
            assert len(listed) == number + 1
            assert int(listed.resource_version) >= int(written.metadata.resource_version)
        gone = elsewhere.delete("a/7")
        listed = cached.list("a")
        assert "a/7" not in [name_of(item) for item in listed]
        assert int(listed.resource_version) >= int(gone.metadata.resource_version)

    def test_cached_list_after_other_resources_were_written(
        self, cached: CachedPods, elsewhere: Pods, backend: Backend
    ) -> None:
        """Revisions without an event in the feed delay no list for long: either progress comes, or
        the store answers (CACHE-11, CACHE-12, CACHE-13)."""
        other = f"{elsewhere.physical()[:-1]}-other/key"
        revision = 0
        try:
            for number in range(5):
                revision = backend.put(other, b"x", expected_revision=revision).revision
                written = elsewhere.create(f"a/{number}")
                revision = backend.put(other, b"y", expected_revision=revision).revision
                with promptly():
                    listed = cached.list("a")
                assert written in listed.items
                assert int(listed.resource_version) >= revision
            if self.claims(backend, Capability.PROGRESS):
                assert cached.cache.counters.read_waits_failed == 0
        finally:
            backend.delete(other, expected_revision=revision)

    def test_cached_lists_are_those_of_the_history(
        self, cached: CachedPods, scribe: Scribe
    ) -> None:
        """A list of any scope and selector, indexed or not, shows the objects that match, in key
        order, whatever was written (CACHE-15, CACHE-17)."""
        for round_ in range(4):
            scribe.scribble(15, seed=round_)
            for key in ("", "a", "b", "c"):
                for selection in SELECTIONS:
                    ask = Ask(cached.key(key).rstrip("/"), selection=selection)
                    listed = cached.list(key, **ask.options)
                    assert list(listed) == ask.among(scribe.history.now)
                    assert int(listed.resource_version) >= scribe.history.last
                    assert (listed.continue_token, listed.remaining_item_count) == ("", None)
                    self.check_first_page(cached, ask, scribe.history)
            for name in sorted({"a/p1", "b/p4"}):
                ask = Ask(cached.key(name), recursive=False)
                assert list(cached.list(name, recursive=False)) == ask.among(scribe.history.now)

    @staticmethod
    def check_first_page(cached: CachedPods, ask: Ask, history: History) -> None:
        """Check a page of one object, its token and its remaining count (LIST-8, LIST-9,
        CACHE-16)."""
        want = ask.among(history.now)
        name = ask.key.removeprefix(cached.prefix).removeprefix("/")
        page = cached.list(name, limit=1, **ask.options)
        if len(page) > 1:
            return  # the store was asked, and has no pages
        assert list(page) == want[:1]
        if len(want) > 1:
            assert page.continue_token
            plain = ask.selection is EVERYTHING
            assert page.remaining_item_count == (len(want) - 1 if plain else None)

    def test_cached_lists_of_old_states(self, cached: CachedPods, scribe: Scribe) -> None:
        """Every state since the cache was filled can be listed, whole or in pages, even if the
        store has no old states. The cache takes its own tokens and others of the store's format
        (CACHE-15, CACHE-19, DELEG-5, DELEG-7)."""
        scribe.scribble(40)
        cached.settle()
        states = [scribe.history.start, *(each.revision for each in scribe.history.changes)]
        for revision in states:
            for key in ("", "b"):
                for selection in SELECTIONS[:3]:
                    ask = Ask(cached.key(key).rstrip("/"), selection=selection)
                    want = ask.among(scribe.history.at(revision))
                    exact: dict[str, Any] = {
                        "resource_version": str(revision),
                        "resource_version_match": "Exact",
                        **ask.options,
                    }
                    listed = cached.list(key, **exact)
                    assert list(listed) == want
                    assert listed.resource_version == str(revision)
                    pages = cached.pages(key, limit=3, **exact)
                    assert [item for page in pages for item in page] == want
                    assert {page.resource_version for page in pages} == {str(revision)}

    def test_cached_lists_are_those_of_the_store(
        self, cached: CachedPods, elsewhere: Pods, scribe: Scribe, history: None
    ) -> None:
        """Of one state, cache and store give the same items, version, token and remaining count,
        page for page. Each goes on from the other's token (CACHE-15, LIST-14, LIST-17)."""
        scribe.scribble(30)
        version = str(cached.settle())
        for selection in SELECTIONS[:6]:
            for limit in (0, 1, 3, 100):
                options: dict[str, Any] = {"limit": limit, **selection.options}
                version_too = {"resource_version": version, "resource_version_match": "Exact"}
                pair = [pods.list(**options, **version_too) for pods in (cached, elsewhere)]
                assert _whole(pair[0]) == _whole(pair[1])
                while pair[0].continue_token:
                    token = pair[0].continue_token
                    pair = [
                        pods.list(continue_token=token, **options) for pods in (cached, elsewhere)
                    ]
                    assert _whole(pair[0]) == _whole(pair[1])

    def test_cached_pages_show_one_state(self, cached: CachedPods, scribe: Scribe) -> None:
        """Pages that begin without a version show the state of the first one, whatever is written
        between them (LIST-10, CACHE-15, DELEG-7)."""
        self.need(cached.backend, Capability.HISTORICAL_READS)  # else the store pages nothing
        for selection in SELECTIONS[:4]:
            scribe.scribble(20, seed=len(selection.label))
            ask = Ask(cached.prefix, selection=selection)
            page = cached.list(limit=2, **ask.options)
            want = ask.among(scribe.history.now)
            version, items = page.resource_version, list(page)
            while page.continue_token:
                scribe.scribble(3, seed=len(items))
                page = cached.list(limit=2, continue_token=page.continue_token, **ask.options)
                assert page.resource_version == version
                items += page
            assert items == want

    def test_cached_versions_do_not_go_back(self, cached: CachedPods, elsewhere: Pods) -> None:
        """A list with "0" is answered at once, by a state that is never older than the one before.
        A list with N shows a state not older than N (CACHE-10, LISTRV-2, LISTRV-5, GET-1)."""
        last = 0
        for number in range(40):
            written = elsewhere.create(f"a/{number}")
            version = written.metadata.resource_version
            with promptly():
                some = int(cached.list(resource_version="0").resource_version)
            assert some >= last
            fresh = cached.list(resource_version=version, resource_version_match="NotOlderThan")
            assert written in fresh.items
            assert int(fresh.resource_version) >= int(version)
            found = cached.storage.get(cached.key(f"a/{number}"), resource_version=version)
            assert found == written
            last = int(cached.list(resource_version="0").resource_version)
            assert last >= int(version)

    def test_cached_reads_while_the_feed_stands_still(
        self, open_cache: OpenCache, elsewhere: Pods
    ) -> None:
        """A cache whose feed brings nothing shows the latest state by asking the store, and with
        "0" the state that it has. It refuses versions that it does not reach, and goes on by itself
        when the feed does (CACHE-10, CACHE-13, GET-2, DELEG-1)."""
        cached = open_cache(fresh_timeout=0.2)
        old = elsewhere.create("a/old")
        cached.settle()
        cached.feed.hold()
        new = elsewhere.create("a/new")
        assert list(cached.list("a")) == [new, old]
        assert cached.read("a/new") == new
        assert list(cached.list("a", resource_version="0")) == [old]
        version = new.metadata.resource_version
        options = {"resource_version": version, "resource_version_match": "NotOlderThan"}
        with pytest.raises(TooLargeResourceVersion) as caught:
            cached.list("a", **options)
        assert caught.value.wanted == int(version) > caught.value.current
        assert caught.value.retry_after > 0
        with pytest.raises(TooLargeResourceVersion):
            cached.storage.get(cached.key("a/new"), resource_version=version)

        cached.feed.release()
        cached.settle(int(version))
        assert list(cached.list("a", **options)) == [new, old]

    def test_cached_reads_of_the_future(self, open_cache: OpenCache) -> None:
        """A cache refuses a version above the store's, as the store does (CACHE-10, LISTRV-9,
        GET-2)."""
        cached = open_cache(fresh_timeout=0.1)
        future = str(cached.settle() + FAR)
        for match in ("", "NotOlderThan", "Exact"):
            with pytest.raises(TooLargeResourceVersion):
                cached.list(resource_version=future, resource_version_match=match)
        with pytest.raises(TooLargeResourceVersion):
            cached.storage.get(cached.key("a/x"), resource_version=future)

    def test_cached_gets(self, cached: CachedPods, scribe: Scribe) -> None:
        """A ``get`` returns the store's object at every version, and a missing object is not found
        (GET-1 to GET-4)."""
        scribe.scribble(30)
        now = str(cached.settle())
        for number in range(6):
            for name in (f"a/p{number}", f"b/p{number}"):
                key = cached.key(name)
                want = scribe.history.now.get(key)
                for version in ("", "0", now):
                    options: dict[str, Any] = {"resource_version": version}
                    found = cached.storage.get(key, ignore_not_found=True, **options)
                    assert found == want
                    if want is None:
                        with pytest.raises(KeyNotFound):
                            cached.storage.get(key, **options)

    def test_a_second_cache_begins_with_what_is_there(
        self, open_cache: OpenCache, elsewhere: Pods
    ) -> None:
        """A cache is filled with the whole state before it answers (CACHE-2, CACHE-6)."""
        for turn in range(3):
            elsewhere.create_many(f"{'abc'[number % 3]}/{turn}-{number}" for number in range(40))
            cached = open_cache()
            listed = cached.list(resource_version="0", timeout=PATIENCE)
            assert listed.items == elsewhere.list().items
            assert len(listed) == 40 * (turn + 1)


def _whole(page: ObjectList[Pod]) -> tuple[Any, ...]:
    return page.items, page.resource_version, page.continue_token, page.remaining_item_count
