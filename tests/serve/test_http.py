"""The second listener: probes, version and metrics, over plain connections and over TLS."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import grpc
import pytest
from tests.serve.conftest import open_store

from revstore.errors import ConfigError, Unreachable
from revstore.memory import MemoryBackend
from revstore.testing._support import wait_until
from revstore_serve import serve

ANY = "127.0.0.1:0"


def fetch(address, path, body=None, context=None, headers=()):
    """The status and the text of a page."""
    scheme = "http" if context is None else "https"
    url = address if "://" in address else f"{scheme}://{address}"
    data = json.dumps(body).encode() if isinstance(body, dict) else body
    request = urllib.request.Request(url + path, data, dict(headers))
    try:
        with urllib.request.urlopen(request, timeout=20, context=context) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


@contextlib.contextmanager
def served(backend=None, **options):
    with contextlib.ExitStack() as stack:
        store = backend or stack.enter_context(MemoryBackend())
        yield stack.enter_context(serve(store, http=ANY, **options))


def raw(address, data, *, most=1 << 20):
    """All bytes that come after these are sent."""
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(data)
        found = b""
        while part := connection.recv(most):
            found += part
    return found


TLS_FILES = (("cert_file", "pem"), ("key_file", "key"))


def trusting(certificates):
    """A client's context that trusts the authority of the server's certificate."""
    context = ssl.create_default_context(cafile=f"{certificates}/ca.pem")
    context.check_hostname = False
    return context


def metrics(address):
    """The page's values by names with labels."""
    status, text = fetch(address, "/metrics")
    assert status == 200
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def test_pages_of_etcd(etcd):
    """Health and version have etcd's own form; other paths and methods are refused alike."""
    with served(version="3.4.23") as endpoint:
        for path, body in (
            ("/health", None),
            ("/nothing", None),
            ("/health", b""),
            ("/version", b""),
        ):
            ours = fetch(endpoint.http_address, path, body)
            theirs = fetch(etcd.client_url, path, body)
            assert (path, ours[0]) == (path, theirs[0])
            assert ours[1].strip() == theirs[1].strip()
        ours = json.loads(fetch(endpoint.http_address, "/version")[1])
        theirs = json.loads(fetch(etcd.client_url, "/version")[1])
        assert [*ours] == [*theirs]
        assert ours["etcdcluster"] == theirs["etcdcluster"]
        assert fetch(endpoint.http_address, "/livez") == (200, "ok\n")
        assert fetch(endpoint.http_address, "/readyz?verbose") == (200, "ok\n")


def test_a_store_that_does_not_answer():
    """The endpoint lives, but is not ready, and has no leader."""

    class Gone(MemoryBackend):
        gone = False

        def get(self, key, **options):
            if self.gone:
                raise Unreachable("the server is gone")
            return super().get(key, **options)

        def status(self, **options):
            if self.gone:
                raise Unreachable("the server is gone")
            return super().status(**options)

    with Gone() as backend, served(backend) as endpoint:
        assert metrics(endpoint.http_address)["etcd_server_has_leader"] == 1
        backend.gone = True
        assert fetch(endpoint.http_address, "/livez")[0] == 200
        assert fetch(endpoint.http_address, "/readyz") == (503, "etcdserver: no leader\n")
        status, text = fetch(endpoint.http_address, "/health")
        assert (status, json.loads(text)["health"]) == (503, "false")
        assert metrics(endpoint.http_address)["etcd_server_has_leader"] == 0
        backend.gone = False
        assert fetch(endpoint.http_address, "/readyz")[0] == 200


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_metrics(kind, tmp_path, new_client, etcd):
    """Names are etcd's, and the numbers are those of calls, keys, watches and leases."""
    with open_store(kind, tmp_path) as backend, served(backend) as endpoint:
        client = new_client(endpoint.address)
        for key in (b"a", b"b"):
            client.call("KV/Put", key=key)
        client.error("KV/Put")
        client.call("Lease/LeaseGrant", TTL=100)
        watching = client.watch()
        watching.create(b"a")
        watching.create(b"b")
        found = metrics(endpoint.http_address)
        put = 'grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"'
        watch = 'grpc_method="Watch",grpc_service="etcdserverpb.Watch",grpc_type="bidi_stream"'
        expected = {
            f"grpc_server_started_total{{{put}}}": 3,
            f'grpc_server_handled_total{{grpc_code="OK",{put}}}': 2,
            f'grpc_server_handled_total{{grpc_code="InvalidArgument",{put}}}': 1,
            f"grpc_server_started_total{{{watch}}}": 1,
            "etcd_debugging_mvcc_keys_total": 2,
            "etcd_debugging_mvcc_watcher_total": 2,
            "etcd_debugging_mvcc_watch_stream_total": 1,
            "etcd_debugging_mvcc_slow_watcher_total": 0,
            "revstore_serve_leases": 1,
            "etcd_server_has_leader": 1,
        }
        assert {name: found.get(name) for name in expected} == expected
        assert found["etcd_debugging_mvcc_current_revision"] == backend.status().revision
        if kind == "sqlite":
            assert found["etcd_mvcc_db_total_size_in_bytes"] > 0
    ours = {name.partition("{")[0] for name in found if not name.startswith("revstore")}
    theirs = {name.partition("{")[0] for name in metrics(etcd.address)}
    assert ours <= theirs


def test_what_is_no_request():
    """Each ends its own connection with a reason, and others do not notice."""
    long = b"x" * (3 << 20)
    post = b"POST / HTTP/1.1\r\nHost: a\r\n"
    with served() as endpoint:
        address = endpoint.http_address
        for data, status in (
            (b"nothing\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\n\r\n", 400),  # without a host
            (b"GET /" + long[:200000] + b" HTTP/1.1\r\n\r\n", 431),
            (post + b"Content-Length: 3000000\r\n\r\n" + long[:3000000], 413),
            # It is not worth sending: so the client learns before it does.
            (post + b"Content-Length: 3000000\r\nExpect: 100-continue\r\n\r\n", 413),
            (post + b"Transfer-Encoding: chunked\r\n\r\n300000\r\n" + long + b"\r\n0\r\n\r\n", 413),
            (b"POST / HTTP/1.1\r\nHost: a\r\nOrigin: b\r\nConnection: close\r\n\r\n", 403),
        ):
            assert raw(address, data).startswith(f"HTTP/1.1 {status} ".encode()), status
        assert fetch(address, "/livez")[0] == 200


def test_a_client_that_never_stops_sending(monkeypatch):
    """The rest of a refused request is dropped only for a while."""
    monkeypatch.setattr("revstore_serve._http._LINGER", 0.2)
    with served() as endpoint:
        host, port = endpoint.http_address.split(":")
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            connection.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999999\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                while True:
                    connection.sendall(b"x" * 65536)


def test_keys_are_counted_now_and_then(monkeypatch):
    """Counting takes a hundredth of the time, however often the page is read."""
    monkeypatch.setattr("revstore_serve._metrics._REST", 1e9)
    with MemoryBackend() as backend, served(backend) as endpoint:
        keys = "etcd_debugging_mvcc_keys_total"
        assert metrics(endpoint.http_address)[keys] == 0
        backend.put("a", b"", expected_revision=0)
        found = metrics(endpoint.http_address)
        assert (found[keys], found["etcd_debugging_mvcc_current_revision"]) == (0, 2)


def test_too_many_connections(new_client):
    """One more than allowed is closed at once, on both listeners; the next may come once one has
    gone."""
    with served(max_connections=2) as endpoint:
        clients = [new_client(endpoint.address) for _ in range(3)]
        for client in clients[:2]:
            client.call("KV/Put", key=b"a")
        assert clients[2].error("KV/Put", key=b"a")[0] == "UNAVAILABLE"
        clients[0].close()
        retried(lambda: new_client(endpoint.address).call("KV/Put", key=b"a"), grpc.RpcError)
        one = [http.client.HTTPConnection(endpoint.http_address, timeout=20) for _ in range(2)]
        for connection in one:
            connection.request("GET", "/livez")
            assert connection.getresponse().read() == b"ok\n"
        assert raw(endpoint.http_address, b"") == b""
        one[0].close()
        retried(lambda: fetch(endpoint.http_address, "/livez"), OSError)
        for connection in one:
            connection.close()


def retried(call, failure, seconds=20.0):
    """Call again until it does not fail."""
    end = time.monotonic() + seconds
    while True:
        try:
            return call()
        except failure:
            if time.monotonic() > end:
                raise
        time.sleep(0.01)


def test_several_requests_of_a_connection():
    """A connection is kept, also for requests that are sent before the answer; HEAD has no body."""
    with served() as endpoint:
        one = b"GET /livez HTTP/1.1\r\nHost: a\r\n"
        found = raw(endpoint.http_address, (one + b"\r\n") * 3 + one + b"Connection: close\r\n\r\n")
        assert found.count(b"HTTP/1.1 200 ") == found.count(b"\r\n\r\nok\n") == 4
        connection = http.client.HTTPConnection(endpoint.http_address, timeout=20)
        for method, length in (("HEAD", 0), ("GET", 3), ("HEAD", 0)):
            connection.request(method, "/readyz")
            answer = connection.getresponse()
            assert (answer.status, len(answer.read())) == (200, length)
        connection.close()


def test_clients_that_do_not_wait_for_an_error(caplog, monkeypatch):
    """They are gone when the server ends its side of the connection. That is no fault of it."""
    close = asyncio.StreamWriter.write_eof

    def write_eof_late(writer):
        gone.wait(20)
        close(writer)

    gone = threading.Event()
    monkeypatch.setattr(asyncio.StreamWriter, "write_eof", write_eof_late)
    with served() as endpoint:
        host, port = endpoint.http_address.split(":")
        connection = socket.create_connection((host, int(port)), timeout=20)
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert connection.recv(1) == b"H"
        connection.close()  # by RST, since something is unread
        gone.set()
        assert fetch(endpoint.http_address, "/livez") == (200, "ok\n")
    assert caplog.text == ""


def test_slow_clients(monkeypatch):
    """A begun request must arrive in time, and an idle connection ends after a while."""
    monkeypatch.setattr("revstore_serve._http._PATIENCE", 0.2)
    monkeypatch.setattr("revstore_serve._http._IDLE", 0.3)
    with served() as endpoint:
        assert raw(endpoint.http_address, b"GET /livez HT").startswith(b"HTTP/1.1 408 ")
        assert raw(endpoint.http_address, b"") == b""


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="this system has no /proc")
@pytest.mark.parametrize("tls", [False, True])
def test_a_client_that_does_not_read_the_end(monkeypatch, certificates, tls):
    """Its connection is not kept until the last bytes are gone, and counts as long as it is
    there."""
    monkeypatch.setattr("revstore_serve._http._READING", 0.2)
    files = {name: f"{certificates}/server.{end}" for name, end in TLS_FILES} if tls else {}
    with MemoryBackend() as backend, served(backend, **files) as endpoint:
        backend.put("a", b"x" * 30_000, expected_revision=0)
        fetch_options = {"context": trusting(certificates)} if tls else {}
        assert fetch(endpoint.http_address, "/livez", **fetch_options)[0] == 200
        host, port = endpoint.http_address.split(":")
        # The answer does not fit into what the system keeps for both, but into the loop's buffer.
        endpoint._http._server.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        with contextlib.ExitStack() as stack:
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            client.settimeout(20)
            wait_until(lambda: not endpoint._http._connections, "the first one is closed")
            before = len(os.listdir("/proc/self/fd"))
            client.connect((host, int(port)))
            if tls:
                client = stack.enter_context(trusting(certificates).wrap_socket(client))
            client.sendall(
                b"POST /v3/kv/range HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
                b'Content-Length: 14\r\n\r\n{"key":"YQ=="}'
            )
            assert client.recv(1) == b"H"
            wait_until(lambda: not endpoint._http._connections, "it counts no more")
            wait_until(lambda: len(os.listdir("/proc/self/fd")) <= before, "it is closed")


def test_stop_with_open_connections():
    """Idle connections do not hold up the stop, and no thread of HTTP exists."""
    before = threading.active_count()
    with served() as plain:
        connection = http.client.HTTPConnection(plain.http_address, timeout=20)
        connection.request("GET", "/livez")
        assert connection.getresponse().read() == b"ok\n"
        with MemoryBackend() as other, serve(other):
            pass
        assert threading.active_count() <= before + 4
    assert connection.sock.recv(1) == b""
    connection.close()
    with pytest.raises(urllib.error.URLError):
        fetch(plain.http_address, "/livez")


def client_context(pki, name="client", ca="ca"):
    context = ssl.create_default_context(cafile=f"{pki}/{ca}.pem")
    if name:
        context.load_cert_chain(f"{pki}/{name}.pem", f"{pki}/{name}.key")
    return context


def test_tls(certificates, tmp_path):
    """The same files and names as for gRPC decide, and changed files are used."""
    pki = shutil.copytree(certificates, tmp_path / "pki")
    options = {
        "cert_file": f"{pki}/server.pem",
        "key_file": f"{pki}/server.key",
        "client_ca_file": f"{pki}/ca.pem",
        "allowed_cn": ["client"],
    }
    with served(**options) as endpoint:
        address = endpoint.http_address
        assert fetch(address, "/livez", context=client_context(pki)) == (200, "ok\n")
        assert fetch(address, "/livez", context=client_context(pki, "server"))[0] == 403
        for wrong in (client_context(pki, ""), client_context(pki, "other")):
            with pytest.raises((urllib.error.URLError, ConnectionError, ssl.SSLError)):
                fetch(address, "/livez", context=wrong)
        # The client's authority is replaced: now the other one's clients are served.
        shutil.copy(pki / "other.pem", pki / "new")
        mine = client_context(pki)
        (pki / "new").replace(pki / "ca.pem")
        with pytest.raises((urllib.error.URLError, ConnectionError, ssl.SSLError)):
            fetch(address, "/livez", context=mine)


def test_the_command():
    """It says where it listens, and ends with open connections; other machines need TLS."""
    command = [sys.executable, "-m", "revstore", "serve", "--store", "memory://", "--listen", ANY]
    wrong = subprocess.Popen([*command, "--http", "0.0.0.0:0"], stderr=subprocess.PIPE, text=True)
    with subprocess.Popen([*command, "--http", ANY], stdout=subprocess.PIPE, text=True) as process:
        try:
            address = process.stdout.readline().rstrip(".\n").rpartition(" ")[2]
            connection = http.client.HTTPConnection(address, timeout=20)
            connection.request("GET", "/readyz")
            assert connection.getresponse().read() == b"ok\n"
            process.terminate()
            assert process.wait(20) == 0
            connection.close()
        finally:
            process.kill()
    _, err = wrong.communicate(timeout=20)
    assert (wrong.returncode, "invalid http" in err) == (2, True), err


def test_a_port_in_use():
    """Nothing goes on listening if one of the two addresses is taken."""
    with (
        served() as endpoint,
        MemoryBackend() as backend,
        pytest.raises(OSError, match=endpoint.http_address.partition(":")[2]),
    ):
        serve(backend, http=endpoint.http_address)


@pytest.mark.parametrize("address", ["", "80", "a:b", ":80", "127.0.0.1:70000", "127.0.0.1:٣"])
def test_no_address(address):
    with MemoryBackend() as backend, pytest.raises(ConfigError, match="host:port"):
        serve(backend, http=address)


def test_without_the_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "h11", None)
    monkeypatch.delitem(sys.modules, "revstore_serve._http", raising=False)
    with MemoryBackend() as backend, pytest.raises(ConfigError, match=re.escape("[http]")):
        serve(backend, http=ANY)
