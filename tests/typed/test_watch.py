"""Polls of a raw storage's watches: what they find, raise, and survive."""

from __future__ import annotations

import signal
import traceback
from collections.abc import Iterator
from typing import Any

import pytest

from revstore.codec import DictCodec
from revstore.errors import (
    Expired,
    InternalError,
    TooLargeResourceVersion,
)
from revstore.factory._resource_prefixes import resource_prefixes
from revstore.memory import MemoryBackend
from revstore.resource_type import ResourceType
from revstore.testing.storage._parts import ForwardingBackend
from revstore.typed import TypedStorage
from revstore.values import ListResult

KEY = "/pods/default/web"


Store = TypedStorage[dict[str, Any]]


@pytest.fixture
def storage() -> Iterator[Store]:
    with MemoryBackend() as backend, TypedStorage(backend, ResourceType(dict, "/pods")) as store:
        yield store


def test_an_ended_watch_raises_its_error_anew(storage: Store) -> None:
    """Every poll raises what ended the watch, with the key as it was given; no poll's traceback
    grows by those before it. (WATCH-7)"""
    depths = []
    with storage.watch("/pods/", resource_version="99", send_initial_events=True) as watch:
        for _ in range(5):
            with pytest.raises(TooLargeResourceVersion) as raised:
                watch.poll(0)
            assert raised.value.key == "/pods/"
            assert raised.value.wanted == 99
            depths.append(len(traceback.extract_tb(raised.value.__traceback__)))
    assert len(set(depths[1:])) == 1


def test_an_ended_watch_keeps_the_cause() -> None:
    """The backend's own error is chained to each. (WATCH-8)"""
    with MemoryBackend() as backend, TypedStorage(backend, ResourceType(dict, "/pods")) as store:
        store.create(KEY, {"metadata": {}})
        backend.compact(store.current_revision())
        with store.watch("/pods", resource_version="1") as watch:
            for _ in range(3):
                with pytest.raises(Expired) as raised:
                    watch.poll(0)
                assert type(raised.value.__cause__).__name__ == "Compacted"


def test_a_poll_that_does_not_wait_looks_behind_what_is_left_out(storage: Store) -> None:
    """A change that the selector leaves out does not hide a later one at hand. (WATCH-10)"""
    start = storage.current_revision()
    for at in range(600):
        storage.create(f"/pods/default/{at:03}", {"metadata": {"labels": {"last": str(at == 599)}}})
    with storage.watch("/pods", resource_version=str(start), label_selector="last=True") as watch:
        events = None
        for _ in range(20):  # each looks at what it gets through in a moment
            events = watch.poll(0)
            if events:
                break
        assert events is not None
        assert len(events) == 1


def test_progress_is_asked_for_though_a_watch_has_just_ended(storage: Store) -> None:
    """One watch that ends meanwhile keeps the others from nothing. (WATCH-20)"""
    with storage.watch("/pods", resource_version="1") as ended:
        assert ended._raw._watch is not None  # type: ignore[attr-defined]
        ended._raw._watch.close()  # type: ignore[attr-defined]
        with storage.watch("/pods", resource_version="1", progress_notify=True) as watch:
            storage.request_progress()
            assert watch.poll(5)


class _Interrupted(DictCodec):
    """Ctrl-C comes while the object numbered ``at`` is decoded."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self._left = at

    def decode(self, data: bytes) -> dict[str, Any]:
        self._left -= 1
        if not self._left:
            signal.raise_signal(signal.SIGINT)
        return super().decode(data)


@pytest.mark.parametrize("at", [1, 700, 1001, 1002, 1004])
def test_an_interrupted_poll_loses_nothing(at: int) -> None:
    """A poll that Ctrl-C ended is repeated by the next: the state's pages, then changes.
    (WATCH-28)"""
    with MemoryBackend() as backend:
        names = [f"{number:04}" for number in range(1004)]
        plain = TypedStorage(backend, ResourceType(dict, "/pods"))
        for name in names[:1001]:
            plain.create(f"/pods/{name}", {"metadata": {"name": name}})
        codec = _Interrupted(at)
        watched = TypedStorage(backend, ResourceType(dict, "/pods", codec=codec))
        seen: list[str] = []
        interrupts = 0
        with watched.watch("/pods", send_initial_events=True) as watch:
            while len(seen) < len(names):
                try:
                    events = watch.poll(5)
                except KeyboardInterrupt:
                    interrupts += 1
                    continue
                assert events is not None
                seen += [event.object["metadata"]["name"] for event in events]
                if len(seen) == 1001:
                    for name in names[1001:]:
                        plain.create(f"/pods/{name}", {"metadata": {"name": name}})
        assert (seen, interrupts) == (names, 1)


class _Empty(ForwardingBackend):
    def list(self, prefix: str, **options: Any) -> ListResult:
        return ListResult(self.inner.status().revision, (), more=True)


def test_a_backend_that_breaks_its_contract_is_told_of() -> None:
    """An empty page that is not the last is no reason to read for ever. (LIST-7, WATCH-28)"""
    with MemoryBackend() as inner, TypedStorage(_Empty(inner), ResourceType(dict, "/pods")) as s:
        for call in (
            lambda: s.list("/pods", limit=1),
            s.watch("/pods").poll,
            lambda: list(resource_prefixes(_Empty(inner), "/registry")),
        ):
            with pytest.raises(InternalError, match="empty page"):
                call()
