"""Users, their rights and their tokens, compared with real servers of etcd."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.serve import programs
from tests.serve.conftest import Client, etcd_binary, find
from tests.serve.programs import tried
from tests.serve.test_etcdctl import etcdctl_of
from tests.serve.test_http import fetch

from revstore.errors import ConfigError
from revstore.memory import MemoryBackend
from revstore.testing._support import wait_until
from revstore.testing.etcd import EtcdServer
from revstore_serve import serve
from revstore_serve._keys import KeyRange
from revstore_serve._proto import message
from revstore_serve._users import Caller, Users, _Prefixes, hashed, matches

pytestmark = pytest.mark.slow

#: Users of the comparisons: what they may read and write. "root" may do all.
RIGHTS = {
    "root": ((), ()),
    "both": (("/a/", "/b/"), ("/a/", "/b/")),
    "reader": (("/a/",), ()),
    "writer": ((), ("/a/",)),
    "none": ((), ()),
    "some": (("a/", "b"), ("a", "b", "c")),
}
HASHES = {name: hashed(f"pw-{name}") for name in RIGHTS}


def users_text(rights=RIGHTS, hashes=HASHES):
    lines = []
    for name, (read, write) in rights.items():
        lines += [f"[users.{name}]", f'password = "{hashes[name]}"']
        lines += ["root = true"] if name == "root" else []
        lines += [f"read = {json.dumps(read)}", f"write = {json.dumps(write)}"]
    return "\n".join(lines)


def write_file(path, text):
    new = path.with_suffix(".new")
    new.touch(0o600)
    new.write_text(text)
    os.replace(new, path)
    return str(path)


@pytest.fixture
def file(tmp_path):
    return Path(write_file(tmp_path / "users.toml", users_text()))


class AsUser(Client):
    """A client that calls with a token."""

    def __init__(self, address, token=None, credentials=None):
        super().__init__(address, credentials)
        self.metadata = [] if token is None else [("token", token)]

    def call(self, name, request=None, /, **fields):
        if request is None:
            request = find(name).request(**fields)
        return self._calls[name](request, timeout=20, metadata=self.metadata)

    def start(self, name, /, **fields):
        request = find(name).request(**fields)
        return self._calls[name].future(request, timeout=20, metadata=self.metadata)

    def stream(self, name, requests):
        return self._calls[name](requests, timeout=20, metadata=self.metadata)


def log_in(address, name, password=None):
    with contextlib.closing(Client(address)) as client:
        request = message("AuthenticateRequest")(name=name, password=password or f"pw-{name}")
        return client.call("Auth/Authenticate", request).token


def control(server, *words):
    subprocess.run(
        ["etcdctl", "--endpoints", server.address, *words],
        check=True,
        capture_output=True,
        env={**os.environ, "ETCDCTL_API": "3"},
        timeout=20,
    )


@pytest.fixture(scope="module", params=["3.4", "3.5"])
def real(request):
    """A real server with these users."""
    with EtcdServer(etcd_binary(request.param)) as server:
        server.start()
        control(server, "role", "add", "root")
        for name, (read, write) in RIGHTS.items():
            control(server, "user", "add", f"{name}:pw-{name}")
            if name != "root":
                control(server, "role", "add", name)
            for kind, prefixes in (("read", read), ("write", write)):
                for prefix in prefixes:
                    which = "readwrite" if prefix in read and prefix in write else kind
                    control(
                        server, "role", "grant-permission", "--prefix=true", name, which, prefix
                    )
            control(server, "user", "grant-role", name, name)
        control(server, "auth", "enable")
        yield server, request.param


@pytest.fixture
def pair(real, file):
    """A real server's address, and that of an endpoint with the same users and keys."""
    server, version = real
    with served(file, http="127.0.0.1:0") as ours:
        for address in (ours.address, server.address):
            client = AsUser(address, log_in(address, "root"))
            client.call("KV/DeleteRange", key=b"\0", range_end=b"\0")
            for lease in client.call("Lease/LeaseLeases").leases:
                client.call("Lease/LeaseRevoke", ID=lease.ID)
            for lease, key in ((7, b"/a/7"), (8, b"/b/8"), (9, b"/c/9")):
                client.call("Lease/LeaseGrant", ID=lease, TTL=600)
                client.call("KV/Put", key=key, lease=lease)
            client.close()
        yield ours, server, version


def outcome(client, name, /, **fields):
    try:
        client.call(name, **fields)
    except grpc.RpcError as error:
        return error.code().name, error.details()
    return "OK", ""


def ranges(*pairs):
    return [{"key": key, "range_end": end} for key, end in pairs]


RANGES = ranges(
    (b"/a/1", b""),
    (b"/a/", b"/a0"),
    (b"/a/", b"/b0"),  # /a0 to /b/ is nobody's
    (b"/a/x", b"/a/y"),
    (b"/a", b""),
    (b"/a", b"/a0"),
    (b"/a/", b"\0"),
    (b"\0", b"\0"),
    (b"/b/", b"/b0"),
    (b"/c", b""),
    (b"", b""),
)
OPERATIONS = [
    *({"request_range": each} for each in RANGES[:4]),
    {"request_put": {"key": b"/a/1"}},
    {"request_put": {"key": b"/c"}},
    {"request_delete_range": {"key": b"/a/1"}},
    {"request_delete_range": {"key": b"/a/1", "prev_kv": True}},
    {"request_delete_range": {"key": b"/c"}},
]
CALLS = [
    *(("KV/Range", each) for each in RANGES),
    *(("KV/Range", {**each, "serializable": True}) for each in RANGES[:3]),
    *(("KV/DeleteRange", each) for each in RANGES),
    ("KV/DeleteRange", {"key": b"/a/1", "prev_kv": True}),
    ("KV/Put", {"key": b"/a/1"}),
    ("KV/Put", {"key": b"/a/1", "prev_kv": True}),
    ("KV/Put", {"key": b"/c"}),
    ("KV/Put", {"key": b""}),
    ("KV/Put", {"key": b"/a/2", "lease": 7}),
    ("KV/Put", {"key": b"/a/2", "lease": 8}),
    ("KV/Put", {"key": b"/a/2", "lease": 9}),
    ("KV/Put", {"key": b"/a/2", "lease": 99}),
    ("KV/Txn", {}),
    *(("KV/Txn", {"compare": [each]}) for each in RANGES[:6]),
    *(("KV/Txn", {branch: [each]}) for each in OPERATIONS for branch in ("success", "failure")),
    ("Lease/LeaseRevoke", {"ID": 9}),
    ("Lease/LeaseRevoke", {"ID": 99}),
    ("Lease/LeaseRevoke", {"ID": 8}),
    ("Lease/LeaseRevoke", {"ID": 7}),
]


@pytest.mark.parametrize("name", [*RIGHTS, "nobody", "wrong"])
def test_rights(name, pair):
    """Each call of each user ends as with a real server; so do those without or with a wrong
    token."""
    ours, server, _ = pair
    tokens = {"nobody": None, "wrong": "x.1"}
    clients = [
        AsUser(each.address, tokens[name] if name in tokens else log_in(each.address, name))
        for each in (ours, server)
    ]
    for call, fields in CALLS:
        if name == "nobody" and (call == "Lease/LeaseRevoke" or not fields):
            continue  # etcd lets everybody do what concerns no key
        have, want = (outcome(client, call, **fields) for client in clients)
        assert have == want, (call, fields)
    for client in clients:
        client.close()


#: Proofs that are none.
NO_TOKENS = {"nobody": None, "wrong": "x.1"}


def as_user(address, name):
    """A client with the token of a user, a wrong one, or none."""
    return AsUser(address, NO_TOKENS[name] if name in NO_TOKENS else log_in(address, name))


def has_empty_range(sent):
    """Whether a message has a range that ends before it begins. Versions of etcd differ there."""
    if hasattr(sent, "range_end") and KeyRange.of(sent.key, sent.range_end).empty:
        return True
    inner = [value for field, value in sent.ListFields() if field.message_type is not None]
    parts = [each for one in inner for each in ([one] if hasattr(one, "ListFields") else one)]
    return any(map(has_empty_range, parts))


#: Requests of the programs in which etcd evades no right.
requests = (
    st.tuples(st.just("KV/Range"), programs.ranges)
    | st.tuples(st.just("KV/Put"), programs.puts)
    | st.tuples(st.just("KV/DeleteRange"), programs.deletions)
    | st.tuples(st.just("KV/Txn"), programs.transactions(0))
).filter(
    lambda named: (
        not (has_empty_range(named[1]) or (named[0] == "KV/Txn" and "prev_kv" in str(named[1])))
    )
)


def test_programs(users_of_both):
    """Programs of a user end as with a real server, and so does what they leave behind."""
    programs_of = st.lists(requests, min_size=1, max_size=12)
    tried(60, programs_of, lambda program: run_as_user(users_of_both, program))


def run_as_user(users_of_both, program):
    """Let a user send a program's requests, and compare the answers and the keys afterwards."""
    roots, somes = users_of_both
    bases = []
    for root in roots:
        root.call("KV/DeleteRange", key=b"\0", range_end=b"\0")
        revision = root.call("KV/Put", key=b"begin").header.revision
        root.call("KV/Compact", revision=revision)
        bases.append(revision - 1)
    everything = message("RangeRequest")(key=b"\0", range_end=b"\0")
    for callers, steps in ((somes, program), (roots, [("KV/Range", everything)])):
        for name, request in steps:
            have, want = (
                programs.answer(client, name, request, base)
                for client, base in zip(callers, bases, strict=True)
            )
            assert have == want, (name, request)


@pytest.fixture
def users_of_both(pair):
    """Clients of the user root, and of the user some, of both servers."""
    found = [[as_user(each.address, name) for each in pair[:2]] for name in ("root", "some")]
    yield found
    for client in (*found[0], *found[1]):
        client.close()


@pytest.mark.parametrize("name", [*RIGHTS, *NO_TOKENS])
def test_watches(name, pair):
    """A watch that may not be is cancelled with a reason, and the stream goes on. etcd 3.4 and 3.5
    allow one without an end to all who may read its first key, and 3.5.1 has other reasons."""
    ours, server, version = pair
    if version != "3.4":
        return
    clients = [as_user(each.address, name) for each in (ours, server)]
    streams = [client.watch() for client in clients]
    for fields in RANGES[:-1]:
        if fields["range_end"] == b"\0":
            continue
        have, want = (
            (answer.canceled, answer.cancel_reason, answer.watch_id)
            for answer in (stream.create(**fields) for stream in streams)
        )
        assert have == want, fields
    for stream, client in zip(streams, clients, strict=True):
        stream.close()
        client.close()


def test_where_a_token_is(pair):
    """The metadata have it as "token" or, second, as "authorization"; of several the first counts,
    and an empty one is wrong."""
    ours, server, _ = pair
    for names in (
        ["token"],
        ["authorization"],
        ["authorization", "-token"],
        ["-authorization", "token"],
        ["token", "-token"],
        ["-token", "token"],
        ["0token"],
        ["other"],
    ):
        outcomes = []
        for address in (ours.address, server.address):
            client = as_user(address, "reader")
            right = client.metadata[0][1]
            client.metadata = [
                (name.lstrip("-0"), {"-": "x.1", "0": ""}.get(name[0], right)) for name in names
            ]
            outcomes.append(outcome(client, "KV/Range", key=b"/a/1"))
            client.close()
        assert outcomes[0] == outcomes[1], names


def test_watches_without_end(file):
    """They need the right to read everything after their first key."""
    with MemoryBackend() as backend, serve(backend, users_file=str(file)) as endpoint:
        for name, allowed in (("both", False), ("root", True)):
            client = as_user(endpoint.address, name)
            stream = client.watch()
            assert stream.create(b"/a/", b"\0").canceled is not allowed
            if name == "both":
                assert not stream.create(b"/a/", b"/a0").canceled
                client.call("KV/Put", key=b"/a/1", value=b"x")
                assert stream.events(1)[0][1:3] == (b"/a/1", b"x")
            stream.close()
            client.close()


@pytest.mark.parametrize("name", ["root", "both", "nobody"])
def test_calls_for_all_or_for_root(name, pair):
    """etcd lets everybody do some of it, so these are compared for users only."""
    ours, server, version = pair
    clients = [as_user(each.address, name) for each in (ours, server)]
    calls = [("Cluster/MemberList", {}), ("Maintenance/Status", {})]
    if version == "3.5":
        calls += [("Auth/AuthStatus", {})]
    if name != "nobody":
        calls += [
            ("Lease/LeaseGrant", {"TTL": 60}),
            ("Lease/LeaseLeases", {}),
            ("Maintenance/Alarm", {}),
            ("KV/Compact", {"revision": 10**9}),
        ]
    calls += [(f"Maintenance/{each}", {}) for each in ("Hash", "HashKV", "Defragment")]
    for call, fields in calls:
        have, want = (outcome(client, call, **fields) for client in clients)
        if want[0] == "UNKNOWN":  # these versions send an error of the server's inside
            have, want = have[1], want[1].replace("auth:", "etcdserver:")
        assert have == want, call
    for client in clients:
        client.close()


@contextlib.contextmanager
def served(file, **options):
    with MemoryBackend() as backend, serve(backend, users_file=str(file), **options) as endpoint:
        yield endpoint


DENIED = ("PERMISSION_DENIED", "etcdserver: permission denied")
NO_USER = ("INVALID_ARGUMENT", "etcdserver: user name is empty")
BAD_TOKEN = ("UNAUTHENTICATED", "etcdserver: invalid auth token")
BAD_PASSWORD = (
    "INVALID_ARGUMENT",
    "etcdserver: authentication failed, invalid user ID or password",
)


def test_more_is_checked_than_by_etcd_3_4(file):
    """As later versions do: nested transactions, previous values, and leases and compactions, which
    need some user."""
    with served(file) as endpoint:
        writer, nobody = (as_user(endpoint.address, name) for name in ("writer", "nobody"))
        for branch in ("success", "failure"):
            for kind, fields, allowed in (
                ("request_put", {"key": b"/a/1"}, True),
                ("request_put", {"key": b"/a/1", "prev_kv": True}, False),
                ("request_put", {"key": b"/c"}, False),
                ("request_range", {"key": b"/a/1"}, False),
                ("request_delete_range", {"key": b"/c"}, False),
            ):
                inner = {branch: [{kind: fields}]}
                for txn in (inner, {branch: [{"request_txn": inner}]}):
                    expected = ("OK", "") if allowed else DENIED
                    assert outcome(writer, "KV/Txn", **txn) == expected, txn
        nested = {"success": [{"request_txn": {"compare": [{"key": b"/a/1"}]}}]}
        assert outcome(writer, "KV/Txn", **nested) == DENIED
        for call, fields in (
            ("Lease/LeaseGrant", {"TTL": 5}),
            ("Lease/LeaseRevoke", {"ID": 5}),
            ("Lease/LeaseTimeToLive", {"ID": 5}),
            ("Lease/LeaseLeases", {}),
            ("KV/Compact", {"revision": 1}),
            ("Maintenance/Alarm", {}),
        ):
            assert outcome(nobody, call, **fields) == NO_USER, call
        with pytest.raises(grpc.RpcError) as caught:
            next(nobody.stream("Lease/LeaseKeepAlive", iter([])))
        assert caught.value.details() == NO_USER[1]
        for client in (writer, nobody):
            client.close()


def test_keys_of_a_lease(file):
    """Who looks at them needs the right to read them all, who revokes it that to write them."""
    with served(file) as endpoint:
        root, both, reader = (
            as_user(endpoint.address, name) for name in ("root", "both", "reader")
        )
        for lease, key in ((1, b"/a/1"), (2, b"/b/1")):
            root.call("Lease/LeaseGrant", ID=lease, TTL=600)
            root.call("KV/Put", key=key, lease=lease)
        for lease, allowed in ((1, ("OK", "")), (2, DENIED), (9, ("OK", ""))):
            assert outcome(reader, "Lease/LeaseTimeToLive", ID=lease, keys=True) == allowed
            assert outcome(reader, "Lease/LeaseTimeToLive", ID=lease) == ("OK", "")
        assert outcome(reader, "Lease/LeaseRevoke", ID=1) == DENIED
        assert outcome(both, "Lease/LeaseRevoke", ID=1) == ("OK", "")
        for client in (root, both, reader):
            client.close()


def test_ranges_in_parts(file):
    """They need what ranges need."""
    request = message("RangeRequest")(key=b"/a/", range_end=b"/a0")
    with served(file) as endpoint:
        for name, expected in (("writer", DENIED[1]), ("nobody", NO_USER[1])):
            client = as_user(endpoint.address, name)
            with pytest.raises(grpc.RpcError) as caught:
                next(client.stream("KV/RangeStream", request))
            assert caught.value.details() == expected
            client.close()
        client = as_user(endpoint.address, "reader")
        assert [each.range_response.count for each in client.stream("KV/RangeStream", request)] == [
            0
        ]
        client.close()


def test_the_gateway(pair):
    """A token of the gateway goes into the header Authorization; status and error are etcd's."""
    ours, server, _ = pair

    def post(path, body, *headers):
        answers = []
        for address in (ours.http_address, server.address):
            found = [(name, value(address)) for name, value in headers]
            status, text = fetch(address, path, body, headers=found)
            answers.append((status, json.loads(text).get("error")))
        assert answers[0] == answers[1], (path, body)
        return answers[0]

    def token(name):
        def of(address):
            body = {"name": name, "password": f"pw-{name}"}
            return json.loads(fetch(address, "/v3/auth/authenticate", body)[1])["token"]

        return ("Authorization", of)

    allowed, other = {"key": "L2EvMQ=="}, {"key": "L2M="}
    assert post("/v3/kv/range", allowed, token("reader"))[0] == 200
    assert post("/v3/kv/range", other, token("reader"))[0] == 403
    assert post("/v3/kv/put", allowed, token("reader"))[0] == 403
    assert post("/v3/kv/range", allowed)[0] == 400
    assert post("/v3/kv/range", allowed, ("Authorization", lambda _: "x"))[0] == 401
    for body in ({"name": "reader", "password": "x"}, {"name": "x"}, {}):
        assert post("/v3/auth/authenticate", body)[0] == 400
    assert fetch(ours.http_address, "/health")[0] == 200
    for headers, reason in (([token("reader")], DENIED[1]), ([], NO_USER[1])):
        found = [(name, value(ours.http_address)) for name, value in headers]
        body = {"create_request": other}
        text = first_line(ours.http_address, "/v3/watch", body, found)
        assert reason in json.loads(text)["result"]["cancel_reason"]


def first_line(address, path, body, headers):
    request = urllib.request.Request(
        f"http://{address}{path}", json.dumps(body).encode(), dict(headers)
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        return answer.readline()


def test_without_users(new_client):
    """As etcd says it."""
    with MemoryBackend() as backend, serve(backend) as endpoint:
        client = new_client(endpoint.address)
        error = ("FAILED_PRECONDITION", "etcdserver: authentication is not enabled")
        assert client.error("Auth/Authenticate") == error
        assert not client.call("Auth/AuthStatus").enabled
        with_token = AsUser(endpoint.address, "x")
        with_token.call("KV/Put", key=b"a")
        with_token.close()


def test_etcdctl(file):
    etcdctl = etcdctl_of("3.4")
    with served(file) as endpoint:
        for words, failed, text in (
            ("--user both:pw-both put /a/1 x", False, "OK"),
            ("--user both --password pw-both get /a/1 --print-value-only", False, "x"),
            ("--user reader:pw-reader put /a/1 x", True, DENIED[1]),
            ("--user reader:x get /a/1", True, BAD_PASSWORD[1]),
            ("get /a/1", True, NO_USER[1]),
            ("--user root:pw-root user list", True, "users and their rights are in a file"),
        ):
            process = etcdctl(f"http://{endpoint.address}", *words.split())
            out, err = process.communicate(timeout=20)
            assert (bool(process.returncode), text in out + err) == (failed, True), (
                words,
                out,
                err,
            )


def test_locks_and_elections(file):
    """They need the rights to read and to write below their names; who reads can observe."""
    etcdctl = etcdctl_of("3.4")
    with served(file) as endpoint, contextlib.ExitStack() as stack:

        def start(user, *words):
            process = etcdctl(f"http://{endpoint.address}", "--user", f"{user}:pw-{user}", *words)
            stack.callback(process.communicate)
            stack.callback(process.kill)
            return process

        refused = [
            start(user, *words.split())
            for user, words in (
                ("reader", "lock /a/l"),
                ("writer", "lock /a/l"),
                ("both", "lock /c/l"),
                ("both", "lock /ab"),
                ("reader", "elect /a/e me"),
                ("both", "elect /c/e me"),
                ("writer", "elect --listen /a/e"),
            )
        ]
        first, leader = start("both", "lock", "/a/l"), start("both", "elect", "/a/e", "me")
        observer = start("reader", "elect", "--listen", "/a/e")
        assert first.stdout.readline().startswith("/a/l/")
        assert leader.stdout.readline().startswith("/a/e/")
        assert observer.stdout.readline().startswith("/a/e/")
        second = start("both", "lock", "/a/l")
        for process in refused:
            assert DENIED[1] in process.communicate(timeout=20)[1]
        first.send_signal(signal.SIGTERM)
        assert second.stdout.readline().startswith("/a/l/")


def test_waits_have_rights(file):
    """Who may read and write waits for a lock, and observes, which etcd refuses to users; who may
    not read learns why he sees nothing."""
    with served(file) as endpoint, contextlib.ExitStack() as stack:
        clients = {name: as_user(endpoint.address, name) for name in ("both", "reader", "writer")}
        for each in clients.values():
            stack.callback(each.close)
        both = clients["both"]
        held = both.call("Lock/Lock", name=b"/a/l").key
        second = both.start("Lock/Lock", name=b"/a/l")
        while len(both.call("KV/Range", key=b"/a/l/", range_end=b"/a/l0").kvs) < 2:
            assert not second.done()
        both.call("Lock/Unlock", key=held)
        assert second.result().key.startswith(b"/a/l/")
        both.call("Election/Campaign", name=b"/a/e", value=b"me")

        def observe(name):
            request = find("Election/Observe").request(name=b"/a/e")
            client = clients[name]
            found = client._calls["Election/Observe"](request, timeout=20, metadata=client.metadata)
            stack.callback(found.cancel)
            return next(found).kv.value

        assert observe("reader") == b"me"
        with pytest.raises(grpc.RpcError) as caught:
            observe("writer")
        assert (caught.value.code().name, caught.value.details()) == ("UNKNOWN", DENIED[1])


def test_secrets_are_in_no_log(file, caplog, capfd):
    """Neither passwords nor tokens, whatever fails."""
    caplog.set_level(logging.DEBUG)
    with served(file, http="127.0.0.1:0") as endpoint:
        token = log_in(endpoint.address, "both")
        client = AsUser(endpoint.address, token)
        client.call("KV/Put", key=b"/a/1")
        assert outcome(client, "KV/Put", key=b"/c") == DENIED
        wrong = message("AuthenticateRequest")(name="both", password="not-it")
        with pytest.raises(grpc.RpcError):
            client.call("Auth/Authenticate", wrong)
        body = b'{"name": "both", "password": "pw-both", "x": nonsense}'
        assert fetch(endpoint.http_address, "/v3/auth/authenticate", body)[0] == 400
        page = fetch(endpoint.http_address, "/metrics")[1]
        client.close()
    told = caplog.text + page + "".join(capfd.readouterr())
    assert not [each for each in (token, "pw-both", "not-it") if each in told]


def retried(call, expected, seconds=20.0):
    """Call again until the outcome is as expected."""
    end = time.monotonic() + seconds
    while (found := call()) != expected:
        assert time.monotonic() < end, found
        time.sleep(0.01)


def test_a_file_that_changes(file, monkeypatch, caplog):
    """Rights and users are those of the file; one that is wrong is warned of once, and changes
    nothing. A new password ends the tokens of the old one."""
    monkeypatch.setattr("revstore_serve._users._LOOK", 0.0)
    with served(file) as endpoint:
        reader = as_user(endpoint.address, "reader")
        get = lambda: outcome(reader, "KV/Range", key=b"/a/1")  # noqa: E731
        assert get() == ("OK", "")
        write_file(file, users_text(RIGHTS | {"reader": (("/b/",), ())}))
        assert get() == DENIED
        assert outcome(reader, "KV/Range", key=b"/b/1") == ("OK", "")
        for _ in range(3):
            write_file(file, "[users.reader]\npassword = 'secret'")
            assert get() == DENIED
        (line,) = (record.getMessage() for record in caplog.records)
        assert str(file) in line
        assert "users.reader" in line
        assert "secret" not in line
        write_file(file, users_text(hashes=HASHES | {"reader": hashed("new")}))
        assert get() == BAD_TOKEN
        reader.metadata = [("token", log_in(endpoint.address, "reader", "new"))]
        assert get() == ("OK", "")
        write_file(file, users_text({name: RIGHTS[name] for name in ("root", "both")}))
        assert get() == BAD_TOKEN
        root = as_user(endpoint.address, "root")
        assert root.call("Auth/AuthStatus").authRevision == 4
        file.unlink()
        root.call("KV/Put", key=b"a")
        root.close()
        reader.close()


def test_tokens_end(file, monkeypatch):
    """After a while of idleness, and when there are too many: those first that were idle
    longest."""
    users = Users(str(file))
    user = users.find("both")
    one, two = users.token(user), users.token(user)
    assert one != two
    monkeypatch.setattr("revstore_serve._users._MOST_TOKENS", 2)
    users.known(Caller(one))
    three = users.token(user)
    assert users.known(Caller(one)) == users.known(Caller(three)) == user
    with pytest.raises(Exception, match="invalid auth token"):
        users.known(Caller(two))
    assert len(users._tokens) == 2
    monkeypatch.setattr("revstore_serve._users._TOKEN_TTL", 0.0)
    time.sleep(0.001)
    for token in (one, three, "", "\udcff"):
        with pytest.raises(Exception, match="invalid auth token"):
            users.known(Caller(token))
    users.token(user)
    users.token(user)
    assert len(users._tokens) <= 2


def test_too_many_passwords_at_once(file, monkeypatch):
    """Checks are costly, so that more than a number of callers are sent away at once."""
    monkeypatch.setattr("revstore_serve._guard._MOST_WAITING", 2)
    with served(file) as endpoint, contextlib.closing(Client(endpoint.address)) as client:
        request = message("AuthenticateRequest")(name="both", password="x")
        calls = [client._calls["Auth/Authenticate"].future(request) for _ in range(12)]
        found = {call.exception().details() for call in calls}
        assert found == {BAD_PASSWORD[1], "etcdserver: too many requests"}
        log_in(endpoint.address, "both")


def test_checks_of_passwords_delay_no_other_call(file, monkeypatch):
    """They take some threads and not all, even if clients take back their calls and repeat
    them."""
    go = threading.Event()

    def held(password, user):
        assert go.wait(60)
        return matches(password, user)

    with served(file) as endpoint, contextlib.closing(as_user(endpoint.address, "both")) as client:
        monkeypatch.setattr("revstore_serve._guard.matches", held)
        request = message("AuthenticateRequest")(name="both", password="pw-both")
        try:
            for round_ in range(1, 4):
                calls = [client._calls["Auth/Authenticate"].future(request) for _ in range(8)]
                client.call("KV/Put", key=b"/a/1")
                client.call("Lease/LeaseGrant", TTL=60)
                if round_ < 3:
                    for call in calls:
                        call.cancel()
                    wait_until(lambda n=round_: cancelled(endpoint) == 8 * n, "calls are cancelled")
        finally:
            go.set()
        assert all(call.result().token for call in calls)


def cancelled(endpoint):
    return sum(
        count
        for (labels, code), count in endpoint._counts.handled.items()
        if "Authenticate" in labels and code != "OK"
    )


def test_certificates_name_users(file, certificates):
    """The common name of a client's certificate is a user, unless the client sends a token."""
    rights = {"client": (("/a/",), ()), "both": RIGHTS["both"]}
    write_file(file, users_text(rights, HASHES | {"client": ""}))
    pki = certificates
    files = {"cert_file": f"{pki}/server.pem", "key_file": f"{pki}/server.key"}

    def credentials(name):
        own = [(pki / f"{name}.{kind}").read_bytes() for kind in ("key", "pem")]
        return grpc.ssl_channel_credentials((pki / "ca.pem").read_bytes(), *own)

    with served(file, client_ca_file=f"{pki}/ca.pem", **files) as endpoint:
        for name, token, key, expected in (
            ("client", None, b"/a/1", ("OK", "")),
            ("client", None, b"/b/1", DENIED),
            ("server", None, b"/a/1", DENIED),
            ("client", "x", b"/a/1", BAD_TOKEN),
        ):
            client = AsUser(endpoint.address, token, credentials(name))
            assert outcome(client, "KV/Range", key=key) == expected
            for password in ("", "client"):
                request = message("AuthenticateRequest")(name="client", password=password)
                with pytest.raises(grpc.RpcError) as caught:
                    client.call("Auth/Authenticate", request)
                assert caught.value.details() == BAD_PASSWORD[1]
            client.close()
    with served(file, **files) as endpoint:
        client = AsUser(endpoint.address, None, credentials("client"))
        assert outcome(client, "KV/Range", key=b"/a/1") == NO_USER
        client.close()


USERS = "[users.a]\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "No such file"),
        ("", "at least one user"),
        ("[users]", "at least one user"),
        ("password = secret", "TOML: see line 1"),
        ("[users.a]\n\nx = 'secret\n", "in TOML"),
        ("\udcff", "a readable file"),
        ("x = " + "[" * 100_000, "in TOML"),
        ("\ufeff[other]", "only users in the file"),
        ("[other]", "only users in the file"),
        ("users = 1", "a table in users"),
        ("users.a = 'secret'", "a table in users.a"),
        ("[users.'']", "names that are not empty"),
        (f"{USERS} rights = 1", "only password, read, root, write in users.a"),
        (f"{USERS} root = 1", "a boolean in users.a.root"),
        (f"{USERS} read = '/a/'", "an array in users.a.read"),
        (f"{USERS} write = ['/a/', 1]", "a string in each of users.a.write"),
        (f"{USERS} password = 1", "a string in users.a.password"),
        (f"{USERS} password = 'secret'", "--hash-password in users.a.password"),
        (f"{USERS} password = 'scrypt$99${'A' * 22}==${'A' * 43}='", "--hash-password"),
        (f"{USERS} password = 'scrypt$14${'A' * 21}===${'A' * 43}='", "--hash-password"),
        (f"{USERS} password = 'scrypt$14${'A' * 22}==${'A' * 40}'", "--hash-password"),
    ],
)
def test_files_that_cannot_be_used(text, told, tmp_path):
    """One line says why, without any password."""
    path = tmp_path / "users.toml"
    if text is not None:
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError) as caught:
        Users(str(path))
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"invalid users_file {str(path)!r}: ")
    assert told in line
    assert "secret" not in line


@pytest.mark.parametrize(("mode", "lines"), [(0o600, 0), (0o640, 1), (0o604, 1)])
def test_a_file_that_others_can_open(mode, lines, file, caplog):
    file.chmod(mode)
    Users(str(file))
    assert [str(file) in record.getMessage() for record in caplog.records] == [True] * lines


TEXT = st.text("ab\x7fÿ", max_size=3)


@given(
    prefixes=st.lists(TEXT, max_size=4),
    first=st.binary(max_size=3) | TEXT.map(str.encode),
    end=st.none() | st.binary(max_size=3) | TEXT.map(str.encode),
    probes=st.lists(st.binary(max_size=4) | TEXT.map(str.encode), max_size=30),
)
def test_a_range_is_covered_if_every_key_in_it_has_a_prefix(prefixes, first, end, probes):
    keys = KeyRange(first, end)
    covered = _Prefixes(prefixes).covers(keys)
    inside = [first, *(key for key in probes if key in keys)]
    each = [any(key.startswith(prefix.encode()) for prefix in prefixes) for key in inside]
    if covered:
        assert all(each)
    if keys.single or "" in prefixes:
        assert covered == each[0]
    for prefix in prefixes:
        whole = prefix.encode()
        assert _Prefixes(prefixes).covers(KeyRange(whole, whole + b"\xff"))


def test_prefixes_that_adjoin_are_one():
    """As etcd does, a range over several prefixes is allowed, if there is no gap."""
    found = _Prefixes(["b", "a", "ab", "d"])
    assert found.covers(KeyRange(b"a", b"c"))
    assert not found.covers(KeyRange(b"a", b"d"))
    assert not found.covers(KeyRange(b"b", b"e"))
    assert not found.covers(KeyRange(b"d", None))
    assert not _Prefixes([]).covers(KeyRange(b"d", b"a"))


COMMAND = [sys.executable, "-m", "revstore", "serve", "--store", "memory://"]


def test_the_command(tmp_path):
    """It makes hashes, and refuses a file that has none."""

    def hash_of(text):
        words = [*COMMAND, "--hash-password"]
        return subprocess.run(
            words, input=text, capture_output=True, text=True, timeout=60, check=False
        )

    done = hash_of("pw\n")
    assert done.returncode == 0
    path = tmp_path / "users.toml"
    write_file(path, f"[users.a]\npassword = '{done.stdout.strip()}'\nroot = true")
    with served(path) as endpoint:
        assert log_in(endpoint.address, "a", "pw")
    assert hash_of("").returncode == 2
    write_file(path, "[users.a]\npassword = 'pw'")
    command = [*COMMAND, "--users-file", path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "--hash-password" in done.stderr


def test_the_rights_of_an_apiserver(file):
    """Those of the documentation are enough for all that it asks."""
    prefixes = ("/registry/", "compact_rev_key")
    write_file(file, users_text({"both": (prefixes, prefixes)}))
    with served(file) as endpoint:
        client = as_user(endpoint.address, "both")
        everything = {"key": b"/registry/pods/", "range_end": b"/registry/pods0"}
        stream = client.watch()
        assert not stream.create(**everything, prev_kv=True, progress_notify=True).canceled
        assert not stream.create(b"compact_rev_key").canceled
        lease = client.call("Lease/LeaseGrant", TTL=600).ID
        for key in (b"/registry/pods/a", b"compact_rev_key"):
            txn = {
                "compare": [{"key": key, "target": 2, "mod_revision": 0}],
                "success": [{"request_put": {"key": key, "value": b"x", "lease": lease}}],
                "failure": [{"request_range": {"key": key}}],
            }
            assert client.call("KV/Txn", **txn).succeeded
        client.call("KV/Put", key=b"/registry/pods/b", lease=lease)
        for fields in ({}, {"limit": 1}, {"count_only": True}, {"keys_only": True}):
            assert client.call("KV/Range", **everything, **fields).count == 2
        client.call("KV/Range", key=b"/registry/health")
        stream.send(progress_request={})
        assert stream.next().events
        client.call("KV/Compact", revision=2)
        client.call("Maintenance/Status")
        stream.close()
        client.close()
