"""AES-GCM beside ``cryptography`` alone, and what it adds to reads of a store."""

from __future__ import annotations

import base64
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from benchmarks._figures import Figure
from benchmarks._measure import in_turns, seconds
from revstore.config import StorageConfig
from revstore.factory import StorageFactory
from revstore.plugins import open_transformer
from revstore.storage import Storage

VALUES = 20_000
OBJECTS = 2_000
ROUNDS = 7
KEY = bytes(range(32))
CONTEXT = b"/registry/secrets/default/a"


def configuration(folder: Path) -> StorageConfig:
    """A store in ``folder`` whose secrets are encrypted."""
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
    return StorageConfig(
        type="sqlite",
        options={"path": str(folder / "encrypted.db")},
        transformer="encryption",
        transformer_options={"config": str(path)},
    )


def figures() -> Iterator[Figure]:
    """All figures of this part."""
    with tempfile.TemporaryDirectory(prefix="bench-", dir=".") as name:
        folder = Path(name)
        config = configuration(folder)
        yield from _values(config)
        with (
            StorageFactory(config) as encrypted,
            StorageFactory(f"sqlite:///{folder}/plain.db") as plain,
        ):
            yield from _reads(_filled(encrypted), _filled(plain))


def _values(config: StorageConfig) -> Iterator[Figure]:
    transformer = open_transformer(config, "secrets")
    data, cipher = os.urandom(1024), AESGCM(KEY)
    sealed = transformer.transform_to_storage(data, CONTEXT)
    nonce = os.urandom(12)
    alone = cipher.encrypt(nonce, data, CONTEXT)

    def encrypt_alone() -> bytes:
        nonce = os.urandom(12)
        return nonce + cipher.encrypt(nonce, data, CONTEXT)

    works: list[Callable[[], object]] = [
        encrypt_alone,
        lambda: transformer.transform_to_storage(data, CONTEXT),
        lambda: cipher.decrypt(nonce, alone, CONTEXT),
        lambda: transformer.transform_from_storage(sealed, CONTEXT),
    ]
    found = in_turns(ROUNDS, *(_repeated(work, VALUES) for work in works))
    for what, bound, value in zip(("encrypt", "decrypt"), found[::2], found[1::2], strict=True):
        yield Figure(
            name=f"aesgcm, {what} 1 KiB",
            value=value * 1e6,
            unit="us",
            bound=bound * 1e6,
            bound_name="cryptography alone, with a random nonce",
            target=1.3,
        )


def _reads(encrypted: Storage[Any], plain: Storage[Any]) -> Iterator[Figure]:
    def get(storage: Storage[Any]) -> Callable[[], float]:
        return _repeated(lambda: storage.get("/secrets/default/s7"), OBJECTS)

    def read_all(storage: Storage[Any]) -> Callable[[], float]:
        return lambda: seconds(lambda: storage.list("/secrets")) / OBJECTS

    found = in_turns(ROUNDS, get(plain), get(encrypted), read_all(plain), read_all(encrypted))
    for what, bound, value in zip(("get", "list, an object"), found[::2], found[1::2], strict=True):
        yield Figure(
            name=f"secrets of 1 KB in sqlite, aesgcm, {what}",
            value=value * 1e6,
            unit="us",
            bound=bound * 1e6,
            bound_name="the same without encryption",
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
