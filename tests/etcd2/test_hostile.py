"""Servers that answer late, in drops, without end, or with what no etcd would say."""

from __future__ import annotations

import contextlib
import json
import math
import socket
import ssl
import threading
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from revstore.config import StorageConfig
from revstore.errors import (
    AccessDenied,
    CorruptStore,
    OutcomeUnknown,
    StorageError,
    Timeout,
    Unreachable,
)
from revstore.plugins import open_backend
from revstore.testing._support import PATIENCE, collect, promptly
from revstore.testing.proxy import FaultyProxy
from revstore.testing.scripted import Plain, ScriptedPeer, answer, dripping, endless, late
from revstore_etcd2._names import url_of

INDEX = ("X-Etcd-Index: 9", "X-Etcd-Cluster-Id: c")
NODE = {"key": "/a", "value": "x", "modifiedIndex": 5, "createdIndex": 4}
FOUND = {"action": "get", "node": NODE}
CLEARED = {"errorCode": 401, "index": 9, "message": "the event is cleared"}
HEAD = b"HTTP/1.1 200 OK\r\nX-Etcd-Index: 9\r\n"


def said(content, *headers, **more):
    """An answer with a content that is made JSON, in the headers of etcd."""
    return answer(json.dumps(content).encode(), *(headers or INDEX), **more)


CALLS = {
    "get": lambda backend, **more: backend.get("/a", **more),
    "list": lambda backend, **more: backend.list("/a", **more),
    "count": lambda backend, **more: backend.count("/", **more),
    "status": lambda backend, **more: backend.status(**more),
    "create": lambda backend, **more: backend.put("/a", b"x", expected_revision=0, **more),
    "update": lambda backend, **more: backend.put("/a", b"x", expected_revision=4, **more),
    "delete": lambda backend, **more: backend.delete("/a", expected_revision=4, **more),
}
WRITES = ("create", "update", "delete")


@contextlib.contextmanager
def talking_to(script, options="", **more):
    """A backend whose server plays the script, and the server."""
    with (
        ScriptedPeer(script, **more) as peer,
        open_backend(StorageConfig.from_url(f"etcd2://{peer.address}{options}")) as backend,
    ):
        yield backend, peer


def test_bodies_that_come_late(new_server, opened):
    """WATCH-2: an answer whose body comes long after its head is no empty one: a watch that begins
    in history, and one whose stream broke, deliver every event, and their positions pass over
    none."""
    other = opened(new_server.address)
    start = other.status().revision
    with ScriptedPeer(late(new_server.address, 0.7)) as peer:
        backend = opened(peer.address, "?idle_timeout=2")
        written = [other.put(f"/k/{n}", b"x", expected_revision=0).revision for n in range(2)]
        with backend.watch("/k/", recursive=True, after_revision=start) as watch:
            assert [each.kv.revision for each in collect(watch, 2)] == written
            assert watch.position == written[-1]
            written = [other.put(f"/l/{n}", b"x", expected_revision=0).revision for n in range(1)]
            peer.cut()
            written += [other.put(f"/k/{n}", b"x", expected_revision=0).revision for n in (3, 4)]
            found = [each.kv.revision for each in collect(watch, 2)]
        assert found == written[1:]


@pytest.mark.parametrize("through", [None, FaultyProxy])
def test_history_without_a_change(new_server, opened, through):
    """CACHE-11: where only changes that watches do not see lie between, a watch from history goes
    on live, and its mark moves; so it does behind a proxy that takes half a connection for none,
    where only the next event tells."""
    other = opened(new_server.address)
    start = other.put("/k", b"x", expected_revision=0, ttl=100).revision
    refresh = "refresh=true&ttl=100&prevExist=true"
    assert other._client.call("PUT", url_of("/k"), body=refresh).status == 200
    assert other.status().revision > start
    with contextlib.ExitStack() as stack:
        proxy = stack.enter_context(through(new_server.address)) if through else new_server
        backend = opened(proxy.address)
        watch = stack.enter_context(backend.watch("/k", recursive=False, after_revision=start))
        if not through:
            assert watch.poll(PATIENCE).events == ()
        else:
            assert watch.poll(1.5) is None
        written = other.put("/k", b"y", expected_revision=other.get("/k").kv.revision).revision
        assert collect(watch, 1)[0].kv.revision == written


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("part", ["all", "body", "chunks", "nothing", "error"])
def test_one_deadline_for_all_of_an_answer(call, part):
    """A server that sends a byte now and then gets no more time than one that sends
    nothing; a write is then of unknown outcome."""
    whole = said(FOUND)
    head, _, body = whole.partition(b"\r\n\r\n")

    def script(_):
        if part == "all":
            yield from dripping(whole, 0.1)
        elif part == "body":
            yield head + b"\r\n\r\n"
            yield from dripping(body, 0.1)
        elif part == "chunks":
            yield HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
            yield from dripping(b"1\r\n{\r\n" * 100, 0.1)
        elif part == "error":
            yield b"HTTP/1.1 404 Not Found\r\nContent-Length: 999\r\n\r\n"
            yield from dripping(b"x" * 100, 0.1)
        yield math.inf

    with talking_to(script) as (backend, _):
        began = time.monotonic()
        with pytest.raises(Timeout) as caught:
            CALLS[call](backend, timeout=0.6)
        assert time.monotonic() - began < 5
        assert isinstance(caught.value, OutcomeUnknown) is (call in WRITES)


def test_one_deadline_for_the_handshake(certificates):
    """TLS that never gets done counts towards the deadline; nothing was written."""
    with (
        ScriptedPeer(lambda _: iter([math.inf])) as peer,  # waits for a head
        open_backend(
            StorageConfig(
                type="etcd2",
                server_list=(f"https://{peer.address}",),
                ca_file=f"{certificates}/ca.pem",
            )
        ) as backend,
    ):
        began = time.monotonic()
        with pytest.raises((Timeout, Unreachable)) as caught:
            backend.put("/a", b"x", expected_revision=0, timeout=0.5)
        assert not isinstance(caught.value, OutcomeUnknown)
        assert time.monotonic() - began < 3


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (HEAD + b"Content-Length: 1000000000000\r\n\r\n", b" " * 65536),
        (HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n", b" " * 65536),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + b" " * 65536 + b"\r\n"),
        (HEAD + b"\r\n", b" " * 65536),
    ],
)
@pytest.mark.parametrize("call", ["list", "create"])
def test_an_answer_without_end(head, piece, call):
    """No more is read than an answer can have, and that is told."""
    kind = OutcomeUnknown if call in WRITES else CorruptStore
    limit = 128 << 20
    with talking_to(lambda _: endless(head, piece), "?list_limit=2000000") as (backend, peer):
        with promptly(), pytest.raises(kind, match=r"over the limit of \d+"):
            CALLS[call](backend)
        assert peer.sent < limit


def test_a_tls_error_after_sending(certificates):
    """ERR: a connection that breaks within TLS has had the request: the outcome of a write is not
    known, and it is sent once."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")

    def script(_):
        yield Plain(b"no TLS record, but bytes")
        yield None

    with ScriptedPeer(script, context=context) as peer:
        config = StorageConfig(
            type="etcd2",
            server_list=(f"https://{peer.address}",) * 2,
            ca_file=f"{certificates}/ca.pem",
        )
        with open_backend(config) as backend:
            with pytest.raises(OutcomeUnknown):
                backend.put("/a", b"x", expected_revision=0)
            assert len(peer.requests) == 1
            with pytest.raises(Unreachable):
                backend.get("/a")


def test_plain_and_tls_do_not_meet(certificates, new_server):
    """SF-4: https to a server without TLS is told at once, and nothing was written."""
    config = StorageConfig(
        type="etcd2",
        server_list=(f"https://{new_server.address}",),
        ca_file=f"{certificates}/ca.pem",
    )
    refused = pytest.raises(Unreachable, match=f"TLS to {new_server.address} failed")
    with open_backend(config) as backend, promptly(), refused:
        backend.put("/a", b"x", expected_revision=0)


@pytest.mark.parametrize("how", ["resets", "closes"])
def test_a_server_that_ends_the_handshake(certificates, how):
    """SF-4: it is TLS that failed, whether the plain answer of the server or the reset behind it
    arrived first."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            with contextlib.suppress(OSError):  # what accept raises once the listener is shut down
                while True:
                    with listener.accept()[0] as end:
                        # What is left unread makes a reset.
                        end.recv(1 if how == "resets" else 1 << 16)

        server = threading.Thread(target=serve)
        server.start()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        config = StorageConfig(
            type="etcd2", server_list=(f"https://{address}",), ca_file=f"{certificates}/ca.pem"
        )
        refused = pytest.raises(Unreachable, match=f"TLS to {address} failed")
        try:
            with open_backend(config) as backend, promptly(), refused:
                backend.get("/a")
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            server.join()


def node(**fields):
    return {"action": "get", "node": {**NODE, **fields}}


TOO_MUCH = 1 << 70
HOSTILE = {
    "html": answer(b"<html>hello</html>", *INDEX),
    "empty": answer(b"", *INDEX),
    "a list": said([1, 2]),
    "a number": said(7),
    "null": said(None),
    "no node": said({"action": "get"}),
    "node of another type": said({"action": "get", "node": [1]}),
    "another key": said(node(key="/b")),
    "no key": said({"action": "get", "node": {"value": "x", "modifiedIndex": 5}}),
    "no value": said({"action": "get", "node": {"key": "/a", "modifiedIndex": 5}}),
    "value of another type": said(node(value=5)),
    "no index": said({"action": "get", "node": {"key": "/a", "value": "x"}}),
    "index 0": said(node(modifiedIndex=0)),
    "index below 0": said(node(modifiedIndex=-5)),
    "index as text": said(node(modifiedIndex="5")),
    "index as a fraction": said(node(modifiedIndex=5.5)),
    "index too large": said(node(modifiedIndex=TOO_MUCH)),
    "index of 2^63": said(node(modifiedIndex=1 << 63)),
    "created after it was changed": said(node(createdIndex=8)),
    "created too late": said(node(createdIndex=TOO_MUCH)),
    "expiry that is none": said(node(expiration="tomorrow", ttl=5)),
    "ttl that is none": said(node(expiration="2030-01-01T00:00:00Z", ttl="x")),
    "both": said({**FOUND, "errorCode": 100}),
    "error as text": said({"errorCode": "100", "message": "m", "cause": "c", "index": 9}),
    "unknown error": said({"errorCode": 999, "message": "m", "cause": "c", "index": 9}),
    "no UTF-8": answer(b'{"action":"get","node":{"key":"/a","value":"\xff"}}', *INDEX),
    "deep": answer(b'{"node":' * 50_000, *INDEX),
    "deep lists": answer(b'{"node":' + b"[" * 50_000, *INDEX),
    "gzip": answer(b"\x1f\x8b" + b"\0" * 100, *INDEX, "Content-Encoding: gzip"),
    "cut short": said(FOUND)[:-9],
    "longer than it says": said(FOUND) + b"and more",
    "chunk of no size": HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "chunk below 0": HEAD + b"Transfer-Encoding: chunked\r\n\r\n-5\r\nxxxxx\r\n",
    "chunk too large": HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\nxx\r\n" % TOO_MUCH,
    "no HTTP": b"hello there, this is no HTTP\r\n\r\n",
    "status of text": b"HTTP/1.1 abc OK\r\n\r\n",
    "status too large": b"HTTP/1.1 99999 OK\r\n\r\n",
    "long header": HEAD + b"X: " + b"x" * 100_000 + b"\r\n\r\n",
    "many headers": HEAD + b"X: x\r\n" * 1000 + b"\r\n",
    "another status": said(FOUND, status="302 Found"),
    "server's failure": answer(b"oh", status="502 Bad Gateway"),
}
HEADERS = {
    "no header": (),
    "index of text": ("X-Etcd-Index: nine",),
    "index below 0": ("X-Etcd-Index: -9",),
    "index 0": ("X-Etcd-Index: 0",),
    "index too large": (f"X-Etcd-Index: {TOO_MUCH}",),
    "index of many digits": ("X-Etcd-Index: " + "9" * 5000,),
    "index before the key's": ("X-Etcd-Index: 3",),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", HOSTILE)
def test_an_answer_of_no_etcd(call, name):
    """What no etcd answers is an error of ours, or taken where it does not matter;
    of a write it leaves the outcome unknown, or was clearly refused."""

    def script(_):
        yield HOSTILE[name]
        yield None

    with talking_to(script, "?timeout=3") as (backend, _), promptly():
        if name == "longer than it says" and call in ("get", "create", "update"):
            assert CALLS[call](backend)
            return
        if name == "expiry that is none" and call in WRITES:
            return  # which needs no expiry
        with pytest.raises(StorageError) as caught:
            CALLS[call](backend)
        assert caught.value.__class__.__module__ == "revstore.errors"
        if call in WRITES and name not in ("another status",):
            assert isinstance(caught.value, OutcomeUnknown)


@pytest.mark.parametrize("call", ["get", "list", "count", "status"])
@pytest.mark.parametrize("name", HEADERS)
def test_an_index_of_no_etcd(call, name):
    """A read without the store's index, or with one that cannot be, is refused."""
    if (call, name) == ("status", "index before the key's"):
        pytest.skip("status reads no key")

    def script(_):
        yield said(FOUND, *(HEADERS[name] or ("X-No: x",)))

    with talking_to(script) as (backend, _), pytest.raises(CorruptStore):
        CALLS[call](backend)


def test_an_index_that_goes_back():
    """A read that shows less than one before it is of another store."""
    indexes = iter((9, 9, 8))

    def script(_):
        yield said(FOUND, f"X-Etcd-Index: {next(indexes)}")

    with talking_to(script) as (backend, _):
        assert backend.get("/a").revision == 9
        assert backend.get("/a").kv.revision == 5
        with pytest.raises(StorageError, match="went back from 9 to 8"):
            backend.get("/a")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=3,
)


@settings(max_examples=150, suppress_health_check=list(HealthCheck), deadline=None)
@given(field=st.sampled_from(sorted(NODE)), value=JSON, call=st.sampled_from(sorted(CALLS)))
def test_answers_that_were_changed(mutant, field, value, call):
    """With any field of an answer replaced, a call raises an error of ours, or
    returns what the answer says and a store can hold."""
    backend, set_answer = mutant
    set_answer(said({"action": "set", "node": {**NODE, field: value}, "prevNode": NODE}))
    try:
        result = CALLS[call](backend)
    except StorageError:
        return
    if call == "get":
        assert result.kv is None or (
            isinstance(result.kv.value, bytes)
            and 0 < result.kv.create_revision <= result.kv.revision <= result.revision == 9
        )
    if call in WRITES:
        assert 4 < result.revision < 1 << 63


@pytest.fixture(scope="module")
def mutant():
    """A backend, and how to set what its server answers from now on."""
    current = [b""]
    with talking_to(lambda _: iter(current)) as (backend, _):
        yield backend, lambda content: current.__setitem__(0, content)


CHANGE = {"action": "set", "node": {**NODE, "modifiedIndex": 12, "createdIndex": 12}}


@pytest.mark.parametrize(
    "line",
    [
        b"<html>\n",
        b"{}\n",
        b"[]\n",
        json.dumps({**CHANGE, "action": "dance"}).encode() + b"\n",
        json.dumps({**CHANGE, "node": {**NODE, "modifiedIndex": 0}}).encode() + b"\n",
        json.dumps({**CHANGE, "node": {**NODE, "modifiedIndex": TOO_MUCH}}).encode() + b"\n",
        json.dumps({**CHANGE, "node": {**NODE, "modifiedIndex": 12}}).encode() + b"\n",
        json.dumps({**CHANGE, "action": "delete"}).encode() + b"\n",
        json.dumps({**CHANGE, "prevNode": {**NODE, "modifiedIndex": 12}}).encode() + b"\n",
        json.dumps({**CHANGE, "prevNode": {**NODE, "key": "/b"}}).encode() + b"\n",
    ],
)
def test_a_change_of_no_etcd(line):
    """A watch ends with an error of ours, and delivers nothing that cannot be."""

    chunk = b"%x\r\n%b\r\n" % (len(line), line)

    def script(_):
        yield answer(chunk, *INDEX, "Transfer-Encoding: chunked", length=False)
        yield math.inf

    with (
        talking_to(script) as (backend, _),
        backend.watch("/", recursive=True, after_revision=9) as watch,
    ):
        with pytest.raises(StorageError):
            watch.poll(PATIENCE)
        assert watch.position == 9


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden"])
def test_refusals(status):
    """SF-4: credentials that are refused wrote nothing, whatever the body looks like."""
    with talking_to(lambda _: iter([answer(b"<no>", status=status)])) as (backend, _):
        for call in CALLS.values():
            with pytest.raises(AccessDenied):
                call(backend)


@pytest.mark.parametrize("digit", ["²", "٣"])
def test_digits_of_other_languages(digit):
    """What Python takes for digits, but not all of it for numbers, ends no call with an error of
    Python's."""
    node = {**NODE, "expiration": f"2030-01-01T00:00:00.{digit}Z", "ttl": 9}
    found, cleared = [said({**FOUND, "node": node})], [said(CLEARED | {"cause": f"[{digit}/1]"})]
    for script in (found, cleared):
        for call in CALLS.values():
            with (
                talking_to(lambda _, script=script: iter(script)) as (backend, _),
                contextlib.suppress(StorageError),
            ):
                call(backend, timeout=2)
