"""``WatchTests``, part: watches that go on after objects that cannot be read."""

from __future__ import annotations

from typing import Any

import pytest

from revstore.storage import Event, EventType
from revstore.testing.storage._base import Pods, StorageSuite
from revstore.testing.storage._parts import Pod
from revstore.testing.watch._support import gather, gather_until, short

__all__ = ["UnreadableWatchTests"]


class UnreadableWatchTests(StorageSuite):
    """``even_if_corrupt``: one bad object does not end a watch."""

    def test_watch_even_if_corrupt(self, pods: Pods) -> None:
        """Each time an unreadable object is written, an ERROR shows it in its place. It is ADDED
        once it can be read, and DELETED without an object if it is deleted first (WATCH-22)."""
        with pods.watch(even_if_corrupt=True) as watch:
            pods.create("a", "n1")
            value = pods.stored("a").value
            revisions = [pods.overwrite("a"), pods.overwrite("a"), pods.overwrite("a", value)]
            pods.overwrite("b")
            pods.storage.delete(pods.key("b"), even_if_corrupt=True)
            pods.update("a", "n2")
            pods.delete("a")
            events = gather(watch, 8)
        assert short(events) == [
            ("ADDED", "a", "n1"),
            ("ERROR", "a", "?"),
            ("ERROR", "a", "?"),
            ("ADDED", "a", "n1"),
            ("ERROR", "b", "?"),
            ("DELETED", "b", "?"),
            ("MODIFIED", "a", "n2"),
            ("DELETED", "a", "n2"),
        ]
        assert [int(event.resource_version) for event in events[1:4]] == revisions
        for event in events:
            assert (event.object is None) is (event.error is not None)
        errors = [event.error for event in events[1:3]]
        assert [int(error.resource_version) for error in errors if error] == revisions[:2]
        assert all(error is not None and error.key == pods.key("a") for error in errors)
        assert all(error is not None and error.__cause__ is not None for error in errors)

    def test_watch_even_if_corrupt_with_a_selector(self, pods: Pods) -> None:
        """Every watch shows the ERROR. Once the object can be read, it is ADDED if it matches, else
        DELETED (WATCH-10, WATCH-22)."""
        selector: dict[str, Any] = {"field_selector": "spec.nodeName=n1", "even_if_corrupt": True}
        with pods.watch(**selector) as watch, pods.watch("a", recursive=False, **selector) as one:
            pods.create("a", "n1")
            yes = pods.stored("a").value
            pods.create("b", "n2")
            no = pods.stored("b").value
            pods.overwrite("a")
            pods.overwrite("a", yes)
            pods.overwrite("a")
            pods.overwrite("a", no)
            pods.overwrite("b")
            pods.storage.delete(pods.key("b"), even_if_corrupt=True)
            of_a = [
                ("ADDED", "a", "n1"),
                ("ERROR", "a", "?"),
                ("ADDED", "a", "n1"),
                ("ERROR", "a", "?"),
                ("DELETED", "a", "?"),
            ]
            assert short(gather(watch, 7)) == [*of_a, ("ERROR", "b", "?"), ("DELETED", "b", "?")]
            assert short(gather(one, 5)) == of_a

    @pytest.mark.parametrize("selector", ["", "spec.nodeName=n1"])
    def test_watch_of_an_initial_state_even_if_corrupt(self, pods: Pods, selector: str) -> None:
        """Errors come among the initial events in key order, before the bookmark that ends them
        (WATCH-15, WATCH-22)."""
        for name, node in (("a", "n1"), ("c", "n2"), ("e", "n1")):
            pods.create(name, node)
        for name in ("d", "b"):
            pods.overwrite(name)

        def is_whole(events: list[Event[Pod]]) -> bool:
            return bool(events) and events[-1].initial_events_end

        with pods.watch(
            resource_version="",
            send_initial_events=True,
            allow_bookmarks=True,
            field_selector=selector,
            even_if_corrupt=True,
        ) as watch:
            events = gather_until(watch, is_whole)
            pods.overwrite("f")
            assert short(gather_until(watch, bool)) == [("ERROR", "f", "?")]
        wanted = [
            ("ADDED", "a", "n1"),
            ("ERROR", "b", "?"),
            ("ADDED", "c", "n2"),
            ("ERROR", "d", "?"),
            ("ADDED", "e", "n1"),
        ]
        if selector:
            del wanted[2]
        assert short(events[:-1]) == wanted
        assert events[-1].type is EventType.BOOKMARK
