"""Proxies of the environment: none for this machine, and named by the errors of others."""

from __future__ import annotations

import pytest

from revstore.config import StorageConfig
from revstore.errors import Timeout, Unreachable
from revstore.plugins import open_backend, run_doctor
from revstore_etcd3._proxy import is_loopback, proxy_variable

# Nobody listens on it.
PROXY = "http://user:hunter2@127.0.0.1:1"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST"])
def test_a_server_on_loopback_needs_no_proxy(server, monkeypatch, host):
    """Reads, writes and watches go to it directly, whatever the environment says."""
    for variable in ("http_proxy", "https_proxy", "grpc_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(variable, PROXY)
    monkeypatch.delenv("no_proxy", raising=False)
    address = server.client_url.rpartition("://")[2].replace("127.0.0.1", host)
    key = f"/proxy/{host}"

    with open_backend(StorageConfig(type="etcd3", server_list=(address,))) as backend:
        start = backend.status(timeout=10).revision
        with backend.watch("/proxy", recursive=True, after_revision=start) as watch:
            backend.put(key, b"1", expected_revision=0, timeout=10)
            assert watch.poll(10).events
        assert backend.get(key, timeout=10).kv.value == b"1"


@pytest.mark.parametrize("variable", ["http_proxy", "https_proxy", "grpc_proxy"])
def test_errors_name_the_variable(monkeypatch, variable):
    """A server elsewhere that cannot be reached: the error, and doctor, say that a proxy is in
    between and who says so; not what stands in the variable, which may be a password."""
    monkeypatch.setenv(variable, PROXY)
    config = StorageConfig(
        type="etcd3", server_list=("192.0.2.1:2379",), options={"dial_timeout": 0.5}
    )

    with open_backend(config) as backend, pytest.raises((Unreachable, Timeout)) as caught:
        backend.get("/x", timeout=2)
    assert f"192.0.2.1:2379 (by the proxy of {variable})" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert any(variable in f"{check.name} {check.detail}" for check in run_doctor(config))


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("localhost:1", True),
        ("Localhost.:1", True),
        ("etcd.localhost:1", True),
        ("127.0.0.1:1", True),
        ("127.8.9.1:1", True),
        ("127.1:1", True),
        ("[::1]:1", True),
        ("[0:0:0:0:0:0:0:1]:1", True),
        ("[::ffff:127.0.0.1]:1", True),
        ("[::1%lo]:1", True),
        ("128.0.0.1:1", False),
        ("[::2]:1", False),
        ("[fe80::1%eth0]:1", False),
        ("localhost.example.com:1", False),
        ("127.0.0.1.example.com:1", False),
        ("notlocalhost:1", False),
    ],
)
def test_what_is_loopback(address, expected):
    """This machine by name or number, in every spelling."""
    assert is_loopback(address) is expected


@pytest.mark.parametrize(
    ("address", "environ", "expected"),
    [
        ("h:1", {}, ""),
        ("h:1", {"http_proxy": "http://p:1"}, "http_proxy"),
        ("h:1", {"http_proxy": ""}, ""),
        ("h:1", {"HTTP_PROXY": "http://p:1", "ALL_PROXY": "http://p:1"}, ""),
        ("h:1", {"http_proxy": "socks5://p:1"}, ""),
        ("h:1", {"http_proxy": "http://p", "https_proxy": "http://p"}, "https_proxy"),
        ("h:1", {"https_proxy": "http://p", "grpc_proxy": "http://p"}, "grpc_proxy"),
        ("127.0.0.1:1", {"grpc_proxy": "http://p"}, ""),
        ("a.example.com:1", {"http_proxy": "http://p", "no_proxy": "x, .Example.com"}, ""),
        ("a.example.org:1", {"http_proxy": "http://p", "no_proxy": ".example.com"}, "http_proxy"),
        ("10.1.2.3:1", {"http_proxy": "http://p", "no_proxy": "10.0.0.0/8"}, ""),
        ("11.1.2.3:1", {"http_proxy": "http://p", "no_proxy": "10.0.0.0/8"}, "http_proxy"),
        ("h:1", {"http_proxy": "http://p", "no_grpc_proxy": "x", "no_proxy": "h"}, "http_proxy"),
    ],
)
def test_which_variable_counts(address, environ, expected):
    """As grpc reads them."""
    assert proxy_variable(address, environ) == expected
