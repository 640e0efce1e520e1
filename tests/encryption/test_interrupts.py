"""What a signal's handler raises comes out, whatever it interrupts, and the next call works."""

from __future__ import annotations

import os
import pathlib
import signal

import pytest
import yaml
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from revstore.config import StorageConfig
from revstore.plugins import open_transformer

from .conftest import OTHER, SECRET, document, provider, save

KEY = b"/registry/secrets/default/a"


class Struck(TimeoutError, ValueError):
    """As of a handler: of the kinds that code here catches."""


@pytest.fixture
def strike():
    """Returns a function that a signal interrupts when it is called."""

    def handler(number, frame):
        raise Struck

    def struck(*args, **kwargs):
        signal.raise_signal(signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, handler)
    yield struck
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("interval", [0, 60], ids=["after a look at the file", "at once"])
@pytest.mark.parametrize("kind", ["aesgcm", "aescbc"])
def test_decryption(keys, tmp_path, strike, monkeypatch, kind, interval):
    """It is not taken for a damaged value."""
    keys(document(provider(kind, ("one", SECRET))))
    options = {"config": str(tmp_path / "encryption.yaml"), "reload_interval": interval}
    monkeypatch.setattr("revstore_encryption._ciphers.AESGCM", Gcm)
    transformer = open_transformer(
        StorageConfig(transformer="encryption", transformer_options=options), "secrets"
    )
    sealed = transformer.transform_to_storage(b"text", KEY)
    with monkeypatch.context() as patch:
        patch.setattr(Gcm, "before", strike)
        patch.setattr("revstore_encryption._ciphers.PKCS7.unpadder", lambda _: Unpadder())
        patch.setattr(Unpadder, "update", strike)
        with pytest.raises(Struck):
            transformer.transform_from_storage(sealed, KEY)

    assert transformer.transform_from_storage(sealed, KEY) == (b"text", False)


class Gcm:
    """In place of the one of cryptography: it does something before it decrypts."""

    def __init__(self, key):
        self._aead = AESGCM(key)
        self.encrypt = self._aead.encrypt

    def before(self):
        pass

    def decrypt(self, *args):
        self.before()
        return self._aead.decrypt(*args)


class Unpadder:
    """In place of the one of PKCS#7."""

    def update(self, data):
        raise AssertionError


@pytest.mark.parametrize("place", ["stat", "read", "parse"])
def test_a_file_that_is_read_again(keys, tmp_path, strike, monkeypatch, place):
    """It is read by the next call."""
    path = tmp_path / "encryption.yaml"
    keys(document(provider("aesgcm", ("old", SECRET))))
    options = {"config": str(path), "reload_interval": 0}
    config = StorageConfig(transformer="encryption", transformer_options=options)
    transformer = open_transformer(config, "secrets")
    save(path, document(provider("aesgcm", ("new", OTHER))))
    owner, name = {
        "stat": (os, "stat"),
        "read": (pathlib.Path, "read_bytes"),
        "parse": (yaml, "load"),
    }[place]
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, strike)
        with pytest.raises(Struck):
            transformer.transform_to_storage(b"text", KEY)

    assert transformer.transform_to_storage(b"text", KEY).startswith(b"k8s:enc:aesgcm:v1:new:")
