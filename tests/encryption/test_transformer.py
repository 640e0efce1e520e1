"""Which provider writes, which read, what is stale, and what is said of a value that none reads."""

from __future__ import annotations

import re

import pytest

from revstore.config import StorageConfig
from revstore.errors import BackendNotInstalled, ConfigError
from revstore.plugins import open_transformer

from .conftest import OTHER, SECRET, document, provider

KINDS = ("aesgcm", "aescbc", "secretbox")
KEY = b"/registry/secrets/default/a"


@pytest.fixture
def chain(keys):
    """Returns the transformer of secrets for these providers."""
    return lambda *providers: open_transformer(keys(document(*providers)), "secrets")


@pytest.mark.parametrize("kind", KINDS)
def test_a_rotation(chain, kind):
    """A second key reads; once it is first it writes, and what the other has written is stale; once
    the other is gone, its values are refused by name (XF-3)."""
    one, two = ("one", SECRET), ("two", OTHER)
    old = chain(provider(kind, one)).transform_to_storage(b"text", KEY)
    behind, ahead = chain(provider(kind, one, two)), chain(provider(kind, two, one))

    new = ahead.transform_to_storage(b"text", KEY)

    assert behind.transform_to_storage(b"text", KEY).startswith(f"k8s:enc:{kind}:v1:one:".encode())
    assert new.startswith(f"k8s:enc:{kind}:v1:two:".encode())
    assert behind.transform_from_storage(old, KEY) == (b"text", False)
    assert behind.transform_from_storage(new, KEY) == (b"text", True)
    assert ahead.transform_from_storage(old, KEY) == (b"text", True)
    assert ahead.transform_from_storage(new, KEY) == (b"text", False)
    with pytest.raises(
        ValueError, match=f"encrypted by {kind}, key 'one', which the configuration does not have"
    ):
        chain(provider(kind, two)).transform_from_storage(old, KEY)


def test_beginning_and_ending_to_encrypt(chain):
    """identity behind a cipher reads what is there; identity in front of it writes plain text."""
    gcm, identity = provider("aesgcm", ("one", SECRET)), provider("identity")
    begun, ended = chain(gcm, identity), chain(identity, gcm)
    sealed = begun.transform_to_storage(b"text", KEY)

    assert begun.transform_from_storage(b"text", KEY) == (b"text", True)
    assert begun.transform_from_storage(sealed, KEY) == (b"text", False)
    assert ended.transform_from_storage(sealed, KEY) == (b"text", True)
    assert ended.transform_from_storage(b"text", KEY) == (b"text", False)
    assert ended.transform_to_storage(b"text", KEY) == b"text"
    with pytest.raises(ValueError, match="is not encrypted, but the configuration has no identity"):
        chain(gcm).transform_from_storage(b"text", KEY)
    with pytest.raises(ValueError, match="encrypted by aesgcm, key 'one'"):
        chain(identity).transform_from_storage(sealed, KEY)


def test_two_keys_of_one_name(chain):
    """The second is tried after the first, and the error is about both (XF-4)."""
    one, two = provider("aesgcm", ("key", SECRET)), provider("aesgcm", ("key", OTHER))
    sealed = chain(one).transform_to_storage(b"text", KEY)

    assert chain(two, one).transform_from_storage(sealed, KEY) == (b"text", True)
    with pytest.raises(ValueError) as caught:
        chain(two, two).transform_from_storage(sealed, KEY)
    assert str(caught.value).count("cannot be decrypted by aesgcm, key 'key'") == 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_value_is_refused(chain, kind):
    """Cut anywhere, and with any bit of it flipped where the cipher authenticates."""
    secrets = chain(provider(kind, ("one", SECRET)))
    sealed = secrets.transform_to_storage(b"a plain text", KEY)
    head = len(f"k8s:enc:{kind}:v1:one:")
    damaged = [sealed[:size] for size in range(head, len(sealed))]
    if kind != "aescbc":
        for bit in range(8 * head, 8 * len(sealed)):
            changed = bytearray(sealed)
            changed[bit // 8] ^= 1 << bit % 8
            damaged.append(bytes(changed))
    for each in damaged:
        with pytest.raises(ValueError, match=f"cannot be decrypted by {kind}, key 'one': it"):
            secrets.transform_from_storage(each, KEY)


def test_only_aesgcm_knows_where_a_value_belongs(chain):
    """As in Kubernetes: the other two do not authenticate the object's key."""
    moved = {}
    for kind in KINDS:
        secrets = chain(provider(kind, ("one", SECRET)))
        sealed = secrets.transform_to_storage(b"text", KEY)
        try:
            moved[kind] = secrets.transform_from_storage(sealed, KEY + b"2")[0]
        except ValueError as error:
            moved[kind] = re.search("belongs to another object", str(error))[0]

    assert moved == {
        "aesgcm": "belongs to another object",
        "aescbc": b"text",
        "secretbox": b"text",
    }


def test_other_prefixes_are_named(chain):
    """The error shows who claims to have written a value, and nothing that may be ciphertext."""
    secrets = chain(provider("aesgcm", ("one", SECRET)))
    for stored, said in {
        b"k8s:enc:kms:v2:vault:\x0a\x01": "was encrypted by kms, key 'vault', which",
        b"k8s:enc:aesgcm:v1:\xff:text": "was encrypted by aesgcm, key '\ufffd', which",
        b"k8s:enc:": "names no provider and key",
        b"k8s:enc:aesgcm:v1;one:text:": "names no provider and key",
        b"k8s:enc:aesgcm;v1:one:text:": "names no provider and key",
        b"k8s:enc:aesgcm:v1:one\0text:": "names no provider and key",
    }.items():
        with pytest.raises(ValueError, match=said):
            secrets.transform_from_storage(stored, KEY)


def test_options_are_checked(tmp_path):
    """They belong to the transformer, so those of a backend, unknown and missing ones are
    refused."""
    for options, message in {
        (): r"transformer_options\.config",
        (("confg", "x"),): r"unknown option of transformer 'encryption': 'transformer_options\."
        r"confg': did you mean 'transformer_options\.config'",
        (("config", 1),): r"invalid transformer_options\.config 1: expected a string",
        (("config", str(tmp_path / "none")),): "none: cannot be read",
    }.items():
        config = StorageConfig(transformer="encryption", transformer_options=dict(options))
        with pytest.raises(ConfigError, match=message):
            open_transformer(config, "secrets")


def test_options_without_a_transformer_are_refused():
    """Somebody who forgets `transformer = "encryption"` must not store plain text."""
    config = StorageConfig(transformer_options={"config": "encryption.yaml"})

    with pytest.raises(ConfigError, match=r"unknown option of transformer 'identity'"):
        open_transformer(config, "secrets")


def test_without_the_extra(chain, monkeypatch):
    """secretbox says what to install."""
    monkeypatch.setitem(__import__("sys").modules, "nacl.secret", None)

    with pytest.raises(ConfigError, match=r"pip install 'revstore-encryption\[secretbox\]'"):
        chain(provider("secretbox", ("one", SECRET)))


def test_the_name_is_reserved(monkeypatch):
    monkeypatch.setenv("REVSTORE_PLUGINS", "")

    with pytest.raises(BackendNotInstalled, match="transformer 'encryption'"):
        open_transformer(StorageConfig(transformer="encryption"), "secrets")
