"""The state machine's lists and gets."""

from __future__ import annotations

from typing import Any

import attrs
from hypothesis import strategies as st
from hypothesis.stateful import rule

from revstore.errors import Expired, Timeout, TooLargeResourceVersion
from revstore.storage import ObjectList
from revstore.testing._support import PATIENCE
from revstore.testing.cacher._history import Ask
from revstore.testing.cacher._machine import Asked, CacherMachineBase, asks, names, numbers
from revstore.testing.storage._base import Pods
from revstore.testing.storage._parts import Pod, name_of

__all__ = ["ReadRules"]


@attrs.define(eq=False)
class _Paging:
    """A list whose pages are not all read: ``want`` are the names to come, after the key
    ``last``."""

    ask: Ask
    limit: int
    token: str
    revision: int
    want: list[Pod]
    last: str


class ReadRules(CacherMachineBase):
    """Each read shows the state of one revision, and one that was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.paging: list[_Paging] = []

    def listed(self, pods: Pods, ask: Ask, **options: Any) -> ObjectList[Pod] | None:
        """Return a list, or None if it waited too long for a feed that is held back."""
        timeout = self.brief if self.held else PATIENCE
        name = ask.key.removeprefix("/pods").removeprefix("/")
        try:
            return pods.list(name, timeout=timeout, **ask.options, **options)
        except Timeout:
            assert self.held
            return None

    @rule(several=st.lists(asks, min_size=1, max_size=4))
    def list_latest(self, several: list[Asked]) -> None:
        """Check that a list has all acknowledged writes, and that cache and store agree."""
        for asked in several:
            ask, current = self.ask(asked), self.revision
            listed = self.listed(self.cached, ask)
            if listed is not None:
                assert int(listed.resource_version) >= current
                assert list(listed) == ask.among(self.history.now)
                assert listed == self.raw.list(asked.name, **ask.options)

    @rule(asked=asks, number=st.none() | numbers, match=st.sampled_from(["", "NotOlderThan"]))
    def list_not_older(self, asked: Asked, number: int | None, match: str) -> None:
        wanted = 0 if number is None else self.version(number)
        ask = self.ask(asked)
        options = {"resource_version": str(wanted), "resource_version_match": match}
        try:
            listed = self.listed(self.cached, ask, **options)
        except TooLargeResourceVersion:
            assert self.held
            assert wanted > self.shown
            return
        if listed is not None:
            assert int(listed.resource_version) >= max(wanted, self.shown)
            assert list(listed) == ask.among(self.history.at(int(listed.resource_version)))

    @rule(
        several=st.lists(asks, min_size=1, max_size=4),
        picked=st.lists(numbers, min_size=1, max_size=3),
        limit=st.integers(0, 3),
    )
    def list_exact(self, several: list[Asked], picked: list[int], limit: int) -> None:
        """Check lists of old states, some of which the cache must remember."""
        for number in picked:
            revision = self.version(number)
            for asked in several:
                self.check_exact(self.ask(asked), revision, limit)

    def check_exact(self, ask: Ask, revision: int, limit: int) -> None:
        options = {"resource_version": str(revision), "resource_version_match": "Exact"}
        try:
            listed = self.listed(self.cached, ask, limit=limit, **options)
        except Expired:
            assert not self.must_list(ask, revision)
            return
        if listed is not None:
            want = ask.among(self.history.at(revision))
            self.check_page(ask, limit, listed, revision, want)

    @rule(several=st.lists(asks, min_size=1, max_size=4), limit=st.integers(1, 4))
    def list_first_page(self, several: list[Asked], limit: int) -> None:
        for asked in several:
            ask, current = self.ask(asked), self.revision
            listed = self.listed(self.cached, ask, limit=limit)
            if listed is not None:
                revision = int(listed.resource_version)
                assert revision >= current
                self.check_page(ask, limit, listed, revision, ask.among(self.history.now))

    # No precondition: whether there are any depends on how quick the feed was.
    @rule(number=numbers, raw=st.booleans())
    def list_next_page(self, number: int, raw: bool) -> None:
        """Check that a token goes on in one state, whether the cache or the store made it."""
        if not self.paging:
            return
        paging = self.paging.pop(number % len(self.paging))
        options: dict[str, Any] = {"limit": paging.limit, "continue_token": paging.token}
        try:
            listed = self.listed(self.raw if raw else self.cached, paging.ask, **options)
        except Expired as error:
            assert paging.revision < self.compacted
            assert raw or not self.must_list(paging.ask, paging.revision)
            self.list_the_rest(paging, error.continue_token)
            return
        if listed is not None:
            self.check_page(paging.ask, paging.limit, listed, paging.revision, paging.want)

    def list_the_rest(self, paging: _Paging, token: str) -> None:
        """Check that the token of Expired gives the rest of the latest state."""
        assert token
        listed = self.listed(self.cached, paging.ask, continue_token=token)
        if listed is not None:
            state = self.history.at(int(listed.resource_version))
            rest = {key: state[key] for key in state if key > paging.last}
            assert list(listed) == paging.ask.among(rest)

    def must_list(self, ask: Ask, revision: int) -> bool:
        """Return whether the state at ``revision`` must be available, from the store or from the
        cache."""
        if revision >= self.compacted:
            return True
        return ask.recursive and self.remembered(revision) and revision <= self.shown

    def check_page(
        self, ask: Ask, limit: int, listed: ObjectList[Pod], revision: int, want: list[Pod]
    ) -> None:
        """Check that the page has the first of ``want``; the others come on later pages."""
        if not ask.recursive:
            limit = 0
        rest = want[limit:] if limit else []
        assert listed.resource_version == str(revision)
        assert list(listed) == want[: len(want) - len(rest)]
        if rest:
            assert listed.continue_token
        if listed.continue_token:
            count = None if ask.selection.label or ask.selection.field else len(rest)
            assert listed.remaining_item_count == count
            last = self.raw.key(name_of(listed[-1]))
            self.paging.append(_Paging(ask, limit, listed.continue_token, revision, rest, last))

    @rule(name=names, number=st.none() | numbers)
    def get(self, name: str, number: int | None) -> None:
        """Check that gets return the latest state, or one not older than their version."""
        key, wanted = self.raw.key(name), 0 if number is None else self.version(number)
        options: dict[str, Any] = {"ignore_not_found": True}
        assert self.cached.storage.get(key, **options) == self.history.now.get(key)
        options |= {"timeout": self.brief if self.held else PATIENCE}
        try:
            found = self.cached.storage.get(key, resource_version=str(wanted), **options)
        except TooLargeResourceVersion:
            assert self.held
            assert wanted > self.shown
            return
        begin = max(wanted, self.shown)
        later = self.history.between(begin, self.history.last)
        states = [self.history.at(begin).get(key), *(each.new for each in later if each.key == key)]
        assert found in states
