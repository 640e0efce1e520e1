"""Values that Kubernetes' code has made, and independent code that reads what is written."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from revstore.plugins import open_transformer
from revstore.secret import Secret
from revstore_encryption._configuration import Key, Provider
from revstore_encryption._transformer import ProviderChain

from .conftest import document, provider
from .independent import OPEN, Wrong

KINDS = ("aesgcm", "aescbc", "secretbox")
ANSWERS = [
    json.loads(line)
    for line in (Path(__file__).parent / "known_answers.jsonl").read_text().splitlines()
]
HERE = [each for each in ANSWERS if each["provider"] in KINDS]


@pytest.mark.parametrize("answer", HERE)
def test_values_of_kubernetes_are_read(keys, answer):
    """What kube-apiserver has stored is read, and is not stale (XF-6, XF-7)."""
    config = keys(document(provider(answer["provider"], ("key1", answer["secret"]))))
    secrets = open_transformer(config, "secrets")
    stored = base64.b64decode(answer["stored"])

    plain, stale = secrets.transform_from_storage(stored, answer["key"].encode())

    assert (plain, stale) == (base64.b64decode(answer["plain"]), False)


@pytest.mark.parametrize("answer", HERE)
def test_the_independent_code_reads_them_too(answer):
    """Else it would prove nothing."""
    stored = base64.b64decode(answer["stored"]).removeprefix(answer["prefix"].encode())
    secret, context = base64.b64decode(answer["secret"]), answer["key"].encode()

    assert OPEN[answer["provider"]](secret, stored, context) == base64.b64decode(answer["plain"])


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_independent_code_reads_what_is_written(kind, data):
    """The bytes are those of Kubernetes' format, whatever the value, the key, and its name."""
    plain = data.draw(st.binary(max_size=100))
    secret = os.urandom(data.draw(st.sampled_from([32] if kind == "secretbox" else [16, 24, 32])))
    name = data.draw(st.text("ab:é-", min_size=1, max_size=4))
    context = data.draw(st.binary(max_size=40))
    key = Key(name, Secret(base64.b64encode(secret).decode()))
    stored = ProviderChain((Provider(kind, (key,)),)).transform_to_storage(plain, context)

    prefix = f"k8s:enc:{kind}:v1:{name}:".encode()
    assert stored.startswith(prefix)
    body = stored.removeprefix(prefix)
    assert OPEN[kind](secret, body, context) == plain
    if kind != "aescbc":  # which authenticates nothing
        with pytest.raises(Wrong):
            OPEN[kind](secret, body[:-1] + bytes([body[-1] ^ 0x80]), context)
