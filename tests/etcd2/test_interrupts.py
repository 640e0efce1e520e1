"""Signal handlers that raise, at any moment of a call in the main thread, and forks."""

from __future__ import annotations

import gc
import multiprocessing
import sys
import threading
from typing import Any

import pytest

import revstore_etcd2
from revstore.errors import Closed
from revstore.testing._support import PATIENCE, collect, promptly
from revstore.testing.interrupts import code_below, interrupt_by_signal, interrupt_every_line
from revstore_etcd2._http import Response

WHERE = code_below(revstore_etcd2)


@pytest.fixture
def backend(open_store):
    """A handle with two keys, whose answers cannot be taken for each other."""
    backend = open_store()
    for name in ("a", "b"):
        if backend.get(f"/i/{name}").kv is None:
            backend.put(f"/i/{name}", name.encode() * 5000, expected_revision=0)
    return backend


def check(backend):
    """What was asked for comes, for each key, on whatever connection."""
    for name in ("b", "a"):
        assert backend.get(f"/i/{name}", timeout=PATIENCE).kv.value == name.encode() * 5000


@pytest.mark.parametrize("call", ["get", "list", "status", "put"])
def test_a_call_interrupted_at_every_line(backend, call):
    """What an exception of a handler leaves behind gives no later call another's
    answer; the exception itself comes out; a write is there or not."""
    calls = {
        "get": lambda: backend.get("/i/a"),
        "list": lambda: backend.list("/i/"),
        "status": backend.status,
        "put": lambda: backend.put("/i/a", b"never", expected_revision=1),
    }
    hits = interrupt_every_line(calls[call], where=WHERE, after=lambda _: check(backend))
    assert hits > 20
    assert not backend._client._active


def test_calls_interrupted_by_signals(backend):
    """The same with real signals, while other threads call."""
    stop, failures = threading.Event(), []

    def work():
        while not stop.is_set():
            try:
                check(backend)
            except Exception as error:  # noqa: BLE001 - shown below
                failures.append(error)
                return

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        hits = interrupt_by_signal(
            lambda: check(backend), rounds=300, seed=1, longest=0.004, after=lambda: None
        )
    finally:
        stop.set()
        with promptly():
            for thread in threads:
                thread.join(PATIENCE)
    assert not failures
    assert hits > 50
    check(backend)


def test_a_poll_interrupted_at_every_line(backend):
    """Each event comes once, in order, whatever was interrupted: what poll did not
    return comes again, and what it returned does not."""
    start = backend.status().revision
    expected = start
    seen, written = [], []
    with backend.watch("/i/c", recursive=False, after_revision=start, progress=False) as watch:

        def attempt():
            nonlocal expected
            if watch.position == expected:
                expected = write(backend, "/i/c")
                written.append(expected)
            seen.append(watch.poll(PATIENCE).revision)

        assert interrupt_every_line(attempt, where=WHERE_WATCH, after=lambda _: None) > 10
        while watch.position < expected:
            seen.append(watch.poll(PATIENCE).revision)
    assert seen == written


WHERE_WATCH = lambda code: WHERE(code) and code.co_filename.endswith("_watch.py")  # noqa: E731


def write(backend, key):
    """Write it, whatever there is."""
    current = backend.get(key).kv
    return backend.put(key, b"", expected_revision=current.revision if current else 0).revision


def test_a_watch_interrupted_while_it_opens(backend):
    """A watch that was not opened is none, and others go on."""
    start = backend.status().revision
    with backend.watch("/i/d", recursive=False, after_revision=start, progress=False) as other:

        def attempt():
            backend.watch("/i/d", recursive=False, after_revision=start).close()

        def after(_):
            written = write(backend, "/i/d")
            (event,) = collect(other, 1)
            assert event.kv.revision == written

        assert interrupt_every_line(attempt, where=WHERE, after=after) > 10


def test_a_close_interrupted_at_every_line(open_store):
    """A close that was interrupted is finished by another, which ends all
    threads."""

    def attempt():
        backend = open_store()
        backend.get("/i/a")
        opened[:] = [backend, backend.watch("/i/", recursive=True, after_revision=1)]
        backend.close()

    def after(_):
        with promptly():
            opened[0].close()
            with pytest.raises(Closed):
                opened[1].poll(PATIENCE)
            opened[0]._hub._thread.join(PATIENCE)
        assert not opened[0]._hub._thread.is_alive()

    opened = []
    closing = lambda code: WHERE(code) and code.co_name in CLOSING  # noqa: E731
    assert interrupt_every_line(attempt, where=closing, after=after) > 10


CLOSING = ("close", "_drop_idle", "drop", "cut", "end", "stop", "leave")


def in_child(backend, watch, address, queue):
    """What a child does with what its parent opened, and with a handle of its own."""
    found = []
    for call in (backend.status, lambda: backend.get("/i/a"), lambda: watch.poll(0)):
        try:
            call()
        except Closed:
            found.append("closed")
    watch.close()
    backend.close()
    from revstore.config import StorageConfig
    from revstore.plugins import open_backend

    with open_backend(StorageConfig.from_url(f"etcd2://{address}")) as own:
        own.put("/i/child", b"x", expected_revision=0)
        with own.watch("/i/child", recursive=False, after_revision=own.status().revision) as again:
            write(own, "/i/child")
            found.append(collect(again, 1)[0].kv.key)
    queue.put(found)


def test_children_of_multiprocessing(backend, open_store, server):
    """A child that multiprocessing forks while the parent watches and has idle
    connections ends none of them, and works with a handle of its own."""
    check(backend)  # the keys are there
    backend = open_store("?idle_timeout=60")  # the children may be slow; no silence ends the stream
    check(backend)
    context = multiprocessing.get_context("fork")
    start = backend.status().revision
    with backend.watch("/i/e", recursive=False, after_revision=start) as watch:
        write(backend, "/i/e")
        collect(watch, 1)
        before = [id(each) for each in backend._client._servers[0].idle]
        streams = list(backend._client._active)
        for _ in range(3):
            queue = context.SimpleQueue()
            child = context.Process(target=in_child, args=(backend, watch, server.address, queue))
            child.start()
            assert queue.get() == ["closed"] * 3 + ["/i/child"]
            child.join(PATIENCE)
            assert child.exitcode == 0
        assert list(backend._client._active) == streams
        check(backend)
        assert [id(each) for each in backend._client._servers[0].idle] == before
        write(backend, "/i/e")
        collect(watch, 1)


def test_an_answer_whose_creation_was_interrupted_goes_without_a_word(monkeypatch):
    said: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", said.append)
    Response.__new__(Response)
    gc.collect()
    assert said == []
