"""An endpoint's life, and what it answers beside keys."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import queue
import re
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import threading
import time

import grpc
import pytest
from tests.serve.conftest import Client, open_store

from revstore.errors import ConfigError
from revstore.memory import MemoryBackend
from revstore.values import Capability
from revstore_serve import serve
from revstore_serve._endpoint import TRANSPORTS
from revstore_serve._proto import message

LONG = int(os.environ.get("REVSTORE_TEST_LONG", "1"))

pytestmark = pytest.mark.slow


def test_serving_leaves_nothing_behind(new_client):
    """After the end nobody listens, no thread is left but the shared loop's, and the store is
    open."""
    with MemoryBackend() as backend:
        with serve(backend):
            pass
        before = threading.active_count()
        with serve(backend) as endpoint:
            address = endpoint.address
            new_client(address).call("KV/Put", key=b"a", value=b"1")
        endpoint.stop()
        deadline = time.monotonic() + 20
        while threading.active_count() > before:
            assert time.monotonic() < deadline
        assert backend.get("a").kv.value == b"1"
        with serve(backend, listen=address) as again:
            assert again.address == address
            answer = new_client(address).call("KV/Range", key=b"a")
            assert [kv.value for kv in answer.kvs] == [b"1"]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_transports(transport, new_client):
    """Calls, errors and streams are the same whatever carries them."""
    with MemoryBackend() as backend, serve(backend, transport=transport) as endpoint:
        client = new_client(endpoint.address)
        stream = client.watch()
        stream.create(b"a")
        assert client.call("KV/Put", key=b"a", value=b"x" * (1 << 20)).header.revision == 2
        assert client.call("KV/Range", key=b"a").kvs[0].value == b"x" * (1 << 20)
        assert client.error("KV/Put") == ("INVALID_ARGUMENT", "etcdserver: key is not provided")
        assert client.error("Cluster/MemberAdd")[0] == "UNIMPLEMENTED"
        assert len(stream.next().events) == 1
        stream.close()


def test_a_transport_that_is_none():
    with MemoryBackend() as backend, pytest.raises(ConfigError, match="native, grpcio"):
        serve(backend, transport="smoke")


def test_streams_learn_why_they_end(new_client):
    """However little time calls have to finish."""
    with MemoryBackend() as backend, serve(backend) as endpoint:
        client = new_client(endpoint.address)
        streams = []
        for number in range(20):
            watch = client.watch()
            watch.create(b"a")
            streams.append(watch.next)
            requests = queue.SimpleQueue()
            requests.put(message("LeaseKeepAliveRequest")(ID=number))
            kept = client.stream("Lease/LeaseKeepAlive", iter(requests.get, None))
            assert next(kept).TTL == 0
            streams.append(kept.next)
        endpoint.stop(0)
        for stream in streams:
            with pytest.raises(grpc.RpcError) as caught:
                stream()
            assert caught.value.details() == "etcdserver: server stopped"


def test_a_damaged_value_is_refused(new_client, tmp_path):
    """It is never given out, compared, or kept; the key can be replaced and deleted."""
    path = tmp_path / "served.db"
    with open_store("sqlite", tmp_path) as backend:
        for key in ("a", "b"):
            backend.put(key, b"as it was", expected_revision=0)
    path.write_bytes(path.read_bytes().replace(b"as it was", b"as it is!", 1))
    with open_store("sqlite", tmp_path) as backend, serve(backend) as endpoint:
        client = new_client(endpoint.address)
        damaged = next(kv.key for kv in backend.list("").kvs if kv.damaged)
        key = damaged.encode()
        every = {"key": b"\0", "range_end": b"\0"}
        compare = message("Compare")(key=key, target=3, value=b"as it is!")
        for name, fields in (
            ("KV/Range", {"key": key}),
            ("KV/Range", every),
            ("KV/Range", {"key": key, "revision": 3}),
            ("KV/Put", {"key": key, "ignore_value": True}),
            ("KV/Put", {"key": key, "value": b"new", "prev_kv": True}),
            ("KV/DeleteRange", {"key": key, "prev_kv": True}),
            ("KV/Txn", {"compare": [compare]}),
        ):
            wanted = "DATA_LOSS", f"revstore: the value of {damaged!r} is damaged"
            assert client.error(name, **fields) == wanted, (name, fields)
        assert client.call("KV/Range", **every, keys_only=True).count == 2
        assert client.call("KV/Range", **every, count_only=True).count == 2
        client.call("KV/Put", key=key, value=b"new")
        assert {kv.value for kv in client.call("KV/Range", **every).kvs} == {b"as it was", b"new"}
        assert client.error("KV/Range", key=key, revision=3)[0] == "DATA_LOSS"
        assert client.call("KV/DeleteRange", key=key).deleted == 1


@pytest.fixture
def damaged(new_client, tmp_path):
    """A client of a store where "b", of revision 3, is damaged, but not "a" and "c"."""
    path = tmp_path / "served.db"
    with open_store("sqlite", tmp_path) as backend:
        for key in ("a", "b", "c"):
            backend.put(key, b"damaged" if key == "b" else b"whole", expected_revision=0)
    path.write_bytes(path.read_bytes().replace(b"damaged", b"DAMAGED"))
    with open_store("sqlite", tmp_path) as backend, serve(backend) as endpoint:
        yield new_client(endpoint.address)


DAMAGED = "revstore: the value of 'b' is damaged"


def test_a_damaged_value_ends_a_watch(damaged):
    """Events before it come, and the stream's other watches go on."""
    client = damaged
    with contextlib.closing(client.watch()) as stream:

        def ended(watch_id):
            answer = stream.next()
            found = (answer.canceled, answer.cancel_reason, answer.watch_id)
            assert found == (True, DAMAGED, watch_id), answer

        stream.create(b"\0", b"\0", start_revision=2, watch_id=1)
        assert stream.events(1) == [("PUT", b"a", b"whole", 2)]
        ended(1)
        stream.create(b"b", start_revision=2, watch_id=2)
        ended(2)
        stream.create(b"b", prev_kv=True, watch_id=3)
        stream.create(b"b", watch_id=4)
        client.call("KV/Put", key=b"b", value=b"new")
        answers = sorted((stream.next(), stream.next()), key=lambda answer: answer.watch_id)
        assert answers[0].cancel_reason == DAMAGED
        assert [event.kv.value for event in answers[1].events] == [b"new"]
        client.call("KV/Put", key=b"b", value=b"newer")
        assert stream.events(1) == [("PUT", b"b", b"newer", 6)]


def test_a_damaged_value_at_the_compacted_revision(damaged):
    damaged.call("KV/Compact", revision=3)
    with contextlib.closing(damaged.watch()) as stream:
        stream.create(b"b", start_revision=3)
        assert stream.next().cancel_reason == DAMAGED
        stream.create(b"a")
        damaged.call("KV/Put", key=b"b", value=b"new")
        damaged.call("KV/Put", key=b"a", value=b"new")
        assert stream.events(1)[0][1] == b"a"


def test_who_cannot_listen_leaves_nothing_behind():
    with MemoryBackend() as backend, serve(backend) as endpoint:
        before = threading.active_count()
        for options in ({"listen": endpoint.address}, {"http": endpoint.address}):
            with pytest.raises(OSError, match="cannot listen") as caught:
                serve(backend, **options)
            assert str(caught.value) == (
                f"cannot listen on {endpoint.address}: {os.strerror(errno.EADDRINUSE)}"
            )
        deadline = time.monotonic() + 20
        while threading.active_count() > before:
            assert time.monotonic() < deadline


@pytest.mark.parametrize(
    "address", ["127.0.0.1:99999", "127.0.0.1:٣", "nothing", "unix:/nowhere/etcd.sock"]
)
def test_addresses_at_which_nobody_can_listen(address):
    """The reason is in words, once."""
    with MemoryBackend() as backend:
        with pytest.raises(OSError, match=f"^cannot listen on {re.escape(address)}: ") as caught:
            serve(backend, listen=address)
        assert "Errno" not in str(caught.value)


def test_a_socket_of_the_file_system_is_the_user_s_own(tmp_path, new_client):
    path = tmp_path / "etcd.sock"
    with MemoryBackend() as backend, serve(backend, listen=f"unix:{path}") as endpoint:
        assert endpoint.address == f"unix:{path}"
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        assert new_client(endpoint.address).call("KV/Put", key=b"a").header.revision == 2


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_socket_of_the_file_system_has_one_server(tmp_path, new_client, transport):
    """A second server does not take it away, and one that was killed does not bar the way."""
    path = tmp_path / "etcd.sock"
    options = {"listen": f"unix:{path}", "transport": transport}
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))
    with MemoryBackend() as backend:
        with serve(backend, **options) as endpoint:
            with pytest.raises(OSError, match="cannot listen on"):
                serve(backend, **options)
            assert new_client(endpoint.address).call("KV/Put", key=b"a").header.revision == 2
            path.unlink()
            with socket.socket(socket.AF_UNIX) as other:
                other.bind(str(path))
        if transport == "native":
            assert path.exists()
        with serve(backend, **options) as endpoint:
            assert new_client(endpoint.address).call("KV/Put", key=b"a").header.revision == 3
        assert not path.exists()


def test_status_and_members(client):
    """The server names itself as etcd does: one member that leads."""
    client.call("KV/Put", key=b"a")
    status = client.call("Maintenance/Status")
    (member,) = client.call("Cluster/MemberList").members

    assert status.version == "3.6.11"
    assert status.leader == status.header.member_id == member.ID != 0
    assert status.raftIndex == status.header.revision == 2
    assert (member.name, list(member.clientURLs)) == ("revstore", [f"http://{client.address}"])
    assert client.call("Maintenance/Defragment") is not None
    assert list(client.call("Maintenance/Alarm").alarms) == []
    assert client.call("Auth/AuthStatus").enabled is False
    assert client.call("Health/Check").status == 1


def test_a_hash_tells_stores_apart(client):
    """It depends on what is stored, at a revision or now."""
    client.call("KV/Put", key=b"a", value=b"1")
    first = client.call("Maintenance/HashKV").hash
    client.call("KV/Put", key=b"a", value=b"2")

    assert client.call("Maintenance/HashKV", revision=2).hash == first
    assert client.call("Maintenance/HashKV").hash != first
    assert client.error("Maintenance/HashKV", revision=9)[1].endswith("is a future revision")


@pytest.mark.parametrize(
    ("name", "code", "text"),
    [
        ("Auth/Authenticate", "FAILED_PRECONDITION", "etcdserver: authentication is not enabled"),
        ("Cluster/MemberAdd", "UNIMPLEMENTED", "MemberAdd is not supported: this endpoint is one"),
        ("Maintenance/Snapshot", "UNIMPLEMENTED", "Snapshot is not supported: the store is no"),
    ],
)
def test_what_is_not_served_says_why(client, name, code, text):
    found = client.error(name)
    assert found[0] == code
    assert text in found[1]


def test_keys_that_are_no_text(client, backend):
    """Binary keys are stored, found in ranges in the order of their bytes, and counted."""
    keys = [b"a", b"a\0", b"a\0b", b"a\xff", b"b", "ÿ".encode(), b"\xff"]
    for key in keys:
        client.call("KV/Put", key=key, value=key)

    everything = client.call("KV/Range", key=b"\0", range_end=b"\0", limit=3)
    assert [kv.key for kv in everything.kvs] == sorted(keys)[:3]
    assert (everything.count, everything.more) == (7, True)
    assert client.call("KV/Range", key=b"a", range_end=b"b", count_only=True).count == 4
    assert client.call("KV/Range", key=b"a\xff").kvs[0].value == b"a\xff"
    assert backend.get("ÿ").kv.value == "ÿ".encode()


def test_a_large_request_is_refused_as_by_etcd(client):
    """1.5 MiB is the limit of a request, 2 MiB that of a message."""
    client.call("KV/Put", key=b"a", value=b"x" * ((3 << 19) - 100))
    too_large = ("INVALID_ARGUMENT", "etcdserver: request is too large")
    assert client.error("KV/Put", key=b"a", value=b"x" * (3 << 19)) == too_large
    assert client.error("KV/Put", key=b"a", value=b"x" * (2 << 20))[0] == "RESOURCE_EXHAUSTED"


def test_a_list_longer_than_a_message_of_grpc(client):
    """Answers may be of any size."""
    for number in range(6):
        client.call("KV/Put", key=b"%d" % number, value=b"x" * (1 << 20))
    with grpc.insecure_channel(
        client.address, options=[("grpc.max_receive_message_length", -1)]
    ) as channel:
        call = channel.unary_unary("/etcdserverpb.KV/Range")
        assert len(call(b"\x0a\x01\x00\x12\x01\x00", timeout=20)) > 6 << 20


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_client_that_goes_while_it_is_answered_is_not_logged(transport, new_client, caplog):
    """It is no fault of the server."""
    with MemoryBackend() as backend, serve(backend, transport=transport) as endpoint:
        client = new_client(endpoint.address)
        for number in range(6):
            client.call("KV/Put", key=b"a%d" % number, value=b"x" * 1_000_000)
        for _ in range(20):
            # The answer is larger than the client takes, so that it breaks off.
            assert client.error("KV/Range", key=b"a", range_end=b"b")[0] == "RESOURCE_EXHAUSTED"
        client.call("KV/Range", key=b"a")
    assert [record.getMessage() for record in caplog.records] == []


def test_an_unexpected_error_is_internal_and_logged(monkeypatch, new_client, caplog):
    class Broken(MemoryBackend):
        def get(self, *args, **kwargs):
            raise ZeroDivisionError

    with Broken() as backend, serve(backend) as endpoint, caplog.at_level(logging.ERROR):
        client = new_client(endpoint.address)
        assert client.error("KV/Range", key=b"a") == (
            "INTERNAL",
            "revstore: ZeroDivisionError in Range",
        )
    assert "KV/Range failed" in caplog.text


def test_what_is_read_in_a_transaction_is_of_its_time(client):
    """A range at a revision of the past is answered from the past, one without from the present,
    the transaction's own writes included."""
    client.call("KV/Put", key=b"a", value=b"1")
    client.call("KV/Put", key=b"a", value=b"2")
    answer = client.call(
        "KV/Txn",
        success=[
            {"request_put": {"key": b"b", "value": b"3"}},
            {"request_range": {"key": b"a", "range_end": b"c", "revision": 2}},
            {"request_range": {"key": b"a", "range_end": b"c"}},
        ],
    )
    past, present = (each.response_range for each in answer.responses[1:])
    assert [kv.value for kv in past.kvs] == [b"1"]
    assert [(kv.value, kv.mod_revision) for kv in present.kvs] == [(b"2", 3), (b"3", 4)]
    assert present.header.revision == answer.header.revision == 4


def test_concurrent_transactions_are_one_after_the_other(client):
    """Many clients count up one key by compare and put: no count is lost."""
    client.call("KV/Put", key=b"n", value=b"0")

    def count_up() -> None:
        mine = Client(client.address)
        done = 0
        while done < 20:
            (kv,) = mine.call("KV/Range", key=b"n").kvs
            done += mine.call(
                "KV/Txn",
                compare=[{"key": b"n", "target": 2, "mod_revision": kv.mod_revision}],
                success=[{"request_put": {"key": b"n", "value": b"%d" % (int(kv.value) + 1)}}],
            ).succeeded
        mine.close()

    threads = [threading.Thread(target=count_up) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert client.call("KV/Range", key=b"n").kvs[0].value == b"80"


def test_leases_survive_a_restart(tmp_path, new_client):
    """A lease of a file is there when the file is served again, and expires with its keys."""
    with open_store("sqlite", tmp_path) as backend:
        with serve(backend) as endpoint:
            client = new_client(endpoint.address)
            client.call("Lease/LeaseGrant", ID=5, TTL=2)
            client.call("KV/Put", key=b"a\xff", lease=5)
        with serve(backend) as endpoint:
            client = new_client(endpoint.address)
            lease = client.call("Lease/LeaseTimeToLive", ID=5, keys=True)
            assert (lease.grantedTTL, list(lease.keys)) == (2, [b"a\xff"])
            (renewed,) = client.stream(
                "Lease/LeaseKeepAlive", iter([message("LeaseKeepAliveRequest")(ID=5)])
            )
            assert renewed.TTL == 2
            deadline = time.monotonic() + 20
            while client.call("KV/Range", key=b"a\xff").count:
                assert time.monotonic() < deadline
            assert client.call("Lease/LeaseTimeToLive", ID=5).TTL == -1
            assert client.call("Lease/LeaseLeases").leases == []


def test_a_range_of_now_survives_a_compaction_between_its_steps(new_client):
    """A range is read in several steps at one revision; if that is compacted meanwhile, it is read
    again."""

    class Compacting(MemoryBackend):
        lists = 0

        def list(self, prefix, **arguments):
            result = super().list(prefix, **arguments)
            self.lists += 1
            if self.lists == 1:
                self.put("b", b"", expected_revision=0)
                self.compact(self.status().revision)
            return result

    with Compacting() as backend, serve(backend) as endpoint:
        client = new_client(endpoint.address)
        client.call("KV/Put", key=b"a")
        answer = client.call("KV/Range", key=b"a", range_end=b"z")
        assert ([kv.key for kv in answer.kvs], answer.header.revision) == ([b"a", b"b"], 3)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_after_a_fork_stops_nothing(new_client):
    with MemoryBackend() as backend, serve(backend) as endpoint:
        child = os.fork()
        if not child:
            endpoint.stop()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert new_client(endpoint.address).call("KV/Put", key=b"a").header.revision == 2


def until(condition, seconds=20.0):
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_history_is_compacted_at_an_interval(new_client):
    """By the protocol of apiservers, on their key; watches go on."""
    with MemoryBackend() as backend, serve(backend, compact_interval=0.05) as endpoint:
        client = new_client(endpoint.address)
        watch = client.watch()
        watch.create(b"a")
        revision = client.call("KV/Put", key=b"a").header.revision
        until(lambda: backend.status().compacted_revision > revision)
        assert client.call("KV/Range", key=b"compact_rev_key").kvs[0].value.isdigit()
        assert client.error("KV/Range", key=b"a", revision=revision)[0] == "OUT_OF_RANGE"
        client.call("KV/Put", key=b"a")
        assert len(watch.events(2)) == 2


def test_a_store_without_compaction_has_no_interval():
    class Whole(MemoryBackend):
        @property
        def capabilities(self):
            return super().capabilities - {Capability.COMPACTION}

    with Whole() as backend:
        with pytest.raises(ConfigError, match="compact_interval"):
            serve(backend, compact_interval=1)
        with serve(backend):
            pass


def test_the_command_compacts_only_if_told(tmp_path, new_client):
    """As etcd; the configuration of the store says nothing about it."""
    file = tmp_path / "revstore.toml"
    file.write_text("url = 'memory://'\ncompaction_interval = 0.05\n")
    for words, compacts in ((), False), (("--compact-interval", "0.05"), True):
        command = [*COMMAND, "--config", str(file), *words]
        with (
            subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process,
            contextlib.ExitStack() as stack,
        ):
            stack.callback(process.kill)
            address = process.stdout.readline().removesuffix(".\n").rpartition(" ")[2]
            client = new_client(address)
            client.call("KV/Put", key=b"a")
            start = time.monotonic()

            def elected(client=client):
                return client.call("KV/Range", key=b"compact_rev_key").count == 1

            if compacts:
                until(elected)
            else:
                until(lambda start=start: time.monotonic() > start + 0.5)
                assert not elected()


def test_what_kubernetes_asks(client):
    """The requests of an apiserver: create, update and delete by compare and write, lists in pages
    at one revision, a lease that keys share, and the compactor's election."""

    def write(key, revision, operation):
        compare = {"key": key, "target": 2, "mod_revision": revision}
        read = {"request_range": {"key": key}}
        return client.call("KV/Txn", compare=[compare], success=[operation], failure=[read])

    def put(key, value, lease=0):
        return {"request_put": {"key": key, "value": value, "lease": lease}}

    lease = client.call("Lease/LeaseGrant", TTL=60).ID
    for number in range(5):
        key = b"/registry/events/%d" % number
        assert write(key, 0, put(key, b"1", lease)).succeeded
    key = b"/registry/events/0"
    taken = write(key, 0, put(key, b"2"))
    assert not taken.succeeded
    assert taken.responses[0].response_range.kvs[0].mod_revision == 2
    assert write(key, 2, put(key, b"2")).header.revision == 7
    assert not write(key, 2, {"request_delete_range": {"key": key}}).succeeded
    assert write(key, 7, {"request_delete_range": {"key": key}}).succeeded

    stream = client.watch()
    stream.create(b"/registry/events/", b"/registry/events0", start_revision=7, prev_kv=True)
    assert [each[0] for each in stream.events(2)] == ["PUT", "DELETE"]
    found, start, revision = [], b"/registry/events/", 0
    while True:
        page = client.call(
            "KV/Range", key=start, range_end=b"/registry/events0", limit=3, revision=revision
        )
        found += [(kv.key[-1:], kv.lease == lease) for kv in page.kvs]
        revision = revision or page.header.revision
        assert page.count == (4 if len(found) == 3 else 1)
        if not page.more:
            break
        start = page.kvs[-1].key + b"\0"
        client.call("KV/Put", key=b"/registry/events/5")
    assert found == [(b"1", True), (b"2", True), (b"3", True), (b"4", True)]
    stream.send(progress_request={})
    assert len(stream.events(1)) == 1
    assert (stream.next().watch_id, revision) == (-1, 8)

    compare = {"key": b"compact_rev_key", "target": 0, "version": 0}
    won = client.call("KV/Txn", compare=[compare], success=[put(b"compact_rev_key", b"8")])
    assert won.succeeded
    client.call("KV/Compact", revision=8)
    code, text = client.error("KV/Range", key=b"a", range_end=b"b", revision=7)
    assert (code, text[-9:]) == ("OUT_OF_RANGE", "compacted")
    assert client.call(
        "KV/Range", key=b"/registry/", range_end=b"/registry0", count_only=True
    ).count
    stream.close()


COMMAND = [sys.executable, "-m", "revstore", "serve", "--listen", "127.0.0.1:0"]


@pytest.fixture
def process(tmp_path):
    """``revstore serve`` over a file."""
    command = [*COMMAND, "--store", f"sqlite:///{tmp_path}/cluster.db"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_serves_until_a_signal(process, number, new_client):
    line = process.stdout.readline()
    address = line.removesuffix(".\n").rpartition(" ")[2]
    assert line.startswith("Serving sqlite ")
    assert new_client(address).call("KV/Put", key=b"a").header.revision == 2
    process.send_signal(number)
    assert process.wait(20) == 0


def accepts(address: str) -> bool:
    """Whether somebody listens there."""
    host, port = address.split(":")
    with contextlib.suppress(ConnectionRefusedError, ConnectionResetError):
        # Who tries too often has to wait until the server has taken the connections before.
        with contextlib.suppress(TimeoutError):
            socket.create_connection((host, int(port)), 1).close()
        return True
    return False


def test_a_second_signal_ends_the_command_at_once(process, tmp_path, new_client):
    """The first waits for calls under way: here for a write, as somebody holds the file's lock."""
    address = process.stdout.readline().removesuffix(".\n").rpartition(" ")[2]
    client = new_client(address)
    client.call("KV/Put", key=b"a")
    with contextlib.closing(sqlite3.connect(tmp_path / "cluster.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        call = client.start("KV/Put", key=b"a")
        client.call("KV/Range", key=b"a")  # by its answer the put is under way
        process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 4
        while accepts(address):
            assert time.monotonic() < deadline
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(2) == 128 + signal.SIGTERM
    assert call.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--listen", "0.0.0.0:0"], "--allow-plaintext"),
        (["--cert-file", "/none.pem", "--key-file", "/none.key"], "/none.pem"),
        (["--store", "etcd2://127.0.0.1:1"], "--allow-limited"),
    ],
)
def test_what_the_command_refuses(words, text, tmp_path):
    command = [*COMMAND, "--store", f"sqlite:///{tmp_path}/x.db", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert text in done.stderr
    assert len(done.stderr.splitlines()) == 1
