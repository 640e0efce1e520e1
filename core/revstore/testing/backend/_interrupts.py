"""``BackendTests``, part: exceptions that a signal's handler raises in the middle of a call."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import CodeType
from typing import Self

import pytest

from revstore.backend import Backend, BackendWatch
from revstore.errors import Compacted, Timeout, Unreachable
from revstore.testing._support import PATIENCE, Keyspace, collect, wait_until
from revstore.testing.backend._base import BackendSuite
from revstore.testing.interrupts import Interrupted, code_below, interrupt_every_line
from revstore.values import Capability, WatchEvent

__all__ = ["InterruptTests"]


class _Builtin(TimeoutError, ValueError, RuntimeError, IndexError, KeyError):
    """An error of a handler that code may catch when others raise it. It has no ``errno``."""


class _Storage(Unreachable, Timeout):
    """An error of a handler that is one of the contract's own errors and invites a repetition."""

    def __init__(self) -> None:
        super().__init__("raised by a handler")


_ERRORS = pytest.mark.parametrize("error", [Interrupted, _Builtin, _Storage])
_Error = Callable[[], BaseException]


class InterruptTests(BackendSuite):
    """A signal's handler may raise at any line of the backend. The call then raises that error,
    even if it looks like an error of the store. A write was made completely or not at all, and
    later calls work as before."""

    @_ERRORS
    def test_interrupted_reads(self, backend: Backend, space: Keyspace, error: _Error) -> None:
        """Later reads show every write acknowledged before them (LIST-20)."""
        revision = space.create("a", b"0")
        calls: list[Callable[[], object]] = [
            backend.status,
            lambda: backend.get(space.key("a")),
            lambda: backend.list(space.prefix),
            lambda: backend.count(space.prefix),
        ]
        if self.claims(backend, Capability.HISTORICAL_READS):
            calls += [
                lambda: backend.get(space.key("a"), revision=revision),
                lambda: backend.list(space.prefix, revision=revision),
            ]
        with _Elsewhere(backend, space) as elsewhere:
            for call in calls:
                interrupt_every_line(
                    call, where=_code_of(backend), after=elsewhere.check, error=error
                )

    @_ERRORS
    def test_interrupted_writes(self, backend: Backend, space: Keyspace, error: _Error) -> None:
        """The key is unchanged or written, at its own revision; the next write succeeds."""
        with _Elsewhere(backend, space) as elsewhere:

            def write() -> None:
                name = "w"
                kv = space.find(name)
                expected = kv.revision if kv else 0
                backend.put(space.key(name), b"new", expected_revision=expected)
                kv = space.find(name)
                assert kv is not None
                backend.delete(space.key(name), expected_revision=kv.revision)

            def check(spot: str) -> None:
                elsewhere.check(spot)
                kv = space.find("w")
                assert kv is None or kv.value == b"new", spot
                assert [each.key for each in space.list("w").kvs] == ([kv.key] if kv else []), spot
                assert backend.count(space.key("w")).count == (kv is not None), spot

            interrupt_every_line(write, where=_code_of(backend), after=check, error=error)

    @_ERRORS
    def test_interrupted_polls(self, backend: Backend, space: Keyspace, error: _Error) -> None:
        """A watch that is polled again neither loses nor repeats anything; nor does a watch that
        begins at its position (WATCH-15)."""
        told: list[WatchEvent] = []
        numbers = iter(range(1 << 30))
        watch = space.watch()

        def attempt() -> None:
            batch = watch.poll(0)
            if batch is not None:
                told.extend(batch.events)

        def write_one_more(_: str) -> None:
            space.create(f"{next(numbers):05}")

        write_one_more("")
        interrupt_every_line(attempt, where=_code_of(backend), after=write_one_more, error=error)
        write_one_more("")
        total = next(numbers)
        told += collect(watch, total - len(told))
        watch.close()

        assert [space.names([event.kv]) for event in told] == [
            [f"{number:05}"] for number in range(total)
        ]

    @_ERRORS
    def test_interrupted_watches(self, backend: Backend, space: Keyspace, error: _Error) -> None:
        """Interrupts while watches open, close and request progress do not disturb other watches,
        and leave no thread behind."""
        steady = space.watch()
        numbers = iter(range(1 << 30))
        space.create(f"{next(numbers):05}")
        collect(steady, 1)  # by now everything that it needs exists
        before = threading.active_count()
        opened: list[BackendWatch] = []

        def attempt() -> None:
            watch = space.watch()
            opened.append(watch)
            watch.poll(0)
            if self.claims(backend, Capability.PROGRESS):
                watch.request_progress()
            watch.close()

        def check(spot: str) -> None:
            while opened:
                opened.pop().close()
            revision = space.create(f"{next(numbers):05}")
            assert collect(steady, 1)[0].kv.revision == revision, spot

        interrupt_every_line(attempt, where=_code_of(backend), after=check, error=error)
        check("")
        steady.close()
        wait_until(lambda: threading.active_count() <= before + 1, "threads of watches end")

    @_ERRORS
    def test_interrupted_compaction(
        self, backend: Backend, space: Keyspace, alone: None, error: _Error
    ) -> None:
        """History is removed or not. The remaining history can be read and compacted again
        (CMP-1)."""
        self.need(backend, Capability.COMPACTION)
        revisions = [space.create("a", b"0")]

        def check(spot: str) -> None:
            revisions.append(space.update("a", b"x"))
            compacted = backend.status().compacted_revision
            for revision in revisions:
                if revision >= compacted:
                    assert space.read("a", revision).revision == revision, spot
                else:
                    with pytest.raises(Compacted):
                        space.find("a", revision)
            del revisions[:-3]

        check("")
        interrupt_every_line(
            lambda: backend.compact(revisions[-1]),
            where=_code_of(backend),
            after=check,
            error=error,
        )


class _Elsewhere:
    """Writes in another thread, and checks that reads in this one show the acknowledged writes."""

    def __init__(self, backend: Backend, space: Keyspace) -> None:
        self._backend = backend
        self._space = space
        self._pool = ThreadPoolExecutor(1)
        kv = space.find("elsewhere")
        self._revision = kv.revision if kv else 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def check(self, spot: str) -> None:
        """Check that one more write succeeds in time, and that every kind of read shows it."""
        key = self._space.key("elsewhere")
        written = self._pool.submit(
            self._backend.put, key, spot.encode(), expected_revision=self._revision
        ).result(PATIENCE)
        assert written.succeeded, spot
        self._revision = written.revision
        backend = self._backend
        assert backend.status().revision >= self._revision, spot
        found = backend.get(key).kv
        assert found is not None, spot
        assert found.revision == self._revision, spot
        (listed,) = backend.list(key).kvs
        assert listed.revision == self._revision, spot
        assert backend.count(key).revision >= self._revision, spot


def _code_of(backend: Backend) -> Callable[[CodeType], bool]:
    """Return a function that recognises the backend's own code, not that of what it calls."""
    return code_below(sys.modules[type(backend).__module__])
