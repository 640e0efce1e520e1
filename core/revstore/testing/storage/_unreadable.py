"""``StorageTests``, part: lists that skip what cannot be read."""

from __future__ import annotations

import pytest

from revstore.errors import CorruptObject, CorruptObjects
from revstore.storage import ObjectList
from revstore.testing.storage._base import Pods, StorageSuite
from revstore.testing.storage._parts import Pod, name_of

__all__ = ["UnreadableListTests"]


def _shown(page: ObjectList[Pod]) -> tuple[list[str], list[str]]:
    """Return the names of the items, and those of the unreadable objects."""
    errors = [error.key.rsplit("/", 1)[-1] for error in page.errors]
    return [name_of(item) for item in page], errors


class UnreadableListTests(StorageSuite):
    """``even_if_corrupt``: one bad object does not hide the others."""

    def test_list_even_if_corrupt(self, pods: Pods) -> None:
        """A list returns the readable objects, and an error with key and version for each other
        one, in key order. If all can be read, there are no errors (LIST-21)."""
        for name in ("a", "b", "c", "d"):
            pods.create(name, "n1" if name in "ac" else "n2")
        assert pods.list("", even_if_corrupt=True) == pods.list("")
        revisions = [pods.overwrite(name) for name in ("d", "b")]
        for options in ({}, {"resource_version": "0"}, {"resource_version": str(revisions[-1])}):
            page = pods.list("", even_if_corrupt=True, **options)
            assert _shown(page) == (["a", "c"], ["b", "d"])
            assert [int(each.resource_version) for each in page.errors] == revisions[::-1]
            assert all(each.__cause__ is not None for each in page.errors)
            assert len(page) == 2

    def test_list_even_if_corrupt_with_a_selector(self, pods: Pods) -> None:
        """An unreadable object is always named, since nobody knows whether it matches (LIST-21)."""
        for name, node in (("a", "n1"), ("b", "n2"), ("c", "n1")):
            pods.create(name, node)
        pods.overwrite("b")
        for selector, names in (("spec.nodeName=n1", ["a", "c"]), ("spec.nodeName=n3", [])):
            page = pods.list("", field_selector=selector, even_if_corrupt=True)
            assert _shown(page) == (names, ["b"])

    def test_list_of_one_even_if_corrupt(self, pods: Pods) -> None:
        """A list that is not recursive shows only its own object, unreadable or not (LIST-1)."""
        pods.overwrite("a")
        pods.overwrite("ab")
        pods.create("b")
        assert _shown(pods.list("a", recursive=False, even_if_corrupt=True)) == ([], ["a"])
        assert _shown(pods.list("b", recursive=False, even_if_corrupt=True)) == (["b"], [])

    def test_list_of_nothing_but_corrupt_objects(self, pods: Pods) -> None:
        """More than a hundred unreadable objects are all named, since the list did not fail
        (LIST-24)."""
        names = [f"k{number:03}" for number in range(103)]
        for name in names:
            pods.overwrite(name)
        assert _shown(pods.list("", even_if_corrupt=True)) == ([], names)
        with pytest.raises(CorruptObjects):
            pods.list("")

    @pytest.mark.parametrize("limit", [1, 2, 3])
    def test_pages_even_if_corrupt(self, pods: Pods, limit: int) -> None:
        """Unreadable objects take no place in a page. Each is named once, in the page in whose span
        of keys it lies. The remaining count includes them, since the keys that follow have not been
        read (LIST-9, LIST-12)."""
        names = ["a", "b", "c", "d", "e", "f", "g", "h", "i"]
        corrupt = {"a", "c", "d", "g", "i"}
        for name in names:
            if name in corrupt:
                pods.overwrite(name)
            else:
                pods.create(name)
        pages = pods.pages("", limit=limit, even_if_corrupt=True)
        rows: list[str] = []
        for page in pages:
            items, errors = _shown(page)
            if page.continue_token:
                assert len(items) == limit
            span = sorted(items + errors)
            rows += span
            if page.continue_token:
                assert span[-1] == items[-1]
                assert page.remaining_item_count == len(names) - len(rows)
            else:
                assert page.remaining_item_count is None
        assert rows == names
        assert len({page.resource_version for page in pages}) == 1

    def test_get_names_the_way_out(self, pods: Pods) -> None:
        """The error of a ``get`` says how to remove the object (GET-6)."""
        pods.overwrite("a")
        with pytest.raises(CorruptObject, match="even_if_corrupt"):
            pods.read("a")
