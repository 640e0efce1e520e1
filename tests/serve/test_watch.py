"""Watches of an endpoint."""

from __future__ import annotations

import threading
import time

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.serve.conftest import STORES, Client, open_store

from revstore.memory import MemoryBackend
from revstore.values import KeyValue, WatchBatch, WatchEvent, WatchEventType
from revstore_serve import serve
from revstore_serve._endpoint import TRANSPORTS
from revstore_serve._keys import KeyRange
from revstore_serve._log import Entry, Index
from revstore_serve._proto import message

pytestmark = pytest.mark.slow

KEYS = st.sampled_from([b"a", b"a/", b"a/b", b"a0", b"b", b"\0", b"\xff", b"a\xff"])


@given(st.lists(st.tuples(KEYS, KEYS | st.just(b"") | st.just(b"\0"))), KEYS, st.randoms())
def test_an_index_finds_what_a_key_concerns(ranges, key, random):
    index: Index[int] = Index()
    all_keys = dict(enumerate(KeyRange.of(*each) for each in ranges))
    for number, keys in all_keys.items():
        index.add(keys, number)
    gone = {number for number in all_keys if random.random() < 0.3}
    for number in gone:
        index.discard(all_keys[number], number)
        index.discard(all_keys[number], number)

    left = set(all_keys) - gone
    assert sorted(index.find(key)) == sorted(n for n in left if key in all_keys[n])
    assert set(index) == left


def test_encoded_events_are_fields_of_a_response():
    """Events that are encoded one by one read as those of one message."""
    before = KeyValue("a", b"0" * 300, 2, 2, 1)
    put = WatchEvent(WatchEventType.PUT, KeyValue("a", b"1", 3, 2, 2), before)
    deleted = WatchEvent(WatchEventType.DELETED, KeyValue("b", b"", 3), before)
    entry = Entry(WatchBatch(3, (put, deleted)))
    head = message("WatchResponse")(watch_id=7).SerializeToString()
    whole = head + entry.encoded(0, prev_kv=True) + entry.encoded(1, prev_kv=False)
    answer = message("WatchResponse").FromString(whole)

    assert answer.watch_id == 7
    assert [each.type for each in answer.events] == [0, 1]
    assert answer.events[0].prev_kv.value == b"0" * 300
    assert not answer.events[1].HasField("prev_kv")
    assert str(answer.events[1].kv) == 'key: "b"\nmod_revision: 3\n'


def test_the_life_of_a_watch(client):
    """It is created at a revision, shows what comes, and ends when it is cancelled."""
    stream = client.watch()
    created = stream.create(b"a", b"b", prev_kv=True)
    assert (created.created, created.watch_id, created.header.revision) == (True, 0, 1)
    client.call("KV/Put", key=b"a", value=b"1")
    client.call("KV/Put", key=b"b", value=b"x")
    client.call("KV/Txn", success=[
        {"request_put": {"key": b"ab", "value": b"2"}},
        {"request_delete_range": {"key": b"a"}},
    ])  # fmt: skip
    assert stream.events(3) == [
        ("PUT", b"a", b"1", 2),
        ("DELETE", b"a", b"", 4),
        ("PUT", b"ab", b"2", 4),
    ]
    stream.send(cancel_request={"watch_id": 5})
    stream.send(cancel_request={"watch_id": 0})
    cancelled = stream.next()
    assert (cancelled.canceled, cancelled.watch_id, cancelled.compact_revision) == (True, 0, 0)
    stream.close()


def test_ids_are_the_server_s_or_the_client_s(client):
    stream = client.watch()
    assert stream.create(b"a").watch_id == 0
    assert stream.create(b"a", watch_id=2).watch_id == 2
    assert stream.create(b"a").watch_id == 1
    assert stream.create(b"a").watch_id == 3
    twice = stream.create(b"a", watch_id=2)
    assert (twice.created, twice.canceled, twice.watch_id) == (True, True, -1)
    assert twice.cancel_reason == "mvcc: duplicate watch ID provided on the WatchStream"
    empty = stream.create(b"b", b"a")
    assert (empty.canceled, empty.watch_id) == (True, -1)
    assert empty.cancel_reason == "mvcc: watcher range is empty"
    client.call("KV/Put", key=b"a")
    assert sorted(stream.next().watch_id for _ in range(4)) == [0, 1, 2, 3]
    stream.close()


def test_a_watch_begins_in_the_past_or_in_the_future(backend, new_client):
    """History from before the endpoint's start comes from the store; what is not yet is waited
    for; and what follows comes once."""
    for number in range(2, 500):
        backend.put(f"k{number % 7}", b"", expected_revision=backend.get(f"k{number % 7}").kv.revision if number > 8 else 0)  # noqa: E501  # fmt: skip
    with serve(backend) as endpoint:
        client = new_client(endpoint.address)
        stream = client.watch()
        for key, end, start in ((b"\0", b"\0", 2), (b"k3", b"", 2), (b"k", b"l", 450)):
            assert stream.create(key, end, start_revision=start).created
            wanted = [n for n in range(start, 500) if end or n % 7 == 3]
            assert [each[3] for each in stream.events(len(wanted))] == wanted
        stream.close()
        stream = client.watch()
        stream.create(b"k", b"l", start_revision=502)
        for _ in range(3):
            client.call("KV/Put", key=b"k1")
        assert [each[3] for each in stream.events(1)] == [502]
        stream.close()


def test_what_is_compacted_cancels(client):
    """At the compacted revision the puts of that revision can be told, below it nothing."""
    for value in (b"1", b"2", b"3", b"4"):
        client.call("KV/Put", key=b"a", value=value)
    client.call("KV/Compact", revision=4)
    stream = client.watch()
    assert stream.create(b"a", start_revision=3).created
    cancelled = stream.next()
    assert (cancelled.canceled, cancelled.compact_revision, cancelled.watch_id) == (True, 4, 0)
    assert stream.create(b"a", start_revision=4).created
    assert stream.events(2) == [("PUT", b"a", b"3", 4), ("PUT", b"a", b"4", 5)]
    client.call("KV/DeleteRange", key=b"a")
    client.call("KV/Compact", revision=6)
    assert stream.events(1) == [("DELETE", b"a", b"", 6)]
    assert stream.create(b"a", start_revision=6).created
    assert stream.next().compact_revision == 6
    stream.close()


def test_filters(client):
    """A watch may do without puts, or without deletions."""
    puts, deletions = client.watch(), client.watch()
    puts.create(b"a", filters=[1])
    deletions.create(b"a", filters=[0])
    for _ in range(2):
        client.call("KV/Put", key=b"a")
        client.call("KV/DeleteRange", key=b"a")
    assert [each[0] for each in puts.events(2)] == ["PUT", "PUT"]
    assert [each[0] for each in deletions.events(2)] == ["DELETE", "DELETE"]
    puts.close()
    deletions.close()


def test_a_large_revision_comes_in_fragments_if_they_are_asked_for(client):
    """Without being asked, a revision is never split, however large it is."""
    stream = client.watch()
    stream.create(b"a", b"b", fragment=True)
    for each in (b"a1", b"a2", b"a3", b"a4"):
        client.call("KV/Put", key=each, value=b"x" * (700 << 10))
    client.call("KV/DeleteRange", key=b"a", range_end=b"b")
    for _ in range(4):
        stream.events(1)
    stream.close()
    stream = client.watch()
    stream.create(b"a", b"b", fragment=True, prev_kv=True, start_revision=6)
    answers = [stream.next() for _ in range(2)]
    assert [(each.fragment, len(each.events)) for each in answers] == [(True, 2), (False, 2)]
    stream.close()


def test_progress_comes_at_once(client):
    """Without a watch too; of a stream with watches it comes after all events up to it."""
    stream = client.watch()
    client.call("KV/Put", key=b"a")
    stream.send(progress_request={})
    answer = stream.next()
    assert (answer.watch_id, answer.header.revision, len(answer.events)) == (-1, 2, 0)
    stream.create(b"b")
    begin = time.monotonic()
    for number in range(3, 103):
        client.call("KV/Put", key=b"ab"[number % 2 :][:1])
        stream.send(progress_request={})
        answers = [stream.next() for _ in range(1 + (number % 2))]
        assert answers[-1].watch_id == -1
        assert answers[-1].header.revision == number
    assert time.monotonic() - begin < 10
    stream.close()


def test_progress_is_told_by_the_clock(new_client):
    """A watch that asks for it is told how far it is while it has no events."""
    with MemoryBackend() as backend, serve(backend, progress_interval=0.1) as endpoint:
        client = new_client(endpoint.address)
        stream = client.watch()
        stream.create(b"a", progress_notify=True)
        stream.create(b"a")
        client.call("KV/Put", key=b"b")
        while (answer := stream.next()).header.revision < 2:
            assert (answer.watch_id, len(answer.events)) == (0, 0)
        assert (answer.watch_id, answer.header.revision) == (0, 2)
        stream.close()


def test_a_client_that_does_not_read_delays_nobody(monkeypatch, backend, new_client):
    """The log passes it by; when it reads, it gets all the same every event once, from the
    store."""
    monkeypatch.setattr("revstore_serve._feed._MOST_BYTES", 4 << 20)
    with serve(backend) as endpoint:
        client = new_client(endpoint.address)
        slow, other = client.watch(), Client(endpoint.address).watch()
        for stream in (slow, other):
            stream.create(b"a", b"b")
        for number in range(100):
            client.call("KV/Put", key=b"a%d" % number, value=b"x" * (200 << 10))
            assert other.events(1)[0][3] == number + 2
        assert endpoint._feed.log.base > 50
        assert [each[3] for each in slow.events(100)] == [*range(2, 102)]
        slow.close()
        other.close()


def test_two_endpoints_of_one_file(tmp_path, new_client):
    """Watches see the writes that come by the other endpoint."""
    with (
        open_store("sqlite", tmp_path) as one,
        open_store("sqlite", tmp_path) as two,
        serve(one) as first,
        serve(two) as second,
    ):
        writer, reader = new_client(first.address), new_client(second.address)
        stream = reader.watch()
        stream.create(b"a")
        writer.call("KV/Put", key=b"a", value=b"1")
        assert stream.events(1) == [("PUT", b"a", b"1", 2)]
        writer.call("KV/Put", key=b"b")
        stream.send(progress_request={})
        assert stream.next().header.revision == 3
        stream.close()


def test_many_watches_and_clients_that_go(new_client):
    """No watch has a thread, and of clients that are gone nothing is left."""
    with MemoryBackend() as backend, serve(backend) as endpoint:
        client = new_client(endpoint.address)
        first = client.watch()
        first.create(b"a")
        before = threading.active_count()
        for _ in range(100):
            stream = client.watch()
            for number in range(10):
                stream.create(b"k%d" % number, b"" if number % 2 else b"l")
            stream.close()
        keep = client.watch()
        for number in range(2000):
            keep.send(create_request={"key": b"k%d" % number})
        for _ in range(2000):
            assert keep.next().created
        client.call("KV/Put", key=b"k1500")
        assert keep.next().watch_id == 1500
        deadline = time.monotonic() + 20
        while len([*endpoint._feed.index]) != 2001 or len(endpoint._feed.listeners) != 2:
            assert time.monotonic() < deadline
        # Each stream of this client takes a thread of gRPC here, in the client.
        assert threading.active_count() <= before + 2 * 2 + 1
        keep.close()
        first.close()


def test_a_compaction_by_others_ends_what_it_outruns(new_client):
    """If the store was compacted past what an endpoint had seen, its streams end, and new ones say
    that events are gone."""

    class Halted(MemoryBackend):
        """Its watch of everything gets nothing until it is let go."""

        go = threading.Event()

        def watch(self, key, **arguments):
            watch = super().watch(key, **arguments)
            if not key and not self.go.is_set():
                poll = watch.poll
                watch.poll = lambda timeout=None: self.go.wait() and poll(timeout)
            return watch

    with Halted() as backend, serve(backend) as endpoint:
        client = new_client(endpoint.address)
        stream = client.watch()
        stream.create(b"a")
        client.call("KV/Put", key=b"a")
        backend.compact(client.call("KV/Put", key=b"a").header.revision)
        backend.go.set()
        with pytest.raises(grpc.RpcError) as caught:
            stream.next()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        stream = client.watch()
        stream.create(b"a", start_revision=2)
        assert stream.next().compact_revision == 3
        stream.create(b"a", start_revision=3)
        client.call("KV/Put", key=b"a", value=b"1")
        assert [each[3] for each in stream.events(2)] == [3, 4]
        stream.close()


def test_the_end_of_the_endpoint_ends_streams(new_client):
    with MemoryBackend() as backend:
        endpoint = serve(backend)
        stream = new_client(endpoint.address).watch()
        stream.create(b"a")
        begin = time.monotonic()
        endpoint.stop()
        with pytest.raises(grpc.RpcError) as caught:
            stream.next()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert caught.value.details() == "etcdserver: server stopped"
        assert time.monotonic() - begin < 2


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("store", STORES)
def test_the_end_comes_after_the_events(new_client, tmp_path, store, transport):
    """A watch shows every write that was acknowledged before the endpoint was stopped, however
    shortly before."""
    with open_store(store, tmp_path) as backend:
        for number in range(10):
            endpoint = serve(backend, transport=transport)
            client = new_client(endpoint.address)
            streams = [client.watch() for _ in range(3)]
            for stream in streams:
                assert stream.create(b"a", b"b").created
            for each in range(number + 1):
                client.call("KV/Put", key=b"a%d" % each)
            endpoint.stop()
            for stream in streams:
                keys = [event[1] for event in stream.events(number + 1)]
                assert keys == [b"a%d" % each for each in range(number + 1)]
                with pytest.raises(grpc.RpcError) as caught:
                    stream.next()
                assert caught.value.details() == "etcdserver: server stopped"


def test_a_store_that_does_not_answer_delays_no_end(new_client):
    """Its revision is asked for a second; with all threads busy, too."""

    class Stuck(MemoryBackend):
        def status(self, *, timeout=None):
            if stuck.is_set():
                go.wait(20)
            return super().status(timeout=timeout)

    stuck, go = threading.Event(), threading.Event()
    with Stuck() as backend:
        endpoint = serve(backend)
        stream = new_client(endpoint.address).watch()
        stream.create(b"a")
        stuck.set()
        begin = time.monotonic()
        endpoint.stop()
        assert time.monotonic() - begin < 4
        with pytest.raises(grpc.RpcError) as caught:
            stream.next()
        assert caught.value.details() == "etcdserver: server stopped"
        go.set()
