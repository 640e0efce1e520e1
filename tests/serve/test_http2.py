"""The endpoint's own HTTP/2, and clients that use it in unusual ways, or break its rules."""

from __future__ import annotations

import contextlib
import gc
import gzip
import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import grpc
import hpack
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.serve import rawclient
from tests.serve.conftest import Client
from tests.serve.rawclient import Raw, frame, headers, literal, prefixed

from revstore.memory import MemoryBackend
from revstore.testing._support import wait_until
from revstore_serve import serve
from revstore_serve._call import Call
from revstore_serve._frames import Broken, status_fields
from revstore_serve._header_fields import LARGEST_HEADERS, HeaderFields
from revstore_serve._proto import message
from revstore_serve._users import hashed

pytestmark = pytest.mark.slow

LONG = int(os.environ.get("REVSTORE_TEST_LONG", "1"))
RANGE = b"/etcdserverpb.KV/Range"
ALL = rawclient.END_HEADERS | rawclient.END_STREAM


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with MemoryBackend() as backend, serve(backend) as endpoint:
        backend.put("a", b"1", expected_revision=0)
        backend.put("large", b"x" * 300_000, expected_revision=0)
        yield endpoint.address


@pytest.fixture(scope="module")
def bystander(address) -> Iterator[Client]:
    """A client whose connection nobody else may harm."""
    client = Client(address)
    yield client
    client.close()


def request(key: bytes = b"a") -> bytes:
    return prefixed(message("RangeRequest")(key=key).SerializeToString())


def answers(raw: Raw, stream: int) -> tuple[bytes, dict[bytes, bytes]]:
    """The bytes of a call's messages, and its trailers."""
    decoder, found = hpack.Decoder(), b""
    for kind, flags, number, payload in raw.frames():
        fields = dict(decoder.decode(payload, raw=True)) if kind == rawclient.HEADERS else {}
        if number != stream:
            continue
        found += payload if kind == rawclient.DATA else b""
        if flags & rawclient.END_STREAM:
            return found, fields
    raise AssertionError("the connection has ended")


def value(found: bytes) -> bytes:
    (kv,) = message("RangeResponse").FromString(found[5:]).kvs
    return kv.value


def test_frames_of_any_shape(address):
    """Padding, priorities, header fields in several frames, a message in pieces, and trailers:
    the call is the same."""
    raw = Raw(address)
    fields = headers(RANGE)
    padded = b"\3" + b"\0\0\0\0\x10" + fields[:50] + b"\0\0\0"
    text = request()
    raw.send(
        frame(2, 0, 1, b"\0\0\0\0\x10"),  # a priority
        frame(rawclient.HEADERS, 8 | 32, 1, padded),
        frame(rawclient.MORE, 0, 1, fields[50:60]),
        frame(rawclient.MORE, rawclient.END_HEADERS, 1, fields[60:]),
        frame(0xEE, 0, 1, b"of another version"),
        *(frame(rawclient.DATA, 8, 1, b"\2" + bytes([each]) + b"\0\0") for each in text),
        frame(rawclient.HEADERS, ALL, 1, literal(b"checksum", b"none")),
    )
    found, trailers = answers(raw, 1)
    assert (value(found), trailers[b"grpc-status"]) == (b"1", b"0")
    raw.close()


def test_bytes_one_by_one(address):
    """However the network cuts frames."""
    raw = Raw(address)
    text = frame(rawclient.HEADERS, 4, 1, headers(RANGE)) + frame(0, 1, 1, request())
    for each in text:
        raw.send(bytes([each]))
    assert value(answers(raw, 1)[0]) == b"1"
    raw.close()


def test_a_client_with_a_small_window(address):
    """The answer comes in as many pieces as the client has room for."""
    raw = Raw(address, settings=struct.pack(">HI", 4, 1000))
    raw.send(frame(rawclient.HEADERS, 4, 1, headers(RANGE)), frame(0, 1, 1, request(b"large")))
    found = b""
    for kind, flags, number, payload in raw.frames():
        if kind == rawclient.DATA:
            assert len(payload) <= 1000
            found += payload
            more = struct.pack(">I", len(payload))
            raw.send(frame(rawclient.UPDATE, 0, 0, more), frame(rawclient.UPDATE, 0, number, more))
        elif number and flags & rawclient.END_STREAM:
            break
    assert value(found) == b"x" * 300_000
    raw.close()


def test_a_client_s_deadline(address):
    """A call that the client gives up ends with that, here one of which the message never comes."""
    raw = Raw(address)
    fields = headers(b"/etcdserverpb.Watch/Watch", (b"grpc-timeout", b"50m"))
    raw.send(frame(rawclient.HEADERS, rawclient.END_HEADERS, 1, fields))
    found, trailers = answers(raw, 1)
    assert (found, trailers[b"grpc-status"]) == (b"", b"4")
    raw.close()


@pytest.mark.parametrize(
    ("path", "text", "status"),
    [
        (b"/etcdserverpb.KV/Nothing", request(), b"12"),
        (RANGE, b"", b"13"),
        (RANGE, request() + request(), b"13"),
        (RANGE, request()[:-1], b"13"),
        (RANGE, prefixed(b"\xff\xff\xff"), b"13"),
        (RANGE, b"\1" + request()[1:], b"12"),
        (RANGE, b"\0\x7f\xff\xff\xff", b"8"),
    ],
)
def test_calls_that_are_refused(address, path, text, status):
    """Unknown methods, and messages that are missing, too many, cut off, of no meaning,
    compressed, or too large. The connection goes on."""
    raw = Raw(address)
    raw.send(frame(rawclient.HEADERS, 4, 1, headers(path)), frame(0, 1, 1, text))
    assert answers(raw, 1)[1][b"grpc-status"] == status
    raw.send(frame(rawclient.HEADERS, 4, 3, headers(RANGE)), frame(0, 1, 3, request()))
    assert value(answers(raw, 3)[0]) == b"1"
    raw.close()


def test_header_fields_that_mean_nothing(address):
    """Only the call that has them fails."""
    raw = Raw(address)
    fields = headers(RANGE, (b"grpc-timeout", b"1 day"))
    raw.send(frame(rawclient.HEADERS, 4, 1, fields), frame(0, 1, 1, request()))
    trailers = answers(raw, 1)[1]
    assert (trailers[b"grpc-status"], trailers[b"grpc-message"][:9]) == (b"13", b"malformed")
    fields = headers(RANGE).replace(
        literal(b"content-type", b"application/grpc"),
        literal(b"content-type", b"application/grpc-web"),
    )
    raw.send(frame(rawclient.HEADERS, 4, 3, fields), frame(0, 1, 3, request()))
    assert answers(raw, 3)[1] == {b":status": b"415"}
    raw.send(frame(rawclient.HEADERS, 4, 5, headers(RANGE)), frame(0, 1, 5, request()))
    assert value(answers(raw, 5)[0]) == b"1"
    raw.close()


@pytest.mark.parametrize("text", ["é" * 20_000, "\ud800", "%\n", ""])
def test_texts_of_errors_fit_a_frame(text):
    fields = dict(hpack.Decoder().decode(status_fields(2, text), raw=True))
    assert fields[b"grpc-status"] == b"2"
    found = unquote(fields[b"grpc-message"].decode())
    assert found == text[:1000].encode(errors="replace").decode()
    assert len(status_fields(2, text)) < 16384


LONG_FIELD = [(b"token", b"d" * 3000)]
BLOCKS = st.lists(
    st.tuples(
        st.sampled_from([b"token", b"x", b"long"]),
        st.sampled_from([b"a", b"b", b"c" * 1500, b"d" * 3000, b"e" * 5000]),
    ),
    max_size=4,
)


@settings(max_examples=200 * LONG)
@given(st.lists(st.tuples(BLOCKS, st.integers(0, 9)), max_size=12))
@example([(LONG_FIELD, 0), (LONG_FIELD, 1), ([(b"x", b"d" * 3000)], 1)])
def test_blocks_of_header_fields(steps):
    """A block that is remembered means what it means now, whatever was in the table before."""
    encoder, fields = hpack.Encoder(), HeaderFields()
    decoder = hpack.Decoder(max_header_list_size=LARGEST_HEADERS)
    sent = []
    for block, number in steps:
        sent.append(encoder.encode(block, huffman=False))
        # The other one is of a client that does not keep to its own table.
        for text in (sent[-1], sent[number % len(sent)]):
            try:
                expected = dict(reversed(decoder.decode(text, raw=True)))
            except hpack.HPACKError:
                with pytest.raises(Broken):
                    fields.begin(rawclient.END_HEADERS, 1, text)
                return
            assert fields.begin(rawclient.END_HEADERS, 1, text) == expected


WATCH = b"/etcdserverpb.Watch/Watch"


def memory() -> int:
    """The bytes that this process has in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="this system has no /proc")
def test_compressed_messages_that_nobody_reads(address, bystander):
    """They stay as small as they came: 400 messages of 2 MB in 800 kB."""
    raw = Raw(address)
    small = gzip.compress(bytes(2 << 20))
    bomb = b"\1" + struct.pack(">I", len(small)) + small
    before = memory()
    raw.send(frame(rawclient.HEADERS, 4, 1, headers(RANGE, (b"grpc-encoding", b"gzip"))))
    raw.send(*(frame(rawclient.DATA, 0, 1, bomb) for _ in range(400)))
    raw.send(frame(rawclient.PING, 0, 0, b"all read"))
    assert any(payload == b"all read" for *_, payload in raw.frames())
    assert memory() - before < 200 << 20
    raw.send(frame(rawclient.DATA, rawclient.END_STREAM, 1))
    assert answers(raw, 1)[1][b"grpc-status"] == b"13"
    assert bystander.call("KV/Range", key=b"a").count == 1
    raw.close()


def test_requests_that_do_not_end(address, bystander):
    """A connection holds so much of them, and refuses more until some have ended."""
    raw = Raw(address)
    piece = bytes(16000)
    head = b"\0" + struct.pack(">I", 1_500_000)
    calls = range(1, 201, 2)
    for call in calls:
        raw.send(frame(rawclient.HEADERS, 4, call, headers(RANGE)))
        raw.send(
            frame(rawclient.DATA, 0, call, head), *[frame(rawclient.DATA, 0, call, piece)] * 50
        )
    raw.send(frame(rawclient.PING, 0, 0, b"all read"))
    decoder, refused = hpack.Decoder(), {}
    for kind, _, number, payload in raw.frames():
        if kind == rawclient.HEADERS:
            refused[number] = dict(decoder.decode(payload, raw=True))[b"grpc-status"]
        if kind == rawclient.PING:
            break
    assert set(refused.values()) == {b"8"}
    assert set(refused) == set(calls[-len(refused) :])
    assert 10 < len(refused) < 30
    assert bystander.call("KV/Range", key=b"a").count == 1
    raw.send(*(frame(rawclient.RESET, 0, call, b"\0\0\0\0") for call in calls[:10]))
    raw.send(frame(rawclient.HEADERS, 4, 201, headers(RANGE)), frame(0, 1, 201, request()))
    assert value(answers(raw, 201)[0]) == b"1"
    raw.close()


@pytest.mark.parametrize("piece", [1000, 16384, 1 << 20])
def test_many_calls_share_a_small_window(address, piece):
    """One that finds room takes it, and what it leaves is for the next. The client makes room a
    piece at a time once the window is full, or for all at once."""
    raw = Raw(address, settings=struct.pack(">HI", 4, 1 << 20))
    calls = range(1, 41, 2)
    for call in calls:
        raw.send(frame(rawclient.HEADERS, 4, call, headers(RANGE)))
        raw.send(frame(0, 1, call, request(b"large" if call % 16 == 1 else b"a")))
    sizes = dict.fromkeys(calls, 0)
    ended = set()
    got, room = 0, 65535
    for kind, flags, number, payload in raw.frames():
        if kind == rawclient.DATA:
            sizes[number] += len(payload)
            got += len(payload)
            if got == room:
                raw.send(frame(rawclient.UPDATE, 0, 0, struct.pack(">I", piece)))
                room += piece
        if number and flags & rawclient.END_STREAM:
            ended.add(number)
        if len(ended) == len(calls):
            break
    assert all(size > 300_000 for call, size in sizes.items() if call % 16 == 1)
    raw.close()


def test_a_call_that_fails_ends_what_works_on_it(address):
    """A stream whose client breaks a rule of gRPC, while it waits for the next message."""
    raw = Raw(address)
    create = message("WatchRequest")(create_request={"key": b"a"}).SerializeToString()
    raw.send(frame(rawclient.HEADERS, 4, 1, headers(WATCH)))
    raw.send(frame(rawclient.DATA, 0, 1, prefixed(create)))
    raw.send(frame(rawclient.DATA, 0, 1, b"\0\x7f\xff\xff\xff"))
    assert answers(raw, 1)[1][b"grpc-status"] == b"8"
    calls = [each for each in gc.get_objects() if isinstance(each, Call) and each.task is not None]
    wait_until(lambda: all(each.task.done() for each in calls), "they end")
    raw.close()


def test_requests_that_are_compressed(address):
    with grpc.insecure_channel(address, compression=grpc.Compression.Gzip) as channel:
        call = channel.unary_unary(
            RANGE.decode(),
            request_serializer=message("RangeRequest").SerializeToString,
            response_deserializer=message("RangeResponse").FromString,
        )
        assert call(message("RangeRequest")(key=b"a", range_end=b"a" * 1000), timeout=20).count == 1


OPEN = frame(rawclient.HEADERS, rawclient.END_HEADERS, 1, headers(RANGE))


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        pytest.param([b"\0\x40\1\0\0\0\0\0\1"], 6, id="a frame that is too large"),
        pytest.param([frame(0, 0, 5, b"x")], 1, id="data of no call"),
        pytest.param([frame(1, 4, 2, headers(RANGE))], 1, id="a call of the server's"),
        pytest.param([frame(1, 4, 1, b"\xff\xff\xff\xff\xff\xff")], 9, id="no header fields"),
        pytest.param([frame(1, 0, 1, b"")] + [frame(9, 0, 1, b"")] * 20, 11, id="continued on"),
        pytest.param([frame(1, 0, 1, b""), frame(6, 0, 0, b"12345678")], 1, id="interrupted"),
        pytest.param([frame(9, 4, 1, b"")], 1, id="continues nothing"),
        pytest.param([OPEN, frame(8, 0, 1, b"\0\0\0\0")], 1, id="a window of nothing"),
        pytest.param([frame(8, 0, 0, b"\x7f\xff\xff\xff")], 3, id="a window too large"),
        pytest.param([frame(4, 0, 0, b"12345")], 6, id="settings cut off"),
        pytest.param([frame(4, 0, 0, struct.pack(">HI", 4, 1 << 31))], 3, id="a setting"),
        pytest.param([frame(6, 0, 0, b"1234")], 6, id="a ping cut off"),
        pytest.param([frame(5, 4, 1, b"1234")], 1, id="a push"),
        pytest.param([frame(3, 0, 9, b"1234")], 1, id="a reset of no call"),
        pytest.param([OPEN, frame(0, 8, 1, b"\xff1")], 1, id="padding only"),
        pytest.param([OPEN, frame(0, 1, 1), frame(0, 1, 1)], 5, id="data after the end"),
        pytest.param([OPEN, frame(0, 1, 1), OPEN], 5, id="header fields after the end"),
        pytest.param(
            [OPEN, frame(8, 0, 1, b"\x7f\xff\0\0"), frame(4, 0, 0, struct.pack(">HI", 4, 1 << 30))],
            3,
            id="a setting that makes a window too large",
        ),
        pytest.param([frame(4, 0, 0, struct.pack(">HI", 2, 2))], 1, id="neither true nor false"),
        pytest.param([frame(4, 1, 0, b"123456")], 6, id="settings that are noted"),
        pytest.param(
            [frame(1, 4, 2 * each + 1, b"\x83") + frame(3, 0, 2 * each + 1, b"1234")
             for each in range(12_000)],
            11,
            id="calls that are taken back",
        ),
    ],
)  # fmt: skip
def test_rules_that_are_broken(address, bystander, frames, code):
    """The connection ends with an error that says why, and no other one is touched."""
    raw = Raw(address)
    raw.send(*frames)
    ends = [payload for kind, _, _, payload in raw.frames() if kind == rawclient.GOAWAY]
    assert [struct.unpack(">I", each[4:8])[0] for each in ends] == [code]
    raw.close()
    assert bystander.call("KV/Range", key=b"a").count == 1


FRAMES = st.builds(
    frame,
    st.integers(0, 10),
    st.integers(0, 255),
    st.sampled_from([0, 1, 2, 3, 5, 0x7FFFFFFF]),
    st.binary(max_size=30) | st.sampled_from([headers(RANGE), request(), b"\0\0\0\1", b"\0" * 8]),
)


@settings(max_examples=100 * LONG, suppress_health_check=list(HealthCheck))
@given(st.lists(FRAMES | st.binary(max_size=20), max_size=8))
def test_whatever_a_client_sends(address, bystander, caplog, frames):
    """No defect shows, and others are served."""
    raw = Raw(address)
    raw.send(*frames)
    raw.reset()
    assert bystander.call("KV/Range", key=b"a").count == 1
    assert "defect" not in caplog.text


def test_a_client_that_sends_and_does_not_read(address, bystander):
    """The server stops to read from it, instead of keeping ever more answers."""
    raw = Raw(address)
    raw.socket.settimeout(0.5)
    pings = frame(rawclient.PING, 0, 0, b"12345678") * 1000
    sent = 0
    with contextlib.suppress(TimeoutError):
        while sent < 200_000_000:
            raw.socket.sendall(pings)
            sent += len(pings)
    assert sent < 200_000_000
    assert bystander.call("KV/Range", key=b"a").count == 1
    raw.reset()


def test_calls_of_one_connection_are_of_different_users(tmp_path):
    """Header fields of one call come between those and the message of another."""
    file = tmp_path / "users.toml"
    file.touch(0o600)
    rights = {"reader": ["/a/"], "none": []}
    file.write_text(
        "".join(
            f"[users.{name}]\npassword = {json.dumps(hashed(f'pw-{name}'))}\n"
            f"read = {json.dumps(read)}\n"
            for name, read in rights.items()
        )
    )
    with MemoryBackend() as backend, serve(backend, users_file=str(file)) as endpoint:
        client = Client(endpoint.address)
        asked = [
            message("AuthenticateRequest")(name=name, password=f"pw-{name}")
            for name in ("reader", "none")
        ]
        tokens = [client.call("Auth/Authenticate", each).token.encode() for each in asked]
        client.close()
        raw = Raw(endpoint.address)
        for number, token in zip((1, 3), tokens, strict=True):
            raw.send(frame(rawclient.HEADERS, 4, number, headers(RANGE, (b"token", token))))
        raw.send(frame(0, 1, 1, request(b"/a/x")), frame(0, 1, 3, request(b"/a/x")))
        found: dict[int, bytes] = {}
        decoder = hpack.Decoder()
        for kind, flags, number, payload in raw.frames():
            if kind == rawclient.HEADERS and flags & rawclient.END_STREAM:
                found[number] = dict(decoder.decode(payload, raw=True))[b"grpc-status"]
                if len(found) == 2:
                    break
        assert found == {1: b"0", 3: b"7"}
        raw.close()
