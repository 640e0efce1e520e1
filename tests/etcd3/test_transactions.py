"""Transactions by compare and retry, and leases: what the shared suite cannot ask of all stores."""

from __future__ import annotations

import grpc
import pytest
from etcd3.etcdrpc import rpc_pb2
from tests.etcd3.conftest import binary
from tests.etcd3.test_hostile import HEAD, KV, NO_LEADER, PUT, done, op, ranged, talking_to

from revstore.config import StorageConfig
from revstore.errors import (
    AccessDenied,
    CorruptStore,
    IncompatibleStore,
    LeaseNotFound,
    OutcomeUnknown,
    Timeout,
    TransactionTooLarge,
    ValueTooLarge,
)
from revstore.plugins import open_backend
from revstore.testing._support import PATIENCE, random_prefix
from revstore.testing.etcd import EtcdServer


@pytest.fixture
def prefix():
    """Keys of the test's own."""
    return f"{random_prefix()}/"


def put(backend, key, value):
    """Write it, whatever there is."""
    backend.transaction(lambda seen: seen.put(key, value))


RACES = {
    "a key that was read": (lambda seen, at: seen.get(f"{at}a"), "put a"),
    "a key that was missing": (lambda seen, at: seen.get(f"{at}z"), "put z"),
    "a key that was there": (lambda seen, at: seen.get(f"{at}a"), "delete a"),
    "a key of a list": (lambda seen, at: seen.list(at), "put b"),
    "a new key in a list": (lambda seen, at: seen.list(at), "put z"),
    "a key gone from a list": (lambda seen, at: seen.list(at), "delete b"),
    "a key gone from a list of keys": (lambda seen, at: seen.list(at, keys_only=True), "delete b"),
    "a new key before a limit": (lambda seen, at: seen.list(at, limit=2), "put aa"),
    "a key that is written only": (lambda _seen, _at: None, "put mine"),
}


@pytest.mark.parametrize("name", RACES)
def test_what_was_read_changes_meanwhile(open_store, prefix, name):
    """A body whose reads are no longer so by the time it is written runs again, and what it
    returned before is forgotten."""
    read, change = RACES[name]
    verb, other = change.split()
    backend, second = open_store(), open_store()
    for each in "abc":
        put(backend, prefix + each, b"0")
    runs = []

    def body(seen):
        read(seen, prefix)
        was = seen.get(f"{prefix}mine")
        if not runs:  # between reading and writing, as others do
            second.transaction(
                lambda theirs: (
                    theirs.put(prefix + other, b"theirs")
                    if verb == "put"
                    else theirs.delete(prefix + other)
                )
            )
        runs.append(seen.revision)
        seen.put(f"{prefix}mine", b"mine")
        return was

    result = backend.transaction(body)
    assert len(runs) == 2
    assert runs[0] < runs[1] < result.revision
    assert (result.value and result.value.value) == (b"theirs" if other == "mine" else None)


@pytest.mark.parametrize("change", ["put d", "put c", "delete c"])
def test_changes_behind_a_limit_do_not_matter(open_store, prefix, change):
    """A list of the first two keys is not concerned by what comes behind them."""
    verb, other = change.split()
    backend, second = open_store(), open_store()
    for each in "abc":
        put(backend, prefix + each, b"0")
    runs = []

    def body(seen):
        runs.append([kv.key for kv in seen.list(prefix, limit=2)])
        key = prefix + other
        second.transaction(
            lambda theirs: theirs.put(key, b"") if verb == "put" else theirs.delete(key)
        )
        seen.put("/elsewhere" + prefix, b"")

    backend.transaction(body)
    assert runs == [[f"{prefix}a", f"{prefix}b"]]


def test_all_reads_are_at_one_revision(open_store, prefix):
    """Reads of a body show one state, whatever is written or compacted between them."""
    backend, second = open_store(), open_store()
    for each in "ab":
        put(backend, prefix + each, b"old")

    def body(seen):
        first = seen.get(f"{prefix}a").value
        for each in "ab":
            put(second, prefix + each, b"new")
        return first, seen.get(f"{prefix}b").value, [kv.value for kv in seen.list(prefix)]

    assert backend.transaction(body).value == (b"old", b"old", [b"old", b"old"])


def test_a_body_whose_revision_is_compacted(new_server, prefix):
    """The body runs again at a newer one."""
    with open_backend(StorageConfig.from_url(f"etcd3://{new_server.address}")) as backend:
        runs = []

        def body(seen):
            runs.append(seen.revision)
            if len(runs) == 1:
                put(backend, f"{prefix}a", b"1")
                backend.compact(backend.status().revision)
            return seen.get(f"{prefix}a").value

        assert backend.transaction(body).value == b"1"
        assert len(runs) == 2


def test_a_race_that_is_always_lost(open_store, prefix):
    """It ends with the call's timeout, and has written nothing; the next body has what is left."""
    backend, second = open_store(), open_store()
    put(second, f"{prefix}a", b"0")

    def body(seen):
        seen.get(f"{prefix}a")
        put(second, f"{prefix}a", b"theirs")
        seen.put(f"{prefix}mine", b"")

    lost, late = backend.transactions([body, lambda seen: seen.revision], timeout=0.3)
    assert isinstance(lost, Timeout)
    assert isinstance(late, Timeout) or late.revision
    assert backend.get(f"{prefix}mine").kv is None


def test_as_many_keys_as_etcd_compares(open_store, prefix):
    """128 keys and ranges go, of which the fence is one; one more is refused before it is sent, and
    reads alone are not bounded."""
    backend = open_store()

    def fill(count):
        return lambda seen: [seen.put(f"{prefix}{number:03}", b"") for number in range(count)]

    with pytest.raises(TransactionTooLarge, match="128"):
        backend.transaction(fill(128))
    assert backend.count(prefix).count == 0
    assert backend.transaction(fill(127)).wrote
    put(backend, f"{prefix}z", b"")
    assert len(backend.transaction(lambda seen: seen.list(prefix)).value) == 128
    with pytest.raises(TransactionTooLarge):
        backend.transaction(lambda seen: (seen.list(prefix), seen.put(f"{prefix}new", b"")))

    def swallow(seen):
        seen.list(prefix)
        with pytest.raises(TransactionTooLarge):
            seen.delete(f"{prefix}z")

    assert not backend.transaction(swallow).wrote


def test_a_server_that_takes_less_or_more():
    """Its own limits are told as such, and ``max_txn_ops`` can follow them."""
    limits = ("--max-txn-ops", "4", "--max-request-bytes", "20000")
    with EtcdServer(binary("3.4"), arguments=limits) as server:
        server.start()

        def write(count, size=0):
            return backend.transaction(
                lambda seen: [seen.put(f"/k{number}", b"x" * size) for number in range(count)]
            )

        with open_backend(StorageConfig.from_url(f"etcd3://{server.address}")) as backend:
            assert write(3).wrote
            with pytest.raises(TransactionTooLarge, match="max-txn-ops"):
                write(4)
            with pytest.raises(TransactionTooLarge, match="max-request-bytes"):
                write(2, 15_000)
            with pytest.raises(ValueTooLarge):
                write(1, 30_000)
        url = f"etcd3://{server.address}?max_txn_ops=3"
        with open_backend(StorageConfig.from_url(url)) as backend:
            with pytest.raises(TransactionTooLarge, match="max_txn_ops"):
                write(3)
            assert backend.get("/k0").kv.version == 1


def test_a_shared_lease_that_was_revoked(open_store, prefix):
    """TTL-2: a ttl in a body gets another lease; a lease of the caller's own is LeaseNotFound."""
    backend, second = open_store(), open_store()
    backend.transaction(lambda seen: seen.put(f"{prefix}1", b"", ttl=1000))
    lease = backend.get(f"{prefix}1").kv.lease
    assert backend.get(f"{prefix}1").kv.lease in second.leases().list()
    second.leases().revoke(lease)
    assert backend.get(f"{prefix}1").kv is None
    backend.transaction(lambda seen: seen.put(f"{prefix}2", b"", ttl=1000))
    assert backend.get(f"{prefix}2").kv.lease not in (0, lease)

    own = backend.leases().grant(1000).id
    runs = []

    def body(seen):
        runs.append(seen.put(f"{prefix}3", b"", lease=own))
        second.leases().revoke(own)  # after the look, before the write

    with pytest.raises(LeaseNotFound) as caught:
        backend.transaction(body)
    assert caught.value.lease == own
    assert len(runs) == 1
    assert backend.get(f"{prefix}3").kv is None


def test_leases_of_others(open_store, prefix):
    """Ids below 0, and keys that are not UTF-8, which other programs may make, are taken."""
    backend = open_store()
    leases = backend.leases()
    lease = leases.grant(1000, lease=-(id(backend))).id
    backend.transaction(lambda seen: seen.put(f"{prefix}a", b"", lease=lease))
    request = rpc_pb2.PutRequest(key=prefix.encode() + b"\xff", value=b"", lease=lease)
    backend._client.read(lambda server: server.kv.Put, request, PATIENCE)
    assert backend.get(f"{prefix}a").kv.lease == lease
    assert leases.list()[0] == lease
    assert leases.get(lease, keys=True).keys == (f"{prefix}a",)
    leases.revoke(lease)
    assert backend.count(prefix).count == 0


TWO = [op(response_put=rpc_pb2.PutResponse())] * 2
LATER = rpc_pb2.ResponseHeader(cluster_id=7, member_id=1, revision=10, raft_term=1)
UNKNOWN = {
    "no answer": NO_LEADER,
    "too few": done(PUT, header=LATER),
    "other parts": done(PUT, op(response_range=ranged()), header=LATER),
    "an old revision": done(*TWO, header=HEAD),
    "no header": done(*TWO, header=rpc_pb2.ResponseHeader()),
    "another cluster": done(*TWO, header=rpc_pb2.ResponseHeader(cluster_id=8, revision=10)),
}


@pytest.mark.parametrize("name", ["good", *UNKNOWN])
def test_a_commit_whose_fate_is_not_known(name):
    """It is OutcomeUnknown with a key of the body, in its place alone, and is not sent again."""
    with talking_to() as (backend, server):
        answers = iter([UNKNOWN.get(name, done(*TWO, header=LATER)), done(*TWO, header=LATER)])

        def read(request):
            header = LATER if "Txn" in server.calls else HEAD
            return ranged(*([KV] if request.key == b"/a" else []), header=header)

        server.answers |= {"Range": read, "Txn": lambda _: next(answers)}

        def body(seen):
            for key in ("/a", "/b"):
                seen.put(key, b"")

        if name == "good":
            assert backend.transaction(body).revision == 10
            return
        first, second = backend.transactions([body, lambda seen: seen.get("/a")], timeout=2)
        assert isinstance(first, OutcomeUnknown)
        assert (first.key, first.expected_revision) == ("/a", 5)
        assert server.calls.count("Txn") == 1
        if name == "another cluster":
            assert isinstance(second, IncompatibleStore)
        else:
            assert second.value.revision == 5


def test_a_body_that_hides_what_failed():
    """Reads that failed are not forgotten because a body went on; nothing is written."""
    with talking_to() as (backend, server):
        server.answers |= {
            "Range": (grpc.StatusCode.PERMISSION_DENIED, "etcdserver: permission denied"),
            "Txn": done(PUT),
        }

        def body(seen):
            for call in (lambda: seen.get("/a"), lambda: seen.put("/b", b"")):
                with pytest.raises(AccessDenied):
                    call()

        with pytest.raises(AccessDenied):
            backend.transaction(body)
        assert "Txn" not in server.calls


def test_leases_whose_fate_is_not_known():
    """A grant and a revocation that are not answered are OutcomeUnknown, and sent once; to keep a
    lease alive is tried again."""
    alive = rpc_pb2.LeaseKeepAliveResponse(header=HEAD, ID=5, TTL=100)
    with talking_to() as (backend, server):
        leases = backend.leases()
        left = iter([NO_LEADER, NO_LEADER])
        server.answers |= {
            "Range": ranged(),
            "LeaseGrant": NO_LEADER,
            "LeaseRevoke": NO_LEADER,
            "LeaseKeepAlive": lambda _: next(left, alive),
        }
        for call in (lambda: leases.grant(5, timeout=1), lambda: leases.revoke(5, timeout=1)):
            with pytest.raises(OutcomeUnknown):
                call()
        assert leases.keep_alive(5, timeout=PATIENCE).ttl == 100
        sent = [call for call in server.calls if call not in ("Range", "Status")]
        assert sent == ["LeaseGrant", "LeaseRevoke"] + ["LeaseKeepAlive"] * 3


ALIVE = rpc_pb2.LeaseKeepAliveResponse
LIVES = rpc_pb2.LeaseTimeToLiveResponse
OF_NO_ETCD = {
    "granted nothing": ("LeaseGrant", rpc_pb2.LeaseGrantResponse(header=HEAD, TTL=100)),
    "granted another": ("LeaseGrant", rpc_pb2.LeaseGrantResponse(header=HEAD, ID=6, TTL=100)),
    "granted less": ("LeaseGrant", rpc_pb2.LeaseGrantResponse(header=HEAD, ID=5, TTL=99)),
    "granted by nobody": ("LeaseGrant", rpc_pb2.LeaseGrantResponse(ID=5, TTL=100)),
    "kept another alive": ("LeaseKeepAlive", ALIVE(header=HEAD, ID=6, TTL=100)),
    "kept alive by nobody": ("LeaseKeepAlive", ALIVE(ID=5, TTL=100)),
    "found another": ("LeaseTimeToLive", LIVES(header=HEAD, ID=6, TTL=9, grantedTTL=10)),
    "found by nobody": ("LeaseTimeToLive", LIVES(ID=5, TTL=9, grantedTTL=10)),
    "revoked by nobody": ("LeaseRevoke", rpc_pb2.LeaseRevokeResponse()),
}


@pytest.mark.parametrize("name", OF_NO_ETCD)
def test_leases_of_no_etcd(name):
    """What no etcd answers is CorruptStore, and OutcomeUnknown where something was changed."""
    method, answer = OF_NO_ETCD[name]
    with talking_to() as (backend, server):
        server.answers |= {"Range": ranged(), method: answer}
        leases = backend.leases()
        call, wanted = {
            "LeaseGrant": (lambda: leases.grant(100, lease=5), OutcomeUnknown),
            "LeaseRevoke": (lambda: leases.revoke(5), OutcomeUnknown),
            "LeaseKeepAlive": (lambda: leases.keep_alive(5), CorruptStore),
            "LeaseTimeToLive": (lambda: leases.get(5), CorruptStore),
        }[method]
        with pytest.raises(wanted):
            call()


def test_a_lease_that_is_overdue():
    """etcd counts on below 0 until it has deleted the keys."""
    with talking_to() as (backend, server):
        server.answers |= {
            "Range": ranged(),
            "LeaseTimeToLive": LIVES(header=HEAD, ID=5, TTL=-1, grantedTTL=10),
        }
        assert backend.leases().get(5).remaining == 0.0
        server.answers["LeaseTimeToLive"] = LIVES(header=HEAD, ID=5, TTL=-1)
        with pytest.raises(LeaseNotFound):
            backend.leases().get(5)


def test_a_range_that_was_read_needs_no_read_of_its_missing_keys(open_store, prefix):
    """A body that lists, then puts many new keys, asks the server once; if one of them is created
    meanwhile, it runs again."""
    backend, other = open_store(), open_store()
    reads = []
    find = backend._transactions.reader.range

    def read(request, timeout):
        reads.extend([] if request.range_end else [request.key])
        return find(request, timeout)

    backend._transactions.reader.range = read
    runs = []

    def body(seen):
        runs.append([kv.key for kv in seen.list(prefix)])
        if len(runs) == 1:
            put(other, f"{prefix}7", b"other")
        for number in range(20):
            seen.put(f"{prefix}{number}", b"ours")

    result = backend.transaction(body)
    assert runs == [[], [f"{prefix}7"]]
    assert reads == []
    kvs = backend.list(prefix).kvs
    assert {kv.value for kv in kvs} == {b"ours"}
    assert {kv.revision for kv in kvs} == {result.revision}
    # A list of keys alone does not tell their values, nor a page what follows it.
    backend.transaction(lambda seen: (seen.list(prefix, keys_only=True), seen.get(f"{prefix}1")))
    assert len(reads) == 1
    values = backend.transaction(
        lambda seen: (seen.list(prefix, limit=2), seen.get(f"{prefix}9"), seen.get(f"{prefix}00"))
    ).value
    assert values[1].value == b"ours"
    assert values[2] is None
    assert len(reads) == 2
