"""Calls that ignore their timeout, and closes that wait, while the store is stalled."""

from __future__ import annotations

import contextlib
import threading
import time
from functools import partial

import pytest

from revstore.errors import Closed, Timeout
from revstore.memory import MemoryBackend
from revstore.testing import _support
from revstore.testing.backend import _life


class Stalling(MemoryBackend):
    """A right backend whose calls wait while it is stalled; those of ``hanging`` without an end."""

    timed = frozenset({"status", "get", "list", "count", "put", "delete", "size", "compact"})
    hanging = frozenset()

    def __init__(self):
        super().__init__()
        self.flows = threading.Event()
        self.flows.set()
        self.ended = threading.Event()

    @contextlib.contextmanager
    def stalled(self):
        self.flows.clear()
        try:
            yield
        finally:
            self.flows.set()

    def __getattribute__(self, name):
        found = super().__getattribute__(name)
        if name in Stalling.timed:
            return partial(self._wait, name, found)
        return partial(self._hang, found) if name in type(self).hanging else found

    def size(self, *, timeout=None):
        self.status(timeout=timeout)
        return 1 << 30

    def close(self):
        self.ended.set()
        super().close()

    def _wait(self, name, call, *args, timeout=30.0, **options):
        if name in self.hanging:
            self.flows.wait()
        end = time.monotonic() + timeout
        while not self.flows.wait(0.01):
            if self.ended.is_set():
                raise Closed("it was closed")
            if time.monotonic() > end:
                raise Timeout("the store is stalled")
        return call(*args, timeout=timeout, **options)

    def _hang(self, call, *args, **options):
        self.flows.wait()
        return call(*args, **options)


class HangingWatch(Stalling):
    hanging = frozenset({"watch"})


class HangingPoll(Stalling):
    """A poll waits without an end while the store is stalled."""

    def watch(self, key, **options):
        watch = super().watch(key, **options)
        for name in self.hung:
            setattr(watch, name, partial(self._hang, getattr(watch, name)))
        return watch

    hung = ("poll",)


class HangingProgress(HangingPoll):
    hung = ("request_progress",)


HANGING = [
    type(f"Hanging{name.title()}", (Stalling,), {"hanging": frozenset({name})})
    for name in sorted(Stalling.timed)
]


@pytest.mark.parametrize("test", ["test_deadlines", "test_close_of_a_stalled_store"])
def test_a_right_backend_passes_stalled(test):
    """No false alarm."""
    _try_stalled(Stalling, test)


@pytest.fixture
def _soon(monkeypatch):
    """The suite waits a second for what hangs."""
    monkeypatch.setattr(_life, "HANGS", 1.0)


def _try_stalled(fault, test):
    with fault() as backend:
        space = _support.Keyspace(backend, "/t/")
        getattr(_life.LifeTests(), test)(backend, space, backend.stalled)


@pytest.mark.slow
@pytest.mark.usefixtures("_soon")
@pytest.mark.parametrize("fault", [*HANGING, HangingWatch, HangingPoll, HangingProgress])
def test_the_suite_catches_a_timeout_that_is_ignored(fault):
    """By the test of deadlines, which does not hang itself."""
    with pytest.raises(AssertionError, match="a thread hangs"):
        _try_stalled(fault, "test_deadlines")


class ClosesWhenItFlows(Stalling):
    """``close`` waits for the store."""

    def close(self):
        self.flows.wait()
        super().close()


class LeavesCallsWaiting(Stalling):
    """``close`` does not wake calls that wait."""

    def close(self):
        MemoryBackend.close(self)


@pytest.mark.usefixtures("_soon")
@pytest.mark.parametrize("fault", [ClosesWhenItFlows, LeavesCallsWaiting])
def test_the_suite_catches_a_close_that_waits(fault):
    """Whether it waits itself, or calls do."""
    with pytest.raises(AssertionError, match="a thread hangs"):
        _try_stalled(fault, "test_close_of_a_stalled_store")
