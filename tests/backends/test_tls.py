"""Whose certificates a backend with servers accepts: the same on every version of Python, and for
both of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from revstore.config import StorageConfig
from revstore.errors import AccessDenied
from revstore.plugins import open_backend
from revstore.testing.etcd import EtcdServer, find_etcd


@pytest.mark.parametrize("kind", ["etcd2", "etcd3"])
@pytest.mark.parametrize(
    ("server", "ca"),
    [("server", "ca"), ("old-server", "old-ca"), ("below-server", "intermediate")],
)
def test_what_etcd_accepts_is_accepted(kind, server, ca, certificates):
    """SF-4: a CA with all extensions, one without key usage and identifiers, and an intermediate
    one that stands alone in ca_file; but no other CA."""
    with serving(certificates, server) as etcd:
        with opened(kind, etcd, certificates / f"{ca}.pem") as backend:
            assert backend.put("/t", b"x", expected_revision=0, timeout=10).succeeded
        with (
            opened(kind, etcd, certificates / "other.pem") as backend,
            pytest.raises(AccessDenied, match="is not trusted: check ca_file"),
        ):
            backend.get("/t", timeout=5)


@pytest.mark.parametrize("kind", ["etcd2", "etcd3"])
def test_another_host_is_refused(kind, certificates):
    """SF-4: the host name is verified, and reported in one line."""
    with (
        serving(certificates, "elsewhere") as etcd,
        opened(kind, etcd, certificates / "ca.pem") as backend,
        pytest.raises(AccessDenied, match="for another host: check server_list") as caught,
    ):
        backend.get("/t", timeout=5)

    assert len(str(caught.value).splitlines()) == 1


def serving(certificates: Path, name: str) -> EtcdServer:
    files = (
        "--cert-file",
        f"{certificates}/{name}.pem",
        "--key-file",
        f"{certificates}/{name}.key",
    )
    binary = find_etcd()["3.5"]
    return EtcdServer(binary, scheme="https", enable_v2=True, arguments=files).start()


def opened(kind: str, etcd: EtcdServer, ca: Path):
    config = StorageConfig(type=kind, server_list=(etcd.client_url,), ca_file=str(ca))
    return open_backend(config)
