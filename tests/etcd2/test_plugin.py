"""The plugin: what its entry point says, what importing it costs, what doctor finds."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points

import pytest

from revstore.cli._bench import Bench
from revstore.config import StorageConfig
from revstore.errors import ConfigError, Unsupported
from revstore.factory import StorageFactory
from revstore.hooks import CheckResult
from revstore.plugins import open_backend
from revstore.testing.etcd import EtcdServer, _free_port
from revstore_etcd2 import Etcd2Options, revstore_backend, revstore_doctor


def test_the_entry_point_leads_to_a_light_module():
    """The module of the entry point describes the backend without importing an HTTP client."""
    (point,) = entry_points(group="revstore.backends", name="etcd2")
    code = (
        f"import sys, {point.value} as plugin; info = plugin.revstore_backend();"
        "assert info.name == 'etcd2'; assert 'revstore_etcd2._client' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_factory_opens_what_the_description_promises(open_store):
    """An open store can do what the plugin said, and refuses the rest."""
    backend = open_store()
    assert backend.capabilities == revstore_backend().capabilities
    with pytest.raises(Unsupported):
        backend.compact(1)
    with (
        backend.watch("/", recursive=True, after_revision=0) as watch,
        pytest.raises(Unsupported),
    ):
        watch.request_progress()


@pytest.mark.parametrize("name", ["timeout", "dial_timeout", "idle_timeout"])
@pytest.mark.parametrize("value", [0, -1, True, "5", 100_000])
def test_options(name, value):
    """CFG: an option out of range is refused by name."""
    with pytest.raises(ConfigError, match=f"options.{name}"):
        Etcd2Options(**{name: value})


@pytest.mark.parametrize("servers", [(), ("http://",), ("http://h:1/path",)])
def test_servers(servers):
    """Servers are needed, and are addresses."""
    with pytest.raises(ConfigError, match="server_list"):
        open_backend(StorageConfig(type="etcd2", server_list=servers))


def test_doctor(server):
    """Doctor names the version of a server that serves v2, and what another one lacks."""
    with EtcdServer(server._binary) as bare:
        bare.start()
        servers = (server.address, bare.address, f"127.0.0.1:{_free_port()}")
        checks = list(revstore_doctor(StorageConfig(type="etcd2", server_list=servers)))
    assert [check.result for check in checks] == [
        CheckResult.OK,
        CheckResult.FAILED,
        CheckResult.FAILED,
    ]
    assert checks[0].detail.startswith("etcd 3.")
    assert "--enable-v2" in checks[1].detail
    assert not list(revstore_doctor(StorageConfig(type="etcd2")))


def test_bench(server):
    """``doctor --bench`` has all rows, and leaves no key, nor a directory that is a resource."""
    with StorageFactory(f"etcd2://{server.address}") as factory:
        before = factory.stored_resources()  # of other tests, which share the server
        bench = Bench(factory)
        bench.run()
        assert factory.backend().count("/registry/revstore.bench/").count == 0
        assert factory.stored_resources() == before
    assert [row.name for row in bench.rows if row.note] == []
    assert bench.summary.startswith("Writes are limited by the ")
