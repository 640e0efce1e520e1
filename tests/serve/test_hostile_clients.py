"""Clients that keep to HTTP/2 letter by letter, and make the server work or hold more than they
send. Another client of the same server goes on."""

from __future__ import annotations

import asyncio
import gzip
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import hpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.serve import rawclient
from tests.serve.conftest import Client
from tests.serve.rawclient import PREFACE, Raw, frame, headers, prefixed

from revstore.memory import MemoryBackend
from revstore.testing._support import wait_until
from revstore_serve import _connection, _grpc, serve
from revstore_serve._endpoint import TRANSPORTS, Endpoint
from revstore_serve._proto import message

pytestmark = pytest.mark.slow

LONG = int(os.environ.get("REVSTORE_TEST_LONG", "1"))
RANGE = b"/etcdserverpb.KV/Range"
LARGE = 300_000
WINDOW = struct.Struct(">HI").pack
NO_WINDOW = WINDOW(4, 0)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with MemoryBackend() as backend, serve(backend) as endpoint:
        backend.put("a", b"1", expected_revision=0)
        backend.put("large", b"x" * LARGE, expected_revision=0)
        yield endpoint


@pytest.fixture(scope="module")
def address(endpoint) -> str:
    return endpoint.address


@pytest.fixture(autouse=True)
def bystander(address) -> Iterator[Client]:
    client = Client(address)
    yield client
    assert client.call("KV/Range", key=b"a").count == 1
    client.close()


def call(number: int, key: bytes = b"a") -> bytes:
    request = prefixed(message("RangeRequest")(key=key).SerializeToString())
    return frame(rawclient.HEADERS, 4, number, headers(RANGE)) + frame(0, 1, number, request)


def statuses(raw: Raw, count: int) -> dict[int, bytes]:
    """The status of so many calls, as they end."""
    decoder, found = hpack.Decoder(), {}
    for kind, flags, number, payload in raw.frames():
        if kind == rawclient.HEADERS:
            fields = dict(decoder.decode(payload, raw=True))
            if flags & rawclient.END_STREAM:
                found[number] = fields[b"grpc-status"]
        if len(found) == count:
            break
    return found


def answered(raw: Raw) -> list[tuple[int, int, int, bytes]]:
    """Wait until the server has read all that was sent; return the frames of the meantime."""
    raw.send(frame(rawclient.PING, 0, 0, b"all read"))
    return until_answered(raw)


def until_answered(raw: Raw) -> list[tuple[int, int, int, bytes]]:
    found = []
    for each in raw.frames():
        found.append(each)
        if each[0] == rawclient.PING:
            break
    return found


def memory() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="this system has no /proc")
def test_answers_that_are_larger_than_what_asks(address, bystander):
    """15 bytes ask for 2 kB: the server reads no more while so much waits, and loses nothing."""
    encoder = hpack.Encoder()
    fields = [
        (b":method", b"POST"),
        (b":path", b"/" + b"\xff" * 1000),
        (b"content-type", b"application/grpc"),
    ]
    count = 14_000
    frames = [frame(1, 5, 2 * each + 1, encoder.encode(fields)) for each in range(count)]
    raw = Raw(address)
    before = memory()
    raw.send(*frames)
    for _ in range(3):
        bystander.call("KV/Range", key=b"a")
    assert memory() - before < 18 << 20
    found = statuses(raw, count)
    assert (len(found), set(found.values())) == (count, {b"12"})
    raw.close()


def test_windows_that_change_all_the_time(address):
    """Each change concerns every call."""
    raw = Raw(address)
    change = frame(rawclient.SETTINGS, 0, 0, (WINDOW(4, 1) + WINDOW(4, 2)) * 1300)
    raw.send(frame(rawclient.HEADERS, 4, 1, headers(RANGE)), *[change] * 5)
    ends = [payload for kind, *_, payload in answered(raw) if kind == rawclient.GOAWAY]
    assert [each[4:8] for each in ends] == [b"\0\0\0\x0b"]
    raw.close()


def test_windows_that_grow_by_one_byte(address):
    """Many calls wait for a window of their own while that of the connection grows."""
    raw = Raw(address, settings=NO_WINDOW)
    count = 3000
    for number in range(1, 2 * count, 2):
        raw.send(call(number))
    answered(raw)
    started = time.process_time()
    raw.send(frame(rawclient.UPDATE, 0, 0, b"\0\0\0\1") * 20_000)
    answered(raw)
    assert time.process_time() - started < 1
    room = frame(rawclient.UPDATE, 0, 0, struct.pack(">I", 1 << 20))
    raw.send(room, frame(rawclient.SETTINGS, 0, 0, WINDOW(4, 1000)))
    assert set(statuses(raw, count).values()) == {b"0"}
    raw.close()


def test_answers_that_nobody_reads(address, monkeypatch):
    """A connection holds so much of them, at least one, and refuses the others."""
    monkeypatch.setattr(_connection, "_MOST_UNREAD", 10 * LARGE + LARGE // 2)
    raw = Raw(address, settings=NO_WINDOW)
    calls = range(1, 41, 2)
    for number in calls:
        raw.send(call(number, b"large"))
    assert set(statuses(raw, 10).items()) == {(number, b"8") for number in calls[10:]}
    room = struct.pack(">I", 1 << 30)
    raw.send(frame(rawclient.SETTINGS, 0, 0, WINDOW(4, 1 << 20)), frame(8, 0, 0, room))
    assert set(statuses(raw, 10).items()) == {(number, b"0") for number in calls[:10]}
    monkeypatch.setattr(_connection, "_MOST_UNREAD", 10)
    raw.send(frame(rawclient.SETTINGS, 0, 0, NO_WINDOW), call(41, b"large"))
    answered(raw)
    raw.send(frame(rawclient.SETTINGS, 0, 0, WINDOW(4, 1 << 20)))
    assert statuses(raw, 1) == {41: b"0"}
    raw.close()


def test_messages_of_nothing(address, monkeypatch):
    """Each takes memory, even if it is empty."""
    monkeypatch.setattr(_connection, "_MOST_HELD", 1 << 20)
    raw = Raw(address)
    raw.send(frame(rawclient.HEADERS, 4, 1, headers(RANGE)))
    raw.send(*[frame(0, 0, 1, bytes(15_000))] * 10)
    assert statuses(raw, 1) == {1: b"8"}
    raw.close()


def test_calls_that_do_not_begin(address, monkeypatch):
    """An open call takes memory, even if nothing of its message has come."""
    monkeypatch.setattr(_connection, "_MOST_HELD", 1 << 20)
    raw = Raw(address)
    calls = range(1, 601, 2)
    raw.send(*(frame(rawclient.HEADERS, 4, number, headers(RANGE)) for number in calls))
    ends = [each for each in answered(raw) if each[0] == rawclient.HEADERS]
    assert len(ends) == 300 - 128
    raw.close()


@pytest.mark.parametrize("cut", [1, 8, 20])
def test_compressed_messages_that_are_cut_off(address, cut):
    """What is missing is not taken as empty."""
    text = message("RangeRequest")(key=b"a" * 100).SerializeToString()
    small = gzip.compress(text)[:-cut]
    raw = Raw(address)
    raw.send(
        frame(rawclient.HEADERS, 4, 1, headers(RANGE, (b"grpc-encoding", b"gzip"))),
        frame(0, 1, 1, b"\1" + struct.pack(">I", len(small)) + small),
    )
    assert statuses(raw, 1) == {1: b"13"}
    raw.close()


def test_large_compressed_messages_wait_for_each_other(endpoint):
    """Not for the loop: calls beside them are answered, and they are once it is their turn."""
    lock, loop = endpoint._transport.inflating, endpoint._loop
    key = message("RangeRequest")(key=b"a" * (1 << 20)).SerializeToString()
    small = gzip.compress(key)
    asyncio.run_coroutine_threadsafe(lock.acquire(), loop).result(20)
    raw = Raw(endpoint.address)
    for number in (1, 3, 5):
        raw.send(
            frame(rawclient.HEADERS, 4, number, headers(RANGE, (b"grpc-encoding", b"gzip"))),
            frame(0, 1, number, b"\1" + struct.pack(">I", len(small)) + small),
        )
    raw.send(call(7))
    assert statuses(raw, 1) == {7: b"0"}
    assert not [each for each in answered(raw) if each[0] == rawclient.HEADERS]
    raw.send(frame(rawclient.RESET, 0, 3, b"\0\0\0\x08"))
    loop.call_soon_threadsafe(lock.release)
    assert statuses(raw, 2) == {1: b"0", 5: b"0"}
    raw.close()


@pytest.mark.parametrize(
    "first",
    [frame(rawclient.PING, 0, 0, b"12345678"), frame(rawclient.SETTINGS, 1, 0), call(1)],
    ids=["a ping", "settings that are noted", "a call"],
)
def test_a_client_that_does_not_begin_with_its_settings(address, first):
    raw = Raw(address, begin=PREFACE + first)
    ends = [payload for kind, *_, payload in raw.frames() if kind == rawclient.GOAWAY]
    assert [each[4:8] for each in ends] == [b"\0\0\0\1"]
    raw.close()


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize(
    "begin", [b"", PREFACE[:9], PREFACE, PREFACE + frame(rawclient.SETTINGS, 0, 0, b"123456")[:12]]
)
def test_a_client_that_does_not_begin(monkeypatch, begin, transport):
    """Its connection ends, however far it came with the preface and its settings."""
    monkeypatch.setattr(_connection, "PATIENCE", 0.1)
    short = {"grpc.server_handshake_timeout_ms": 100}
    options = [(name, short.get(name, value)) for name, value in _grpc._OPTIONS]
    monkeypatch.setattr(_grpc, "_OPTIONS", options)
    with MemoryBackend() as backend, serve(backend, transport=transport) as endpoint:
        raw = Raw(endpoint.address, begin=begin)
        assert not [each for each in raw.frames() if each[0] == rawclient.HEADERS]
        raw.close()


CALLS = st.sampled_from([1, 3, 5, 7])
CREATE = prefixed(message("WatchRequest")(create_request={"key": b"a"}).SerializeToString())
SIZES = st.sampled_from([1, 5, 1000, 65535, 1 << 20, (1 << 31) - 1]).map(struct.Struct(">I").pack)
PIECES = st.sampled_from([CREATE, CREATE[:4], CREATE[4:], b"", b"\0" * 5, b"\1\0\0\0\1x"])
KEEPALIVE = b"/etcdserverpb.Lease/LeaseKeepAlive"
PATHS = st.sampled_from([RANGE, b"/etcdserverpb.Watch/Watch", KEEPALIVE])
TIMES = st.sampled_from([b"1n", b"1u", b"5m", b"1H", b"99999999H", b"", b"-1S"])
#: Frames that are valid by themselves, and often where they come.
STEPS = st.one_of(
    st.builds(
        lambda number, path, flags, when: frame(1, flags, number, headers(path, *when)),
        CALLS,
        PATHS,
        st.sampled_from([4, 4, 5]),
        st.lists(TIMES.map(lambda each: (b"grpc-timeout", each)), max_size=1),
    ),
    st.builds(frame, st.just(0), st.integers(0, 1), CALLS, PIECES),
    st.builds(frame, st.just(3), st.just(0), CALLS, st.just(b"\0\0\0\x08")),
    st.builds(frame, st.just(8), st.just(0), CALLS | st.just(0), SIZES),
    st.builds(frame, st.just(4), st.just(0), st.just(0), SIZES.map(lambda size: b"\0\4" + size)),
    st.builds(call, CALLS, st.sampled_from([b"a", b"large"])),
)


def used() -> tuple[int, int]:
    """How many threads and files this process has."""
    return threading.active_count(), len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="this system has no /proc")
def test_any_order_of_frames(address, bystander, caplog):
    """The server answers or closes, finds no defect, and keeps nothing of those that are gone."""
    bystander.call("KV/Range", key=b"a")
    before = used()

    @settings(max_examples=60 * LONG, suppress_health_check=list(HealthCheck), deadline=None)
    @given(st.lists(STEPS, max_size=12), st.booleans())
    def run(steps: list[bytes], reset: bool) -> None:
        raw = Raw(address)
        try:
            raw.send(*steps, frame(rawclient.PING, 0, 0, b"all read"))
            kinds = [(kind, flags) for kind, flags, *_ in until_answered(raw)]
        except ConnectionError:
            kinds = [(rawclient.GOAWAY, 0)]
        assert {(rawclient.PING, rawclient.ACK), (rawclient.GOAWAY, 0)} & set(kinds)
        raw.reset() if reset else raw.close()
        assert bystander.call("KV/Range", key=b"a").count == 1

    run()
    wait_until(lambda: used()[1] <= before[1], "the server closes what clients left")
    assert used()[0] <= before[0] + 1
    assert caplog.text == ""


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts by /proc")
def test_more_connections_than_files(tmp_path):
    """Of a burst of connections, a server with few files keeps so many that its store has files
    left: a client that is connected goes on, and nothing is logged."""
    command = f"ulimit -n 64; exec {sys.executable} -m revstore serve --listen 127.0.0.1:0"
    store = f"sqlite:///{tmp_path}/served.db"
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen(
            ["sh", "-c", f"{command} --store {store}"],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        try:
            address = process.stdout.readline().strip().removesuffix(".").rpartition(" ")[2]
            client = Client(address)
            client.call("KV/Put", key=b"a")
            host, port = address.split(":")
            burst = [socket.create_connection((host, int(port)), 20) for _ in range(100)]
            for each in range(20):
                client.call("KV/Put", key=b"%d" % each)
            assert len(os.listdir(f"/proc/{process.pid}/fd")) < 64
            for each in burst:
                each.close()
            wait_until(lambda: answers(address), "there is room again")
            client.close()
        finally:
            process.terminate()
    assert (tmp_path / "log").read_text() == ""


def answers(address: str) -> bool:
    """Whether a new connection is served."""
    try:
        raw = Raw(address)
        raw.send(frame(rawclient.PING, 0, 0, b"all read"))
    except ConnectionError:
        return False
    found = any(kind == rawclient.PING for kind, *_ in until_answered(raw))
    raw.close()
    return found
