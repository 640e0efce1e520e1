"""Servers that are gone, stand still, or have no v2 API; several servers."""

from __future__ import annotations

import signal
import socket
import sys
import threading
import time

import pytest

from revstore.errors import Closed, IncompatibleStore, OutcomeUnknown, Timeout, Unreachable
from revstore.testing._support import PATIENCE, promptly
from revstore.testing.etcd import EtcdServer, _free_port, etcd_cluster


@pytest.fixture
def cluster(etcd_binary):
    """Three members."""
    with etcd_cluster(etcd_binary, enable_v2=True) as servers:
        yield servers


def test_no_server(opened):
    """Nobody listens: Unreachable at once, for writes as well, since nothing was sent."""
    backend = opened(f"127.0.0.1:{_free_port()}")
    with promptly():
        for call in (
            backend.status,
            lambda: backend.get("/a"),
            lambda: backend.put("/a", b"", expected_revision=0),
            lambda: backend.delete("/a", expected_revision=1),
        ):
            with pytest.raises(Unreachable):
                call()


def test_a_server_that_stands_still(new_server, opened):
    """A read times out; a write that was sent has an unknown outcome, is not sent
    again, and names its key; afterwards all goes on."""
    backend = opened(new_server.address)
    first = backend.put("/a", b"1", expected_revision=0)
    new_server.signal(signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(Timeout) as read:
        backend.get("/a", timeout=0.3)
    with pytest.raises(OutcomeUnknown) as caught:
        backend.put("/a", b"2", expected_revision=first.revision, timeout=0.3)
    assert time.monotonic() - began < 3
    assert not isinstance(read.value, OutcomeUnknown)
    assert (caught.value.key, caught.value.expected_revision) == ("/a", first.revision)
    new_server.signal(signal.SIGCONT)
    kv = backend.get("/a").kv
    assert kv is not None
    assert kv.value in (b"1", b"2")


def test_a_server_that_is_killed(new_server, opened):
    """Writes under way either count or are unknown; none is counted twice."""
    backend = opened(new_server.address)
    done = [backend.put("/n", b"0", expected_revision=0).revision]
    new_server.kill()
    with pytest.raises(Unreachable):
        backend.put("/n", b"1", expected_revision=done[-1])
    new_server.start()
    assert backend.put("/n", b"1", expected_revision=done[-1]).succeeded


def test_close_wakes_a_call(new_server, opened):
    """A call that waits for a server that stands still raises Closed when another closes."""
    backend = opened(new_server.address)
    backend.status()
    new_server.signal(signal.SIGSTOP)
    found = []

    def call():
        try:
            backend.get("/a")
        except Closed as error:
            found.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join(0.2)
    with promptly():
        backend.close()
        thread.join(PATIENCE)
    assert found
    new_server.signal(signal.SIGCONT)


def test_failover(cluster, opened):
    """Calls and watches go on with the members that are left; one that stands still does not
    hold reads up beyond their deadline; without a majority reads do not lie."""
    addresses = ",".join(server.address for server in cluster)
    backend = opened(addresses, "?idle_timeout=0.5&dial_timeout=0.5")
    last = backend.put("/k", b"0", expected_revision=0).revision
    with backend.watch("/k", recursive=False, after_revision=last, progress=False) as watch:
        for number, server in enumerate(cluster[:2]):
            server.stop()
            result = _put_somehow(backend, b"%d" % (number + 1))
            batch = watch.poll(PATIENCE)
            assert batch is not None
            assert batch.revision == result
            server.start()
        cluster[2].signal(signal.SIGSTOP)
        assert backend.get("/k", timeout=PATIENCE).kv.value == b"2"
        cluster[2].signal(signal.SIGCONT)
        cluster[0].kill()
        cluster[1].kill()
        with pytest.raises((Unreachable, Timeout)):
            backend.get("/k", timeout=3)
        stale = backend.get("/k", linearizable=False, timeout=PATIENCE)
        assert stale.kv is not None
    cluster[2].kill()


def _put_somehow(backend, value):
    """Write ``value``, reading again after each outcome that is not known."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            kv = backend.get("/k", timeout=2).kv
            if kv.value == value:
                return kv.revision
            result = backend.put("/k", value, expected_revision=kv.revision, timeout=2)
        except (Unreachable, Timeout):
            time.sleep(0.05)  # an election is on
            continue
        if result.succeeded:
            return result.revision
    raise AssertionError("no write got through")


def test_without_the_v2_api(etcd_binary, opened):
    """One error, at the first call of any kind, that names the flag and the versions."""
    with EtcdServer(etcd_binary) as server:
        server.start()
        backend = opened(server.address)
        for call in (
            backend.status,
            lambda: backend.list("/"),
            lambda: backend.put("/a", b"", expected_revision=0),
        ):
            with pytest.raises(IncompatibleStore, match=r"--enable-v2.*3\.6"):
                call()
        with (
            backend.watch("/", recursive=True, after_revision=0) as watch,
            pytest.raises(IncompatibleStore, match="--enable-v2"),
        ):
            watch.poll(PATIENCE)


def test_an_error_that_breaks_off(opened):
    """An answer that ends within its body is a server that is away, for the stream of changes
    as well: it is asked again, and no watch ends."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer():
            near, _ = listener.accept()
            with near:
                near.recv(65536)
                near.sendall(b"HTTP/1.1 500 Oh\r\nContent-Length: 100\r\n\r\n{")

        thread = threading.Thread(target=answer)
        thread.start()
        backend = opened(f"127.0.0.1:{listener.getsockname()[1]}")
        with pytest.raises(Unreachable):
            backend._client.open_stream("/v2/keys/?wait=true", PATIENCE)
        thread.join(PATIENCE)


def test_the_first_answers_come_at_once(opened):
    """Several answers of one cluster, none of which knows of the others yet, are no other store."""
    backend = opened("127.0.0.1:1")

    def trace(frame, event, _):
        if frame.f_code.co_name != "_check_cluster":
            return None
        if event == "line" and frame.f_lineno > frame.f_code.co_firstlineno + 1:
            backend._cluster = "c"  # by another thread
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        backend._check_cluster("c")
    finally:
        sys.settrace(before)
    with pytest.raises(IncompatibleStore):
        backend._check_cluster("d")
