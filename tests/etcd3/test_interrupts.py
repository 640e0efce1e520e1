"""Signal handlers that raise, at any moment of a call in the main thread, and forks."""

from __future__ import annotations

import multiprocessing
import signal
import sys
import threading

import pytest

import revstore_etcd3
from revstore.config import StorageConfig
from revstore.errors import Closed
from revstore.plugins import open_backend
from revstore.testing._support import PATIENCE, collect, promptly, wait_until
from revstore.testing.backend._forks import Child
from revstore.testing.interrupts import code_below, interrupt_by_signal, interrupt_every_line
from revstore_etcd3._forks import _gate

WHERE = code_below(revstore_etcd3)


@pytest.fixture
def backend(open_store):
    """A handle with two keys."""
    backend = open_store()
    for name in ("a", "b"):
        if backend.get(f"/i/{name}").kv is None:
            backend.put(f"/i/{name}", name.encode() * 5000, expected_revision=0)
    return backend


def check(backend):
    """Each key has its value."""
    for name in ("b", "a"):
        assert backend.get(f"/i/{name}", timeout=PATIENCE).kv.value == name.encode() * 5000


def write(backend, key):
    """Write it, whatever there is."""
    current = backend.get(key).kv
    return backend.put(key, b"", expected_revision=current.revision if current else 0).revision


def move(seen):
    """Write two keys, each by what the other was."""
    left, right = (seen.get(f"/i/{name}").value for name in "lr")
    seen.put("/i/l", right)
    seen.put("/i/r", left)


@pytest.mark.parametrize("call", ["get", "list", "put", "leases"])
def test_a_call_interrupted_at_every_line(backend, call):
    """An exception of a handler comes out as it is, and the next calls work."""
    calls = {
        "get": lambda: backend.get("/i/a"),
        "list": lambda: backend.list("/i/"),
        "put": lambda: backend.put("/i/a", b"never", expected_revision=1),
        "leases": lambda: backend.leases().keep_alive(lease),
    }
    lease = backend.leases().grant(1000).id
    assert interrupt_every_line(calls[call], where=WHERE, after=lambda _: check(backend)) > 5


def test_a_transaction_interrupted_at_every_line(backend):
    """Both keys are written or none, at one revision, and the next transaction works."""
    backend.transaction(lambda seen: [seen.put(f"/i/{name}", name.encode()) for name in "lr"])

    def after(_):
        found = backend.list("/i/l").kvs + backend.list("/i/r").kvs
        assert {kv.value for kv in found} == {b"l", b"r"}
        assert found[0].revision == found[1].revision

    interrupt_every_line(lambda: backend.transaction(move), where=WHERE, after=after)


def test_calls_interrupted_by_signals(backend):
    """Real signals in the main thread, again and again, leave no lock behind: other
    threads' calls go on in time, and a watch delivers everything."""
    stop, failures = threading.Event(), []

    def work():
        while not stop.is_set():
            try:
                check(backend)
            except Exception as error:  # noqa: BLE001 - shown below
                failures.append(error)
                return

    start = backend.status().revision
    threads = [threading.Thread(target=work) for _ in range(2)]
    watch = backend.watch("/i/s", recursive=False, after_revision=start, progress=False)
    for thread in threads:
        thread.start()
    try:
        hits = interrupt_by_signal(lambda: check(backend), rounds=400, seed=1, longest=0.004)
    finally:
        stop.set()
        with promptly():
            for thread in threads:
                thread.join(PATIENCE)
    assert not failures
    assert hits > 50
    with promptly():
        check(backend)
        written = write(backend, "/i/s")
        assert collect(watch, 1)[0].kv.revision == written
    watch.close()


def in_watch(code):
    """What polling runs."""
    return WHERE(code) and code.co_filename.endswith("_watch.py")


def test_a_poll_interrupted_at_every_line(backend):
    """Each event comes once, in order: what poll did not return comes again."""
    start = expected = backend.status().revision
    seen, written = [], []
    with backend.watch("/i/c", recursive=False, after_revision=start, progress=False) as watch:

        def attempt():
            nonlocal expected
            if watch.position == expected:
                expected = write(backend, "/i/c")
                written.append(expected)
            seen.append(watch.poll(PATIENCE).revision)

        assert interrupt_every_line(attempt, where=in_watch) > 10
        while watch.position < expected:
            seen.append(watch.poll(PATIENCE).revision)
    assert seen == written


def test_a_history_interrupted_at_every_line(open_store, backend):
    """The same for events that come from history, in a handle that did not see
    them."""
    start = backend.status().revision
    written = [write(backend, "/i/h") for _ in range(40)]
    own = open_store()
    with own.watch("/none", recursive=True, after_revision=0) as other:
        other.poll(1)  # its hub begins above them
    seen = []
    with own.watch("/i/h", recursive=False, after_revision=start, progress=False) as watch:

        def attempt():
            if len(seen) < len(written):
                seen.append(watch.poll(PATIENCE).revision)

        interrupt_every_line(attempt, where=in_watch)
        while len(seen) < len(written):
            seen.append(watch.poll(PATIENCE).revision)
    assert seen == written


def test_a_progress_mark_interrupted_at_every_line(backend):
    """WATCH-20: a mark that was asked for comes, also if the poll that had it was interrupted."""
    start = write(backend, "/i/m")
    with backend.watch("/none", recursive=True, after_revision=start, progress=False) as watch:
        owed = False

        def attempt():
            nonlocal owed
            if not owed:
                watch.request_progress()
                owed = True
            assert watch.poll(PATIENCE) is not None
            owed = False

        assert interrupt_every_line(attempt, where=in_watch) > 10


def test_a_watch_interrupted_while_it_opens(open_store, backend):
    """The next watch works."""
    start = backend.status().revision
    opened = []

    def attempt():
        opened.append(open_store())
        opened[-1].watch("/i/d", recursive=False, after_revision=start).close()

    def after(_):
        written = write(backend, "/i/d")
        with opened[-1].watch("/i/d", recursive=False, after_revision=written - 1) as watch:
            assert collect(watch, 1)[0].kv.revision == written
        names = [each.name for each in opened[-1]._hub._threads]
        assert len(set(names)) == len(names) == 2
        opened[-1].close()

    opening = lambda code: WHERE(code) and code.co_name in ("watch", "run", "start")  # noqa: E731
    assert interrupt_every_line(attempt, where=opening, after=after) > 5


def in_child(backend, watch, address, queue):
    """What a child does with what its parent opened, and with a handle of its own."""
    found = []
    for call in (
        backend.status,
        lambda: backend.get("/i/a"),
        lambda: watch.poll(0),
        lambda: backend.transaction(move),
        backend.leases,
    ):
        try:
            call()
        except Closed:
            found.append("closed")
    watch.close()
    backend.close()
    with open_backend(StorageConfig.from_url(f"etcd3://{address}")) as own:
        start = own.status().revision
        with own.watch("/i/child", recursive=False, after_revision=start) as again:
            write(own, "/i/child")
            found.append(collect(again, 1)[0].kv.key)
    queue.put(found)


def test_children_of_multiprocessing(backend, server):
    """A child that multiprocessing forks while the parent watches ends nothing of
    the parent's, and works with a handle of its own; the parent's watch misses nothing."""
    context = multiprocessing.get_context("fork")
    start = backend.status().revision
    with backend.watch("/i/e", recursive=False, after_revision=start) as watch:
        written = [write(backend, "/i/e")]
        for _ in range(3):
            queue = context.SimpleQueue()
            child = context.Process(target=in_child, args=(backend, watch, server.address, queue))
            child.start()
            written.append(write(backend, "/i/e"))
            assert queue.get() == ["closed"] * 5 + ["/i/child"]
            child.join(PATIENCE)
            assert child.exitcode == 0
        assert [each.kv.revision for each in collect(watch, 4)] == written
        check(backend)


def test_a_fork_waits_for_a_call_that_takes_long(open_store, server):
    """As where the server is halted. The child can then use grpc."""
    backend = open_store()
    backend.status()
    went_on = threading.Timer(4, server.signal, [signal.SIGCONT])
    with server.halted():
        calls = threading.Thread(target=backend.status, kwargs={"timeout": PATIENCE})
        calls.start()
        wait_until(lambda: _gate.calls, "the call is under way")
        went_on.start()
        assert Child(lambda: open_store().status().revision).result()
    calls.join(PATIENCE)
    went_on.join(PATIENCE)
    assert backend.status().revision


def test_a_signal_in_the_hook_of_a_fork(backend, open_store):
    """What a handler raises there is dropped by Python; the child, and a child of its own, can use
    grpc all the same."""
    begin = _gate.after_in_child.__func__.__code__

    def strike(frame, _event, _arg):
        if frame.f_code is begin:
            raise TimeoutError

    def in_child():
        sys.settrace(None)
        revision = open_store().status(timeout=PATIENCE).revision
        return revision, Child(lambda: open_store().status(timeout=PATIENCE).revision).result()

    revision = backend.status().revision
    before = sys.gettrace()
    sys.settrace(strike)
    try:
        child = Child(in_child)
    finally:
        sys.settrace(before)
    assert child.result() == (revision, revision)
