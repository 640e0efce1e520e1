"""Servers that go away and come back, and networks that break."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time

import pytest

from revstore.config import StorageConfig
from revstore.errors import (
    Closed,
    Compacted,
    IncompatibleStore,
    OutcomeUnknown,
    StorageError,
    Unreachable,
)
from revstore.plugins import open_backend
from revstore.testing._support import promptly, wait_until
from revstore.testing.checks import check_history
from revstore.testing.proxy import FaultyProxy
from revstore.testing.strikes import run_under_strikes
from revstore.testing.workload import Workload
from revstore.values import WatchBatch

LONG = int(os.environ.get("REVSTORE_TEST_LONG", "1"))
OPTIONS = "?keepalive_time=1&keepalive_timeout=1&dial_timeout=1&timeout=5"


def events_of(watch, count, timeout=30):
    """That many events."""
    found = []
    deadline = time.monotonic() + timeout
    while len(found) < count:
        batch = watch.poll(max(0.0, deadline - time.monotonic()))
        assert batch is not None, f"{len(found)} of {count} events came"
        found += [event.kv.key for event in batch.events]
    return found


def test_a_watch_survives_restarts(new_server, open_store):
    """WATCH-15: kill -9 and restart; the watch goes on after the last whole batch."""
    backend = open_store(OPTIONS)
    start = backend.status().revision
    watch = backend.watch("/t/", recursive=True, after_revision=start)
    for turn in range(3):
        backend.put(f"/t/{turn}", b"x", expected_revision=0)
        assert events_of(watch, 1) == [f"/t/{turn}"]
        new_server.kill()
        new_server.start()


@pytest.fixture
def server(new_server):
    """``open_store`` opens the test's own server."""
    return new_server


def test_a_write_to_a_server_that_is_away_did_nothing(new_server, open_store):
    """ERR-2: no connection means Unreachable, in the time given, never a guess."""
    backend = open_store(OPTIONS)
    backend.status()
    new_server.stop()
    wait_until(lambda: _refused(new_server.address), "the port is closed")
    began = time.monotonic()
    with pytest.raises((Unreachable, OutcomeUnknown)):
        backend.put("/t/a", b"x", expected_revision=0, timeout=2)
    with pytest.raises(Unreachable):
        backend.put("/t/a", b"x", expected_revision=0, timeout=2)
    with pytest.raises(Unreachable):
        backend.get("/t/a", timeout=1)
    assert time.monotonic() - began < 8
    new_server.start()
    assert backend.get("/t/a", timeout=10).kv is None
    assert backend.put("/t/a", b"x", expected_revision=0).succeeded


def _refused(address):
    import socket

    host, port = address.split(":")
    try:
        socket.create_connection((host, int(port)), 0.2).close()
    except OSError:
        return True
    return False


def test_a_server_that_halts(new_server, open_store):
    """SIGSTOP leaves connections half open: calls end in time, a write's outcome is unknown, and
    the watch goes on when the server does."""
    backend = open_store(OPTIONS)
    watch = backend.watch("/t/", recursive=True, after_revision=backend.status().revision)
    backend.put("/t/0", b"x", expected_revision=0)
    assert events_of(watch, 1) == ["/t/0"]
    new_server.signal(signal.SIGSTOP)
    try:
        with pytest.raises(OutcomeUnknown):
            backend.put("/t/1", b"x", expected_revision=0, timeout=1)
        with pytest.raises(StorageError):
            backend.get("/t/0", timeout=1)
    finally:
        new_server.signal(signal.SIGCONT)
    wait_until(lambda: _answers(backend), "it answers again")
    backend.put("/t/2", b"x", expected_revision=0, timeout=10)
    found = []
    while "/t/2" not in found:
        found += events_of(watch, 1)
    assert found in (["/t/2"], ["/t/1", "/t/2"])


def _answers(backend):
    try:
        backend.status(timeout=1)
    except StorageError:
        return False
    return True


def test_another_store_in_its_place(new_server, open_store):
    """A store that was wiped, or restored from an older copy, ends watches; nothing
    is passed over in silence."""
    backend = open_store(OPTIONS)
    for number in range(5):
        backend.put(f"/t/{number}", b"x", expected_revision=0)
    watch = backend.watch("/t/", recursive=True, after_revision=backend.status().revision)
    assert watch.poll(0.2) is None
    new_server.kill()
    shutil.rmtree(new_server._folder + "/data")
    new_server.start()
    with pytest.raises(IncompatibleStore):
        list(watch)
    with pytest.raises(IncompatibleStore):
        watch.poll(0)


def test_close_wakes_and_ends(new_server, open_store):
    """close() ends a poll that is blocked, and all threads, also while the server is away."""
    backend = open_store(OPTIONS)
    watch = backend.watch("/t/", recursive=True, after_revision=1)
    errors = []

    def poll():
        try:
            watch.poll(30)
        except Closed as error:
            errors.append(error)

    thread = threading.Thread(target=poll)
    thread.start()
    new_server.stop()
    began = time.monotonic()
    backend.close()
    thread.join(5)
    assert time.monotonic() - began < 3
    assert len(errors) == 1


@pytest.mark.parametrize("fault", ["cut", "halt", "slow"])
def test_a_network_that_breaks(server, fault):
    """WATCH-15: connections that are reset, that go silent, or crawl, again and again,
    under writers and watchers, while their process forks and is interrupted by signals: nothing is
    lost or doubled, no outcome is guessed."""
    with FaultyProxy(server.address) as proxy:
        stop = threading.Event()

        def fire():
            while not stop.wait(0.3):
                if fault == "slow":
                    proxy.delay, proxy.throttle = 0.02, 200_000
                elif fault == "cut":
                    proxy.cut()
                else:
                    proxy.halt()
                stop.wait(1.5 if fault == "halt" else 0.2)
                proxy.restore()

        config = StorageConfig.from_url(f"etcd3://{proxy.address}{OPTIONS}")
        firing = threading.Thread(target=fire)
        with open_backend(config) as backend:
            backend.status()
            firing.start()
            turns = (60 if fault == "halt" else 120) * LONG
            plan = Workload(prefix=f"/{fault}/", seed=3, writers=4, watchers=3, turns=turns)
            try:
                strikes = run_under_strikes(plan, backend, lambda: open_backend(config))
            finally:
                stop.set()
                firing.join(20)
                proxy.restore()
    assert check_history(strikes.history) == []
    assert sum(1 for each in strikes.history.operations if each.succeeded) > 20
    assert strikes.children
    assert strikes.interrupts


def test_etcdctl_and_we_see_the_same(server, open_store):
    """The keys are etcd's own: etcdctl reads them, and what it writes arrives in watches."""
    etcdctl = shutil.which("etcdctl")
    if etcdctl is None:
        pytest.skip("no etcdctl here: install etcd-client")
    backend = open_store()
    backend.put("/registry/pods/a", b"from us", expected_revision=0)
    watch = backend.watch("/registry/", recursive=True, after_revision=backend.status().revision)
    command = [etcdctl, "--endpoints", server.client_url]
    env = {"ETCDCTL_API": "3", "PATH": "/usr/bin:/bin"}

    def run(*words):
        return subprocess.run(
            [*command, *words], env=env, capture_output=True, text=True, timeout=20, check=True
        ).stdout

    assert "from us" in run("get", "/registry/pods/a")
    run("put", "/registry/pods/b", "from them")
    run("del", "/registry/pods/a")
    assert events_of(watch, 2) == ["/registry/pods/b", "/registry/pods/a"]
    assert backend.get("/registry/pods/b").kv.value == b"from them"


def test_no_room_for_a_thread(new_server, open_store, watch_without_threads):
    """WATCH-7: told by who asks for the watch; with room again there are watches again."""
    watch_without_threads(open_store())


def test_a_new_store_is_watched_at_rest(new_server, open_store):
    """WATCH-20: in a store without a write a watch of all history waits, without spinning, and a
    mark that is asked for comes at the revision that the store begins with."""
    backend = open_store()
    revision = backend.status().revision
    with backend.watch("", recursive=True, after_revision=0, progress=False) as watch:
        watch.request_progress()
        assert watch.poll(20) == WatchBatch(revision)
        before = time.thread_time()
        assert watch.poll(1) is None
        assert time.thread_time() - before < 0.3


def test_a_mark_asked_for_while_the_server_is_away(new_server, open_store, caplog):
    """WATCH-20: it comes when the server is back; the request is not forgotten."""
    backend = open_store("?dial_timeout=0.1")
    start = backend.put("/t", b"", expected_revision=0).revision
    with backend.watch("/x", recursive=True, after_revision=start, progress=False) as watch:
        assert watch.poll(0.1) is None
        new_server.kill()
        watch.request_progress()
        wait_until(lambda: "revision could not be read" in caplog.text, "the request fails")
        new_server.start()
        assert watch.poll(20) == WatchBatch(start)


def test_a_compacted_read_does_not_wait_for_ever(new_server, open_store, monkeypatch):
    """ERR-8: what is asked of the server behind an error has a deadline too: here the server stops
    between the two."""
    backend = open_store("?keepalive_time=60&keepalive_timeout=60")
    revision = 0
    for _ in range(3):
        revision = backend.put("/t", b"", expected_revision=revision).revision
    backend.compact(revision)
    compacted = backend._reader.compacted

    def stopped(*arguments):
        new_server.signal(signal.SIGSTOP)
        return compacted(*arguments)

    monkeypatch.setattr(backend._reader, "compacted", stopped)
    with promptly(), pytest.raises(Compacted):
        backend.get("/t", revision=revision - 1)
    new_server.signal(signal.SIGCONT)
