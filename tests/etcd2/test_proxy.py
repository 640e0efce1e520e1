"""Proxies of the environment are none of this backend's."""

from __future__ import annotations


def test_no_proxy_is_used(server, opened, monkeypatch):
    """It talks to its servers directly, whatever the environment says."""
    for variable in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    backend = opened(server.client_url.rpartition("://")[2])

    backend.put("/proxy", b"1", expected_revision=0, timeout=10)
    assert backend.get("/proxy", timeout=10).kv.value == b"1"
