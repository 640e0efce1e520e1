"""``WatchTests``, part: which events a watch shows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from revstore.backend import Backend
from revstore.objects import with_metadata
from revstore.selectors import SelectionPredicate
from revstore.testing._support import let_block, promptly, run_threads
from revstore.testing.storage._base import OpenStorage, Pods, StorageSuite
from revstore.testing.storage._parts import Pod, name_of
from revstore.testing.watch._support import Short, gather, short

__all__ = ["EventTests", "ScopeTests"]


class EventTests(StorageSuite):
    """The type and content of the event for each change."""

    def test_event_types(self, pods: Pods) -> None:
        """A creation is ADDED, an overwrite MODIFIED, a deletion DELETED; an object created again
        is ADDED again (WATCH-10, WATCH-12)."""
        with pods.watch() as watch:
            objects = [
                pods.create("a", "n1"),
                pods.update("a", "n2"),
                pods.delete("a"),
                pods.create("a", "n3"),
            ]
            events = gather(watch, 4)
        assert [event.type.value for event in events] == ["ADDED", "MODIFIED", "DELETED", "ADDED"]
        assert [event.object for event in events] == objects

    def test_event_of_deletion(self, pods: Pods) -> None:
        """DELETED has the last content at the deletion's version, equal to what ``delete`` returned
        (WATCH-11)."""
        pods.create("a", "n1")
        updated = pods.update("a", "n2")
        with pods.watch(resource_version=updated.metadata.resource_version) as watch:
            deleted = pods.delete("a")
            (event,) = gather(watch, 1)
        assert event.object == deleted
        assert with_metadata(deleted, resource_version="") == with_metadata(
            updated, resource_version=""
        )
        assert int(event.resource_version) > int(updated.metadata.resource_version)

    def test_event_selector_transitions(self, pods: Pods) -> None:
        """An object that begins to match is ADDED, with its new content. One that ceases to match
        is DELETED, with its previous content at the update's version. One that keeps matching is
        MODIFIED; one that does not match gives no event (WATCH-10)."""
        with pods.watch(field_selector="spec.nodeName=yes") as watch:
            pods.create("a", "no")
            pods.update("a", "still no")
            entered = pods.update("a", "yes")
            _label(pods, "a", x="y")
            left = pods.update("a", "no")
            pods.update("a", "yes")
            pods.delete("a")
            pods.create("b", "no")
            pods.delete("b")
            pods.create("c", "yes")
            events = gather(watch, 6)

        assert short(events) == [
            ("ADDED", "a", "yes"),
            ("MODIFIED", "a", "yes"),
            ("DELETED", "a", "yes"),
            ("ADDED", "a", "yes"),
            ("DELETED", "a", "yes"),
            ("ADDED", "c", "yes"),
        ]
        assert events[0].object == entered
        assert events[2].resource_version == left.metadata.resource_version
        assert events[2].object.metadata.labels == {"x": "y"}

    def test_event_selector_on_labels(self, pods: Pods) -> None:
        """Label selectors work as field selectors do, for the initial state and for changes
        (WATCH-10, VER-4)."""
        pods.create("a", labels={"app": "web"})
        pods.create("b", labels={"app": "db"})
        with pods.watch(resource_version="", label_selector="app in (web,mail)") as watch:
            assert short(gather(watch, 1)) == [("ADDED", "a", "")]
            for value in ("mail", "db"):
                _label(pods, "a", app=value)
            events = gather(watch, 2)
        assert [event.type.value for event in events] == ["MODIFIED", "DELETED"]
        assert [event.object.metadata.labels["app"] for event in events] == ["mail", "mail"]

    def test_event_attributes_fail(self, pods: Pods, open_storage: OpenStorage) -> None:
        """An object whose attributes cannot be computed does not match (WATCH-13)."""

        def fields(obj: Pod, path: str) -> str:
            if obj.spec.node_name == "bad":
                raise RuntimeError("no fields")
            return "yes"

        storage = open_storage(fields=fields)
        with storage.watch(
            pods.prefix, resource_version=str(pods.start), field_selector="any=yes"
        ) as watch:
            pods.create("a", "bad")
            pods.update("a", "good")
            pods.update("a", "bad")
            pods.create("b", "good")
            events = gather(watch, 3)
        assert short(events) == [
            ("ADDED", "a", "good"),
            ("DELETED", "a", "good"),
            ("ADDED", "b", "good"),
        ]

    def test_event_none_for_what_is_no_write(self, pods: Pods) -> None:
        """Updates that change nothing, and refused writes, give no event (WATCH-13)."""
        with pods.watch() as watch:
            pods.create("a")
            pods.update("a", "")
            with pytest.raises(Exception, match="exists"):
                pods.create("a")
            with pytest.raises(Exception, match="not found"):
                pods.delete("b")
            pods.create("end")
            assert short(gather(watch, 2)) == [("ADDED", "a", ""), ("ADDED", "end", "")]

    def test_event_poll(self, pods: Pods) -> None:
        """``poll(0)`` does not wait. A poll that runs out of time returns None and leaves the watch
        usable. A write wakes a poll that waits (WATCH-9)."""
        with pods.watch() as watch:
            assert watch.poll(0) is None
            assert watch.poll(0.02) is None
            pods.create("a")
            gather(watch, 1)
            assert watch.poll(0) is None

            def work(index: int) -> Pod:
                if index:
                    return gather(watch, 1)[0].object
                let_block()
                return pods.create("b")

            with promptly():
                written, seen = run_threads(2, work)
        assert written == seen

    def test_event_iteration(self, pods: Pods) -> None:
        """Iteration gives the events one by one and ends when the watch is closed (WATCH-25)."""
        pods.create("a")
        pods.create("b")
        seen = []
        with pods.watch() as watch:
            for event in watch:
                seen.append(name_of(event.object))
                if len(seen) == 2:
                    watch.close()
        assert seen == ["a", "b"]

    def test_event_objects_are_the_readers_own(self, pods: Pods, open_storage: OpenStorage) -> None:
        """If one reader changes a mutable object, no other reader sees that (WATCH-10)."""
        dicts = open_storage(dict, cache_size=10)
        options: dict[str, Any] = {"resource_version": str(pods.start)}
        with (
            dicts.watch(pods.prefix, **options) as one,
            dicts.watch(pods.prefix, **options) as two,
        ):
            dicts.create(pods.key("a"), {"metadata": {"name": "a"}, "spec": {"x": 1}})
            for watch in (one, two):
                (event,) = watch.poll(20) or ()
                assert event.object["spec"] == {"x": 1}
                event.object["spec"].clear()
        assert dicts.get(pods.key("a"))["spec"] == {"x": 1}


def _label(pods: Pods, name: str, **labels: str) -> None:
    pods.storage.guaranteed_update(
        pods.key(name), lambda found, _: with_metadata(found, labels=labels)
    )


#: Names and selectors of the grid, cluster-scoped and in namespaces.
_SELECTORS = [
    "",
    "metadata.name=t1-foo",
    "metadata.name!=t1-foo",
    "metadata.namespace=t1",
    "metadata.namespace!=t1",
    "spec.nodeName=fakeNode",
    "spec.nodeName!=fakeNode",
    "metadata.name=t1-foo,spec.nodeName=fakeNode",
    "metadata.namespace=t1,metadata.name=t2-foo",
    "metadata.namespace=t1,metadata.namespace=t2",
]
_SCOPES = [("", True), ("t1", True), ("t1/t1-foo", False), ("t1-cluster", False)]


class ScopeTests(StorageSuite):
    """The keys that a watch covers."""

    def test_scope_of_a_namespace(self, backend: Backend, pods: Pods) -> None:
        """Below "ns" means below "ns/", not "ns-bad/" (WATCH-9, KEY-5)."""
        with pods.watch("ns") as watch:
            names = ("ns-bad/a", "ns/a", "ns", "nsa", "ns/b/c", "ns0/a")
            for name in self.storable(backend, names):
                pods.create(name)
            assert [name_of(event.object) for event in gather(watch, 2)] == ["ns/a", "ns/b/c"]

    def test_scope_of_one_object(self, backend: Backend, pods: Pods) -> None:
        """A watch of one key sees that object alone: created, deleted, created again (WATCH-9,
        WATCH-12)."""
        with pods.watch("a", recursive=False) as watch:
            _, *others = self.storable(backend, ("a", "a/b", "ab", "A"))
            for name in (*others, "a"):
                pods.create(name)
            pods.update(others[0], "n1")
            pods.delete("a")
            pods.create("a", "n2")
            events = gather(watch, 3)
        assert short(events) == [("ADDED", "a", ""), ("DELETED", "a", ""), ("ADDED", "a", "n2")]

    def test_scope_of_one_resource(self, pods: Pods, open_storage: OpenStorage) -> None:
        """Resources whose names begin alike are kept apart (WATCH-9, KEY-4)."""
        other_prefix = pods.prefix + "-more"
        other = Pods(open_storage(resource_prefix=other_prefix), pods.backend, other_prefix)
        with pods.watch() as watch:
            other.create("a", "other")
            pods.create("a", "mine")
            other.delete("a")
            pods.create("end")
            assert short(gather(watch, 2)) == [("ADDED", "a", "mine"), ("ADDED", "end", "")]

    @pytest.mark.parametrize("selector", _SELECTORS)
    @pytest.mark.parametrize(("scope", "recursive"), _SCOPES, ids=str)
    def test_scope_grid(self, pods: Pods, scope: str, recursive: bool, selector: str) -> None:
        """Every scope with every selector shows what a filter over all changes would show, from
        history and live. Selectors that contradict themselves show nothing (WATCH-14, WATCH-10)."""
        changes = list(_script(pods))
        predicate: SelectionPredicate[Pod] = SelectionPredicate.of("", selector)

        def covers(name: str) -> bool:
            if not recursive:
                return name == scope
            return name.startswith(scope + "/") if scope else True

        expected: list[Short] = []
        for name, before, after in changes:
            if covers(name):
                expected += _shown(predicate, name, before, after)
        end = f"{scope}/end" if recursive and scope else "end" if recursive else ""
        with pods.watch(scope, recursive=recursive, field_selector=selector) as watch:
            if end:
                # The last change is one that the watch shows whatever it selects.
                created = pods.create(end, "fakeNode")
                if predicate.matches(created):
                    expected.append(("ADDED", end, "fakeNode"))
            assert short(gather(watch, len(expected))) == expected
            assert watch.poll(0) is None


def _script(pods: Pods) -> Iterator[tuple[str, Pod | None, Pod | None]]:
    """Make writes, and yield the name, the object before and the object after each change."""
    state: dict[str, Pod] = {}
    steps: list[tuple[str, str | None]] = [
        ("t1/t1-foo", ""),
        ("t2/t1-foo", "fakeNode"),
        ("t2/t2-foo", ""),
        ("t1-cluster", ""),
        ("t1/t1-foo", "fakeNode"),
        ("t1/t2-foo", "fakeNode"),
        ("t1-cluster", "fakeNode"),
        ("t2/t1-foo", None),
        ("t1/t1-foo", "other"),
        ("t1/t1-foo", None),
        ("t1-cluster", None),
        ("t1/t1-foo", "fakeNode"),
    ]
    for name, node in steps:
        before = state.pop(name, None)
        if node is None:
            pods.delete(name)
        else:
            state[name] = pods.create(name, node) if before is None else pods.update(name, node)
        yield name, before, state.get(name)


def _shown(
    predicate: SelectionPredicate[Pod], name: str, before: Pod | None, after: Pod | None
) -> list[Short]:
    was = before is not None and predicate.matches(before)
    now = after is not None and predicate.matches(after)
    if now and after is not None:
        return [("MODIFIED" if was else "ADDED", name, after.spec.node_name)]
    if was and before is not None:
        return [("DELETED", name, before.spec.node_name)]
    return []
