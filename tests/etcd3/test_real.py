"""What real servers, slow lines and real certificates do at the edges."""

from __future__ import annotations

import subprocess
import time
from contextlib import contextmanager

import pytest

from revstore.config import StorageConfig
from revstore.errors import AccessDenied, Compacted, OutcomeUnknown, StorageError, Unreachable
from revstore.plugins import open_backend
from revstore.secret import Secret
from revstore.testing._support import PATIENCE
from revstore.testing.etcd import EtcdServer
from revstore.testing.proxy import FaultyProxy
from revstore_etcd3._wire import rpc_pb2


@contextmanager
def opened(*servers, **fields):
    """A backend on servers."""
    with open_backend(StorageConfig(type="etcd3", server_list=servers, **fields)) as backend:
        yield backend


@pytest.mark.parametrize("page", [1, 2, 3])
def test_pages_around_keys_that_are_no_utf8(open_store, page):
    """LIST: keys of others that are not UTF-8, one of which ends a page, are passed over; limits
    count the keys that are returned."""
    backend = open_store(f"?page={page}")
    prefix = f"/pages-{page}-{id(backend)}/"
    names = [f"{prefix}{letter}" for letter in "abcdef"]
    for name in names:
        backend.put(name, b"x", expected_revision=0)
    for foreign in (b"a\xff", b"b\xfe", b"b\xff", b"\xff"):
        request = rpc_pb2.PutRequest(key=prefix.encode() + foreign, value=b"x")
        backend._client.read(lambda server: server.kv.Put, request, 5)
    assert [kv.key for kv in backend.list(prefix).kvs] == names
    found, start = [], ""
    while True:
        result = backend.list(prefix, start=start, limit=2)
        assert len(result.kvs) <= 2
        found += [kv.key for kv in result.kvs]
        if not result.more:
            break
        start = result.kvs[-1].key + "\0"
    assert found == names


@pytest.mark.parametrize("expected", [0, 1])
def test_a_lease_that_was_revoked(open_store, expected):
    """TTL-2: a lease that others revoked while it was shared is replaced at the next put, which
    goes through and expires as it should."""
    backend = open_store()
    prefix = f"/revoked-{expected}-{id(backend)}/"
    first = backend.put(f"{prefix}1", b"x", expected_revision=0, ttl=1000)
    update = backend.put(f"{prefix}2", b"x", expected_revision=0).revision if expected else 0
    lease = backend.get(f"{prefix}1").kv.lease
    request = rpc_pb2.LeaseRevokeRequest(ID=lease)
    backend._client.read(lambda server: server.lease.LeaseRevoke, request, 5)
    assert backend.get(f"{prefix}1").kv is None
    written = backend.put(f"{prefix}2", b"y", expected_revision=update, ttl=1000)
    assert written.succeeded
    assert first.revision < written.revision
    assert backend.get(f"{prefix}2").kv.lease not in (0, lease)
    again = backend.put(f"{prefix}3", b"x", expected_revision=0, ttl=1000)
    assert again.succeeded


def test_a_role_that_may_not_watch_everything(new_server):
    """ERR-8: a user with rights on some keys alone gets Compacted for a read of the past, in
    time, although the compacted revision cannot be asked for."""

    def etcdctl(*words):
        command = ["etcdctl", "--endpoints", new_server.client_url, *words]
        env = {"ETCDCTL_API": "3", "PATH": "/usr/bin:/bin"}
        subprocess.run(command, env=env, check=True, capture_output=True, timeout=20)

    for words in (
        ("user", "add", "root:r"),
        ("user", "grant-role", "root", "root"),
        ("user", "add", "some:s"),
        ("role", "add", "some"),
        ("role", "grant-permission", "some", "readwrite", "/t/", "/t0"),
        ("role", "grant-permission", "some", "read", "\0"),
        ("user", "grant-role", "some", "some"),
        ("auth", "enable"),
    ):
        if "\0" not in words:
            etcdctl(*words)
    plain = new_server.client_url
    with opened(plain, username="root", password=Secret("r")) as root:
        revision = 0
        for _ in range(3):
            revision = root.put("/t/a", b"x", expected_revision=revision).revision
        root.compact(revision)
    with opened(plain, username="some", password=Secret("s")) as backend:
        assert backend.get("/t/a").kv.revision == revision
        began = time.monotonic()
        with pytest.raises(Compacted) as caught:
            backend.get("/t/a", revision=revision - 1, timeout=1)
        assert caught.value.compacted == revision
        with pytest.raises(StorageError):
            backend.compact(revision, timeout=1)
        assert time.monotonic() - began < 3


def test_tls_over_a_slow_line(secured, fields_for):
    """A handshake may take as long as dial_timeout says, and not a second."""
    with secured("3.5", "tls") as server, FaultyProxy(server.address) as proxy:
        proxy.delay = 0.5
        fits = fields_for(server) | {"options": {"dial_timeout": 15}}
        with opened(f"https://{proxy.address}", **fits) as backend:
            assert backend.put("/slow", b"x", expected_revision=0, timeout=PATIENCE).succeeded
            assert backend.get("/slow", timeout=PATIENCE).kv.value == b"x"


@contextmanager
def serving(binary, certificate, *more):
    """A server with that certificate."""
    files = ("--cert-file", f"{certificate}.pem", "--key-file", f"{certificate}.key")
    with EtcdServer(binary, scheme="https", arguments=(*files, *more)) as server:
        yield server.start()


@pytest.mark.parametrize("plugin", ["etcd3", "etcd2"])
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("past", "expired"),
        ("future", "not yet valid"),
        ("self", "self.signed"),
        ("elsewhere", "host|mismatch"),
    ],
)
def test_server_certificates_that_do_not_fit(
    etcd_binary, certificates, odd_certificates, plugin, name, reason
):
    """SF-4: AccessDenied at once, for reads and writes, in one line with the
    server and the reason."""
    folder = certificates if name == "elsewhere" else odd_certificates
    with serving(etcd_binary, folder / name, "--enable-v2=true") as server:
        config = StorageConfig(
            type=plugin, server_list=(server.client_url,), ca_file=f"{certificates}/ca.pem"
        )
        with open_backend(config) as backend:
            for call in (
                lambda: backend.get("/a", timeout=PATIENCE),
                lambda: backend.put("/a", b"", expected_revision=0, timeout=PATIENCE),
            ):
                began = time.monotonic()
                with pytest.raises(AccessDenied, match=f"(?i){reason}") as caught:
                    call()
                assert time.monotonic() - began < 3
                assert server.address in str(caught.value)
                assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("plugin", ["etcd3", "etcd2"])
@pytest.mark.parametrize("name", ["past", "future", ""])
def test_client_certificates_that_do_not_fit(
    etcd_binary, certificates, odd_certificates, plugin, name
):
    """SF-4: a certificate of one's own that is out of date or missing is
    AccessDenied at once, also of a write, which was not done."""
    pki = certificates
    mutual = ("--client-cert-auth", "--trusted-ca-file", f"{pki}/ca.pem", "--enable-v2=true")
    mine = {"cert_file": f"{odd_certificates}/{name}.pem"} if name else {}
    if name:
        mine["key_file"] = f"{odd_certificates}/{name}.key"
    with serving(etcd_binary, pki / "server", *mutual) as server:
        config = StorageConfig(
            type=plugin, server_list=(server.client_url,), ca_file=f"{pki}/ca.pem", **mine
        )
        with open_backend(config) as backend:
            for call in (
                lambda: backend.get("/a", timeout=PATIENCE),
                lambda: backend.put("/a", b"", expected_revision=0, timeout=PATIENCE),
            ):
                began = time.monotonic()
                with pytest.raises(AccessDenied) as caught:
                    call()
                assert time.monotonic() - began < 3
                assert server.address in str(caught.value)


def test_plain_and_tls_do_not_meet(etcd_binary, certificates, new_server):
    """SF-4: TLS to a plain server, and the other way round, end in time, have written nothing, and
    say what may be wrong."""
    host, dial = new_server.address, {"dial_timeout": 0.5}
    with opened(f"https://{host}", ca_file=f"{certificates}/ca.pem", options=dial) as backend:
        with pytest.raises(Unreachable, match="https") as caught:
            backend.put("/a", b"", expected_revision=0, timeout=PATIENCE)
        assert not isinstance(caught.value, OutcomeUnknown)
    with (
        serving(etcd_binary, certificates / "server") as server,
        opened(f"http://{server.address}", options=dial) as backend,
    ):
        began = time.monotonic()
        with pytest.raises(Unreachable):
            backend.get("/a", timeout=PATIENCE)
        with pytest.raises(Unreachable):
            backend.put("/a", b"", expected_revision=0, timeout=PATIENCE)
        assert time.monotonic() - began < 12
