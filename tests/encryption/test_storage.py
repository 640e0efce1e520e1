"""Encrypted stores, raw and behind a watch cache."""

from __future__ import annotations

import logging
import traceback
from pathlib import Path

import attrs
import pytest

from revstore.config import StorageConfig
from revstore.errors import CorruptObject, CorruptObjects
from revstore.factory import StorageFactory
from revstore.objects import ObjectMeta

from .conftest import OTHER, SECRET, document, provider, save

PLAIN = "correct-horse-battery-staple"
GCM = provider("aesgcm", ("one", SECRET))


def secret(name: str) -> dict:
    return {"metadata": {"name": name, "namespace": "default"}, "data": {"password": PLAIN}}


@pytest.fixture
def config(keys, tmp_path) -> StorageConfig:
    return keys(document(GCM), type="sqlite", options={"path": str(tmp_path / "cluster.db")})


def test_no_plain_text_on_disk(config, tmp_path, caplog):
    """Neither in the database nor in its write-ahead log, nor in what is logged; other resources
    are not encrypted."""
    caplog.set_level(logging.DEBUG)
    with StorageFactory(config) as factory:
        factory.registry("secrets").create(secret("a"))
        factory.registry("configmaps").create(
            {"metadata": {"name": "c", "namespace": "default"}, "data": {"k": "seen"}}
        )
        stored = b"".join(path.read_bytes() for path in tmp_path.glob("cluster.db*"))
        value = factory.backend().get("/registry/secrets/default/a").kv.value

    assert value.startswith(b"k8s:enc:aesgcm:v1:one:")
    assert b"k8s:enc:aesgcm:v1:one:" in stored
    assert b"seen" in stored
    assert PLAIN.encode() not in stored
    assert PLAIN not in caplog.text


@pytest.mark.parametrize("cached", [False, True])
def test_reads_lists_and_watches(config, cached):
    """Everything works as without encryption, and a second process's store reads the first's."""
    with StorageFactory(config) as factory:
        registry = factory.registry("secrets", cached=cached)
        made = registry.create(secret("a"))
        with registry.watch(
            namespace="default", resource_version=made["metadata"]["resourceVersion"]
        ) as watch:
            registry.create(secret("b"))
            event = watch.poll(timeout=10)
    with StorageFactory(config) as factory:
        names = [
            each["metadata"]["name"] for each in factory.registry("secrets", cached=cached).list()
        ]
        again = factory.registry("secrets", cached=cached).get("a", namespace="default")

    assert event is not None
    assert names == ["a", "b"]
    assert again == made


def wrong_key(factory, file):
    return document(provider("aesgcm", ("one", OTHER)))


def missing_key(factory, file):
    return document(provider("aesgcm", ("two", OTHER)))


def swapped(factory, file):
    backend = factory.backend()
    other = backend.get("/registry/secrets/default/b").kv.value
    _put(backend, "/registry/secrets/default/a", other)


def flipped(factory, file):
    backend = factory.backend()
    value = bytearray(backend.get("/registry/secrets/default/a").kv.value)
    value[-20] ^= 1
    _put(backend, "/registry/secrets/default/a", bytes(value))


def plain(factory, file):
    _put(factory.backend(), "/registry/secrets/default/a", b'{"metadata": {}}')


def _put(backend, key, value):
    revision = backend.get(key).kv.revision
    assert backend.put(key, value, expected_revision=revision).succeeded


SAID = {
    wrong_key: "cannot be decrypted by aesgcm, key 'one'",
    missing_key: "was encrypted by aesgcm, key 'one', which the configuration does not have",
    swapped: "cannot be decrypted by aesgcm, key 'one': it was changed, belongs to another object",
    flipped: "cannot be decrypted by aesgcm, key 'one'",
    plain: "is not encrypted, but the configuration has no identity provider",
}


@pytest.mark.parametrize("damage", SAID)
def test_what_cannot_be_decrypted(config, tmp_path: Path, damage):
    """Reads and lists, raw and cached, say which object and which provider; never an empty list,
    and never a plain text."""
    with StorageFactory(config) as factory:
        for name in ("a", "b"):
            factory.registry("secrets").create(secret(name))
        content = damage(factory, tmp_path / "encryption.yaml")
    if content is not None:
        save(tmp_path / "encryption.yaml", content)

    with StorageFactory(config) as factory:
        for cached in (False, True):
            registry = factory.registry("secrets", cached=cached)
            with pytest.raises(CorruptObject) as read:
                registry.get("a", namespace="default")
            with pytest.raises(CorruptObjects) as listed:
                registry.list(namespace="default")

            for error in (read.value, listed.value.errors[0]):
                assert error.key == "/secrets/default/a"
                assert SAID[damage] in str(error)
                text = "".join(traceback.format_exception(error))
                assert PLAIN not in text
                assert SECRET not in text


def test_a_no_op_update_writes_a_stale_value_again(config, tmp_path):
    """After a rotation, with the new key; a value that is not stale is left alone."""
    with StorageFactory(config) as factory:
        before = factory.registry("secrets").create(secret("a"))
    save(tmp_path / "encryption.yaml", document(provider("aesgcm", ("two", OTHER)), GCM))

    with StorageFactory(config) as factory:
        registry = factory.registry("secrets")
        after = registry.update(before)
        again = registry.update(after)
        value = factory.backend().get("/registry/secrets/default/a").kv.value

    assert value.startswith(b"k8s:enc:aesgcm:v1:two:")
    assert after["metadata"]["resourceVersion"] != before["metadata"]["resourceVersion"]
    assert again["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"]


def test_overrides(tmp_path):
    """A resource may have another file of keys, or none; the options of a transformer that is
    replaced do not stay."""
    for name in ("one", "two"):
        content = document(provider("aesgcm", (name, SECRET)), resources=("*.*",))
        save(tmp_path / f"{name}.yaml", content)
    toml = tmp_path / "revstore.toml"
    toml.write_text(
        f"""
        type = "memory"
        transformer = "encryption"
        [transformer_options]
        config = "{tmp_path}/one.yaml"
        [overrides.secrets.transformer_options]
        config = "{tmp_path}/two.yaml"
        [overrides.events]
        transformer = "identity"
        """
    )
    written = {}
    with StorageFactory(toml) as factory:
        for resource in ("pods", "secrets", "events"):
            obj = {"metadata": {"name": "a", "namespace": "default"}}
            factory.registry(resource).create(obj)
            written[resource] = factory.backend().get(f"/registry/{resource}/default/a").kv.value

    assert written["pods"].startswith(b"k8s:enc:aesgcm:v1:one:")
    assert written["secrets"].startswith(b"k8s:enc:aesgcm:v1:two:")
    assert written["events"].startswith(b"{")


def test_the_environment(config, tmp_path):
    """Its variables come before the file's table, and complete it."""
    toml = tmp_path / "revstore.toml"
    toml.write_text('[transformer_options]\nconfig = "nowhere.yaml"\nreload_interval = "2s"\n')
    environ = {
        "REVSTORE_TRANSFORMER": "encryption",
        "REVSTORE_TRANSFORMER_OPTIONS__CONFIG": "keys.yaml",
        "REVSTORE_OVERRIDES__SECRETS__TRANSFORMER_OPTIONS__CONFIG": "secrets.yaml",
    }

    loaded = StorageConfig.load(toml, environ)

    assert dict(loaded.transformer_options) == {"config": "keys.yaml", "reload_interval": "2s"}
    assert loaded.for_resource("secrets").transformer_options["config"] == "secrets.yaml"
    assert (
        loaded.sources["transformer_options.config"].label == "REVSTORE_TRANSFORMER_OPTIONS__CONFIG"
    )


def test_stores_are_shared_all_the_same(config):
    """Resources with different keys share a backend: the options are above it."""
    other = attrs.evolve(config, transformer_options={"config": "other.yaml"})

    assert other != config
    assert other.backend_part() == config.backend_part()


@attrs.define
class Numbers:
    """Secrets have texts where it has numbers."""

    metadata: ObjectMeta
    data: dict[str, int]


@pytest.mark.parametrize("cached", [False, True])
def test_no_plain_text_in_errors(config, cached, caplog):
    """An object that was decrypted and does not fit its class is named with the field, but no error
    has the value, nor a cause or context of the error, nor a log."""
    caplog.set_level(logging.DEBUG)
    with StorageFactory(config) as factory:
        factory.registry("secrets").create(secret("a"))
        storage = factory.storage(Numbers, resource="secrets", cached=cached)
        for read in (
            lambda: storage.get("/secrets/default/a"),
            lambda: storage.list("/secrets"),
            lambda: storage.guaranteed_update("/secrets/default/a", lambda obj, _: obj),
            lambda: storage.delete("/secrets/default/a"),
        ):
            expected = CorruptObject, CorruptObjects
            with pytest.raises(expected, match=r"data\.password: ") as caught:
                read()
            error: BaseException | None = caught.value
            assert PLAIN not in "".join(traceback.format_exception(error))
            while error is not None:
                assert PLAIN not in str(error)
                error = error.__cause__ or error.__context__
    assert PLAIN not in caplog.text
