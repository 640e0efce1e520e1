"""Rewriting: every stale object is written again, unchanged, beside writers and after kills."""

from __future__ import annotations

import base64
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from revstore.backend import Backend
from revstore.config import StorageConfig
from revstore.errors import CorruptObject, IncompatibleVersion, InvalidArgument, ValueTooLarge
from revstore.factory import StorageFactory
from revstore.memory import MemoryBackend
from revstore.operations import Progress, rewrite
from revstore.resource_type import ResourceType
from revstore.typed import TypedStorage

PATIENCE = 60.0


class Keys:
    """A transformer with keys of one byte, which each value begins with; the first one encrypts."""

    def __init__(self, keys: str) -> None:
        self.keys = keys.encode()

    def transform_to_storage(self, data: bytes, context: bytes) -> bytes:
        return self.keys[:1] + data

    def transform_from_storage(self, data: bytes, context: bytes) -> tuple[bytes, bool]:
        if not data or data[:1] not in self.keys:
            raise ValueError(f"no key {data[:1]!r}")
        return data[1:], data[:1] != self.keys[:1]


def to_v2(value: dict[str, Any]) -> dict[str, Any]:
    value["capacity"] = value.pop("size")
    return value


OLD: ResourceType[dict[str, Any]] = ResourceType(dict, "/disks", version="v1")
NEW: ResourceType[dict[str, Any]] = ResourceType(
    dict, "/disks", version="v2", upgrades={"v1": to_v2}
)


def storage(
    backend: Backend, keys: str, kind: ResourceType[Any] = OLD
) -> TypedStorage[dict[str, Any]]:
    return TypedStorage(backend, kind, transformer=Keys(keys))


def disk(name: str, **fields: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "size": 1, **fields}


def values(backend: Backend) -> dict[str, bytes]:
    return {kv.key: kv.value for kv in backend.list("/").kvs}


KINDS = st.sampled_from(["stale key", "stale version", "both", "current", "unreadable", "newer"])


@settings(max_examples=50)
@given(st.lists(KINDS, max_size=12), st.booleans())
def test_any_mix_comes_out_current(mix, everything):
    """Each is counted once, and what cannot be read stays as it is."""
    backend = MemoryBackend()
    writers = {
        "stale key": storage(backend, "a", NEW),
        "stale version": storage(backend, "b", OLD),
        "both": storage(backend, "a", OLD),
        "current": storage(backend, "b", NEW),
        "unreadable": storage(backend, "x", NEW),
        "newer": storage(backend, "b", ResourceType(dict, "/disks", version="v3")),
    }
    for number, kind in enumerate(mix):
        writers[kind].create(f"/disks/o{number}", disk(f"o{number}", capacity=number))
    before = values(backend)
    new = storage(backend, "ba", NEW)
    readable = new.list("/disks", even_if_corrupt=True).items

    result = rewrite(new, everything=everything)

    failed = mix.count("unreadable") + mix.count("newer")
    current = 0 if everything else mix.count("current")
    assert (result.seen, result.current, result.failed) == (len(mix), current, failed)
    assert result.rewritten == len(mix) - failed - current
    assert {error.key for error in result.errors} == {
        f"/disks/o{number}" for number, kind in enumerate(mix) if kind in ("unreadable", "newer")
    }
    after = storage(backend, "b", NEW).list("/disks", even_if_corrupt=True).items
    assert list(map(bare, after)) == list(map(bare, readable))
    for number, kind in enumerate(mix):
        key = f"/registry/disks/o{number}"
        if kind in ("unreadable", "newer"):
            assert values(backend)[key] == before[key]
        else:
            assert values(backend)[key].startswith(b'b{"apiVersion":"v2"')
    revision = backend.status().revision
    again = rewrite(new)
    assert (again.rewritten, again.failed, again.seen) == (0, failed, len(mix))
    assert backend.status().revision == revision


def bare(obj: dict[str, Any]) -> dict[str, Any]:
    return {**obj, "metadata": {**obj["metadata"], "resourceVersion": ""}}


def test_expiry_is_kept():
    backend = MemoryBackend()
    with storage(backend, "a") as old:
        old.create("/disks/short", disk("short"), ttl=1000)
        old.create("/disks/long", disk("long"))
    left = backend.remaining_ttl("/registry/disks/short")
    assert left is not None

    assert rewrite(storage(backend, "ba")).rewritten == 2

    after = backend.remaining_ttl("/registry/disks/short")
    assert after is not None
    assert left - 60 < after <= left
    assert backend.get("/registry/disks/long").kv.lease == 0


def test_everything_goes_on_where_it_was_interrupted():
    class Stop(Exception):
        pass

    backend = MemoryBackend()
    disks = storage(backend, "a")
    for number in range(10):
        disks.create(f"/disks/{number}", disk(str(number)))
    until = backend.status().revision
    put, writes = backend.put, []

    def counted(*args: Any, **more: Any) -> Any:
        if len(writes) == 4:
            raise Stop
        writes.append(args[0])
        return put(*args, **more)

    backend.put = counted  # type: ignore[method-assign]
    with pytest.raises(Stop):
        rewrite(disks, everything=True, until=until)
    backend.put = put  # type: ignore[method-assign]

    result = rewrite(disks, everything=True, until=until)
    assert (result.rewritten, result.current) == (6, 4)
    assert rewrite(disks, everything=True, until=until).rewritten == 0
    assert rewrite(disks, everything=True).rewritten == 10


class Struck(Exception):
    pass


def test_interrupted_at_any_line_it_goes_on():
    """A signal's handler raises again and again; the same call comes to the end at last."""
    backend = MemoryBackend()
    old = storage(backend, "a")
    for number in range(300):
        old.create(f"/disks/{number:03}", disk(f"{number:03}", size=number))
    before = [{**bare(obj), "apiVersion": "v2"} for obj in old.list("/disks").items]
    for obj in before:
        to_v2(obj)
    new = storage(backend, "ba", NEW)
    choose = random.Random(5)

    def strike(*_: Any) -> None:
        raise Struck

    struck = 0
    previous = signal.signal(signal.SIGALRM, strike)
    try:
        for _ in range(60):
            try:
                signal.setitimer(signal.ITIMER_REAL, choose.uniform(0.0001, 0.01))
                rewrite(new)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except Struck:
                struck += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    result = rewrite(new)

    assert struck > 0
    assert result.failed == 0
    assert list(map(bare, storage(backend, "b", NEW).list("/disks").items)) == before
    # Each was written once, and once again by this.
    assert backend.get("/registry/disks/000").kv.version == 2


class Meddling(Keys):
    """Calls a function before it encrypts, with the number of values that it has encrypted."""

    def __init__(self, keys: str, meddle: Callable[[int], None]) -> None:
        super().__init__(keys)
        self._meddle = meddle
        self._done = 0

    def transform_to_storage(self, data: bytes, context: bytes) -> bytes:
        self._meddle(self._done)
        self._done += 1
        return super().transform_to_storage(data, context)


def test_each_store_is_rewritten_beside_a_writer_and_after_an_interruption(store):
    """Another program changes one object and deletes one between the read and the write; the
    second call has only the rest to do, and each object is what its last writer made of it."""
    old, other = storage(store, "a"), storage(store, "ba")
    for number in range(12):
        old.create(f"/disks/{number:02}", disk(f"{number:02}"), ttl=500 if number % 2 else 0)

    ttls = {kv.key: store.remaining_ttl(kv.key) for kv in store.list("/registry/disks/").kvs}

    def meddle(done: int) -> None:
        if done == 3:
            other.guaranteed_update("/disks/03", lambda obj, _: {**obj, "size": 2})
        elif done == 5:
            old.guaranteed_update("/disks/05", lambda obj, _: {**obj, "size": 3})
        elif done == 8:
            other.delete("/disks/07")
        elif done == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rewrite(TypedStorage(store, OLD, transformer=Meddling("ba", meddle)))
    assert sum(value.startswith(b"b") for value in values(store).values()) == 7
    result = rewrite(other)

    assert (result.seen, result.rewritten, result.current, result.failed) == (11, 4, 7, 0)
    current = storage(store, "b").list("/disks").items
    sizes = {obj["metadata"]["name"]: obj["size"] for obj in current}
    assert sizes == {f"{number:02}": 1 for number in range(12) if number != 7} | {"03": 2, "05": 3}
    for kv in store.list("/registry/disks/").kvs:
        before, left = ttls[kv.key], store.remaining_ttl(kv.key)
        if before is None or left is None:
            assert before is left
        else:
            assert before - 60 < left <= before + 1  # etcd2 counts whole seconds


def test_an_expired_or_deleted_object_is_no_failure():
    backend = MemoryBackend()
    old = storage(backend, "a")
    old.create("/disks/a", disk("a"))
    (kv,) = old.stored().kvs
    old.delete("/disks/a")
    new = storage(backend, "ba")

    assert not new.rewrite(kv)
    assert not new.rewrite(kv, force=True)
    old.create("/disks/a", disk("a", size=2))
    assert new.rewrite(kv)  # still stale
    assert new.get("/disks/a")["size"] == 2
    new.guaranteed_update("/disks/a", lambda obj, _: {**obj, "size": 3})
    assert not new.rewrite(kv, force=True)  # its writer wrote it in the current way
    assert new.get("/disks/a")["size"] == 3


class Small(MemoryBackend):
    """A store with a limit, as etcd has one."""

    def put(self, key: str, value: bytes, **more: Any) -> Any:
        if len(value) > 200:
            raise ValueTooLarge("too large")
        return super().put(key, value, **more)


def test_a_value_that_has_become_too_large_is_named_and_left():
    backend = Small()
    kind: ResourceType[dict[str, Any]] = ResourceType(
        dict,
        "/disks",
        version="v2",
        upgrades={"v1": lambda value: {**value, "fill": "x" * value["size"]}},
    )
    with TypedStorage(backend, OLD) as old:
        old.create("/disks/a", disk("a"))
        old.create("/disks/b", disk("b", size=1000))
    result = rewrite(TypedStorage(backend, kind))

    assert (result.rewritten, result.failed) == (1, 1)
    assert isinstance(result.errors[0], ValueTooLarge)
    assert b'"v1"' not in values(backend)["/registry/disks/a"]
    assert b"fill" not in values(backend)["/registry/disks/b"]


def test_the_rate_is_a_limit_and_progress_is_reported():
    backend = MemoryBackend()
    old = storage(backend, "a")
    for number in range(6):
        old.create(f"/disks/{number}", disk(str(number)))
    seen: list[Progress] = []
    begun = time.monotonic()
    rewrite(storage(backend, "ba"), rate=20, on_progress=seen.append)

    assert time.monotonic() - begun >= 0.25
    assert (seen[0].total, seen[-1].done, seen[-1].step) == (6, 6, "rewriting")
    begun = time.monotonic()
    rewrite(storage(backend, "ba"), rate=0.001)  # nothing to write, nothing to wait for
    assert time.monotonic() - begun < PATIENCE


def test_a_factory_rewrites_what_it_is_asked_for(tmp_path):
    with StorageFactory("memory://") as factory:
        for resource in "secrets", "widgets.example.com":
            factory.registry(resource).create({"metadata": {"name": "a"}})
        assert rewrite(factory).seen == 2
        assert rewrite(factory, ["secrets"], everything=True).rewritten == 1
        assert rewrite(factory, everything=True).rewritten == 2
        with pytest.raises(InvalidArgument):
            rewrite(storage(MemoryBackend(), "a"), ["secrets"])
    config = StorageConfig(
        type="sqlite",
        options={"path": str(tmp_path / "a.db")},
        overrides={"secrets": {"options": {"path": str(tmp_path / "b.db")}}},
    )
    with StorageFactory(config) as factory:
        factory.registry("secrets").create({"metadata": {"name": "a"}})
        factory.registry("pods").create({"metadata": {"name": "a"}})
        assert rewrite(factory, everything=True).rewritten == 2
        with pytest.raises(InvalidArgument) as caught:
            rewrite(factory, ["secrets", "pods"], everything=True, until=5)
        assert caught.value.field == "until"


def test_a_newer_version_is_named():
    backend = MemoryBackend()
    with storage(backend, "a", NEW) as new:
        new.create("/disks/a", disk("a", capacity=1))
    result = rewrite(storage(backend, "ba", OLD))
    assert [type(error) for error in result.errors] == [IncompatibleVersion]
    assert isinstance(result.errors[0], CorruptObject)


# The encryption plugin, on a file that several processes use.

NAMES = [f"s{number:02}" for number in range(40)]


def save(path: Path, *keys: str) -> None:
    """Write the file of keys; the first one encrypts."""
    secrets = [
        {"name": key, "secret": base64.b64encode(key.encode() * 16).decode()} for key in keys
    ]
    content = {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "EncryptionConfiguration",
        "resources": [{"resources": ["secrets"], "providers": [{"aesgcm": {"keys": secrets}}]}],
    }
    new = path.with_suffix(".new")
    new.write_text(yaml.safe_dump(content))
    new.chmod(0o600)
    os.replace(new, path)


def configured(folder: Path) -> StorageConfig:
    return StorageConfig(
        type="sqlite",
        options={"path": str(folder / "store.db")},
        transformer="encryption",
        transformer_options={"config": str(folder / "keys.yaml"), "reload_interval": 0.01},
    )


def in_store(factory: StorageFactory, key: str) -> int:
    """The number of values under a key."""
    prefix = f"k8s:enc:aesgcm:v1:{key}:".encode()
    kvs = factory.backend().list("/registry/secrets/").kvs
    assert len(kvs) == len(NAMES)
    return sum(kv.value.startswith(prefix) for kv in kvs)


def command(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    (folder / "store.toml").write_text(
        f'type = "sqlite"\ntransformer = "encryption"\n[options]\npath = "{folder}/store.db"\n'
        f'[transformer_options]\nconfig = "{folder}/keys.yaml"\n'
    )
    return subprocess.Popen(
        [sys.executable, "-m", "revstore", "--config", str(folder / "store.toml"), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_key_is_rotated_beside_writers_and_kills(tmp_path):
    """New first key, rewrite, no value under the old key, old key removed, all readable; no write
    of anybody is lost, though the command is killed again and again."""
    pytest.importorskip("revstore_encryption")
    choose = random.Random(18)
    save(tmp_path / "keys.yaml", "aa")
    with StorageFactory(configured(tmp_path)) as factory:
        registry = factory.registry("secrets")
        for name in NAMES:
            registry.create({"metadata": {"name": name}, "count": 0})
        save(tmp_path / "keys.yaml", "bb", "aa")
        assert in_store(factory, "aa") == len(NAMES)
        written = dict.fromkeys(NAMES, 0)
        stop = threading.Event()
        failures: list[BaseException] = []

        def writer(names: list[str]) -> None:
            try:
                while not stop.wait(0.002):
                    name = choose.choice(names)

                    def one_more(obj: Any, _: Any) -> Any:
                        return {**obj, "count": obj["count"] + 1}

                    registry.guaranteed_update(name, one_more)
                    written[name] += 1
            except BaseException as error:  # noqa: BLE001 - the test shows it
                failures.append(error)

        threads = [
            threading.Thread(target=writer, args=(names,)) for names in (NAMES[:5], NAMES[5:9])
        ]
        for thread in threads:
            thread.start()
        try:
            for _ in range(6):
                killed = command(tmp_path, "rewrite", "--rate", "30")
                at = choose.uniform(0.3, 1.5)
                try:
                    killed.wait(at)
                except subprocess.TimeoutExpired:
                    killed.send_signal(signal.SIGKILL)
                killed.communicate()
            last = command(tmp_path, "rewrite", "--json")
            output, complaint = last.communicate(timeout=PATIENCE)
        finally:
            stop.set()
            for thread in threads:
                thread.join(PATIENCE)
        assert failures == []
        assert (last.returncode, complaint) == (0, "")
        result = json.loads(output)
        assert result["seen"] == len(NAMES)
        assert result["failed"] == 0
        assert in_store(factory, "aa") == 0
        assert in_store(factory, "bb") == len(NAMES)
        save(tmp_path / "keys.yaml", "bb")
    with StorageFactory(configured(tmp_path)) as factory:
        counts = {
            obj["metadata"]["name"]: obj["count"] for obj in factory.registry("secrets").list()
        }
        assert counts == written
        assert sum(written.values()) > 0


@pytest.mark.slow
def test_ctrl_c_ends_the_command_and_it_goes_on(tmp_path):
    pytest.importorskip("revstore_encryption")
    save(tmp_path / "keys.yaml", "aa")
    with StorageFactory(configured(tmp_path)) as factory:
        for name in NAMES:
            factory.registry("secrets").create({"metadata": {"name": name}})
        save(tmp_path / "keys.yaml", "bb", "aa")
        begun = command(tmp_path, "rewrite", "--rate", "4")
        deadline = time.monotonic() + PATIENCE
        while not in_store(factory, "bb"):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        begun.send_signal(signal.SIGINT)
        begun.communicate(timeout=PATIENCE)
        assert begun.returncode == 128 + signal.SIGINT
        done = in_store(factory, "bb")
        assert 0 < done < len(NAMES)
        again = command(tmp_path, "rewrite", "--json")
        output, _ = again.communicate(timeout=PATIENCE)
        assert json.loads(output)["rewritten"] == len(NAMES) - done
