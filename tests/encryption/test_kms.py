"""KMS v2, with a plugin that is a real process: fast, slow, dead, failing, and with another key
id."""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cli.conftest import Revstore

from revstore.errors import ConfigError, NotReady, Unreachable
from revstore.factory import StorageFactory
from revstore.plugins import open_transformer, run_doctor
from revstore_encryption import _kms
from revstore_encryption._errors import Undecryptable

from .conftest import document, provider, save
from .independent import open_aesgcm, open_seed
from .kms_plugin import read, wrapped
from .test_known_answers import ANSWERS

KEY = b"/registry/secrets/default/a"
PREFIX = b"k8s:enc:kms:v2:myplugin:"


class Plugin:
    """The process, and the file that tells it what to do."""

    def __init__(self, folder: Path) -> None:
        self.socket, self.control = folder / "kms.sock", folder / "control.json"
        self.log = folder / "control.json.log"
        self.log.touch()
        self.process: subprocess.Popen[bytes] | None = None
        self.tell()

    def tell(self, **told: object) -> None:
        new = self.control.with_suffix(".new")
        new.write_text(json.dumps({"key_id": "kek-1", **told}))
        os.replace(new, self.control)

    def start(self) -> None:
        code = str(Path(__file__).with_name("kms_plugin.py"))
        args = [sys.executable, code, str(self.socket), str(self.control)]
        self.process = subprocess.Popen(args, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n"

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None

    def calls(self) -> list[str]:
        """Since the last look."""
        calls = self.log.read_text().split()
        self.log.write_text("")
        return calls


@pytest.fixture(scope="module")
def running() -> Iterator[Plugin]:
    folder = Path(tempfile.mkdtemp(prefix="kms"))  # a socket's path must be short
    plugin = Plugin(folder)
    plugin.start()
    yield plugin
    plugin.kill()
    shutil.rmtree(folder)


@pytest.fixture
def plugin(running: Plugin, monkeypatch) -> Plugin:
    """The plugin in its first state, and no seeds from other tests."""
    if running.process is None:
        running.start()
    running.tell()
    running.calls()
    monkeypatch.setattr(_kms, "_ciphers", {})
    return running


@pytest.fixture
def kms(plugin):
    inner = {"apiVersion": "v2", "name": "myplugin", "timeout": "500ms"}
    return {"kms": inner | {"endpoint": f"unix://{plugin.socket}"}}


@pytest.fixture
def secrets(keys, kms):
    return open_transformer(keys(document(kms)), "secrets")


@pytest.fixture
def hurried(monkeypatch):
    """Every call may ask the plugin."""
    monkeypatch.setattr(_kms, "STATUS_INTERVAL", 0.0)
    monkeypatch.setattr(_kms, "RETRY_INTERVAL", 0.0)


@pytest.mark.parametrize("answer", [a for a in ANSWERS if a["provider"].startswith("kms")])
def test_values_of_kubernetes_are_read(secrets, answer):
    """Those with a seed, and the older ones with a key, which are stale (XF-8, XF-9)."""
    stored, context = base64.b64decode(answer["stored"]), answer["key"].encode()

    plain, stale = secrets.transform_from_storage(stored, context)

    assert plain == base64.b64decode(answer["plain"])
    assert stale == (answer["provider"] == "kms-v2-key")


def test_independent_code_reads_what_is_written(secrets):
    """The envelope is Kubernetes', and the value inside opens with the seed that it names."""
    stored = secrets.transform_to_storage(b"text", KEY)
    other = secrets.transform_to_storage(b"text", KEY)

    assert stored.startswith(PREFIX)
    body = stored.removeprefix(PREFIX)
    assert body.endswith(b"\x28\x01")  # field 5, the kind: a seed
    fields = read(body[:-2])
    assert fields[2] == b"kek-1"
    assert open_seed(wrapped(fields[3]), fields[1], KEY) == b"text"
    assert read(other.removeprefix(PREFIX)[:-2])[3] == fields[3]
    assert other != stored


def test_how_often_the_plugin_is_called(secrets, plugin):
    """Once for Status and once for a seed, however many values are written and read."""
    for _ in range(20):
        stored = secrets.transform_to_storage(b"text", KEY)
        assert secrets.transform_from_storage(stored, KEY) == (b"text", False)

    assert plugin.calls() == ["Status", "Encrypt"]


def test_resources_and_files_share_seeds(keys, kms, plugin):
    """A plugin is asked once for all of them."""
    for resource in ("secrets", "configmaps"):
        config = keys(document(kms, resources=("*.*",)))
        open_transformer(config, resource).transform_to_storage(b"text", KEY)

    assert plugin.calls() == ["Status", "Encrypt"]


@pytest.mark.usefixtures("hurried")
def test_the_key_id_changes(secrets, plugin):
    """A new seed writes, and the values of the old one are read as before, but stale."""
    old = secrets.transform_to_storage(b"text", KEY)
    plugin.tell(key_id="kek-2")
    plugin.calls()

    new = secrets.transform_to_storage(b"text", KEY)

    assert plugin.calls() == ["Status", "Encrypt"]
    assert (b"kek-1" in old, b"kek-2" in new) == (True, True)
    assert secrets.transform_from_storage(old, KEY) == (b"text", True)
    assert secrets.transform_from_storage(new, KEY) == (b"text", False)
    assert "Decrypt" not in plugin.calls()


def test_a_reader_learns_of_a_new_key_id(secrets, plugin, monkeypatch):
    """Else an update that changes nothing would not write again."""
    old = secrets.transform_to_storage(b"text", KEY)
    plugin.tell(key_id="kek-2")
    assert secrets.transform_from_storage(old, KEY) == (b"text", False)

    monkeypatch.setattr(_kms, "STATUS_INTERVAL", 0.0)

    assert secrets.transform_from_storage(old, KEY) == (b"text", True)


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("trouble", ["dead", "slow", "sick", "failing"])
def test_a_plugin_in_trouble(secrets, plugin, trouble, caplog, monkeypatch):
    """Reads with known seeds go on, and writes too until the seed's time is over; one line in the
    log says what happened, and one that it is over."""
    stored = secrets.transform_to_storage(b"text", KEY)
    said = {
        "dead": "Status: unavailable",
        "slow": "Status: deadline exceeded",
        "sick": "Status: not healthy: 'sealed'",
        "failing": "Status: failed precondition: told to fail",
    }[trouble]
    if trouble == "dead":
        plugin.kill()
    told = {"slow": {"delay": 1}, "sick": {"healthz": "sealed"}, "failing": {"fails": ["Status"]}}
    plugin.tell(**told.get(trouble, {}))
    with caplog.at_level(logging.WARNING, "revstore.encryption"):
        assert secrets.transform_from_storage(stored, KEY) == (b"text", False)
        assert secrets.transform_to_storage(b"text", KEY).startswith(PREFIX)
        (record,) = caplog.records
        assert record.getMessage().startswith(f"the kms plugin 'myplugin' {said}")

        real = time.monotonic
        monkeypatch.setattr(_kms.time, "monotonic", lambda: real() + 200)
        assert secrets.transform_from_storage(stored, KEY) == (b"text", False)
        with pytest.raises(Unreachable, match=f"plugin 'myplugin' has no key for writes: {said}"):
            secrets.transform_to_storage(b"text", KEY)

        if trouble == "dead":
            plugin.start()
        plugin.tell()
        assert secrets.transform_to_storage(b"text", KEY)
        assert caplog.records[-1].getMessage() == "the kms plugin 'myplugin' works again"


def test_a_list_does_not_wait_for_each_value(secrets, plugin, monkeypatch):
    """A seed that the plugin did not unwrap is refused at once for some seconds, then tried
    again."""
    stored = [secrets.transform_to_storage(b"text", KEY) for _ in range(20)]
    monkeypatch.setattr(_kms, "_ciphers", {})
    plugin.tell(fails=["Decrypt"])
    plugin.calls()

    secrets = open_again(secrets)
    for each in stored:
        with pytest.raises(Unreachable, match=r"its key, of key id sha256:[0-9a-f]{16}, is unava"):
            secrets.transform_from_storage(each, KEY)

    assert plugin.calls() == ["Decrypt"]
    plugin.tell()
    monkeypatch.setattr(_kms, "RETRY_INTERVAL", 0.0)
    real = time.monotonic
    monkeypatch.setattr(_kms.time, "monotonic", lambda: real() + 10)
    assert secrets.transform_from_storage(stored[0], KEY) == (b"text", False)


def open_again(transformer):
    """As a new process would: without the seeds of before."""
    file = transformer._file
    return type(file)(file._path, 1.0).for_resource("secrets")


def test_damaged_envelopes(secrets):
    """Cut anywhere, or with a flipped bit in the value or the seed, a value is refused. The rest
    is for the plugin to check, but no flipped bit at all makes other bytes of it."""
    stored = secrets.transform_to_storage(b"text", KEY)
    head, fields = len(PREFIX), read(stored.removeprefix(PREFIX)[:-2])
    for size in range(head, len(stored) - 2, 3):
        with pytest.raises(ValueError, match="cannot be decrypted by kms, plugin 'myplugin'"):
            secrets.transform_from_storage(stored[:size], KEY)
    for bit in range(8 * head, 8 * len(stored), 13):
        changed = bytearray(stored)
        changed[bit // 8] ^= 1 << bit % 8
        with contextlib.suppress(Undecryptable):
            assert secrets.transform_from_storage(bytes(changed), KEY)[0] == b"text"
            assert fields[1] in changed
            assert fields[3] in changed
    with pytest.raises(ValueError, match="belongs to another object"):
        secrets.transform_from_storage(stored, KEY + b"2")


def test_many_threads_get_one_seed(secrets, plugin):
    """The first writes of many threads wait for one call."""
    plugin.tell(delay=0.1)
    written, start = [], threading.Barrier(8)

    def work() -> None:
        start.wait()
        written.append(secrets.transform_to_storage(b"text", KEY))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()

    assert len(written) == 8
    assert plugin.calls() == ["Status", "Encrypt"]


def test_a_store(keys, kms, plugin, tmp_path, monkeypatch):
    """A whole store: after the plugin's death a running program goes on, a new one says what is
    missing, raw and cached, and reads again once the plugin is back."""
    monkeypatch.setattr(_kms, "RETRY_INTERVAL", 0.1)
    where = {"type": "sqlite", "options": {"path": str(tmp_path / "cluster.db")}}
    config = keys(document(kms, provider("identity")), **where)
    obj = {"metadata": {"name": "a", "namespace": "default"}, "data": {"k": "v"}}
    with StorageFactory(config) as factory:
        made = factory.registry("secrets").create(obj)
        plugin.kill()
        assert factory.registry("secrets").get("a", namespace="default") == made

    _kms._ciphers.clear()
    with StorageFactory(config) as factory:
        registries = [factory.registry("secrets", cached=cached) for cached in (False, True)]
        for registry in registries:
            with pytest.raises(Unreachable, match=r"kms, plugin 'myplugin'.*Decrypt: unav") as read:
                registry.get("a", namespace="default")
            assert read.value.key == "/secrets/default/a"
        with pytest.raises(Unreachable, match="'myplugin' has no key for writes: Status: unav"):
            registries[0].create({"metadata": {"name": "b", "namespace": "default"}})
        plugin.start()
        for registry in registries:
            assert patiently(lambda r=registry: r.get("a", namespace="default")) == made


def patiently(call):
    """What ``call`` returns once the plugin answers."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return call()
        except (Unreachable, NotReady):
            assert time.monotonic() < deadline
            time.sleep(0.05)


TROUBLE = {
    "dead": {},
    "slow": {"delay": 1},
    "failing": {"fails": ["Decrypt"]},
    "empty": {"empty": ["Decrypt"]},
}


@pytest.mark.parametrize("trouble", TROUBLE)
def test_an_unknown_seed_is_not_corrupt(keys, kms, plugin, tmp_path, monkeypatch, trouble):
    """While the plugin is in trouble, a value of a seed that it would have to unwrap says "try
    again": a list does not skip it, no caller may delete it as corrupt, a watch ends, and a cache
    waits for it. Once the plugin answers, all of them have the object."""
    monkeypatch.setattr(_kms, "RETRY_INTERVAL", 0.1)
    where = {"type": "sqlite", "options": {"path": str(tmp_path / "cluster.db")}}
    config = keys(document(kms, provider("identity")), **where)
    with StorageFactory(config) as factory:
        made = factory.registry("secrets").create(
            {"metadata": {"name": "a", "namespace": "default"}, "data": {"k": "v"}}
        )
    _kms._ciphers.clear()
    if trouble == "dead":
        plugin.kill()
    plugin.tell(**TROUBLE[trouble])

    with StorageFactory(config) as factory:
        raw, cached = (factory.registry("secrets", cached=each) for each in (False, True))
        for tolerant in (False, True):
            with pytest.raises(Unreachable, match=r"cannot be read now.*plugin 'myplugin'"):
                raw.list(namespace="default", even_if_corrupt=tolerant)
            with (
                raw.watch(namespace="default", even_if_corrupt=tolerant) as watch,
                pytest.raises(Unreachable),
            ):
                watch.poll(timeout=10)
        with pytest.raises(Unreachable):
            raw.delete("a", namespace="default", even_if_corrupt=True)
        with pytest.raises((Unreachable, NotReady)):
            cached.list(namespace="default", even_if_corrupt=True, timeout=1)

        if trouble == "dead":
            plugin.start()
        plugin.tell()
        for registry in (raw, cached):
            listed = patiently(lambda r=registry: r.list(namespace="default"))
            assert list(listed) == [made]


def test_a_full_cache_waits_for_an_unknown_seed(keys, kms, plugin, tmp_path, monkeypatch):
    """A running cache gets an update of another program whose seed nobody can unwrap: the object
    does not vanish from it, and the update arrives once the plugin is back."""
    monkeypatch.setattr(_kms, "RETRY_INTERVAL", 0.1)
    where = {"type": "sqlite", "options": {"path": str(tmp_path / "cluster.db")}}
    config = keys(document(kms, provider("identity")), **where)
    obj = {"metadata": {"name": "a", "namespace": "default"}, "data": {"k": "v"}}
    with StorageFactory(config) as factory:
        cached = factory.registry("secrets", cached=True)
        made = cached.create(obj)
        assert list(cached.list(namespace="default")) == [made]
        backend = factory.backend()
        first = backend.get("/registry/secrets/default/a").kv
        _kms._ciphers.clear()
        newer = open_transformer(config, "secrets").transform_to_storage(
            json.dumps({**made, "data": {"k": "new"}}).encode(), first.key.encode()
        )
        version = made["metadata"]["resourceVersion"]
        with cached.watch(namespace="default", resource_version=version) as watch:
            plugin.kill()
            assert backend.put(first.key, newer, expected_revision=first.revision).succeeded
            assert watch.poll(timeout=0.5) is None
            assert list(cached.list(namespace="default", resource_version="0")) == [made]
            plugin.start()
            (event,) = watch.poll(timeout=20)

    assert (event.type, event.object["data"]) == ("MODIFIED", {"k": "new"})


def test_a_child_after_a_fork(keys, kms):
    """It opens the store again, and has a seed of its own."""
    config = keys(document(kms))
    stored = open_transformer(config, "secrets").transform_to_storage(b"text", KEY)
    child = os.fork()
    if not child:
        status = 1
        try:
            secrets = open_transformer(config, "secrets")
            assert secrets.transform_from_storage(stored, KEY)[0] == b"text"
            assert secrets.transform_to_storage(b"text", KEY).startswith(PREFIX)
            status = 0
        finally:
            os._exit(status)

    assert os.waitpid(child, 0)[1] == 0


def test_doctor_asks_the_plugin(keys, kms, plugin):
    """Healthy or not, in each run."""
    config, found = keys(document(kms)), []
    for told in ({}, {"healthz": "sealed"}, {}):
        plugin.tell(**told)
        check = run_doctor(config)[-1]
        found.append((check.name, str(check.result), check.detail))

    well = ("kms myplugin", "ok", "")
    assert found == [well, ("kms myplugin", "failed", "Status: not healthy: 'sealed'"), well]


def test_without_the_extra(keys, kms, monkeypatch):
    monkeypatch.setitem(sys.modules, "revstore_encryption._kms", None)

    with pytest.raises(ConfigError, match=r"pip install 'revstore-encryption\[kms\]'"):
        open_transformer(keys(document(kms)), "secrets")


@pytest.mark.parametrize("answer", [a for a in ANSWERS if a["provider"] == "kms-v2-key"][:1])
def test_the_independent_code_reads_the_old_kind(answer):
    """Values with a key instead of a seed."""
    body = base64.b64decode(answer["stored"]).removeprefix(answer["prefix"].encode())
    fields = read(body)

    plain = open_aesgcm(wrapped(fields[3]), fields[1], answer["key"].encode())
    assert plain == base64.b64decode(answer["plain"])


def test_status_of_an_unknown_seed(kms, plugin, tmp_path, secrets):
    """``revstore encryption status`` counts the value, says that its key is unavailable, and ends
    with 3; once the plugin is back, it ends with 0."""
    stored = secrets.transform_to_storage(b"{}", KEY)
    command = Revstore(tmp_path)
    save(tmp_path / "keys.yaml", document(kms))
    toml = tmp_path / "revstore.toml"
    toml.write_text(
        f'type = "sqlite"\ntransformer = "encryption"\n[options]\npath = "{tmp_path}/store.db"\n'
        f'[transformer_options]\nconfig = "{tmp_path}/keys.yaml"\n'
    )
    with StorageFactory(toml) as factory:
        assert factory.backend().put(KEY.decode(), stored, expected_revision=0).succeeded
    env = {"REVSTORE_URL": "", "REVSTORE_CONFIG": str(toml)}
    row = {"count": 1, "key": "myplugin", "provider": "kms", "resource": "secrets", "stale": 0}

    plugin.kill()
    dead = command("encryption", "status", "--json", code=3, **env)
    plugin.start()
    well = command("encryption", "status", "--json", **env)

    report = json.loads(dead.stdout)
    assert report["values"] == json.loads(well.stdout)["values"] == [row]
    (error,) = report["errors"]
    assert (error["unavailable"], error["key"]) == (True, KEY.decode())
