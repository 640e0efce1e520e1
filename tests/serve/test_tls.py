"""TLS: who may connect, who may call, and certificates that change while the server runs."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys

import grpc
import pytest
from tests.serve.conftest import find
from tests.serve.rawclient import PREFACE
from tests.serve.test_etcdctl import etcdctl_of

from revstore.config import StorageConfig
from revstore.errors import AccessDenied, ConfigError, Timeout, Unreachable
from revstore.memory import MemoryBackend
from revstore.plugins import open_backend
from revstore.testing._support import wait_until
from revstore_serve import _handshakes, serve

pytestmark = pytest.mark.slow

DENIED = ("PERMISSION_DENIED", "etcdserver: permission denied")


@pytest.fixture
def pki(certificates, tmp_path):
    """A folder of certificates that a test may change."""
    return shutil.copytree(certificates, tmp_path / "pki")


def own(pki, name="server"):
    """The server's options."""
    return {"cert_file": f"{pki}/{name}.pem", "key_file": f"{pki}/{name}.key"}


def credentials(pki, name="", ca="ca"):
    """What a client has: a certificate, if it has a name, and the authority that it trusts."""
    mine = [(pki / f"{name}.{kind}").read_bytes() for kind in ("key", "pem")] if name else []
    return grpc.ssl_channel_credentials((pki / f"{ca}.pem").read_bytes(), *mine)


@contextlib.contextmanager
def served(**options):
    with MemoryBackend() as backend, serve(backend, **options) as endpoint:
        yield endpoint


def connects(new_client, endpoint, found):
    """Whether a new client with these credentials gets an answer."""
    client = new_client(endpoint.address, found)
    try:
        client.call("KV/Range", key=b"a")
    except grpc.RpcError as error:
        assert error.code() is grpc.StatusCode.UNAVAILABLE  # noqa: PT017 - what else fails
        return False
    return True


def test_a_handshake_that_ends_after_the_stop(certificates, new_client):
    """The connection that it makes is closed: nobody would serve it, or end it."""
    context = ssl.create_default_context(cafile=f"{certificates}/ca.pem")
    context.check_hostname = False
    context.set_alpn_protocols(["h2"])
    with served(**own(certificates)) as endpoint:
        host, port = endpoint.address.split(":")
        late = socket.create_connection((host, int(port)), 20)
        # The server accepts connections in turn.
        assert connects(new_client, endpoint, credentials(certificates))
    with contextlib.suppress(ssl.SSLError, ConnectionError), context.wrap_socket(late) as found:
        found.sendall(PREFACE)
        assert found.recv(100) == b""
    late.close()


LISTENERS = ("address", "http_address")
#: The first bytes of a handshake, and of one of 1 MB.
BEGINNINGS = [b"", b"\x16\x03\x01\x02\0\x01", b"\x16\x03\x01\x40\0" + b"\x01\x10\0\0"]


def arrived(endpoint, listener, begin=b""):
    """A connection that sends so much of a handshake, and no more."""
    host, port = getattr(endpoint, listener).split(":")
    found = socket.create_connection((host, int(port)), 20)
    found.sendall(begin)
    return found


def ended(connection):
    """Whether the server has ended a connection, waiting for that."""
    with contextlib.suppress(ConnectionError):
        return connection.recv(100) == b""
    return True


@pytest.mark.parametrize("listener", LISTENERS)
@pytest.mark.parametrize("begin", BEGINNINGS)
def test_a_handshake_that_does_not_end(certificates, monkeypatch, listener, begin, caplog):
    monkeypatch.setattr(_handshakes, "PATIENCE", 0.1)
    with contextlib.ExitStack() as stack:
        endpoint = stack.enter_context(served(**own(certificates), http="127.0.0.1:0"))
        assert ended(stack.enter_context(arrived(endpoint, listener, begin)))
    assert caplog.text == ""


@pytest.mark.parametrize("listener", LISTENERS)
def test_handshakes_count_as_connections(certificates, monkeypatch, new_client, listener):
    """There are never more of both than may be."""
    monkeypatch.setattr(_handshakes, "PATIENCE", 600.0)
    with contextlib.ExitStack() as stack:
        endpoint = stack.enter_context(
            served(**own(certificates), http="127.0.0.1:0", max_connections=3)
        )
        context = ssl.create_default_context(cafile=f"{certificates}/ca.pem")
        context.check_hostname = False
        context.set_alpn_protocols(["h2"])
        secured = stack.enter_context(context.wrap_socket(arrived(endpoint, listener)))
        waiting = [stack.enter_context(arrived(endpoint, listener)) for _ in range(2)]
        for _ in range(3):
            with arrived(endpoint, listener) as connection:
                assert ended(connection)
        for each in (secured, *waiting):
            each.setblocking(False)
        for each in waiting:
            with pytest.raises(BlockingIOError):
                each.recv(1)
        waiting[0].close()
        if listener == "address":
            wait_until(
                lambda: connects(new_client, endpoint, credentials(certificates)), "it has room"
            )


@pytest.mark.parametrize("listener", LISTENERS)
def test_handshakes_end_with_the_server(certificates, monkeypatch, listener):
    monkeypatch.setattr(_handshakes, "PATIENCE", 600.0)
    with served(**own(certificates), http="127.0.0.1:0") as endpoint:
        connection = arrived(endpoint, listener)
        # The server accepts connections in turn.
        context = ssl.create_default_context(cafile=f"{certificates}/ca.pem")
        context.check_hostname = False
        context.wrap_socket(arrived(endpoint, listener)).close()
        connection.setblocking(False)
        with pytest.raises(BlockingIOError):
            connection.recv(1)
    connection.settimeout(20)
    assert ended(connection)
    connection.close()


def get_in_time(backend):
    """Read, with more and more time: on a busy machine even a refusal takes some."""
    for seconds in (0.5, 2, 8):
        with contextlib.suppress(Timeout):
            return backend.get("/a", timeout=seconds)
    return backend.get("/a", timeout=32)


@pytest.mark.parametrize("mutual", [False, True])
def test_revstore_s_own_client(mutual, certificates):
    """Who has the right files reads, writes and watches; who has not is told. gRPC closes the
    connection of a client without a valid certificate, and gives no reason."""
    pki = certificates
    ca = {"ca_file": f"{pki}/ca.pem"}
    right, wrong = ca, [({"ca_file": f"{pki}/other.pem"}, AccessDenied)]
    options = own(pki)
    if mutual:
        options |= {"client_ca_file": f"{pki}/ca.pem", "allowed_cn": ["client"]}
        right = ca | own(pki, "client")
        wrong += [
            (ca | own(pki, "server"), AccessDenied),
            (ca, Unreachable),
            (ca | own(pki, "other"), Unreachable),
        ]

    def opened(fields):
        url = f"https://{endpoint.address}"
        return open_backend(StorageConfig(type="etcd3", server_list=(url,), **fields))

    with served(**options) as endpoint:
        with opened(right) as backend:
            start = backend.status().revision
            assert backend.put("/a", b"x", expected_revision=0).succeeded
            assert backend.get("/a").kv.value == b"x"
            with backend.watch("/", recursive=True, after_revision=start) as watch:
                assert watch.poll(10).events[0].kv.key == "/a"
        for fields, kind in wrong:
            with opened(fields) as backend, pytest.raises(kind):
                get_in_time(backend)


def test_etcdctl(certificates):
    """It needs a certificate that fits, one of the names allowed, and the authority."""
    pki = certificates
    etcdctl = etcdctl_of("3.4")

    def start(*words, name="client", ca="ca"):
        mine = ("--cert", f"{pki}/{name}.pem", "--key", f"{pki}/{name}.key") if name else ()
        files = ("--cacert", f"{pki}/{ca}.pem", *mine)
        return etcdctl(f"https://{endpoint.address}", *files, *words)

    def printed(process):
        out, err = process.communicate(timeout=20)
        return process.returncode, out, err

    options = {"client_ca_file": f"{pki}/ca.pem", "allowed_cn": ["client"]}
    with served(**own(pki), **options) as endpoint:
        wrong = ({"name": ""}, {"name": "other"}, {"ca": "other"})
        processes = [start("get", "a", "--command-timeout=1s", **each) for each in wrong]
        assert printed(start("put", "a", "1"))[:2] == (0, "OK\n")
        assert f"https://{endpoint.address}" in printed(start("member", "list"))[1]
        status, _, err = printed(start("get", "a", name="server"))
        assert (status, "etcdserver: permission denied" in err) == (1, True)
        assert [printed(process)[:2] for process in processes] == [(1, "")] * 3


@pytest.mark.parametrize(
    ("names", "admitted"),
    [
        ({"allowed_cn": ["client"]}, True),
        ({"allowed_cn": ["x", "client"]}, True),
        ({"allowed_cn": ["Client"]}, False),
        ({"allowed_cn": ["localhost"]}, False),
        ({"allowed_san": ["localhost"]}, True),
        ({"allowed_san": ["127.0.0.1"]}, True),
        ({"allowed_san": ["client"]}, False),
        ({"allowed_cn": ["x"], "allowed_san": ["localhost"]}, True),
        ({"allowed_cn": ["x"], "allowed_san": ["y"]}, False),
        ({}, True),
    ],
)
def test_names_of_clients(names, admitted, certificates, new_client):
    """Calls and streams of others are denied, also of methods that are not served."""
    options = {**own(certificates), "client_ca_file": f"{certificates}/ca.pem", **names}
    with served(**options) as endpoint:
        client = new_client(endpoint.address, credentials(certificates, "client"))
        if admitted:
            client.call("KV/Put", key=b"a")
            assert client.watch().create(b"a").created
            return
        assert client.error("KV/Put", key=b"a") == DENIED
        assert client.error("Auth/UserList") == DENIED
        with pytest.raises(grpc.RpcError) as caught:
            client.watch().create(b"a")
        assert (caught.value.code().name, caught.value.details()) == DENIED


def replace(pki, name, by):
    """As tools do that renew certificates: a new file takes the place of the old one."""
    shutil.copy(pki / by, pki / "new")
    os.replace(pki / "new", pki / name)


def test_files_that_change_while_the_server_runs(pki, new_client, caplog):
    """New connections use the new files, once they fit together; those that are open stay."""
    old, new = credentials(pki, "client"), credentials(pki, "client", ca="old-ca")
    with served(**own(pki), client_ca_file=f"{pki}/ca.pem") as endpoint:
        first = new_client(endpoint.address, old)
        watch = first.watch()
        watch.create(b"a")
        assert not connects(new_client, endpoint, new)

        replace(pki, "server.pem", "old-server.pem")
        assert connects(new_client, endpoint, old)
        assert connects(new_client, endpoint, old)
        (line,) = (record.getMessage() for record in caplog.records)
        assert f"{pki}/server.key" in line
        replace(pki, "server.key", "old-server.key")
        assert connects(new_client, endpoint, new)
        assert not connects(new_client, endpoint, old)

        (pki / "server.pem").unlink()
        assert connects(new_client, endpoint, new)
        replace(pki, "server.pem", "old-server.pem")

        replace(pki, "ca.pem", "other.pem")
        assert not connects(new_client, endpoint, new)
        assert connects(new_client, endpoint, credentials(pki, "other", ca="old-ca"))
        first.call("KV/Put", key=b"a")
        assert len(watch.next().events) == 1
        watch.close()


def test_a_certificate_of_an_intermediate_authority(pki, new_client):
    """The file holds the chain, and the client knows only its root."""
    chain = [(pki / f"{name}.pem").read_text() for name in ("below-server", "intermediate")]
    (pki / "chain.pem").write_text("".join(chain))
    options = own(pki, "below-server") | {"cert_file": f"{pki}/chain.pem"}
    with served(**options) as endpoint:
        assert connects(new_client, endpoint, credentials(pki))
        with contextlib.suppress(grpc.RpcError):
            new_client(endpoint.address).call("KV/Range", key=b"a")
            pytest.fail("a client without TLS got an answer")


def test_a_key_that_only_some_clients_accept(pki, new_client, caplog):
    """gRPC's library in C, unlike that in Go, knows no keys of Ed25519: who serves one is told."""
    key = ("-newkey", "ed25519", "-nodes", "-keyout", "ed.key", "-out", "ed.pem", "-days", "2")
    names = ("-subj", "/CN=ed", "-addext", "subjectAltName=IP:127.0.0.1")
    command = ["openssl", "req", "-x509", *key, *names]
    subprocess.run(command, cwd=pki, check=True, capture_output=True)
    with served(**own(pki, "ed")) as endpoint:
        (line,) = (record.getMessage() for record in caplog.records)
        assert f"{pki}/ed.key" in line
        assert not connects(new_client, endpoint, credentials(pki, ca="ed"))
        etcdctl = etcdctl_of("3.4")
        got = etcdctl(f"https://{endpoint.address}", "--cacert", f"{pki}/ed.pem", "get", "a")
        got.communicate(timeout=20)
        assert got.returncode == 0


def unusable(pki, odd):
    """Options, and what their error says."""
    fits, ca = own(pki), {"client_ca_file": f"{pki}/ca.pem"}
    text = pki / "text"
    text.write_text("x")
    broken = pki / "broken.pem"
    broken.write_text("-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n")
    for words in (
        "ec -in server.key -aes256 -passout pass:x -out locked.key",
        "x509 -in ca.pem -signkey ca.key -days -1 -out past-ca.pem",
    ):
        subprocess.run(["openssl", *words.split()], cwd=pki, check=True, capture_output=True)
    for field in ("cert_file", "key_file", "client_ca_file"):
        for path, why in (
            (pki / "none", "No such file"),
            (pki, "Is a directory"),
            ("", "a readable file"),
            (text, "a PEM file"),
            (broken, "in PEM"),
        ):
            yield fits | {field: str(path)}, f"invalid {field} {str(path)!r}: .*{why}"
        yield fits | ca | {field: "a\0b"}, f"invalid {field} .*null"
    yield fits | own(odd, "past"), "invalid cert_file .*/past.pem.*expired"
    yield fits | own(odd, "future"), "invalid cert_file .*/future.pem.*not valid yet"
    yield fits | {"client_ca_file": f"{pki}/past-ca.pem"}, "client_ca_file .*/past-ca.pem.*expired"
    yield fits | {"key_file": f"{pki}/client.key"}, "key_file .*/client.key.*/server.pem"
    yield fits | {"key_file": f"{pki}/locked.key"}, "key_file .*/locked.key.*not encrypted"
    yield {"cert_file": fits["cert_file"]}, "key_file"
    yield {"key_file": fits["key_file"]}, "cert_file"
    yield ca, "cert_file"
    for field in ("allowed_cn", "allowed_san"):
        yield fits | {field: ["a"]}, f"client_ca_file .*{field}"
        yield fits | ca | {field: [""]}, f"invalid {field}"
        yield fits | ca | {field: "a"}, f"invalid {field}"


def test_options_that_cannot_be_used(pki, odd_certificates):
    """One line, which names the option and the file."""
    with MemoryBackend() as backend:
        for options, pattern in unusable(pki, odd_certificates):
            with pytest.raises(ConfigError) as caught:
                serve(backend, **options)
            (line,) = str(caught.value).splitlines()
            assert re.search(pattern, line), (options, line)


COMMAND = [sys.executable, "-m", "revstore", "serve", "--store", "memory://"]


def test_the_command(certificates, new_client):
    """It listens everywhere; at SIGTERM, health's watch says so, and others end in order."""
    files = ["--client-ca-file", f"{certificates}/ca.pem", "--allowed-san", "localhost"]
    for field, path in own(certificates).items():
        files += [f"--{field.replace('_', '-')}", path]
    command = [*COMMAND, "--listen", "0.0.0.0:0", *files]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process,
        contextlib.ExitStack() as stack,
    ):
        stack.callback(process.kill)
        port = process.stdout.readline().removesuffix(".\n").rpartition(":")[2]
        client = new_client(f"127.0.0.1:{port}", credentials(certificates, "client"))
        assert client.call("KV/Put", key=b"a").header.revision == 2
        health = client.stream("Health/Watch", find("Health/Watch").request())
        assert next(health).status == 1
        watch = client.watch()
        watch.create(b"a")
        process.send_signal(signal.SIGTERM)
        assert next(health).status == 2
        with pytest.raises(grpc.RpcError) as caught:
            watch.next()
        assert caught.value.details() == "etcdserver: server stopped"
        assert process.wait(20) == 0
