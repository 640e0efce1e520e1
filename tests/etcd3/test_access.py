"""TLS, client certificates, users and passwords."""

from __future__ import annotations

import subprocess

import pytest

from revstore.config import StorageConfig
from revstore.errors import AccessDenied, StorageError, Unreachable
from revstore.plugins import open_backend
from revstore.secret import Secret
from revstore.testing.etcd import EtcdServer


@pytest.mark.parametrize("mutual", [False, True])
def test_tls(etcd_binary, certificates, mutual):
    """SF-4, DECISIONS 36: encrypted and verified, with a client certificate where the server asks
    for one; what does not fit is told in one line."""
    pki = certificates
    arguments = ["--cert-file", f"{pki}/server.pem", "--key-file", f"{pki}/server.key"]
    if mutual:
        arguments += ["--client-cert-auth", "--trusted-ca-file", f"{pki}/ca.pem"]
    with EtcdServer(etcd_binary, scheme="https", arguments=tuple(arguments)) as server:
        server.start()

        def opened(**fields):
            config = StorageConfig(type="etcd3", server_list=(server.client_url,), **fields)
            return open_backend(config)

        mine = {"cert_file": f"{pki}/client.pem", "key_file": f"{pki}/client.key"}
        with opened(ca_file=f"{pki}/ca.pem", **(mine if mutual else {})) as backend:
            start = backend.status().revision
            with backend.watch("/t", recursive=True, after_revision=start) as watch:
                backend.put("/t", b"x", expected_revision=0)
                assert watch.poll(10).events
        with opened(ca_file=f"{pki}/other.pem") as backend:
            with pytest.raises(Unreachable) as caught:
                backend.get("/t", timeout=2)
            assert len(str(caught.value).splitlines()) == 1
        if mutual:
            with opened(ca_file=f"{pki}/ca.pem") as backend, pytest.raises(StorageError):
                backend.get("/t", timeout=2)


def test_users(new_server):
    """A user and a password; a token that the server has forgotten is fetched anew; wrong ones are
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
            backend._client._token = "forgotten.1"  # as after a restart, or after its time
            assert backend.put("/t/2", b"x", expected_revision=0).succeeded
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
