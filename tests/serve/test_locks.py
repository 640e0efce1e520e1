"""etcd's services of locks and elections: the endpoint answers as real etcds do, and what waits in
them costs little, ends with its client, and never shares a lock."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from google.protobuf import text_format
from tests.serve.conftest import STORES, Client, etcd_binary, find, open_store
from tests.serve.processes import Served
from tests.serve.programs import shifted
from tests.serve.rawclient import DATA, END_HEADERS, END_STREAM, HEADERS, Raw, frame, prefixed
from tests.serve.rawclient import headers as fields_of
from tests.serve.test_etcdctl import etcdctl_of

from revstore.testing.etcd import EtcdServer
from revstore_serve import serve

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

STOPPED = ("UNAVAILABLE", "etcdserver: server stopped")
EXPIRED = ("UNKNOWN", "mutex: session is expired")
NOT_LEADER = ("UNKNOWN", "election: not leader")
# Leases whose ids the stories choose, so that keys are known.
ONE, TWO, THREE = 0x1A1, 0x1A2, 0x1A3


def until(condition: Callable[[], Any]) -> Any:
    """Wait for a condition, and return what it returned."""
    end = time.monotonic() + 20
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.005)
    return found


def keys(client: Client, name: bytes) -> list[Any]:
    """The keys of a lock or an election, the oldest first."""
    found = client.call("KV/Range", key=name + b"/", range_end=name + b"0").kvs
    return sorted(found, key=lambda kv: kv.create_revision)


def outcome(call: Callable[[], Any]) -> Any:
    """What a call returns, or the code and text of its error."""
    try:
        return call()
    except grpc.RpcError as error:
        code, text = error.code().name, error.details()
        # A client sees the end of its time in its own words or in the server's, as it happens.
        return "deadline" if text.lower().endswith("deadline exceeded") else (code, text)


class Story:
    """Calls to a server, and notes of its answers without what differs between two servers."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.notes: list[Any] = []
        for lease in (ONE, TWO, THREE):
            outcome(lambda lease=lease: client.call("Lease/LeaseRevoke", ID=lease))
            client.call("Lease/LeaseGrant", ID=lease, TTL=600)
        self._base = client.call("KV/DeleteRange", key=b"\0", range_end=b"\0").header.revision

    def note(self, found: Any) -> Any:
        self.notes.append(self._told(found))
        return found

    def _told(self, found: Any) -> Any:
        if isinstance(found, list):
            return [self._told(each) for each in found]
        if not hasattr(found, "ListFields"):
            return found
        copy = shifted(found, -self._base)
        if hasattr(copy, "header"):
            copy.header.cluster_id = copy.header.member_id = copy.header.raft_term = 0
        return text_format.MessageToString(copy)

    def call(self, name: str, /, **fields: Any) -> Any:
        return self.note(outcome(lambda: self.client.call(name, **fields)))

    def keys(self, name: bytes) -> list[Any]:
        return self.note(keys(self.client, name))

    def start(self, name: str, count: int, /, **fields: Any) -> Any:
        """Begin a call that waits, as the one that makes so many keys of its name."""
        future = self.client.start(name, **fields)
        until(lambda: len(keys(self.client, fields["name"])) == count)
        return future

    def ends(self, future: Any) -> Any:
        return self.note(outcome(future.result))

    def in_time(self, name: str, /, **fields: Any) -> Any:
        """Call with a short deadline, and wait until the call's key is gone."""
        before = keys(self.client, fields["name"])
        request = find(name).request(**fields)
        self.note(outcome(lambda: self.client._calls[name](request, timeout=0.3)))
        until(lambda: keys(self.client, fields["name"]) == before)


def locks(story: Story) -> None:
    """One after the other, in the order in which they came; who does not wait leaves no key."""
    held = story.call("Lock/Lock", name=b"l", lease=ONE)
    story.call("Lock/Lock", name=b"l", lease=ONE)
    second = story.start("Lock/Lock", 2, name=b"l", lease=TWO)
    third = story.start("Lock/Lock", 3, name=b"l", lease=THREE)
    story.keys(b"l")
    second.cancel()
    until(lambda: len(keys(story.client, b"l")) == 2)
    second = story.start("Lock/Lock", 3, name=b"l", lease=TWO)
    story.call("Lock/Unlock", key=held.key)
    story.ends(third)
    story.note(second.done())
    story.call("Lease/LeaseRevoke", ID=THREE)
    story.ends(second)
    story.call("Lock/Unlock", key=b"l/%x" % TWO)
    story.keys(b"l")


def odd_locks(story: Story) -> None:
    """Names and leases as they should not be; deadlines; a lease of the server's."""
    for lease in (12345, -1):
        story.call("Lock/Lock", name=b"l", lease=lease)
    for name in (b"", b"\xff\0", b"l/l", b"l0"):
        story.call("Lock/Lock", name=name, lease=ONE)
    for key in (b"", b"nothing", b"l/l/%x" % ONE):
        story.call("Lock/Unlock", key=key)
    story.keys(b"l")
    own = story.client.call("Lock/Lock", name=b"own")
    (key,) = keys(story.client, b"own")
    assert own.key == key.key == b"own/%x" % key.lease
    lease = story.client.call("Lease/LeaseTimeToLive", ID=key.lease)
    story.note((lease.grantedTTL, lease.TTL > 50))
    for lease_id in (0, TWO):
        story.in_time("Lock/Lock", name=b"own", lease=lease_id)
    story.client.call("Lock/Unlock", key=own.key)


def lost_keys(story: Story) -> None:
    """Who loses his key while he waits does not get the lock; who is behind him waits on."""
    held = story.call("Lock/Lock", name=b"l", lease=ONE)
    second = story.start("Lock/Lock", 2, name=b"l", lease=TWO)
    third = story.start("Lock/Lock", 3, name=b"l", lease=THREE)
    story.call("Lease/LeaseRevoke", ID=TWO)
    story.call("KV/Put", key=b"x")
    story.note((second.done(), third.done()))
    story.call("Lock/Unlock", key=held.key)
    story.ends(second)
    story.ends(third)
    # Two calls of one lease have one key, and the first that is cancelled takes it away.
    calls = [story.start("Lock/Lock", 2, name=b"l", lease=ONE) for _ in range(2)]
    calls[0].cancel()
    until(lambda: len(keys(story.client, b"l")) == 1)
    story.call("Lock/Unlock", key=b"l/%x" % THREE)
    story.ends(calls[1])


def elections(story: Story) -> None:
    """Campaigns, proclaims, leaders and resignations."""
    story.call("Election/Leader", name=b"e")
    led = story.call("Election/Campaign", name=b"e", lease=ONE, value=b"one")
    for value in (b"one", b"two"):
        story.call("Election/Campaign", name=b"e", lease=ONE, value=value)
    second = story.start("Election/Campaign", 2, name=b"e", lease=TWO, value=b"second")
    story.call("Election/Leader", name=b"e")
    for lease in (ONE, THREE, 777):
        leader = {"name": b"e", "key": led.leader.key, "rev": led.leader.rev, "lease": lease}
        story.call("Election/Proclaim", leader=leader, value=b"three")
        story.keys(b"e")
    for lease in (0, 12345, THREE):
        story.in_time("Election/Campaign", name=b"e", lease=lease, value=b"x")
    story.call("Election/Resign", leader=led.leader)
    story.ends(second)
    story.call("Election/Proclaim", leader=led.leader, value=b"four")
    story.call("Election/Resign", leader=led.leader)
    story.call("Election/Leader", name=b"e")
    story.keys(b"e")


def odd_elections(story: Story) -> None:
    """What no client library sends."""
    for name in ("Election/Proclaim", "Election/Resign"):
        story.call(name)
        for leader in ({}, {"key": b"e/1"}, {"key": b"e/1", "rev": 3, "lease": ONE}):
            story.call(name, leader=leader)
    for name in (b"", b"\xff\0", b"e/e", b"e0"):
        led = story.call("Election/Campaign", name=name, lease=ONE)
        story.call("Election/Leader", name=name)
        led.leader.name = b"other"
        story.call("Election/Proclaim", leader=led.leader, value=b"value")
        story.keys(name)
        story.call("Election/Resign", leader=led.leader)
    story.client.call("Maintenance/Alarm", action=1, alarm=1)
    story.call("Lock/Lock", name=b"full", lease=ONE)
    story.call("Lock/Lock", name=b"full")
    story.call("Election/Campaign", name=b"full", lease=ONE)
    story.call("Lock/Unlock", key=b"full")
    story.call("Election/Resign", leader=led.leader)
    story.client.call("Maintenance/Alarm", action=2, alarm=1)


def observed(story: Story) -> None:
    """Each leader's value and each proclaim, from before the first leader on."""
    request = find("Election/Observe").request(name=b"e")
    with contextlib.ExitStack() as stack:

        def observe() -> Iterator[Any]:
            found = story.client._calls["Election/Observe"](request, timeout=60)
            stack.callback(found.cancel)
            return found

        early = observe()
        led = story.call("Election/Campaign", name=b"e", lease=ONE, value=b"one")
        story.note(next(early))
        late = observe()
        story.note(next(late))
        second = story.start("Election/Campaign", 2, name=b"e", lease=TWO, value=b"two")
        for value in (b"1", b"2", b"3"):
            story.call("Election/Proclaim", leader=led.leader, value=value)
            for each in (early, late):
                story.note(next(each))
        story.client.call("KV/Put", key=b"e/x", value=b"a stranger")
        story.call("Election/Resign", leader=led.leader)
        story.ends(second)
        for each in (early, late):
            story.note(next(each))
        story.client.call("KV/DeleteRange", key=b"e/x")
        story.call("Lease/LeaseRevoke", ID=TWO)
        story.call("Election/Leader", name=b"e")
        story.call("Election/Campaign", name=b"e", lease=THREE, value=b"three")
        for each in (early, late):
            story.note(next(each))


#: The stories, and the first etcd that is right about each.
STORIES = [
    *((each, "3.4") for each in (locks, odd_locks, elections, odd_elections, observed)),
    (lost_keys, "3.5"),  # etcd 3.4 tells who has lost his key that he has the lock
]


@pytest.fixture(scope="module", params=["3.4", "3.5"])
def real(request) -> Iterator[tuple[str, Client]]:
    times = ("--heartbeat-interval", "100", "--election-timeout", "1000")
    with EtcdServer(etcd_binary(request.param), arguments=times) as server:
        client = Client(server.start().address)
        yield request.param, client
        client.close()


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize(
    ("story", "since"), STORIES, ids=lambda each: getattr(each, "__name__", each)
)
def test_like_etcd(story, since, store, real, tmp_path, new_client):
    """Answers, keys and errors are etcd's, for calls in the order of each story."""
    version, client = real
    if version < since:
        pytest.skip(f"etcd {version} differs, as the docs say")
    theirs = Story(client)
    story(theirs)
    with open_store(store, tmp_path) as backend, serve(backend) as endpoint:
        ours = Story(new_client(endpoint.address))
        story(ours)
    assert ours.notes == theirs.notes


def test_a_campaign_that_lost_its_key(client):
    """It does not lead, though etcd says that it does."""
    for lease in (ONE, TWO):
        client.call("Lease/LeaseGrant", ID=lease, TTL=600)
    led = client.call("Election/Campaign", name=b"e", lease=ONE)
    second = client.start("Election/Campaign", name=b"e", lease=TWO)
    until(lambda: len(keys(client, b"e")) == 2)
    client.call("Lease/LeaseRevoke", ID=TWO)
    client.call("Election/Resign", leader=led.leader)
    assert outcome(second.result) == NOT_LEADER


def test_a_lease_that_expires(client):
    """Its lock goes to the next, and nobody but its owner keeps it alive."""
    client.call("Lease/LeaseGrant", ID=ONE, TTL=2)
    client.call("Lock/Lock", name=b"l", lease=ONE)
    assert client.call("Lock/Lock", name=b"l").key == keys(client, b"l")[0].key
    with pytest.raises(grpc.RpcError, match="lease not found"):
        client.call("Lock/Lock", name=b"l", lease=ONE)


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("version", ["3.4", "3.5"])
def test_etcdctl_and_the_service(store, version, tmp_path, new_client):
    """Each waits for the other, in locks and in elections."""
    etcdctl = etcdctl_of(version)
    with contextlib.ExitStack() as stack:
        backend = stack.enter_context(open_store(store, tmp_path))
        address = stack.enter_context(serve(backend)).address
        client = new_client(address)

        def start(*words: str) -> Any:
            process = etcdctl(address, *words)
            stack.callback(process.communicate)
            stack.callback(process.kill)
            return process

        held = client.call("Lock/Lock", name=b"l")
        process = start("lock", "l")
        until(lambda: len(keys(client, b"l")) == 2)
        third = client.start("Lock/Lock", name=b"l")
        until(lambda: len(keys(client, b"l")) == 3)
        client.call("Lock/Unlock", key=held.key)
        assert process.stdout.readline().strip() == keys(client, b"l")[0].key.decode()
        assert not third.done()
        process.send_signal(signal.SIGTERM)
        assert third.result().key == keys(client, b"l")[0].key

        led = client.call("Election/Campaign", name=b"e", value=b"one").leader
        process = start("elect", "e", "two")
        observer = start("elect", "--listen", "e")
        assert [observer.stdout.readline() for _ in range(2)][1] == "one\n"
        until(lambda: len(keys(client, b"e")) == 2)
        third = client.start("Election/Campaign", name=b"e", value=b"three")
        until(lambda: len(keys(client, b"e")) == 3)
        client.call("Election/Resign", leader=led)
        assert [process.stdout.readline() for _ in range(2)][1] == "two\n"
        assert [observer.stdout.readline() for _ in range(2)][1] == "two\n"
        process.send_signal(signal.SIGTERM)
        assert third.result().leader.key == keys(client, b"e")[0].key
        assert [observer.stdout.readline() for _ in range(2)][1] == "three\n"


def test_a_thousand_wait(client):
    """They take no thread each, get the lock in the order in which they came, and leave nothing;
    those that cancel are skipped."""
    count = 1000
    held = client.call("Lock/Lock", name=b"l").key
    client.call("Lease/LeaseGrant", ID=ONE, TTL=600)
    threads = threading.active_count()
    calls = {}
    for number in range(count):
        client.call("Lease/LeaseGrant", ID=1000 + number, TTL=600)
        request = find("Lock/Lock").request(name=b"l", lease=1000 + number)
        calls[b"l/%x" % (1000 + number)] = client._calls["Lock/Lock"].future(request, timeout=150)
    until(lambda: len(keys(client, b"l")) == count + 1)
    assert threading.active_count() <= threads + 4  # those that work for all calls
    order = [kv.key for kv in keys(client, b"l")][1:]
    for key in order[::2]:
        calls[key].cancel()
    until(lambda: len(keys(client, b"l")) == count // 2 + 1)
    for key in order[1::2]:
        assert not calls[key].done()
        client.call("Lock/Unlock", key=held)
        held = calls[key].result().key
        assert held == key
    assert [kv.key for kv in keys(client, b"l")] == [held]


def test_a_client_that_is_gone(client):
    """Its calls end with its connection, and their keys with them."""
    client.call("Lock/Lock", name=b"l")
    for name in ("Lock/Lock", "Election/Campaign", "Election/Observe"):
        service = find(name).service
        raw = Raw(client.address)
        raw.send(
            frame(
                HEADERS,
                END_HEADERS,
                1,
                fields_of(f"/{service}/{name.rpartition('/')[2]}".encode()),
            ),
            frame(DATA, END_STREAM, 1, prefixed(find(name).request(name=b"l").SerializeToString())),
        )
        if name != "Election/Observe":
            until(lambda: len(keys(client, b"l")) == 2)
        raw.reset()
        until(lambda: len(keys(client, b"l")) == 1)


@pytest.mark.parametrize("transport", ["native", "grpcio"])
@pytest.mark.parametrize("grace", [0, 5])
def test_the_stop(transport, grace, backend, new_client):
    """It ends what waits with the reason, and removes the keys of those that wait: nobody does any
    more. A lock that is held stays, and is waited for after the restart."""
    endpoint = serve(backend, transport=transport)
    client = new_client(endpoint.address)
    held = client.call("Lock/Lock", name=b"l").key
    led = client.call("Election/Campaign", name=b"e").leader.key
    calls = [client.start(name, name=b"l") for name in ("Lock/Lock", "Election/Campaign")]
    observing = client._calls["Election/Observe"](
        find("Election/Observe").request(name=b"e"), timeout=20
    )
    next(observing)
    until(lambda: len(keys(client, b"l")) == 3)
    endpoint.stop(grace)
    assert [outcome(each.result) for each in calls] == [STOPPED, STOPPED]
    assert outcome(lambda: next(observing)) == STOPPED
    assert [kv.key for kv in backend.list("").kvs] == [led.decode(), held.decode()]
    with serve(backend, listen=endpoint.address, transport=transport):
        again = new_client(endpoint.address)
        waits = again.start("Lock/Lock", name=b"l")
        until(lambda: len(keys(again, b"l")) == 2)
        assert not waits.done()
        again.call("Lock/Unlock", key=held)
        assert waits.result().key == keys(again, b"l")[0].key


def test_two_processes(tmp_path, new_client):
    """On one file they never grant a lock twice, and one of them that is killed takes no lock with
    it."""
    url = f"sqlite:///{tmp_path}/shared.db"
    servers = [Served(url), Served(url)]
    busy, errors, rounds = threading.Lock(), [], [0] * 6
    try:

        def work(number: int, client: Client) -> None:
            for _ in range(15):
                key = client.call("Lock/Lock", name=b"l").key
                if not busy.acquire(blocking=False):
                    errors.append(key)
                    return
                rounds[number] += 1
                busy.release()
                client.call("Lock/Unlock", key=key)

        threads = [
            threading.Thread(target=work, args=(number, new_client(servers[number % 2].address)))
            for number in range(6)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (errors, rounds) == ([], [15] * 6)
        first, second = (new_client(each.address) for each in servers)
        held = first.call("Lock/Lock", name=b"l").key
        waits = second.start("Lock/Lock", name=b"l")
        until(lambda: len(keys(second, b"l")) == 2)
        servers[0].kill()
        assert keys(second, b"l")[0].key == held
        assert not waits.done()
        second.call("Lock/Unlock", key=held)
        assert waits.result().key == keys(second, b"l")[0].key
    finally:
        for each in servers:
            each.kill()
