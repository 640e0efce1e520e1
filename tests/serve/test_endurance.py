"""What many clients and much time cost an endpoint, and what is left of those that are gone."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import attrs
import grpc
import pytest
from tests.serve.conftest import open_store
from tests.serve.processes import Served
from tests.serve.rawclient import RawWatch
from tests.serve.test_etcdctl import etcdctl_of

from revstore.testing._support import wait_until
from revstore_serve import _connection, _grpc, serve
from revstore_serve._endpoint import TRANSPORTS
from revstore_serve._proto import message

pytestmark = pytest.mark.slow

LONG = int(os.environ.get("REVSTORE_TEST_LONG", "1"))


@attrs.frozen
class Usage:
    """What a process uses; ``memory`` in kilobytes."""

    threads: int
    files: int
    memory: int

    @classmethod
    def of(cls, pid: int) -> Usage:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        found = dict(line.split(":", 1) for line in lines)
        return cls(
            int(found["Threads"]),
            len(os.listdir(f"/proc/{pid}/fd")),
            int(found["VmRSS"].split()[0]),
        )


needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts by /proc")


@pytest.fixture
def served(tmp_path) -> Iterator[Served]:
    with Served(f"sqlite:///{tmp_path}/served.db") as served:
        yield served


@needs_proc
@pytest.mark.timeout(600)
def test_ten_thousand_watches(served, new_client):
    """10,000 watches on 100 streams: no thread each, and a few kilobytes; each gets its events."""
    client = new_client(served.address)
    client.call("KV/Put", key=b"k")
    before = Usage.of(served.pid)
    streams = [client.watch() for _ in range(100)]
    for number, stream in enumerate(streams):
        for each in range(100):
            stream.send(create_request={"key": b"k/%d/%d" % (number, each)})
    for stream in streams:
        assert all(stream.next().created for _ in range(100))
    after = Usage.of(served.pid)
    assert after.threads - before.threads < 20
    assert after.memory - before.memory < 10_000 * 10

    for number, stream in enumerate(streams):
        client.call("KV/Put", key=b"k/%d/%d" % (number, number))
        assert stream.next().watch_id == number
    for stream in streams:
        stream.close()


@needs_proc
@pytest.mark.timeout(3600)
def test_clients_that_are_gone_leave_nothing(served, new_client):
    """1,000 connections with a watch end by RST, or because their process was killed: of their
    threads, files and memory nothing is left."""
    client = new_client(served.address)

    def come_and_go(times: int) -> Usage:
        """Let 100 connections end by RST, and 100 by SIGKILL, so many times. Return what the
        process uses then."""
        command = [sys.executable, "-m", "tests.serve.rawclient", served.address, "100"]
        for _ in range(times):
            for number in range(100):
                RawWatch(served.address, b"k%d" % number).reset()
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout.readline() == "ready\n"
                process.kill()
        client.call("KV/Put", key=b"k1")
        wait_until(lambda: Usage.of(served.pid).files < most_files, "connections are closed")
        return Usage.of(served.pid)

    most_files = Usage.of(served.pid).files + 20
    before = come_and_go(2)  # pools and caches fill up
    after = come_and_go(5 * LONG)
    assert after.threads - before.threads < 5
    assert after.memory - before.memory < 10_000


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_clients_that_went_silent_leave_nothing(monkeypatch, tmp_path, new_client, transport):
    """Connections that are open, but answer no pings, are closed; those that answer are kept."""
    options = dict(_grpc._OPTIONS)
    options |= {"grpc.keepalive_time_ms": 1000, "grpc.http2.ping_timeout_ms": 2000}
    monkeypatch.setattr(_grpc, "_OPTIONS", list(options.items()))
    monkeypatch.setattr(_connection, "_SILENCE", 1.0)
    monkeypatch.setattr(_connection, "_ANSWER", 2.0)
    with (
        open_store("memory", tmp_path) as backend,
        serve(backend, transport=transport) as endpoint,
    ):
        client = new_client(endpoint.address)
        lives = client.watch()
        lives.create(b"k")
        silent = [RawWatch(endpoint.address, b"k") for _ in range(50)]
        listeners = endpoint._feed.listeners
        assert len(listeners) == 51
        wait_until(lambda: len(listeners) == 1, "silent connections are closed")
        assert len(endpoint._feed.index._exact[b"k"]) == 1
        client.call("KV/Put", key=b"k")
        assert len(lives.next().events) == 1
        lives.close()
        for each in silent:
            each.close()


@pytest.mark.timeout(1200)
def test_an_idle_watch_of_a_client_that_pings_lives_on(tmp_path, new_client):
    """etcd lets clients ask every 5 s whether the connection lives; by itself gRPC ends it after
    the third time. The pings come as often as a Go client can send them. A long run takes ten
    minutes."""
    apart, lasts = 10, 60 if LONG == 1 else 600
    with open_store("memory", tmp_path) as backend, serve(backend) as endpoint:
        options = [
            ("grpc.keepalive_time_ms", apart * 1000),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_pings_without_data", 0),
        ]
        with grpc.insecure_channel(endpoint.address, options=options) as channel:
            watch = channel.stream_stream(
                "/etcdserverpb.Watch/Watch",
                request_serializer=message("WatchRequest").SerializeToString,
                response_deserializer=message("WatchResponse").FromString,
            )
            requests = queue.SimpleQueue()
            answers = watch(iter(requests.get, None))
            requests.put(message("WatchRequest")(create_request={"key": b"a"}))
            assert next(answers).created
            time.sleep(lasts)  # this is about time
            new_client(endpoint.address).call("KV/Put", key=b"a")
            assert len(next(answers).events) == 1
            answers.cancel()
            requests.put(None)


@pytest.mark.skipif(LONG == 1, reason="takes a minute: REVSTORE_TEST_LONG=2 runs it")
@pytest.mark.timeout(300)
def test_etcdctl_finds_it_fast_enough(served):
    """``etcdctl check perf`` of 150 writes a second for a minute, the load of a small cluster."""
    with etcdctl_of("3.4")(served.address, "check", "perf", "--load", "s") as process:
        out, err = process.communicate(timeout=200)
    assert process.returncode == 0, out + err
    assert out.splitlines()[-1] == "PASS"
