"""``WatchTests``, part: bookmarks."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from revstore.backend import Backend
from revstore.errors import (
    InvalidArgument,
)
from revstore.objects import ObjectMeta
from revstore.storage import Event, EventType
from revstore.testing._support import wait_until
from revstore.testing.storage._base import OpenStorage, Pods, StorageSuite
from revstore.testing.storage._parts import Pod
from revstore.testing.watch._support import gather, short
from revstore.values import Capability

__all__ = ["BookmarkTests"]


class BookmarkTests(StorageSuite):
    """Bookmarks."""

    @pytest.mark.parametrize("version", ["", "0", "start"])
    def test_bookmark_after_initial_events(
        self, pods: Pods, open_storage: OpenStorage, version: str
    ) -> None:
        """With ``send_initial_events`` and ``allow_bookmarks`` exactly one bookmark follows the
        state: an empty object with the annotation and the store's version (WATCH-16)."""
        created = pods.create("ns1/a")
        later = pods.create("ns2/b")
        number = str(pods.start) if version == "start" else version
        with pods.watch(
            "ns1", resource_version=number, send_initial_events=True, allow_bookmarks=True
        ) as watch:
            added, mark = gather(watch, 2)
            pods.create("ns1/c")
            (live,) = gather(watch, 1)

        assert (added.object, added.initial_events_end) == (created, False)
        assert (mark.type, mark.initial_events_end) == (EventType.BOOKMARK, True)
        assert mark.object == Pod(
            metadata=ObjectMeta(
                resource_version=mark.resource_version,
                annotations={"k8s.io/initial-events-end": "true"},
            )
        )
        assert int(mark.resource_version) >= int(later.metadata.resource_version)
        assert short([live]) == [("ADDED", "ns1/c", "")]

    @pytest.mark.parametrize(
        "asked",
        [
            {"send_initial_events": True},
            {"send_initial_events": True, "resource_version": ""},
            {"send_initial_events": True, "resource_version": "0"},
            {"send_initial_events": False, "allow_bookmarks": True},
            {"send_initial_events": None, "allow_bookmarks": True},
            {"allow_bookmarks": True, "resource_version": ""},
        ],
        ids=str,
    )
    def test_bookmark_only_if_asked_for(self, pods: Pods, asked: dict[str, Any]) -> None:
        """Without both options there is no such bookmark. Initial events can still be requested
        without a version or without bookmarks (WATCH-17, WATCH-19)."""
        pods.create("a")
        with pods.watch(**asked) as watch:
            events = gather(watch, 1)
            pods.create("b")
            events += gather(watch, 1)
        assert short(events) == [("ADDED", "a", ""), ("ADDED", "b", "")]

    def test_bookmark_with_a_selector(self, pods: Pods) -> None:
        """A selector changes neither the bookmark nor its version. If it selects one object, that
        comes first; if it selects none, the bookmark comes alone (WATCH-18)."""
        first = pods.create("a")
        last = pods.create("b")
        for name, expected in (("a", [first]), ("none", [])):
            with pods.watch(
                resource_version="",
                field_selector=f"metadata.name={name}",
                send_initial_events=True,
                allow_bookmarks=True,
            ) as watch:
                events = gather(watch, len(expected) + 1)
            assert [event.object for event in events[:-1]] == expected
            assert events[-1].initial_events_end
            assert int(events[-1].resource_version) >= int(last.metadata.resource_version)

    def test_bookmark_of_one_object(self, backend: Backend, pods: Pods) -> None:
        """A watch of a single object has its bookmark too (WATCH-16)."""
        for name in self.storable(backend, ("a", "a/b")):
            pods.create(name)
        with pods.watch(
            "a",
            recursive=False,
            resource_version="",
            send_initial_events=True,
            allow_bookmarks=True,
        ) as watch:
            added, mark = gather(watch, 2)
        assert short([added]) == [("ADDED", "a", "")]
        assert mark.initial_events_end

    @pytest.mark.parametrize("notify", [True, False])
    def test_bookmark_of_progress(self, pods: Pods, backend: Backend, notify: bool) -> None:
        """With ``progress_notify``, progress is a bookmark: an empty object, at a version not below
        the watch's start, after all events up to it. Without it only the watch's own version moves
        (WATCH-19, WATCH-20)."""
        self.need(backend, Capability.PROGRESS)
        with pods.watch("ns", progress_notify=notify, allow_bookmarks=True) as watch:
            inside = pods.create("ns/a")
            outside = int(pods.create("other").metadata.resource_version)
            events: list[Event[Pod]] = []

            def reached() -> bool:
                pods.storage.request_progress()
                events.extend(watch.poll(0.05) or ())
                return int(watch.resource_version) >= outside

            wait_until(reached, "progress")
        marks = [event for event in events if event.type is EventType.BOOKMARK]
        assert [event.object for event in events if event not in marks] == [inside]
        assert bool(marks) is notify
        versions = [int(event.resource_version) for event in events]
        assert versions == sorted(versions)
        for mark in marks:
            assert not mark.initial_events_end
            assert mark.object == Pod(metadata=ObjectMeta(resource_version=mark.resource_version))
            assert int(mark.resource_version) >= pods.start

    def test_bookmark_needs_an_empty_object(self, pods: Pods, open_storage: OpenStorage) -> None:
        """A watch with bookmarks is refused at its opening if the type cannot be made without
        arguments, unless the storage has a function that makes an empty object (WATCH-19)."""

        @attrs.frozen(kw_only=True)
        class Strict:
            metadata: ObjectMeta
            needed: str

        options: list[dict[str, Any]] = [
            {"progress_notify": True},
            {"send_initial_events": True, "allow_bookmarks": True},
        ]
        storage = open_storage(Strict)
        for each in options:
            with pytest.raises(InvalidArgument) as caught:
                storage.watch(pods.prefix, **each)
            assert caught.value.field == "new_object"
        storage.watch(pods.prefix).close()

        told = open_storage(Strict, new_object=lambda: Strict(metadata=ObjectMeta(), needed=""))
        with told.watch(pods.prefix, **options[1]) as watch:
            (mark,) = watch.poll(20) or ()
        assert mark.initial_events_end
        dicts = open_storage(dict)
        with dicts.watch(pods.prefix, **options[1]) as watch:
            (mark,) = watch.poll(20) or ()
        assert mark.initial_events_end
        assert mark.object["metadata"]["resourceVersion"] == mark.resource_version
