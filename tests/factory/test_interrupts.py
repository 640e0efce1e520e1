"""Exceptions at any line of opening and closing: nothing stays open that nobody has."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from revstore.backend import Backend
from revstore.errors import Closed
from revstore.factory import StorageFactory, _factory, open_registry, open_storage
from revstore.memory import MemoryBackend
from revstore.testing._support import run_threads, wait_until
from revstore.testing.interrupts import interrupt_every_line

_FILES = ("/factory/_factory.py", "/compactor.py", "/cacher/_cacher.py", "/registry/_registry.py")


def where(code: Any) -> bool:
    """The code that holds the parts together; the parts' own is interrupted in their tests."""
    return code.co_filename.endswith(_FILES)


@pytest.fixture
def backends(monkeypatch: pytest.MonkeyPatch) -> list[MemoryBackend]:
    """Those that were opened."""
    found: list[MemoryBackend] = []

    def open_backend(_: object) -> Backend:
        found.append(MemoryBackend())
        return found[-1]

    monkeypatch.setattr(_factory, "open_backend", open_backend)
    return found


def check_closed(backends: list[MemoryBackend], spot: str, threads: int) -> None:
    """All backends are closed, and all threads ended."""
    for backend in backends:
        with pytest.raises(Closed):
            raise AssertionError(f"{spot}: {backend.status()}")
    backends.clear()
    wait_until(lambda: threading.active_count() <= threads, f"no thread is left: {spot}")


OPENINGS: dict[str, Callable[[], Any]] = {
    "storage": lambda: open_storage("memory://", dict, resource="pods"),
    "cached": lambda: open_storage("memory://", dict, resource="pods", cached=True),
    "registry": lambda: open_registry("memory://", dict, resource="pods", cached=True),
}


@pytest.mark.parametrize("kind", OPENINGS)
def test_an_interrupted_opening_leaves_nothing(backends: list[MemoryBackend], kind: str) -> None:
    """What was not handed out is closed; what was is closed by its next ``close``."""
    opened: list[Any] = []
    threads = threading.active_count()

    def attempt() -> None:
        opened.append(OPENINGS[kind]())
        opened[-1].close()

    def after(spot: str) -> None:
        for each in opened:
            run_threads(1, lambda _, each=each: each.close())
        opened.clear()
        check_closed(backends, spot, threads)

    assert interrupt_every_line(attempt, where=where, after=after, visits=1) > 50


def test_a_factory_goes_on_after_an_interrupt(backends: list[MemoryBackend]) -> None:
    """What is asked for again is there, by one backend, and ``close`` closes all there is."""
    threads = threading.active_count()
    factories: list[StorageFactory] = []
    closing: list[Any] = []

    def attempt() -> None:
        factories.append(StorageFactory("memory://"))
        registry = factories[-1].registry("pods", cached=True)
        closing.append(registry)
        factories[-1].storage(dict, resource="nodes")
        registry.close()
        closing.clear()
        factories[-1].close()

    def after(spot: str) -> None:
        while closing:
            closing.pop().close()
        for factory in factories:
            if not factory._closed:
                run_threads(1, lambda _, f=factory: f.registry("pods", cached=True).list(timeout=9))
                assert len(factory.open_backends()) == 1, spot
                assert len(factory.open_storages()) <= 2, spot
            run_threads(1, lambda _, f=factory: f.close())
            assert factory.open_storages() == (), spot
        factories.clear()
        check_closed(backends, spot, threads)

    assert interrupt_every_line(attempt, where=where, after=after, visits=1) > 50


@pytest.mark.parametrize("cached", [False, True])
def test_a_registry_that_is_half_closed_is_not_handed_out(
    backends: list[MemoryBackend], cached: bool
) -> None:
    """After an interrupted close the factory makes another, that works; the close may be
    repeated and takes nothing from it."""
    with StorageFactory("memory://") as factory:

        def attempt() -> None:
            closing.append(factory.registry("pods", cached=cached))
            closing[-1].close()

        def after(spot: str) -> None:
            begun = [each for each in closing if each.closing]
            registry = factory.registry("pods", cached=cached)
            run_threads(1, lambda _: registry.list(timeout=9))
            assert registry not in begun, spot
            for each in begun:
                run_threads(1, lambda _, each=each: each.close())
            run_threads(1, lambda _: registry.list(timeout=9))
            assert factory.registry("pods", cached=cached) is registry, spot
            closing.clear()

        closing: list[Any] = []
        interrupt_every_line(
            attempt,
            where=lambda code: code.co_name == "close" and "/revstore/" in code.co_filename,
            after=after,
        )
