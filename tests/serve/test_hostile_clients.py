"""Clients that keep to HTTP/2 letter by letter, and make the server work or hold more than they
send. Another client of the same server goes on."""

from __future__ import annotations

import gzip
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import hpack
import pytest
from tests.serve import rawclient
from tests.serve.conftest import Client
from tests.serve.rawclient import Raw, frame, headers, prefixed

from revstore.memory import MemoryBackend
from revstore_serve import _connection, serve
from revstore_serve._proto import message

pytestmark = pytest.mark.slow

RANGE = b"/etcdserverpb.KV/Range"
LARGE = 300_000
WINDOW = struct.Struct(">HI").pack
NO_WINDOW = WINDOW(4, 0)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with MemoryBackend() as backend, serve(backend) as endpoint:
        backend.put("a", b"1", expected_revision=0)
        backend.put("large", b"x" * LARGE, expected_revision=0)
        yield endpoint.address


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
