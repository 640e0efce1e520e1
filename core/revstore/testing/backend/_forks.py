"""``BackendTests``, part: processes that fork while a store is open."""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import signal
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import attrs
import pytest

from revstore.backend import Backend
from revstore.errors import BackendError, Closed
from revstore.testing._support import PATIENCE, Keyspace, collect
from revstore.testing.backend._base import BackendSuite, OpenBackend, every_call
from revstore.values import Capability

__all__ = ["ForkTests"]

_KEYS = 20


class ForkTests(BackendSuite):
    """In a child the parent's handles are closed. A handle that the child opens works as in any
    other process, whatever the parent does."""

    def test_fork(self, backend: Backend, space: Keyspace) -> None:
        """In a child every call raises Closed at once, and ``close`` does no harm. The parent does
        not notice."""
        need_fork()
        space.create("a", b"1")
        watch = space.watch()
        calls = [*every_call(backend), lambda: watch.poll(0), watch.poll]

        def all_raise_closed() -> list[int]:
            left = [at for at, call in enumerate(calls) if not _raises_closed(call)]
            watch.close()
            backend.close()
            return left

        assert Child(all_raise_closed).result() == []
        collect(watch, 1)
        space.update("a", b"2")
        collect(watch, 1)
        watch.close()

    def test_a_child_opens_its_own(
        self, backend: Backend, space: Keyspace, open_backend: OpenBackend | None
    ) -> None:
        """Three children open the store again, the parent closes its handle, and each child goes on
        writing. All acknowledged writes exist, and no revision was used twice (BASE-1)."""
        reopen = self._need_forks(backend, open_backend)
        first = space.create("a", b"1")
        begin = os.pipe()

        def write(child: int) -> list[int]:
            with reopen() as own:
                os.read(begin[0], 1)
                return _write(own, space.key(f"child-{child}-"))

        children = [Child(partial(write, child)) for child in range(3)]
        backend.close()
        os.write(begin[1], b"xxx")
        revisions = [first, *(at for child in children for at in child.result())]
        for end in begin:
            os.close(end)

        assert len(set(revisions)) == 3 * _KEYS + 1
        with reopen() as other:
            found = {kv.revision for kv in other.list(space.prefix).kvs}
            assert found == set(revisions)

    def test_forks_while_threads_work(
        self, backend: Backend, space: Keyspace, open_backend: OpenBackend | None
    ) -> None:
        """Whatever the parent's threads do at a fork (write, read a long list, follow a watch), the
        child can open the store and write, and the parent goes on."""
        reopen = self._need_forks(backend, open_backend)
        for number in range(300):
            space.create(f"there-{number:03}", b"x" * 2000)
        with _at_work(backend, space) as work:
            children = []
            for number in range(10):
                work.wait_for_one_more()
                prefix = space.key(f"child-{number}-")
                children.append(Child(partial(_open_and_write, reopen, prefix)))
            told = [at for child in children for at in child.result()]
        told += work.revisions

        assert len(set(told)) == len(told), "a revision was given twice"
        found = {kv.revision for kv in backend.list(space.prefix).kvs}
        assert set(told[: 10 * _KEYS]) <= found
        assert work.watched >= work.revisions[-1]

    def _need_forks(self, backend: Backend, open_backend: OpenBackend | None) -> OpenBackend:
        need_fork()
        self.need(backend, Capability.CROSS_PROCESS_WATCH)
        return self.need_second(open_backend)


def need_fork() -> None:
    """Skip a test where processes cannot fork."""
    if not hasattr(os, "fork"):
        pytest.skip("there is no fork here")


class Child:
    """A forked child that runs ``work`` and sends its result or its error back."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._pipe, end = os.pipe()
        with warnings.catch_warnings():
            # Python warns of fork in a process that has threads, which is what is tested here.
            warnings.simplefilter("ignore", DeprecationWarning)
            self.pid = os.fork()
        if self.pid == 0:
            try:
                done: tuple[bool, Any] = True, work()
            except BaseException:  # noqa: BLE001 - shown by the parent
                done = False, traceback.format_exc()
            with contextlib.suppress(OSError):
                os.write(end, pickle.dumps(done))
            os._exit(0)
        os.close(end)

    def result(self, patience: float = 2 * PATIENCE) -> Any:
        """Return the result of ``work``; fail if it raised, or has not ended within ``patience``
        seconds."""
        deadline = time.monotonic() + patience
        data = b""
        waiting = select.poll()  # not select, whose descriptors end at 1023
        waiting.register(self._pipe, select.POLLIN)
        try:
            while waiting.poll(1000 * max(0.0, deadline - time.monotonic())):
                part = os.read(self._pipe, 1 << 16)
                if not part:
                    break
                data += part
        finally:
            os.close(self._pipe)
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        assert data, f"the child did not end within {patience} s"
        fine, result = pickle.loads(data)
        assert fine, result
        return result


def _raises_closed(call: Callable[[], object]) -> bool:
    try:
        call()
    except Closed:
        return True
    return False


def _open_and_write(reopen: OpenBackend, prefix: str) -> list[int]:
    with reopen() as own:
        return _write(own, prefix)


def _write(backend: Backend, prefix: str) -> list[int]:
    results = [
        backend.put(f"{prefix}{number}", b"", expected_revision=0) for number in range(_KEYS)
    ]
    assert all(result.succeeded for result in results)
    return [result.revision for result in results]


@attrs.define
class _Work:
    """Counts of what the threads of the parent have done."""

    revisions: list[int] = attrs.field(factory=list)
    watched: int = 0
    failures: list[BackendError] = attrs.field(factory=list)
    stop: threading.Event = attrs.field(factory=threading.Event)
    #: The writer has ended: no more revisions come.
    written: threading.Event = attrs.field(factory=threading.Event)

    def wait_for_one_more(self) -> None:
        """Wait until another write is acknowledged: the threads are not stuck."""
        count, deadline = len(self.revisions), time.monotonic() + PATIENCE
        while len(self.revisions) == count and not self.failures:
            assert time.monotonic() < deadline, "the parent's writer hangs"
            self.stop.wait(0.001)
        assert not self.failures, self.failures


@contextlib.contextmanager
def _at_work(backend: Backend, space: Keyspace) -> Iterator[_Work]:
    """Run threads that write, list and watch, as long as the block lasts."""
    work = _Work()

    def write() -> None:
        number = 0
        try:
            while not work.stop.is_set():
                number += 1
                key = space.key(f"parent-{number}")
                work.revisions.append(backend.put(key, b"x" * 500, expected_revision=0).revision)
        finally:
            work.written.set()

    def read() -> None:
        while not work.stop.is_set():
            assert len(backend.list(space.key("there-")).kvs) == 300

    def follow() -> None:
        with space.watch() as watch:
            while not work.written.is_set() or watch.position < work.revisions[-1]:
                watch.poll(0.05)
            work.watched = watch.position

    threads = _start([write, read, follow], work)
    try:
        yield work
    finally:
        work.stop.set()
        for thread in threads:
            thread.join(PATIENCE)
    assert not any(thread.is_alive() for thread in threads), "a thread of the parent hangs"
    assert not work.failures, work.failures


def _start(tasks: Sequence[Callable[[], None]], work: _Work) -> list[threading.Thread]:
    def guard(task: Callable[[], None]) -> None:
        try:
            task()
        except BackendError as error:
            work.failures.append(error)

    threads = [threading.Thread(target=guard, args=(task,), daemon=True) for task in tasks]
    for thread in threads:
        thread.start()
    return threads
