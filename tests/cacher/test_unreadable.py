"""What a cache makes of objects that cannot be read."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revstore.cacher import Cacher, CacherConfig
from revstore.errors import CorruptObjects
from revstore.memory import MemoryBackend
from revstore.registry import Registry
from revstore.resource_type import ResourceType
from revstore.storage import Event, EventType, ObjectList, Storage, Watch
from revstore.testing._support import PATIENCE
from revstore.testing.storage._parts import PODS, Pod, name_of, pod
from revstore.typed import TypedStorage
from revstore.values import ListResult

GARBAGE = b"garbage"
KEYS = ("x/a", "x/b", "y/c")


def overwrite(backend: MemoryBackend, key: str, value: bytes = GARBAGE) -> int:
    """Store other bytes than a storage would; the revision."""
    found = backend.get(key).kv
    return backend.put(key, value, expected_revision=found.revision if found else 0).revision


def test_a_kind_with_nothing_readable_is_not_an_empty_one() -> None:
    """A cache filled with nothing but unreadable objects says so. (LIST-21)"""
    with MemoryBackend() as backend:
        overwrite(backend, "/registry/configmaps/default/a")
        maps: ResourceType[dict[str, Any]] = ResourceType(dict, "/configmaps")
        config = CacherConfig(storage=TypedStorage(backend, maps), resource_type=maps)
        with Registry(Cacher(config), resource_prefix="/configmaps") as registry:
            for namespace, version in ((None, ""), (None, "0"), ("default", "0")):
                with pytest.raises(CorruptObjects):
                    registry.list(namespace, resource_version=version)
            found = registry.list(even_if_corrupt=True)
            assert [each.key for each in found.errors] == ["/configmaps/default/a"]
            with registry.watch(even_if_corrupt=True) as watch:
                (event,) = watch.poll(PATIENCE)
            assert event.type is EventType.ERROR


def test_states_of_the_past_know_what_could_not_be_read(open_parts: Callable[..., Any]) -> None:
    """A list of an old revision, at which something could not be read, does not leave it out:
    whatever became of it since. (DELEG-10, LIST-21)"""
    parts = open_parts(MemoryBackend())
    parts.put("a")
    good = parts.backend.get("/registry/pods/a").kv.value
    for name, last in (("repaired", good), ("gone", None), ("twice", good)):
        key = f"/registry/pods/{name}"
        revisions = [overwrite(parts.backend, key)]
        if name == "twice":
            revisions.append(overwrite(parts.backend, key))
        if last is None:
            parts.backend.delete(key, expected_revision=revisions[-1])
        else:
            overwrite(parts.backend, key, last)
        parts.settle()
        for revision in revisions:
            options = {"resource_version": str(revision), "resource_version_match": "Exact"}
            with pytest.raises(CorruptObjects) as caught:
                parts.cache.list("/pods", **options)
            assert [each.key for each in caught.value.errors] == [f"/pods/{name}"]
            shown = parts.cache.list("/pods", even_if_corrupt=True, **options)
            assert shown == parts.store.list("/pods", even_if_corrupt=True, **options) or [
                each.key for each in shown.errors
            ] == [f"/pods/{name}"]


def test_states_of_the_past_that_can_be_read_are_in_the_cache(
    open_parts: Callable[..., Any],
) -> None:
    """What cannot be read now does not send lists of the past to the store. (DELEG-4)"""
    parts = open_parts(MemoryBackend())
    before = parts.put("a")
    overwrite(parts.backend, "/registry/pods/a")
    overwrite(parts.backend, "/registry/pods/b")
    with pytest.raises(CorruptObjects):
        parts.settle()
    served = parts.cache.counters.served_by_cache
    options = {"resource_version": before, "resource_version_match": "Exact"}
    assert [name_of(each) for each in parts.cache.list("/pods", **options)] == ["a"]
    assert parts.cache.counters.served_by_cache == served + 1


class _Restless(MemoryBackend):
    """Does something else right after a list."""

    then: Callable[[], None] | None = None

    def list(self, prefix: str, **options: Any) -> ListResult:
        found = super().list(prefix, **options)
        then, self.then = self.then, None
        if then is not None:
            then()
        return found


@pytest.mark.parametrize("after", ["repaired", "deleted", "written again"])
def test_a_check_finds_no_difference_that_is_none(
    open_parts: Callable[..., Any], after: str
) -> None:
    """Not if an object cannot be read at the revision that is compared, but was written or
    deleted since. (CACHE-22)"""
    backend = _Restless()
    parts = open_parts(backend)
    parts.put("a")
    good = backend.get("/registry/pods/a").kv.value
    revision = overwrite(backend, "/registry/pods/b")

    def then() -> None:
        if after == "deleted":
            last = backend.delete("/registry/pods/b", expected_revision=revision).revision
        else:
            last = overwrite(backend, "/registry/pods/b", good if after == "repaired" else GARBAGE)
        parts.cache.get("/pods/a", resource_version=str(last))

    backend.then = then
    report = parts.cache.check_consistency(timeout=PATIENCE)
    assert (report.consistent, report.objects) == (True, 1)


# --- one answer in every reading -----------------------------------------------------------------

Step = tuple[str, str]  # what is done, to which key


steps = st.lists(
    st.tuples(
        st.sampled_from(["yes", "no", "garbage", "garbage", "delete"]), st.sampled_from(KEYS)
    ),
    max_size=12,
)


class Readings:
    """A store, read raw and cached."""

    def __init__(self, backend: MemoryBackend) -> None:
        self.backend = backend
        self.raw: Storage[Pod] = TypedStorage(backend, PODS)
        self.cached = Cacher(
            CacherConfig(
                storage=TypedStorage(backend, PODS),
                resource_type=PODS,
                indexed_fields=("spec.nodeName",),
            )
        )

    def do(self, step: Step) -> None:
        what, key = step
        physical = f"/registry/pods/{key}"
        found = self.backend.get(physical).kv
        if what == "garbage":
            overwrite(self.backend, physical)
        elif what != "delete":
            data = PODS.codec.encode(pod(key.rsplit("/", 1)[-1], what))
            overwrite(self.backend, physical, data)
        elif found is not None:
            self.backend.delete(physical, expected_revision=found.revision)

    def so_far(self, watches: Iterable[tuple[Any, ...]]) -> list[list[list[Event[Pod]]]]:
        """What each raw and each cached watch has by now."""
        last = int(self.cached.list("/pods", even_if_corrupt=True).resource_version)
        self.raw.request_progress()
        return [[list(_upto(watch, last)) for watch in pair] for _, *pair in watches]


def told(event: Event[Pod]) -> tuple[str, ...]:
    """All that an event says."""
    if event.error is None:
        return (
            event.type,
            event.resource_version,
            name_of(event.object),
            event.object.spec.node_name,
        )
    error = event.error
    return event.type, event.resource_version, error.key, error.resource_version, error.reason


def listed(page: ObjectList[Pod]) -> tuple[Any, ...]:
    """All that a page says."""
    errors = [(each.key, each.resource_version, each.reason) for each in page.errors]
    return page.items, errors, page.resource_version, page.remaining_item_count


def left_behind(events: Iterable[Event[Pod]]) -> list[str]:
    """The names of objects, and of errors with a mark, that a reader of the events has in the
    end."""
    state: dict[str, str] = {}
    for event in events:
        name = event.error.key.rsplit("/", 1)[-1] if event.error else name_of(event.object)
        if event.type is EventType.DELETED:
            del state[name]  # KeyError: no event showed it
            continue
        assert (event.type is EventType.MODIFIED) <= (state.get(name) == "")
        state[name] = "?" if event.type is EventType.ERROR else ""
    return sorted(name + mark for name, mark in state.items())


SELECTORS = ("", "spec.nodeName=yes", "spec.nodeName!=no", "metadata.name=a")


@given(before=steps, after=steps, limit=st.integers(0, 3))
def test_one_answer_in_every_reading(before: list[Step], after: list[Step], limit: int) -> None:
    """Lists and watches, raw and cached, at every revision, show the same objects and errors; and
    what a watch leaves behind is what a list shows. (WATCH-10, LIST-21)"""
    with MemoryBackend() as backend:
        readings = Readings(backend)
        with readings.raw, readings.cached:
            readings.cached.wait_ready(PATIENCE)  # it remembers what came after it was filled
            first = backend.status().revision
            for step in before:
                readings.do(step)
            watches = [
                (
                    (scope, selector, initial),
                    *(
                        storage.watch(
                            "/pods" + scope,
                            field_selector=selector,
                            resource_version="" if initial else str(max(first, 1)),
                            send_initial_events=initial,
                            even_if_corrupt=True,
                        )
                        for storage in (readings.raw, readings.cached)
                    ),
                )
                for scope in ("", "/x")
                for selector in SELECTORS
                for initial in (True, False)
            ]
            # A raw watch reads the state that it begins with when it is polled.
            starts = readings.so_far(watches)
            for step in after:
                readings.do(step)
            last = backend.status().revision
            ends = readings.so_far(watches)
            for ((scope, selector, _), *_), *parts in zip(watches, starts, ends, strict=True):
                now = readings.raw.list(
                    "/pods" + scope, field_selector=selector, even_if_corrupt=True
                )
                assert listed(
                    readings.cached.list(
                        "/pods" + scope, field_selector=selector, even_if_corrupt=True
                    )
                ) == listed(now)
                streams = [[*begun, *rest] for begun, rest in zip(*parts, strict=True)]
                assert [told(e) for e in streams[0]] == [told(e) for e in streams[1]]
                errors = [each.key.rsplit("/", 1)[-1] + "?" for each in now.errors]
                assert left_behind(streams[0]) == sorted(errors + [name_of(e) for e in now])
            for revision in range(max(first, 1), last + 1):
                exact = {"resource_version": str(revision), "resource_version_match": "Exact"}
                pages = [
                    [listed(page) for page in _pages(storage, limit, exact)]
                    for storage in (readings.raw, readings.cached)
                ]
                assert pages[0] == pages[1]


def _upto(watch: Watch[Pod], revision: int) -> Iterable[Event[Pod]]:
    """What a watch has at ``revision``. A poll that finds nothing does not say that it is there: a
    raw watch gives up, once time is over, among changes that its selector leaves out."""
    deadline = time.monotonic() + PATIENCE
    while int(watch.resource_version or 0) < revision:
        assert time.monotonic() < deadline, f"at {watch.resource_version}, not at {revision}"
        yield from watch.poll(0) or ()


def _pages(storage: Storage[Pod], limit: int, exact: dict[str, str]) -> Iterable[ObjectList[Pod]]:
    options: dict[str, Any] = dict(exact)
    while True:
        page = storage.list("/pods", limit=limit, even_if_corrupt=True, **options)
        yield page
        if not page.continue_token:
            return
        options = {"continue_token": page.continue_token}
