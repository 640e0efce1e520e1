"""``StorageTests``, part: which state a list shows, for every combination of arguments."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from revstore.errors import (
    Expired,
    InvalidArgument,
    InvalidResourceVersion,
    StorageError,
    TooLargeResourceVersion,
)
from revstore.testing.storage._base import FAR, Pods, Seed, StorageSuite
from revstore.testing.storage._parts import name_of
from revstore.values import Capability

__all__ = ["MatrixTests"]


_LATEST, _EXACT = "latest", "exact"


_Answer = str | type[StorageError]


@attrs.frozen
class _Case:
    """One line of the table: ``below`` is the answer of a recursive list, ``one`` that of the list
    of a single object."""

    row: str
    version: str
    match: str
    limit: int
    below: _Answer
    one: _Answer

    def __str__(self) -> str:
        return f"{self.row}-rv={self.version}-{self.match}-limit={self.limit}"


def _cases() -> list[_Case]:
    """Return the cases of the table in ``Storage.list``, without tokens (LISTRV-1 to 12)."""
    too_large, bad = TooLargeResourceVersion, InvalidResourceVersion
    table: list[tuple[str, str, tuple[str, ...], tuple[int, ...], _Answer, _Answer]] = [
        ("LISTRV-1", "", ("", "Exact", "NotOlderThan", "nonsense"), (0, 2), _LATEST, _LATEST),
        ("LISTRV-2", "0", ("", "NotOlderThan"), (0,), _LATEST, _LATEST),
        ("LISTRV-3", "0", ("", "NotOlderThan"), (2,), _LATEST, _LATEST),
        ("LISTRV-4", "0", ("Exact",), (0, 2), _LATEST, _LATEST),
        ("LISTRV-5", "old", ("",), (0,), _LATEST, _LATEST),
        ("LISTRV-5", "compacted", ("",), (0,), _LATEST, _LATEST),
        ("LISTRV-5", "future", ("",), (0,), too_large, too_large),
        ("LISTRV-6", "old", ("",), (2,), _EXACT, _LATEST),
        ("LISTRV-6", "now", ("",), (2,), _EXACT, _LATEST),
        ("LISTRV-7", "old", ("NotOlderThan",), (0, 2), _LATEST, _LATEST),
        ("LISTRV-7", "compacted", ("NotOlderThan",), (0, 2), _LATEST, _LATEST),
        ("LISTRV-7", "future", ("NotOlderThan",), (0, 2), too_large, too_large),
        ("LISTRV-8", "old", ("Exact",), (0, 2), _EXACT, _EXACT),
        ("LISTRV-8", "now", ("Exact",), (0, 2), _EXACT, _EXACT),
        ("LISTRV-8", "before", ("Exact",), (0, 2), _EXACT, _EXACT),
        ("LISTRV-9", "future", ("Exact",), (0, 2), too_large, too_large),
        ("LISTRV-9", "future", ("",), (2,), too_large, too_large),
        ("LISTRV-10", "compacted", ("Exact",), (0, 2), Expired, Expired),
        ("LISTRV-10", "compacted", ("",), (2,), Expired, _LATEST),
        ("LISTRV-11", "old", ("nonsense", "exact"), (0, 2), InvalidArgument, InvalidArgument),
        ("LISTRV-11", "0", ("nonsense",), (0, 2), InvalidArgument, InvalidArgument),
        ("LISTRV-12", "garbage", ("", "Exact", "NotOlderThan"), (0, 2), bad, bad),
        ("LISTRV-12", "-1", ("", "Exact"), (0, 2), bad, bad),
    ]
    return [
        _Case(row, version, match, limit, below, one)
        for row, version, matches, limits, below, one in table
        for match in matches
        for limit in limits
    ]


class MatrixTests(StorageSuite):
    """The table of resource version, match and limit."""

    @pytest.mark.parametrize("recursive", [True, False], ids=["below", "one"])
    @pytest.mark.parametrize("case", _cases(), ids=str)
    def test_list_matrix(
        self, request: pytest.FixtureRequest, pods: Pods, case: _Case, recursive: bool
    ) -> None:
        """Each combination shows the state that the table in ``Storage.list`` names, page by page
        (LISTRV-1 to LISTRV-12, LIST-3, LIST-8, FIX-1, VER-3)."""
        answer = case.below if recursive else case.one
        seed = Seed.sow(pods)
        old, state = seed.history[3]
        if case.version == "compacted":
            request.getfixturevalue("compactable")
            pods.backend.compact(seed.history[-1][0])
        elif answer == _EXACT or (case.version == "0" and not self.raw):
            self.need(pods.backend, Capability.HISTORICAL_READS)
        if case.version == "now":
            old, state = seed.history[-1]
        elif case.version == "before":
            old, state = pods.start, ()
        numbers = {"future": pods.start + FAR, "compacted": old, "old": old, "now": old}
        numbers["before"] = old
        version = str(numbers.get(case.version, case.version))
        options = {"resource_version": version, "resource_version_match": case.match}

        def pages() -> list[Any]:
            name = "" if recursive else "first/bar"
            return pods.pages(name, recursive=recursive, limit=case.limit, **options)

        if not isinstance(answer, str):
            self._check_refusal(answer, pages)
            return
        found = pages()
        if answer == _LATEST:
            state = seed.now
        if not recursive:
            state = tuple(item for item in state if name_of(item) == "first/bar")
        assert tuple(item for page in found for item in page) == state
        self._check_versions(pods, found, old if answer == _EXACT else None, seed)
        paged = Capability.HISTORICAL_READS in pods.backend.capabilities and self.raw
        if recursive and case.limit and paged:
            assert [len(page) for page in found] == _sizes(len(state), case.limit)

    @staticmethod
    def _check_refusal(answer: type[StorageError], pages: Any) -> None:
        with pytest.raises(answer) as caught:
            pages()
        error = caught.value
        assert type(error) is answer
        if isinstance(error, TooLargeResourceVersion):
            assert str(error.wanted) in str(error)
            assert str(error.current) in str(error)
            assert 0 < error.current < error.wanted
        if isinstance(error, Expired):
            assert error.continue_token == ""

    def _check_versions(self, pods: Pods, pages: list[Any], exact: int | None, seed: Seed) -> None:
        versions = {page.resource_version for page in pages}
        assert len(versions) == 1, "all pages show one state"
        (version,) = versions
        if exact is not None:
            assert version == str(exact)
        else:
            assert int(version) >= seed.history[-1][0]
            if self.ephemeral:
                assert version == str(pods.storage.current_revision())


def _sizes(count: int, limit: int) -> list[int]:
    full, rest = divmod(count, limit)
    return [limit] * full + ([rest] if rest or not full else [])
