"""A store that answers nothing: every call that was given a time ends in it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from revstore.backend import Backend, BackendWatch
from revstore.cacher import Cacher, CacherConfig
from revstore.errors import StorageError, Timeout
from revstore.memory import MemoryBackend
from revstore.storage import Storage
from revstore.testing._support import wait_until
from revstore.testing.storage._parts import PODS, ForwardingBackend, pod
from revstore.typed import TypedStorage

#: Seconds that calls are given, and that they may take longer.
TIMEOUT = 0.5
GRACE = 0.3


class Stalled(ForwardingBackend):
    """While it is ``stalled``, requests wait until their time is over, as on a server that is
    halted; watches stay silent. Those without a time of their own have 30 seconds."""

    def __init__(self, inner: Backend) -> None:
        super().__init__(inner)
        self._flows = threading.Event()
        self._flows.set()

    def stall(self) -> None:
        self._flows.clear()

    def flow(self) -> None:
        self._flows.set()

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name not in {"status", "get", "list", "count", "put", "delete", "size", "compact"}:
            return found

        def call(*args: Any, timeout: float | None = None, **options: Any) -> Any:
            if not self._flows.wait(30.0 if timeout is None else timeout):
                raise Timeout("the store is stalled")
            return found(*args, timeout=timeout, **options)

        return call

    def watch(self, key: str, **options: Any) -> BackendWatch:
        return _StalledWatch(self._flows, self.inner.watch(key, **options))


class _StalledWatch(BackendWatch):
    def __init__(self, flows: threading.Event, inner: BackendWatch) -> None:
        self._flows = flows
        self._inner = inner

    @property
    def position(self) -> int:
        return self._inner.position

    def poll(self, timeout: float | None = None) -> Any:
        if not self._flows.is_set():
            time.sleep(min(0.02, timeout or 0.02))
            return self._inner.poll(0) if self._flows.is_set() else self._checked()
        return self._inner.poll(timeout)

    def _checked(self) -> None:
        self._inner.request_progress()  # raises Closed once it is closed

    def request_progress(self) -> None:
        self._inner.request_progress()

    def close(self) -> None:
        self._inner.close()


CALLS: dict[str, Callable[[Any, str], Any]] = {
    "get": lambda s, _: s.get("/pods/a", timeout=TIMEOUT),
    "get fresh": lambda s, ahead: s.get("/pods/a", resource_version=ahead, timeout=TIMEOUT),
    "get any": lambda s, _: s.get("/pods/a", resource_version="0", timeout=TIMEOUT),
    "list": lambda s, _: s.list("/pods", timeout=TIMEOUT),
    "list fresh": lambda s, ahead: s.list("/pods", resource_version=ahead, timeout=TIMEOUT),
    "page": lambda s, _: s.list("/pods", limit=1, timeout=TIMEOUT),
    "selected": lambda s, _: s.list("/pods", label_selector="a=b", timeout=TIMEOUT),
    "exact": lambda s, ahead: s.list(
        "/pods", resource_version=ahead, resource_version_match="Exact", timeout=TIMEOUT
    ),
    "create": lambda s, _: s.create("/pods/b", pod("b"), timeout=TIMEOUT),
    "delete": lambda s, _: s.delete("/pods/a", timeout=TIMEOUT),
    "update": lambda s, _: s.guaranteed_update("/pods/a", lambda o, _m: o, timeout=TIMEOUT),
    "count": lambda s, _: s.count("/pods", timeout=TIMEOUT),
    "stats": lambda s, _: s.stats(timeout=TIMEOUT),
    "current": lambda s, _: s.current_revision(timeout=TIMEOUT),
    "compacted": lambda s, _: s.compact_revision(timeout=TIMEOUT),
    "ready": lambda s, _: s.ready(timeout=TIMEOUT),
    "watch": lambda s, _: s.watch("/pods", timeout=TIMEOUT).close(),
    "watch state": lambda s, ahead: s.watch(
        "/pods", resource_version=ahead, send_initial_events=True, timeout=TIMEOUT
    ).poll(TIMEOUT),
    "changes": lambda s, _: s.changes("/pods", timeout=TIMEOUT).poll(TIMEOUT),
    "wait_ready": lambda s, _: s.wait_ready(TIMEOUT),
    "check": lambda s, _: s.check_consistency(timeout=TIMEOUT),
}
OF_CACHES = {"wait_ready", "check"}


@pytest.fixture(params=["raw", "cached", "filling"])
def storage(request: pytest.FixtureRequest) -> Iterator[tuple[Storage[Any], str]]:
    """A storage over a store that has stalled, a cache before or after it was filled; and a
    version that it does not get to."""
    kind = request.param
    with Stalled(MemoryBackend()) as backend:
        store = TypedStorage(backend, PODS)
        version = store.create("/pods/a", pod("a")).metadata.resource_version
        storage: Storage[Any] = store
        if kind == "filling":
            backend.stall()
        if kind != "raw":
            storage = Cacher(CacherConfig(storage=store, resource_type=PODS))
        if isinstance(storage, Cacher) and kind == "cached":
            storage.wait_ready()
            wait_until(lambda: storage.counters.objects == 1, "it is filled")
        backend.stall()
        try:
            yield storage, str(int(version) + 5)
        finally:
            backend.flow()
            storage.close()


def test_every_call_ends_in_its_time(storage: tuple[Storage[Any], str]) -> None:
    """One deadline for all that a call asks for, and an error of the storage's if it passes."""
    opened, ahead = storage
    took: dict[str, float] = {}

    def run(name: str) -> None:
        began = time.monotonic()
        with contextlib.suppress(StorageError):
            CALLS[name](opened, ahead)
        took[name] = time.monotonic() - began

    names = [name for name in CALLS if isinstance(opened, Cacher) or name not in OF_CACHES]
    threads = [threading.Thread(target=run, args=(name,), daemon=True) for name in names]
    for thread in threads:
        thread.start()
    end = time.monotonic() + 3 * TIMEOUT
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    assert {name: took.get(name) for name in names if took.get(name, 9) > TIMEOUT + GRACE} == {}
