"""TLS, client certificates, users and passwords."""

from __future__ import annotations

import shutil
import subprocess
import time
from contextlib import ExitStack

import grpc
import pytest
from etcd3.etcdrpc import rpc_pb2, rpc_pb2_grpc

from revstore.config import StorageConfig
from revstore.errors import AccessDenied
from revstore.plugins import open_backend
from revstore.secret import Secret
from revstore.testing._support import collect, wait_until
from revstore.testing.etcd import EtcdServer

VERSIONS = ("3.4", "3.5")


@pytest.mark.parametrize("setup", ["tls", "mtls"])
@pytest.mark.parametrize("version", VERSIONS)
def test_tls(version, setup, secured, fields_for, certificates):
    """SF-4: encrypted and verified, with a client certificate where the server asks
    for one; what does not fit is AccessDenied, for reads and writes, and its one line names the
    server and what to check."""
    pki = certificates
    with secured(version, setup) as server:
        fits = fields_for(server)
        with opened(server.client_url, **fits) as backend:
            start = backend.status().revision
            with backend.watch("/t", recursive=True, after_revision=start) as watch:
                backend.put("/t", b"x", expected_revision=0)
                assert watch.poll(10).events
        wrong = [(fits | {"ca_file": f"{pki}/other.pem"}, ["is not trusted", "ca_file"])]
        client = ["client's certificate", "cert_file", "key_file"]
        if setup == "mtls":
            stranger = {"cert_file": f"{pki}/other.pem", "key_file": f"{pki}/other.key"}
            unlike = {"cert_file": f"{pki}/client.pem", "key_file": f"{pki}/other.key"}
            wrong += [
                ({"ca_file": f"{pki}/ca.pem"}, client),
                (fits | stranger, client),
                (fits | unlike, ["cert_file and key_file belong together"]),
            ]
        for number, (fields, words) in enumerate(wrong):
            with opened(server.client_url, **fields) as backend:
                for call in (get, put) if number == 0 else (get,):
                    assert_told(call, backend, server, words)


def get(backend):
    return backend.get("/t", timeout=1)


def put(backend):
    return backend.put("/t2", b"", expected_revision=0, timeout=1)


def assert_told(call, backend, server, words):
    """AccessDenied in one line, with the server and these words."""
    with pytest.raises(AccessDenied) as caught:
        call(backend)
    assert type(caught.value) is AccessDenied
    (line,) = str(caught.value).splitlines()
    assert all(word in line for word in [server.address, *words]), line


def test_a_certificate_for_another_host(etcd_binary, certificates, tmp_path):
    """SF-4: the name in the server's certificate is verified, and reported if it is another; a
    watch that was open goes on when the right certificate is there."""
    pki = certificates
    for name in ("pem", "key"):
        shutil.copy(pki / f"server.{name}", tmp_path)
    files = ("--cert-file", f"{tmp_path}/server.pem", "--key-file", f"{tmp_path}/server.key")
    with EtcdServer(etcd_binary, scheme="https", arguments=files) as server:
        server.start()
        with opened(server.client_url, ca_file=f"{pki}/ca.pem") as backend:
            start = backend.put("/t", b"x", expected_revision=0).revision
            watch = backend.watch("/t", recursive=True, after_revision=start)
            assert watch.poll(0.1) is None
            server.stop()
            for name in ("pem", "key"):
                shutil.copy(pki / f"elsewhere.{name}", tmp_path / f"server.{name}")
            server.start()
            with pytest.raises(AccessDenied, match="for another host: check server_list"):
                backend.get("/t", timeout=3)
            server.stop()
            for name in ("pem", "key"):
                shutil.copy(pki / f"server.{name}", tmp_path)
            server.start()
            backend.put("/t2", b"x", expected_revision=0, timeout=20)
            assert keys_of(watch, 1) == ["/t2"]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_token_that_runs_out(version, secured, fields_for):
    """When the servers no longer take a token because its time is over, reads,
    writes, leases and watches go on by themselves, the watch that was open among them."""

    def get(backend):
        assert backend.get("/t/0").kv.value == b"x"

    def put(backend):
        assert backend.put("/t/1", b"x", expected_revision=0).succeeded

    def lease(backend):
        assert backend.put("/t/2", b"x", expected_revision=0, ttl=100).succeeded

    def watch(backend):
        with backend.watch("/t/", recursive=True, after_revision=start) as later:
            assert keys_of(later, 2) == ["/t/1", "/t/2"]

    with ExitStack() as stack:
        server = stack.enter_context(secured(version, "password", "--auth-token-ttl", "1"))
        calls = (get, put, lease, watch)
        backends = [
            stack.enter_context(opened(server.client_url, **fields_for(server))) for _ in calls
        ]
        start = backends[0].put("/t/0", b"x", expected_revision=0).revision
        before = backends[0].watch("/t/", recursive=True, after_revision=start)
        wait_until(lambda: backends[0]._hub._stream is not None, "the watch is open")
        for backend in backends:
            backend.get("/t/0")
        tokens = [backend._client._token for backend in backends]
        wait_for_the_end(server, tokens)
        for call, backend in zip(calls, backends, strict=True):
            call(backend)
        assert keys_of(before, 2) == ["/t/1", "/t/2"]
        assert not {backend._client._token for backend in backends} & set(tokens)


def wait_for_the_end(server, tokens):
    """Until none of them is taken. One that is used lives on, so that they are rarely asked for."""
    with grpc.insecure_channel(server.address) as channel:
        kv = rpc_pb2_grpc.KVStub(channel)
        for pause in (2.2, 3, 4, 5):
            time.sleep(pause)
            if all(_refused(kv, token) for token in tokens):
                return
    pytest.fail("the tokens do not run out")


def _refused(kv, token):
    try:
        kv.Range(rpc_pb2.RangeRequest(key=b"/t/0"), metadata=[("token", token)], timeout=5)
    except grpc.RpcError as error:
        return "invalid auth token" in error.details()
    return False


def opened(url, **fields):
    """A backend on a server."""
    return open_backend(StorageConfig(type="etcd3", server_list=(url,), **fields))


def keys_of(watch, count):
    """The keys of that many events."""
    return [event.kv.key for event in collect(watch, count)]


def test_users(new_server):
    """A user and a password; a token that the server has forgotten is fetched again; wrong ones are
    AccessDenied, and the password is never shown."""
    plain = ("http://" + new_server.address,)

    def etcdctl(*words):
        command = ["etcdctl", "--endpoints", new_server.client_url, *words]
        env = {"ETCDCTL_API": "3", "PATH": "/usr/bin:/bin"}
        subprocess.run(command, env=env, check=True, capture_output=True, timeout=20)

    def opened(password):
        config = StorageConfig(
            type="etcd3", server_list=plain, username="root", password=Secret(password)
        )
        return open_backend(config)

    etcdctl("user", "add", "root:hunter2")
    etcdctl("user", "grant-role", "root", "root")
    etcdctl("auth", "enable")
    with opened("hunter2") as backend:
        assert backend.put("/t/1", b"x", expected_revision=0).succeeded
        with backend.watch("/t/", recursive=True, after_revision=1) as watch:
            assert watch.poll(10).events
            new_server.kill()
            new_server.start()
            assert backend.put("/t/3", b"x", expected_revision=0, timeout=20).succeeded
            seen = set()
            while "/t/3" not in seen:
                batch = watch.poll(20)
                assert batch is not None
                seen |= {event.kv.key for event in batch.events}
    with opened("wrong-hunter2") as backend:
        with pytest.raises(AccessDenied) as caught:
            backend.get("/t/1", timeout=3)
        assert "hunter2" not in str(caught.value)
