"""``StorageTests``, part: the shape of lists, selectors, other states."""

from __future__ import annotations

from typing import Any

import pytest

from revstore.backend import Backend
from revstore.errors import (
    Expired,
    InternalError,
    InvalidArgument,
    InvalidSelector,
)
from revstore.selectors import parse_field_selector, parse_label_selector
from revstore.testing._support import run_threads
from revstore.testing.storage._base import OpenStorage, Pods, Seed, StorageSuite
from revstore.testing.storage._parts import ForwardingBackend, Pod, name_of
from revstore.values import Capability, ListResult

__all__ = ["ListTests"]


class ListTests(StorageSuite):
    """The shape of lists, selectors, and lists of other states."""

    def test_list_scopes(self, backend: Backend, pods: Pods) -> None:
        """A recursive list shows the objects below the key and a slash; a list that is not
        recursive shows only the object at the key (LIST-1, LIST-2, KEY-5)."""
        stored = self.storable(backend, ("a/b/c", "a/e", "a/b", "a", "ab", "ac/d", "b"))
        for name in stored:
            pods.create(name)
        below = {name: pods.names(name) for name in ("", "a", "a/", "a/b", "ab", "absent", "b")}
        single = {
            name: pods.names(name, recursive=False) for name in ("a", "a/b", "ac", "absent", "b")
        }

        def there(found: dict[str, list[str]]) -> dict[str, list[str]]:
            return {
                name: [each for each in names if each in stored] for name, names in found.items()
            }

        expected_below = {
            "": ["a", "a/b", "a/b/c", "a/e", "ab", "ac/d", "b"],
            "a": ["a/b", "a/b/c", "a/e"],
            "a/": ["a/b", "a/b/c", "a/e"],
            "a/b": ["a/b/c"],
            "ab": [],
            "absent": [],
            "b": [],
        }
        assert below == there(expected_below)
        assert single == there({"a": ["a"], "a/b": ["a/b"], "ac": [], "absent": [], "b": ["b"]})

    def test_list_whole(self, pods: Pods) -> None:
        """A list without a limit comes in one answer, flat and in key order, without token and
        remaining count (LIST-5, LIST-9, BASE-6)."""
        seed = Seed.sow(pods)
        listed = pods.list()

        assert listed.items == seed.now
        assert (listed.continue_token, listed.remaining_item_count) == ("", None)
        assert int(listed.resource_version) >= seed.history[-1][0]
        assert pods.list("second").items == seed.now[1:3]

    def test_list_bad_arguments(self, pods: Pods) -> None:
        """A negative limit and selectors that do not parse are refused by name (LIST-8)."""
        bad: list[tuple[str, dict[str, Any], type[InvalidArgument]]] = [
            ("limit", {"limit": -1}, InvalidArgument),
            ("labelSelector", {"label_selector": "a in"}, InvalidSelector),
            ("fieldSelector", {"field_selector": "a"}, InvalidSelector),
        ]
        for field, options, error in bad:
            for recursive in (True, False):
                with pytest.raises(error) as caught:
                    pods.list("a", recursive=recursive, **options)
                assert caught.value.field == field

    @pytest.mark.parametrize(
        ("label", "field", "names"),
        [
            ("", "", ["x/a", "x/b", "y/a", "y/c"]),
            ("app=web", "", ["x/a", "y/a"]),
            ("app!=web", "", ["x/b", "y/c"]),
            ("app in (web,db),tier", "", ["y/a"]),
            ("!tier", "", ["x/a", "x/b", "y/c"]),
            ("", "metadata.name=a", ["x/a", "y/a"]),
            ("", "metadata.name!=a", ["x/b", "y/c"]),
            ("", "metadata.namespace=y", ["y/a", "y/c"]),
            ("", "spec.nodeName=n1", ["x/a", "x/b"]),
            ("", "spec.nodeName=", ["y/a"]),
            ("", "spec.nodeName!=,metadata.namespace=y", ["y/c"]),
            ("", "no.such.field=", ["x/a", "x/b", "y/a", "y/c"]),
            ("", "no.such.field=x", []),
            ("app=web", "spec.nodeName=n1", ["x/a"]),
            ("app=web", "spec.nodeName=n2", []),
        ],
    )
    def test_list_selectors(self, pods: Pods, label: str, field: str, names: list[str]) -> None:
        """An object must match both the label and the field selector. Selectors may be text or
        parsed, and apply to whole lists, to pages and to single objects (VER-4, LIST-10)."""
        pods.create("x/a", "n1", labels={"app": "web"})
        pods.create("x/b", "n1")
        pods.create("y/a", "", labels={"app": "web", "tier": "1"})
        pods.create("y/c", "n2", labels={"app": "db"})
        parsed: dict[str, Any] = {
            "label_selector": parse_label_selector(label),
            "field_selector": parse_field_selector(field),
        }
        assert pods.names(label_selector=label, field_selector=field) == names
        assert pods.names(**parsed) == names
        paged = pods.pages(label_selector=label, field_selector=field, limit=1)
        assert [name_of(item) for page in paged for item in page] == names
        for name in ("x/a", "y/c"):
            found = pods.names(name, recursive=False, **parsed)
            assert found == ([name] if name in names else [])

    def test_list_attributes_are_computed_for_selectors_only(
        self, pods: Pods, open_storage: OpenStorage
    ) -> None:
        """``labels`` and ``fields`` are called only for selectors that are not empty. An object for
        which they fail is not shown (VER-4, LIST-6)."""
        asked: list[str] = []

        def labels(obj: Pod) -> Any:
            asked.append("labels")
            return {"name": obj.metadata.name} if obj.metadata.name != "b" else None

        def fields(obj: Pod, path: str) -> str:
            asked.append("fields")
            if obj.metadata.name == "b":
                raise RuntimeError("no fields for b")
            return "yes" if path == "is.a.pod" else "no"

        storage = open_storage(labels=labels, fields=fields)
        for name in ("a", "b", "c"):
            pods.create(name)

        def names(**options: Any) -> list[str]:
            return [name_of(item) for item in storage.list(pods.prefix, **options)]

        assert (names(), asked) == (["a", "b", "c"], [])
        assert names(label_selector="name=c") == ["c"]
        assert set(asked) == {"labels"}
        asked.clear()
        assert names(field_selector="is.a.pod=yes") == ["a", "c"]
        assert set(asked) == {"fields"}
        assert names(label_selector="name!=a", field_selector="is.a.pod=yes") == ["c"]

    def test_list_exact_repeats_an_earlier_list(self, pods: Pods, backend: Backend) -> None:
        """An exact list at the version of an earlier list repeats it while others write, with
        selector and limit too (LIST-4)."""
        self.need(backend, Capability.HISTORICAL_READS)
        for number in range(12):
            pods.create(f"k{number:02}", f"n{number % 3}")
        options: dict[str, Any] = {"field_selector": "spec.nodeName!=n1", "limit": 3}

        def work(index: int) -> None:
            if index:
                for turn in range(30):
                    pods.update(f"k{(turn * index) % 12:02}", f"n{turn % 3}")
                return
            for _ in range(10):
                whole = pods.list(resource_version=str(pods.start))
                paged = pods.pages(**options)
                again = {"resource_version": whole.resource_version}
                assert pods.list(resource_version_match="Exact", **again) == whole
                version = paged[0].resource_version
                again = {"resource_version": version, "resource_version_match": "Exact"}
                assert pods.pages(**options, **again) == paged

        run_threads(3, work)

    def test_list_sees_acknowledged_writes(self, pods: Pods) -> None:
        """A list without a version shows every write acknowledged before the call (LIST-20)."""

        def work(index: int) -> None:
            for turn in range(20):
                created = pods.create(f"{index}/{turn:02}")
                listed = pods.list(str(index))
                assert created in listed.items
                assert len(listed) == turn + 1
                assert int(listed.resource_version) >= int(created.metadata.resource_version)

        run_threads(4, work)

    @pytest.mark.usefixtures("compactable")
    def test_list_after_compaction(self, pods: Pods) -> None:
        """Exact lists work at the compacted revision and above, and are Expired below it. The
        storage knows the compacted revision (LIST-20, LISTRV-10, CMP-4, ERR-8)."""
        seed = Seed.sow(pods)
        compacted = seed.history[5][0]
        pods.backend.compact(compacted)
        for revision, state in seed.history:
            exact = {"resource_version": str(revision), "resource_version_match": "Exact"}
            if revision >= compacted:
                assert pods.list(**exact).items == state
                continue
            with pytest.raises(Expired, match="too old") as caught:
                pods.list(**exact)
            assert int(caught.value.resource_version or pods.start) >= pods.start
        assert pods.storage.compact_revision() == compacted
        assert pods.list().items == seed.now

    def test_list_without_history(self, pods: Pods, backend: Backend) -> None:
        """Without old states, a list comes whole, whatever the limit, and an exact list below the
        current revision is Expired (LISTRV-3, LISTRV-10)."""
        if self.claims(backend, Capability.HISTORICAL_READS):
            pytest.skip("claims historical reads, which other tests check")
        seed = Seed.sow(pods)
        listed = pods.list(limit=2)
        assert (listed.items, listed.continue_token) == (seed.now, "")
        assert listed.remaining_item_count is None
        for limit, match in ((0, "Exact"), (2, "")):
            with pytest.raises(Expired):
                pods.list(
                    resource_version=str(seed.history[0][0]),
                    resource_version_match=match,
                    limit=limit,
                )

    def test_list_refuses_a_backend_that_errs(
        self, pods: Pods, open_storage: OpenStorage, backend: Backend, reads_backend: None
    ) -> None:
        """A backend that announces more after an empty page, or answers at another revision than
        requested, causes InternalError; no object is lost silently (LIST-7)."""
        self.need(backend, Capability.HISTORICAL_READS)
        created = pods.create("a")

        class Empty(ForwardingBackend):
            def list(self, prefix: str, **options: Any) -> ListResult:
                found = super().list(prefix, **options)
                return ListResult(found.revision, (), more=True)

        class Moved(ForwardingBackend):
            def list(self, prefix: str, **options: Any) -> ListResult:
                found = super().list(prefix, **options)
                return ListResult(found.revision + 1, found.kvs)

        exact: dict[str, Any] = {
            "resource_version": created.metadata.resource_version,
            "resource_version_match": "Exact",
        }
        for broken in (Empty(backend), Moved(backend)):
            storage = open_storage(over=broken)
            with pytest.raises(InternalError, match="contract"):
                storage.list(pods.prefix, **exact)
