"""TLS, client certificates, users and passwords."""

from __future__ import annotations

import os
import subprocess

import pytest

from revstore.config import StorageConfig
from revstore.errors import AccessDenied
from revstore.plugins import open_backend
from revstore.secret import Secret
from revstore.testing._support import PATIENCE
from revstore.testing.etcd import EtcdServer


@pytest.mark.parametrize("mutual", [False, True])
def test_tls(etcd_binary, certificates, mutual):
    """SF-4: encrypted and verified, with a client certificate where the server asks
    for one; what does not fit is AccessDenied in one line."""
    pki = certificates
    arguments = ["--cert-file", f"{pki}/server.pem", "--key-file", f"{pki}/server.key"]
    if mutual:
        arguments += ["--client-cert-auth", "--trusted-ca-file", f"{pki}/ca.pem"]
    with EtcdServer(
        etcd_binary, scheme="https", enable_v2=True, arguments=tuple(arguments)
    ) as server:
        server.start()

        def opened(**fields):
            config = StorageConfig(type="etcd2", server_list=(server.client_url,), **fields)
            return open_backend(config)

        mine = {"cert_file": f"{pki}/client.pem", "key_file": f"{pki}/client.key"}
        with opened(ca_file=f"{pki}/ca.pem", **(mine if mutual else {})) as backend:
            start = backend.status().revision
            with backend.watch("/t", recursive=True, after_revision=start) as watch:
                backend.put("/t", b"x", expected_revision=0)
                assert watch.poll(PATIENCE).events
        with opened(ca_file=f"{pki}/other.pem") as backend:
            with pytest.raises(AccessDenied) as caught:
                backend.get("/t", timeout=5)
            assert len(str(caught.value).splitlines()) == 1
        with pytest.warns(match="insecure"):
            backend = opened(insecure_skip_verify=True, **(mine if mutual else {}))
        with backend:  # warned of at opening, and not with each request
            assert backend.get("/t", timeout=5).kv is not None
        if mutual:
            with (
                opened(ca_file=f"{pki}/ca.pem") as backend,
                pytest.raises(AccessDenied, match="check cert_file and key_file"),
            ):
                backend.get("/t", timeout=5)


def test_users(new_server):
    """Basic auth: the right password works, for watches too; a wrong one, or none, is AccessDenied
    and is not shown."""

    def etcdctl(*words):
        command = ["etcdctl", "--endpoints", new_server.client_url, *words]
        env = {**os.environ, "ETCDCTL_API": "2"}
        subprocess.run(command, env=env, check=True, capture_output=True, timeout=20)

    def opened(**fields):
        return open_backend(
            StorageConfig(type="etcd2", server_list=(new_server.address,), **fields)
        )

    etcdctl("user", "add", "root:hunter2")
    etcdctl("auth", "enable")
    etcdctl("--username", "root:hunter2", "role", "revoke", "guest", "--path", "/*", "--rw")
    with opened(username="root", password=Secret("hunter2")) as backend:
        start = backend.put("/t", b"x", expected_revision=0).revision
        with backend.watch("/t", recursive=True, after_revision=start) as watch:
            backend.put("/t2", b"x", expected_revision=0)
            assert watch.poll(PATIENCE) is not None
    for wrong in ({}, {"username": "root", "password": Secret("not-hunter2")}):
        with opened(**wrong) as backend:
            for call in (backend.status, lambda: backend.put("/u", b"", expected_revision=0)):
                with pytest.raises(AccessDenied) as caught:
                    call()
                assert "hunter2" not in str(caught.value)
            with (
                backend.watch("/", recursive=True, after_revision=0) as watch,
                pytest.raises(AccessDenied),
            ):
                watch.poll(PATIENCE)
