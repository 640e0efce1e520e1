"""AES-GCM beside ``cryptography`` alone, and what it adds to reads of a store."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from benchmarks._figures import Figure
from benchmarks._measure import in_turns, seconds
from revstore.config import StorageConfig
from revstore.factory import StorageFactory
from revstore.plugins import open_transformer
from revstore.storage import Storage
from revstore.testing.etcd import EtcdServer, find_etcd
from revstore.transform import Transformer

VALUES = 20_000
OBJECTS = 2_000
ROUNDS = 7
KEY = bytes(range(32))
CONTEXT = b"/registry/secrets/default/a"


def configuration(folder: Path, store: StorageConfig) -> StorageConfig:
    """The store, with secrets that are encrypted by a key in ``folder``."""
    secret = base64.b64encode(KEY).decode()
    providers = [{"aesgcm": {"keys": [{"name": "k1", "secret": secret}]}}]
    content = {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "EncryptionConfiguration",
        "resources": [{"resources": ["secrets"], "providers": providers}],
    }
    path = folder / "encryption.yaml"
    path.write_text(json.dumps(content))
    path.chmod(0o600)
    return attrs.evolve(store, transformer="encryption", transformer_options={"config": str(path)})


def figures() -> Iterator[Figure]:
    """All figures of this part; those of etcd3 only where there is an etcd."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", dir=".")))
        memory = StorageConfig(type="memory")
        transformer = open_transformer(configuration(folder, memory), "secrets")
        values, alone = _values(transformer)
        yield from values
        urls = {"sqlite": [f"sqlite:///{folder}/{name}.db" for name in ("plain", "encrypted")]}
        found = find_etcd()
        if found:
            etcd = stack.enter_context(EtcdServer(found[max(found)])).start()
            urls["etcd3"] = [f"etcd3://{etcd.address}?prefix={name}" for name in "ab"]
        for name, both in urls.items():
            plain, encrypted = map(StorageConfig.from_url, both)
            with (
                StorageFactory(plain) as one,
                StorageFactory(configuration(folder, encrypted)) as other,
            ):
                yield from _reads(name, _filled(one), _filled(other), alone)


def _values(transformer: Transformer) -> tuple[list[Figure], float]:
    """The figures of one value, and the microseconds for which cryptography alone decrypts it."""
    data, cipher = os.urandom(1024), AESGCM(KEY)
    sealed = transformer.transform_to_storage(data, CONTEXT)

    def encrypt_alone() -> bytes:
        nonce = os.urandom(12)
        return nonce + cipher.encrypt(nonce, data, CONTEXT)

    alone = encrypt_alone()
    works: list[Callable[[], object]] = [
        encrypt_alone,
        lambda: transformer.transform_to_storage(data, CONTEXT),
        lambda: cipher.decrypt(alone[:12], alone[12:], CONTEXT),
        lambda: transformer.transform_from_storage(sealed, CONTEXT),
    ]
    found = in_turns(ROUNDS, *(_repeated(work, VALUES) for work in works))
    figures = [
        Figure(
            name=f"aesgcm, {what} 1 KiB",
            value=value * 1e6,
            unit="us",
            bound=bound * 1e6,
            bound_name="cryptography alone, of a nonce and the ciphertext after it",
            target=1.3,
        )
        for what, bound, value in zip(("encrypt", "decrypt"), found[::2], found[1::2], strict=True)
    ]
    return figures, found[2] * 1e6


def _reads(
    name: str, plain: Storage[Any], encrypted: Storage[Any], alone: float
) -> Iterator[Figure]:
    def get(storage: Storage[Any]) -> Callable[[], float]:
        return _repeated(lambda: storage.get("/secrets/default/s7"), OBJECTS)

    def read_all(storage: Storage[Any]) -> Callable[[], float]:
        return lambda: seconds(lambda: storage.list("/secrets")) / OBJECTS

    found = in_turns(ROUNDS, get(plain), get(encrypted), read_all(plain), read_all(encrypted))
    for what, bound, value in zip(("get", "list, an object"), found[::2], found[1::2], strict=True):
        yield Figure(
            name=f"secrets of 1 KB in {name}, aesgcm, {what}",
            value=value * 1e6,
            unit="us",
            bound=bound * 1e6,
            bound_name=f"without encryption; cryptography alone adds {alone:.2f} us",
            target=1.15,
        )


def _repeated(work: Callable[[], object], times: int) -> Callable[[], float]:
    def measure() -> float:
        def run() -> None:
            for _ in range(times):
                work()

        return seconds(run) / times

    return measure


def _filled(factory: StorageFactory) -> Storage[Any]:
    """A storage with objects whose JSON has about a kilobyte."""
    storage = factory.storage(dict, resource="secrets")
    for number in range(OBJECTS):
        name = f"s{number}"
        obj = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": "default"},
            "data": {f"key-{each}": base64.b64encode(os.urandom(75)).decode() for each in range(8)},
        }
        storage.create(f"/secrets/default/{name}", obj)
    return storage
