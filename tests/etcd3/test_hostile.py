"""Servers that answer late, or with what no etcd would say."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import pytest
from etcd3.etcdrpc import kv_pb2, rpc_pb2, rpc_pb2_grpc
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from revstore.config import StorageConfig
from revstore.errors import (
    AccessDenied,
    Compacted,
    CorruptStore,
    OutcomeUnknown,
    StorageError,
    Timeout,
    Unreachable,
)
from revstore.plugins import open_backend
from revstore.secret import Secret
from revstore.testing._support import PATIENCE, promptly
from revstore.values import WatchBatch

GONE = grpc.StatusCode.OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted"
NO_LEADER = grpc.StatusCode.UNAVAILABLE, "etcdserver: no leader"


class Server(
    rpc_pb2_grpc.KVServicer,
    rpc_pb2_grpc.WatchServicer,
    rpc_pb2_grpc.LeaseServicer,
    rpc_pb2_grpc.AuthServicer,
    rpc_pb2_grpc.MaintenanceServicer,
):
    """A gRPC server of etcd's services that answers each method with what the test puts into
    ``answers``: a response, a status, or a function of the request that returns either. The seconds
    in ``delays`` go by before."""

    def __init__(self):
        self.answers = {"Status": rpc_pb2.StatusResponse(version="3.5.1")}
        self.delays = {}
        self.calls = []
        self.peers = set()
        self.over = threading.Event()
        self._server = grpc.server(ThreadPoolExecutor(16))
        for add in (
            rpc_pb2_grpc.add_KVServicer_to_server,
            rpc_pb2_grpc.add_WatchServicer_to_server,
            rpc_pb2_grpc.add_LeaseServicer_to_server,
            rpc_pb2_grpc.add_AuthServicer_to_server,
            rpc_pb2_grpc.add_MaintenanceServicer_to_server,
        ):
            add(self, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def _answer(self, name, request, context):
        self.calls.append(name)
        self.peers.add(context.peer())
        self.over.wait(self.delays.get(name, 0))
        found = self.answers.get(name)
        found = found(request) if callable(found) else found
        if found is None:
            self.over.wait(PATIENCE)
        if isinstance(found, tuple):
            context.abort(*found)
        return found

    def Range(self, request, context):
        return self._answer("Range", request, context)

    def Txn(self, request, context):
        return self._answer("Txn", request, context)

    def Compact(self, request, context):
        return self._answer("Compact", request, context)

    def LeaseGrant(self, request, context):
        return self._answer("LeaseGrant", request, context)

    def LeaseRevoke(self, request, context):
        return self._answer("LeaseRevoke", request, context)

    def LeaseTimeToLive(self, request, context):
        return self._answer("LeaseTimeToLive", request, context)

    def LeaseKeepAlive(self, requests, context):
        for request in requests:
            yield self._answer("LeaseKeepAlive", request, context)

    def Authenticate(self, request, context):
        return self._answer("Authenticate", request, context)

    def Status(self, request, context):
        return self._answer("Status", request, context)

    def Watch(self, requests, context):
        self.calls.append("Watch")
        answers = self.answers.get("Watch", ())
        yield from answers
        while context.is_active() and not self.over.wait(0.05):
            pass

    def close(self):
        self.over.set()
        self._server.stop(0).wait(PATIENCE)


@contextmanager
def talking_to(**fields):
    """A backend and its server."""
    server = Server()
    try:
        config = StorageConfig(type="etcd3", server_list=(server.address,), **fields)
        with open_backend(config) as backend:
            yield backend, server
    finally:
        server.close()


HEAD = rpc_pb2.ResponseHeader(cluster_id=7, member_id=1, revision=9, raft_term=1)
KV = kv_pb2.KeyValue(key=b"/a", value=b"x", mod_revision=5, create_revision=4, version=2)


def ranged(*kvs, header=HEAD, more=False, count=None):
    """The answer to a Range."""
    return rpc_pb2.RangeResponse(
        header=header, kvs=kvs, more=more, count=len(kvs) if count is None else count
    )


def changed(kv=KV, **fields):
    """Another key, value and revisions."""
    found = kv_pb2.KeyValue()
    found.CopyFrom(kv)
    for name, value in fields.items():
        setattr(found, name, value)
    return found


def op(**fields):
    """A part of the answer to a transaction."""
    return rpc_pb2.ResponseOp(**fields)


def done(*responses, succeeded=True, header=HEAD):
    """The answer to a transaction."""
    return rpc_pb2.TxnResponse(header=header, succeeded=succeeded, responses=responses)


PUT = op(response_put=rpc_pb2.PutResponse())
NO_FENCE = op(response_range=ranged())


def test_what_an_etcd_says_is_taken():
    """The answers that the others are made from are good."""
    with talking_to() as (backend, server):
        server.answers |= {"Range": ranged(KV), "Txn": done(PUT)}
        assert backend.get("/a").kv.value == b"x"
        assert [kv.key for kv in backend.list("/").kvs] == ["/a"]
        assert backend.put("/a", b"", expected_revision=5).revision == 9
        server.answers["Txn"] = done(
            op(response_delete_range=rpc_pb2.DeleteRangeResponse(prev_kvs=[KV]))
        )
        assert backend.delete("/a", expected_revision=5).kv.revision == 5
        server.answers["Txn"] = done(op(response_range=ranged(KV)), NO_FENCE, succeeded=False)
        assert backend.put("/a", b"", expected_revision=3).current.revision == 5


LAST = (1 << 63) - 1
HEADERS = {
    "none": rpc_pb2.ResponseHeader(),
    "revision 0": rpc_pb2.ResponseHeader(cluster_id=7),
    "revision below 0": rpc_pb2.ResponseHeader(cluster_id=7, revision=-1),
    "no cluster": rpc_pb2.ResponseHeader(revision=9),
}
KEYS = {
    "another key": [changed(key=b"/b")],
    "no key": [changed(key=b"")],
    "two keys": [KV, changed(key=b"/b")],
    "twice": [KV, KV],
    "no revision": [changed(mod_revision=0)],
    "revision below 0": [changed(mod_revision=-1)],
    "revision of the future": [changed(mod_revision=10)],
    "greatest revision": [changed(mod_revision=LAST)],
    "created later": [changed(create_revision=6)],
    "never created": [changed(create_revision=0)],
    "no version": [changed(version=0)],
    "version below 0": [changed(version=-3)],
}


@pytest.mark.parametrize("linearizable", [True, False])
@pytest.mark.parametrize("name", [*KEYS, *HEADERS])
def test_a_read_of_no_etcd(name, linearizable):
    """Fields that are missing or cannot be are CorruptStore, from get and list."""
    with talking_to() as (backend, server):
        server.answers["Range"] = (
            ranged(KV, header=HEADERS[name]) if name in HEADERS else ranged(*KEYS[name])
        )
        with pytest.raises(CorruptStore):
            backend.get("/a", linearizable=linearizable)
        if name not in ("another key", "two keys"):
            with pytest.raises(CorruptStore):
                backend.list("/", linearizable=linearizable)


def test_lists_of_no_etcd():
    """Keys out of order or of another prefix, more of them than were asked for, a
    page without keys that has another, and a count below 0."""
    second = changed(key=b"/b")
    with talking_to() as (backend, server):
        for answer in (
            ranged(second, KV),
            ranged(changed(key=b"!")),
            ranged(changed(key=b"0")),
            ranged(more=True),
        ):
            server.answers["Range"] = answer
            with promptly(), pytest.raises(CorruptStore):
                backend.list("/")
        server.answers["Range"] = ranged(KV, second)
        with pytest.raises(CorruptStore):
            backend.list("/", limit=1)
        server.answers["Range"] = ranged(count=-1)
        with pytest.raises(CorruptStore):
            backend.count("/")
        with pytest.raises(CorruptStore):
            backend.list("/", remaining=True)


WRITTEN = {
    "nothing": done(),
    "twice": done(PUT, PUT),
    "of another kind": done(op(response_range=ranged(KV))),
    "at no revision": done(PUT, header=rpc_pb2.ResponseHeader(cluster_id=7)),
    "no header": rpc_pb2.TxnResponse(succeeded=True, responses=[PUT]),
    "before what it replaces": done(PUT, header=rpc_pb2.ResponseHeader(cluster_id=7, revision=4)),
    "another cluster": done(PUT, header=rpc_pb2.ResponseHeader(cluster_id=8, revision=10)),
    "refused without the key": done(succeeded=False),
    "refused without the fence": done(op(response_range=ranged(KV)), succeeded=False),
    "refused for another key": done(
        op(response_range=ranged(changed(key=b"/b"))), NO_FENCE, succeeded=False
    ),
    "refused by what cannot be": done(
        op(response_range=ranged(changed(mod_revision=-1))), NO_FENCE, succeeded=False
    ),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_a_write_of_no_etcd(name):
    """A write whose answer makes no sense may have been done."""
    with talking_to() as (backend, server):
        server.answers |= {"Range": ranged(KV), "Txn": WRITTEN[name]}
        backend.get("/a")
        with pytest.raises(OutcomeUnknown):
            backend.put("/a", b"", expected_revision=5)


@pytest.mark.parametrize(
    "prev_kvs", [[], [KV, KV], [changed(key=b"/b")], [changed(mod_revision=6)]]
)
def test_a_deletion_of_no_etcd(prev_kvs):
    """A deletion of something else than was asked for is of unknown outcome."""
    with talking_to() as (backend, server):
        server.answers["Txn"] = done(
            op(response_delete_range=rpc_pb2.DeleteRangeResponse(prev_kvs=prev_kvs))
        )
        with pytest.raises(OutcomeUnknown):
            backend.delete("/a", expected_revision=5)


def test_a_lease_of_no_etcd():
    """A lease 0 would let the key live for ever."""
    with talking_to() as (backend, server):
        server.answers |= {"LeaseGrant": rpc_pb2.LeaseGrantResponse(header=HEAD), "Txn": done(PUT)}
        with pytest.raises(CorruptStore):
            backend.put("/a", b"", expected_revision=0, ttl=100)
        assert "Txn" not in server.calls


def event(kv=KV, **fields):
    """A change as watches receive it."""
    return kv_pb2.Event(kv=kv, **fields)


BEFORE = changed(mod_revision=4, version=1)
NEXT = changed(mod_revision=12, create_revision=12, version=1)


@pytest.mark.parametrize(
    "told",
    [
        event(changed(NEXT, mod_revision=0)),
        event(changed(NEXT, mod_revision=-4)),
        event(changed(NEXT, create_revision=13)),
        event(changed(NEXT, version=0)),
        event(changed(NEXT, create_revision=4), prev_kv=changed(mod_revision=12)),
        event(changed(NEXT, create_revision=4), prev_kv=changed(key=b"/b")),
        event(changed(NEXT, create_revision=4), prev_kv=changed(key=b"\xff")),
        event(changed(NEXT, create_revision=4), prev_kv=changed(version=-1)),
        event(changed(NEXT), type=kv_pb2.Event.DELETE, prev_kv=changed(create_revision=0)),
    ],
)
def test_a_change_of_no_etcd(told):
    """A watch ends with CorruptStore, and delivers nothing that cannot be."""
    response = rpc_pb2.WatchResponse(
        header=rpc_pb2.ResponseHeader(cluster_id=7, revision=12), events=[told]
    )
    with talking_to() as (backend, server):
        server.answers |= {"Range": ranged(), "Watch": [response]}
        with (
            backend.watch("/", recursive=True, after_revision=9) as watch,
            promptly(),
            pytest.raises(CorruptStore),
        ):
            watch.poll(PATIENCE)


FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "key": st.sampled_from([b"/a", b"", b"/b", b"\xff"]),
        "mod_revision": st.integers(-2, 12) | st.integers(-(1 << 63), LAST),
        "create_revision": st.integers(-2, 12) | st.integers(-(1 << 63), LAST),
        "version": st.integers(-2, 3),
        "lease": st.integers(-2, 3),
    },
)


@pytest.fixture(scope="module")
def mutant():
    """One backend and server for all examples."""
    with talking_to() as (backend, server):
        yield backend, server


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    fields=st.lists(FIELDS, max_size=3),
    revision=st.sampled_from([9, 9, 9, 10, 0, -1, LAST]),
    more=st.booleans(),
    count=st.integers(-1, 5),
    succeeded=st.booleans(),
)
def test_answers_that_were_changed(mutant, fields, revision, more, count, succeeded):
    """Whatever a server answers, a call raises an error of ours or returns what a
    store can hold."""
    backend, server = mutant
    backend._client.identity.__init__()  # each example is another store
    header = rpc_pb2.ResponseHeader(cluster_id=7, revision=revision)
    answer = ranged(*(changed(**each) for each in fields), header=header, more=more, count=count)
    server.answers["Range"] = answer
    parts = [op(response_range=answer), *[NO_FENCE] * (not succeeded)]
    server.answers["Txn"] = done(*parts, succeeded=succeeded, header=header)
    for call in (
        lambda: backend.get("/a", timeout=PATIENCE).kv,
        lambda: backend.list("/", timeout=PATIENCE, limit=3).kvs,
        lambda: backend.put("/a", b"", expected_revision=3, timeout=PATIENCE).current,
    ):
        try:
            found = call()
        except StorageError:
            continue
        for kv in found if isinstance(found, tuple) else (found,):
            assert kv is None or (0 < kv.create_revision <= kv.revision <= revision and kv.version)


def test_login_and_lease_and_write_share_one_deadline():
    """Of a put with a ttl and a login, each of which is slow, the whole ends in
    time."""
    with talking_to(username="u", password=Secret("p")) as (backend, server):
        server.answers |= {
            "Authenticate": rpc_pb2.AuthenticateResponse(header=HEAD, token="t"),
            "LeaseGrant": rpc_pb2.LeaseGrantResponse(header=HEAD, ID=5, TTL=100),
            "Txn": done(PUT),
        }
        server.delays = {"Authenticate": 0.7, "LeaseGrant": 0.7, "Txn": 0.7}
        began = time.monotonic()
        with pytest.raises(Timeout):
            backend.put("/a", b"", expected_revision=0, ttl=100, timeout=1.0)
        assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    "told",
    [
        [],
        [rpc_pb2.WatchResponse(header=HEAD, created=True)],
        [rpc_pb2.WatchResponse(header=HEAD, created=True, canceled=True, cancel_reason="denied")],
    ],
)
def test_a_compacted_read_where_watches_say_nothing(told):
    """ERR-8: only a watch tells the compacted revision; where none may be had, or none answers, a
    read below it and a second compaction end in time and say what is known."""
    with talking_to() as (backend, server):
        server.answers |= {
            "Range": lambda request: GONE if request.revision else ranged(),
            "Compact": GONE,
            "Watch": told,
        }
        for call in (
            lambda: backend.get("/a", revision=3, timeout=0.7),
            lambda: backend.list("/a", revision=3, timeout=0.7),
            lambda: backend.compact(4, timeout=0.7),
        ):
            began = time.monotonic()
            with pytest.raises(Compacted) as caught:
                call()
            assert caught.value.compacted == 4
            assert time.monotonic() - began < 1.5


def test_a_login_without_a_leader_has_written_nothing():
    """What goes wrong before the write is sent leaves no outcome unknown."""
    with talking_to(username="u", password=Secret("p")) as (backend, server):
        server.answers |= {"Authenticate": NO_LEADER, "Txn": done(PUT)}
        with pytest.raises(Unreachable):
            backend.put("/a", b"", expected_revision=0, timeout=0.5)
        assert "Txn" not in server.calls
        server.answers["Authenticate"] = rpc_pb2.AuthenticateResponse(header=HEAD, token="")
        with pytest.raises(AccessDenied):
            backend.put("/a", b"", expected_revision=0, timeout=0.5)


@pytest.mark.parametrize(
    "failure",
    [
        NO_LEADER,
        (grpc.StatusCode.INTERNAL, "who knows"),
        (grpc.StatusCode.PERMISSION_DENIED, "no"),
        (grpc.StatusCode.OUT_OF_RANGE, "mvcc: required revision is a future revision"),
        rpc_pb2.RangeResponse(),
    ],
)
def test_a_mark_asked_for_while_reads_fail(failure):
    """WATCH-20: a mark that was asked for comes once the server answers again, whatever it said
    meanwhile."""
    with talking_to() as (backend, server):
        server.answers |= {"Range": ranged(), "Watch": []}
        with backend.watch("/x", recursive=True, after_revision=9, progress=False) as watch:
            assert watch.poll(0.2) is None
            left = iter([failure] * 3)
            server.answers["Range"] = lambda _: next(left, ranged())
            watch.request_progress()
            assert watch.poll(PATIENCE) == WatchBatch(9)


def test_a_connection_at_rest_is_left_alone():
    """Nobody is pinged while no call is under way: a server takes that for an attack, and ends the
    connection. Here it would after two pings."""
    with talking_to(options={"keepalive_time": 1}) as (backend, server):
        server.answers["Range"] = ranged(KV)
        backend.get("/a")
        time.sleep(4.5)  # nothing must happen meanwhile
        backend.get("/a")
        assert len(server.peers) == 1
