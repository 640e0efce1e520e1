"""The garbage collector is paused for a moment, and always goes on."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator

import pytest

from revstore.cacher._collector import collector_paused, drop_one_by_one


@pytest.fixture(autouse=True)
def enabled() -> Iterator[None]:
    gc.enable()
    yield
    gc.enable()


def test_it_goes_on_after_an_error() -> None:
    found: list[bool] = []

    def load() -> None:
        with collector_paused():
            found.append(gc.isenabled())
            raise MemoryError

    with pytest.raises(MemoryError):
        load()
    assert found == [False]
    assert gc.isenabled()


def test_who_has_disabled_it_finds_it_disabled() -> None:
    gc.disable()
    with collector_paused():
        assert not gc.isenabled()
    assert not gc.isenabled()


def test_a_second_thread_does_not_make_the_pause_longer() -> None:
    inside, over = threading.Event(), threading.Event()

    def second() -> None:
        with collector_paused():
            inside.set()
            over.wait(20)

    thread = threading.Thread(target=second)
    with collector_paused():
        thread.start()
        assert inside.wait(20)
    assert gc.isenabled()
    over.set()
    thread.join(20)
    assert gc.isenabled()


def test_a_child_that_is_forked_meanwhile_has_it_running() -> None:
    with collector_paused():
        child = os.fork()
        if not child:
            with collector_paused():
                paused = not gc.isenabled()
            os._exit(0 if paused and gc.isenabled() else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert not gc.isenabled()
    assert gc.isenabled()


def test_what_is_dropped_is_freed_one_after_the_other() -> None:
    left: list[int] = []

    class Freed:
        def __del__(self) -> None:
            left.append(len(objects))

    objects = [Freed() for _ in range(3)]
    drop_one_by_one(objects)
    assert left == [2, 1, 0]
