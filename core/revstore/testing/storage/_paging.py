"""``StorageTests``, part: limits and continue tokens."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from revstore.backend import Backend
from revstore.errors import InvalidArgument, InvalidContinueToken
from revstore.testing._support import run_threads
from revstore.testing.storage._base import OpenStorage, Pods, Seed, StorageSuite
from revstore.testing.storage._parts import MarkingTransformer, SpyBackend, name_of

__all__ = ["PagingTests", "read_token"]


def _token(fields: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(fields).encode()).rstrip(b"=").decode()


def read_token(token: str) -> dict[str, Any]:
    """Return the fields of a token."""
    fields = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    assert isinstance(fields, dict)
    return fields


_GOOD = {"v": "meta.k8s.io/v1", "rv": 5, "start": "a"}


_BAD_TOKENS = {
    "not base64": "!!!",
    "padded": _token({**_GOOD, "start": "ab"}) + "=",
    "not JSON": "YWJj",
    "no object": _token([1]),
    "other version": _token({**_GOOD, "v": "meta2.k8s.io/v1"}),
    "no version": _token({"rv": 5, "start": "a"}),
    "revision 0": _token({**_GOOD, "rv": 0}),
    "revision of text": _token({**_GOOD, "rv": "5"}),
    "empty start": _token({**_GOOD, "start": ""}),
    "start goes up": _token({**_GOOD, "start": "../b"}),
    "start goes down and up": _token({**_GOOD, "start": "a/../../b"}),
    "start with a dot": _token({**_GOOD, "start": "./a"}),
    "start with two slashes": _token({**_GOOD, "start": "a//b"}),
}


class PagingTests(StorageSuite):
    """Lists in pages."""

    @pytest.mark.usefixtures("history")
    def test_paging(self, pods: Pods) -> None:
        """Four objects at limit 1 are four pages of one state. No page shows an object that is
        created, changed or deleted meanwhile (FIX-2, LISTRV-13, LIST-8, LIST-9, LIST-16)."""
        seed = [pods.create(name) for name in "abcd"]
        first = pods.list(limit=1)
        second = pods.list(limit=1, continue_token=first.continue_token)
        pods.create("b5")
        pods.update("c", "n1")
        pods.delete("d")
        third = pods.list(limit=1, continue_token=second.continue_token)
        fourth = pods.list(limit=1, continue_token=third.continue_token, resource_version="0")
        pages = [first, second, third, fourth]

        assert [page.items for page in pages] == [(item,) for item in seed]
        assert [page.remaining_item_count for page in pages] == [3, 2, 1, None]
        assert [bool(page.continue_token) for page in pages] == [True, True, True, False]
        assert {page.resource_version for page in pages} == {first.resource_version}
        assert pods.names() == ["a", "b", "b5", "c"]

    @pytest.mark.usefixtures("history")
    def test_paging_all_sizes(self, pods: Pods) -> None:
        """For every limit the pages together are the whole list, and the remaining count is that of
        the objects that follow (LIST-8, LIST-25)."""
        seed = Seed.sow(pods)
        for name in ("", "second"):
            whole = pods.list(name).items
            for limit in range(1, 8):
                pages = pods.pages(name, limit=limit)
                left = len(whole)
                for page in pages:
                    left -= len(page)
                    assert page.remaining_item_count == (left or None)
                assert tuple(item for page in pages for item in page) == whole
        assert whole == seed.now[1:3]

    @pytest.mark.usefixtures("history")
    def test_paging_token_format(self, pods: Pods) -> None:
        """A token has Kubernetes' format: the last key and a NUL, relative to the list's prefix,
        and the first page's version (LIST-14)."""
        Seed.sow(pods)
        for name, start in (("", "second/bar\0"), ("second", "foo\0")):
            page = pods.list(name, limit=2)
            if not page.continue_token:
                assert name == "second"
                continue
            assert read_token(page.continue_token) == {
                "v": "meta.k8s.io/v1",
                "rv": int(page.resource_version),
                "start": start,
            }
            assert "=" not in page.continue_token

    @pytest.mark.usefixtures("history")
    @pytest.mark.parametrize("kind", _BAD_TOKENS)
    def test_paging_bad_token(self, pods: Pods, kind: str) -> None:
        """A malformed token, or one that would leave the prefix, is refused (LIST-15, ERR-8)."""
        with pytest.raises(InvalidContinueToken, match="invalid continue token"):
            pods.list(continue_token=_BAD_TOKENS[kind])

    @pytest.mark.usefixtures("history")
    def test_paging_token_with_a_version(self, pods: Pods) -> None:
        """A token together with a version other than "0" is refused (LISTRV-13, LISTRV-15)."""
        seed = Seed.sow(pods)
        page = pods.list(limit=2)
        for match in ("", "Exact", "NotOlderThan"):
            with pytest.raises(InvalidArgument, match="not allowed when using continue"):
                pods.list(
                    continue_token=page.continue_token,
                    resource_version=page.resource_version,
                    resource_version_match=match,
                )
        rest = pods.list(continue_token=page.continue_token, resource_version="0")
        assert page.items + rest.items == seed.now

    @pytest.mark.usefixtures("history")
    def test_paging_token_and_one_object(self, pods: Pods) -> None:
        """The list of a single object ignores a token (LISTRV-16)."""
        pods.create("a")
        for token in ("nonsense", _token(_GOOD)):
            assert pods.names("a", recursive=False, continue_token=token) == ["a"]

    @pytest.mark.usefixtures("history")
    def test_paging_token_without_limit(self, pods: Pods) -> None:
        """A token without a limit gives all the rest of the same state (LIST-16)."""
        seed = Seed.sow(pods)
        page = pods.list(limit=2)
        pods.create("zzz")
        rest = pods.list(continue_token=page.continue_token)

        assert page.items + rest.items == seed.now
        assert (rest.continue_token, rest.remaining_item_count) == ("", None)
        assert rest.resource_version == page.resource_version

    @pytest.mark.usefixtures("history")
    def test_paging_token_of_the_latest(self, pods: Pods) -> None:
        """A token with a negative revision goes on in the latest state, and the pages after it keep
        to that state. Its key need not exist, and a slash before it changes nothing (LISTRV-14,
        LIST-15, LIST-16)."""
        for name in "abcde":
            pods.create(name)
        for start in ("b\0", "bb", "/bb", "c"):
            page = pods.list(limit=1, continue_token=_token({**_GOOD, "rv": -1, "start": start}))
            pods.create("c5")
            rest = pods.pages(continue_token=page.continue_token, limit=1)
            pods.delete("c5")
            assert [name_of(item) for part in (page, *rest) for item in part] == ["c", "d", "e"]
            assert {part.resource_version for part in rest} == {page.resource_version}
            assert int(page.resource_version) > pods.start

    @pytest.mark.usefixtures("history")
    def test_paging_from_an_exact_version(self, pods: Pods) -> None:
        """A first page at an old version pins that version for all further pages (LISTRV-6,
        LISTRV-8)."""
        seed = Seed.sow(pods)
        for revision, state in seed.history:
            for match in ("", "Exact"):
                pages = pods.pages(
                    limit=2, resource_version=str(revision), resource_version_match=match
                )
                assert tuple(item for page in pages for item in page) == state
                assert {page.resource_version for page in pages} == {str(revision)}

    @pytest.mark.usefixtures("history")
    def test_paging_with_a_selector(
        self,
        pods: Pods,
        open_storage: OpenStorage,
        backend: Backend,
        reads_backend: None,
    ) -> None:
        """Pages of two over foo, bar, foo, foo, without bar: the first takes two reads and decodes
        three objects, the second takes one read and decodes one. No page has a remaining count
        (LIST-9, LIST-10, LIST-13)."""
        transformer, spy = MarkingTransformer(), SpyBackend(backend)
        storage = open_storage(over=spy, transformer=transformer)
        seen = Pods(storage, backend, pods.prefix)
        for name in ("1/foo", "2/bar", "3/foo", "4/foo"):
            seen.create(name)
        options: dict[str, Any] = {"field_selector": "metadata.name!=bar", "limit": 2}

        transformer.reads.clear()
        first = seen.list(**options)
        assert [name_of(item) for item in first] == ["1/foo", "3/foo"]
        assert (len(transformer.reads), len(spy.named("list"))) == (3, 2)
        transformer.reads.clear()
        second = seen.list(**options, continue_token=first.continue_token)
        assert [name_of(item) for item in second] == ["4/foo"]
        assert (len(transformer.reads), len(spy.named("list"))) == (1, 3)
        assert bool(first.continue_token) > bool(second.continue_token)
        assert first.remaining_item_count is None
        assert second.remaining_item_count is None

    @pytest.mark.usefixtures("history")
    def test_paging_token_iff_keys_are_unread(self, pods: Pods) -> None:
        """With a selector there is a token exactly if keys were left unread: none if the last match
        is the last key, one if any key follows, matching or not (LIST-10, LIST-11)."""
        options: dict[str, Any] = {"field_selector": "metadata.name=x", "limit": 2}
        pods.create("a/x")
        pods.create("b/y")
        fewer = pods.list(**options)
        pods.create("c/x")
        exact = pods.list(**options)
        pods.create("d/y")
        followed = pods.list(**options)
        rest = pods.list(**options, continue_token=followed.continue_token)

        assert [name_of(item) for item in fewer] == ["a/x"]
        assert exact.items == followed.items
        assert [name_of(item) for item in exact] == ["a/x", "c/x"]
        assert [page.continue_token != "" for page in (fewer, exact, followed, rest)] == [
            False,
            False,
            True,
            False,
        ]
        assert rest.items == ()

    @pytest.mark.usefixtures("history")
    def test_paging_rare_match(
        self,
        pods: Pods,
        open_storage: OpenStorage,
        backend: Backend,
        reads_backend: None,
    ) -> None:
        """If only the last of 1,000 objects matches, a list with limit 1 returns it without a
        token, after 10 reads of doubling size at one revision (FIX-2, LIST-11, LIST-12)."""
        pods.create_many(f"k{number:04}" for number in range(1000))
        spy = SpyBackend(backend)
        storage = open_storage(over=spy)
        listed = storage.list(pods.prefix, field_selector="metadata.name=k0999", limit=1)
        reads = spy.named("list")

        assert [name_of(item) for item in listed] == ["k0999"]
        assert listed.continue_token == ""
        assert [read["limit"] for read in reads] == [1 << turn for turn in range(10)]
        assert {read["revision"] for read in reads[1:]} == {int(listed.resource_version)}

    @pytest.mark.usefixtures("history")
    def test_paging_while_others_write(self, pods: Pods) -> None:
        """The pages of a list together equal an exact list at their version, whatever others write
        (FIX-2, LIST-4)."""
        for number in range(20):
            pods.create(f"k{number:02}")

        def work(index: int) -> None:
            if index < 2:
                for turn in range(40):
                    name = f"k{(turn * 2 + index) % 20:02}"
                    pods.delete(name)
                    pods.create(name, f"n{turn}")
                return
            for _ in range(8):
                pages = pods.pages(limit=3)
                at = pages[0].resource_version
                exact = pods.list(resource_version=at, resource_version_match="Exact")
                assert [item for page in pages for item in page] == list(exact)
                assert {page.resource_version for page in pages} == {at}

        run_threads(4, work)
