"""Whatever comes in, the answer is a value or a typed error that names what was wrong.

Inputs are mutations of real ones, from a seed that is printed with a failure and can be set by
``REVSTORE_TEST_SEED``. ``REVSTORE_TEST_LONG=50`` tries fifty times as many: a million and more.
"""

from __future__ import annotations

import base64
import os
import random
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import attrs
import pytest

from revstore.arguments import check_key
from revstore.cli._main import run
from revstore.codec import json_codec
from revstore.config import StorageConfig
from revstore.continue_token import decode_continue, encode_continue
from revstore.errors import (
    ConfigError,
    CorruptObject,
    InternalError,
    InvalidArgument,
    InvalidContinueToken,
    InvalidKey,
    InvalidObject,
    InvalidResourceVersion,
    InvalidSelector,
    StorageError,
)
from revstore.manifests import ManifestError, parse
from revstore.memory import MemoryBackend
from revstore.objects import ObjectMeta
from revstore.resource_type import ResourceType
from revstore.selectors import parse_field_selector, parse_label_selector
from revstore.testing.seeds import SEED
from revstore.typed import TypedStorage
from revstore.versioner import parse_resource_version

pytestmark = pytest.mark.slow

TRIES = 2500 * int(os.environ.get("REVSTORE_TEST_LONG", "1"))

PIECES = [
    *("", "0", "1", "-1", "+1", "00", "18446744073709551615", "18446744073709551616", "1e9", "0x1"),
    *(" ", "\t", "\n", "\0", "\x7f", "é", "🙂", "\ud800", "ﬀ", "\u0661", "\u202e", "\ufeff"),
    *(",", "=", "==", "!=", "!", "(", ")", "in", "notin", "<", ">", "\\", "'", '"', "%", "%00"),
    *("/", "//", "..", ".", "~", "#", "?", "&", ";", ":", "@", "[", "]", "{", "}", "*", "$", "`"),
    *("true", "null", "NaN", "Infinity", "a" * 300, "é" * 100, "://", "sqlite", "memory"),
]


def mutated(choose: random.Random, text: str) -> str:
    """A few changes: pieces put in, cut out, doubled, swapped."""
    for _ in range(choose.randrange(5)):
        at, to = sorted((choose.randrange(len(text) + 1), choose.randrange(len(text) + 1)))
        to = min(to, at + choose.randrange(1, 12))
        match choose.randrange(5):
            case 0:
                text = text[:at] + choose.choice(PIECES) + text[at:]
            case 1:
                text = text[:at] + text[to:]
            case 2:
                text = text[:to] + text[at:to] * 2 + text[to:]
            case 3:
                text = text[:at] + text[at:to][::-1] + text[to:]
            case 4:
                text = text[:at] + chr(choose.randrange(1, 0x250)) + text[at + 1 :]
    return text


def names_it(error: StorageError, text: str) -> None:
    """The message is one line or more of text, says what was expected, and is no novel."""
    message = str(error)
    assert message
    assert len(message) < 3 * len(text) * 6 + 2000
    assert not isinstance(error, InternalError)


def keeps_the_secret(text: str, shown: str) -> None:
    """A password that stands where passwords stand is not shown."""
    placed = re.findall(
        r"://root:hunter2@|\?(?:\S*&)?password=hunter2\b|^password = .hunter2.$", text, re.M
    )
    if len(placed) == text.count("hunter2"):
        assert "hunter2" not in shown


def label_selector(text: str) -> None:
    try:
        parsed = parse_label_selector(text)
    except InvalidSelector as error:
        names_it(error, text)
        return
    assert parse_label_selector(str(parsed)) == parsed
    assert parsed.matches({"app": "x"}) in (True, False)


def field_selector(text: str) -> None:
    try:
        parsed = parse_field_selector(text)
    except InvalidSelector as error:
        names_it(error, text)
        return
    assert parse_field_selector(str(parsed)) == parsed


def continue_token(text: str) -> None:
    try:
        token = decode_continue(text, "/pods/")
    except InvalidContinueToken as error:
        names_it(error, text)
        return
    assert token.start.startswith("/pods/")
    assert (
        decode_continue(encode_continue(token.start, "/pods/", token.revision), "/pods/") == token
    )


def resource_version(text: str) -> None:
    try:
        revision = parse_resource_version(text)
    except InvalidResourceVersion as error:
        names_it(error, text)
        return
    assert 0 <= revision < 2**64
    assert text == "" or revision == int(text)
    assert text == "" or (text.isascii() and text.isdigit())


def key(text: str) -> None:
    try:
        check_key(text)
    except InvalidKey as error:
        names_it(error, text)
    else:
        assert text.encode().decode() == text
    with MemoryBackend() as backend:
        storage = TypedStorage(backend, ResourceType(dict, "/pods"))
        obj = {"metadata": {"name": "x"}}
        try:
            storage.create(text, obj)
        except InvalidKey as error:
            names_it(error, text)
            return
        assert storage.get(text)["metadata"]["name"] == "x"
        assert len(storage.list("/pods")) == 1


def url(text: str) -> None:
    try:
        config = StorageConfig.from_url(text)
    except ConfigError as error:
        names_it(error, text)
        keeps_the_secret(text, str(error))
        return
    assert isinstance(config, StorageConfig)
    keeps_the_secret(text, repr(config))


def toml(text: str, folder: Path) -> None:
    path = folder / "config.toml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        config = StorageConfig.load(path)
    except ConfigError as error:
        names_it(error, text)
        keeps_the_secret(text, str(error))
        return
    keeps_the_secret(text, repr(config))


@attrs.frozen(kw_only=True)
class Pod:
    metadata: ObjectMeta
    count: int = 0
    names: tuple[str, ...] = ()


@cache
def stores() -> tuple[MemoryBackend, list[tuple[Any, Any]]]:
    """A store of one key, as typed storages with their codecs: to compile one takes far longer
    than to read an input."""
    backend = MemoryBackend()
    kinds = (dict, Pod)
    return backend, [
        (TypedStorage(backend, ResourceType(kind, "/pods")), json_codec(kind)) for kind in kinds
    ]


def stored_bytes(data: bytes) -> None:
    backend, storages = stores()
    before = backend.get("/registry/pods/x").kv
    revision = before.revision if before else 0
    assert backend.put("/registry/pods/x", data, expected_revision=revision).succeeded
    for storage, codec in storages:
        try:
            found = storage.get("/pods/x")
        except CorruptObject as error:
            names_it(error, "/pods/x")
            continue
        assert codec.decode(codec.encode(found)) == found


def manifest(data: bytes) -> None:
    try:
        found = parse(data, "the-file")
    except ManifestError as error:
        names_it(error, "the-file" * 20)
        return
    for each in found:
        assert isinstance(each.object, dict)


LABELS = [
    "app=x",
    "app in (x,y),tier!=web",
    "!a,b",
    "n>5,m<7",
    "example.com/name==v",
    "a notin (b)",
]
FIELDS = ["spec.nodeName=n1", "metadata.name!=x,status.phase=Running", r"a=b\,c\=d\\"]
TOKENS = [
    encode_continue("/pods/a/b\0", "/pods/", 7),
    encode_continue("/pods/é\0", "/pods/", -1),
    base64.urlsafe_b64encode(b'{"v":"meta.k8s.io/v1","rv":3,"start":"../x"}').decode(),
]
VERSIONS = ["", "0", "7", "18446744073709551615"]
KEYS = ["/pods/a/b", "/pods/x", "/pods/é/🙂", "pods/x", "/podsx/y", "/pods/.hidden/..x"]
URLS = [
    "sqlite:///x.db?poll_interval=0.5",
    "memory://",
    "etcd3://root:hunter2@h1:2379,[::1]:2379/prefix?ca_file=/x&password=hunter2",
    "memory://?compaction_interval=5&overrides.events.url=memory://",
]
TOMLS = [
    'type = "memory"\nprefix = "/registry"\n[options]\nx = 1\n',
    'url = "etcd3://root:hunter2@h/"\n[overrides.events]\nurl = "memory://"\n',
    'password = "hunter2"\ncompaction_interval = 5.5\n[resources."a.b"]\nnamespaced = true\n',
]
OBJECTS = [
    '{"metadata":{"name":"x","labels":{"a":"b"}},"count":3,"names":["y"]}',
    '{"metadata":{"name":"x"},"count":1e400}',
    '{"metadata":{"name":"x","generation":9223372036854775808},"names":[null]}',
    "[" * 2000,
]
MANIFESTS = [
    "apiVersion: v1\nkind: Pod\nmetadata:\n  name: x\n---\na: &a [*a]\n",
    '{"apiVersion":"v1","kind":"List","items":[{"kind":"Pod"}]}',
    "kind: Pod\nmetadata: {name: x, labels: {a: 1}}\n<<: {b: 2}\nx: !!python/object:os.system y\n",
]

TEXTS: dict[str, tuple[list[str], Callable[[str], None]]] = {
    "label selector": (LABELS, label_selector),
    "field selector": (FIELDS, field_selector),
    "continue token": (TOKENS, continue_token),
    "resource version": (VERSIONS, resource_version),
    "key": (KEYS, key),
    "url": (URLS, url),
}
BYTES: dict[str, tuple[list[str], Callable[[bytes], None]]] = {
    "stored bytes": (OBJECTS, stored_bytes),
    "manifest": (MANIFESTS, manifest),
}


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", TEXTS)
def test_texts(name):
    """LIST-7, LISTRV-1, KEY-1: a value that holds what it should, or the one typed error."""
    choose = random.Random(f"{SEED}-{name}")
    corpus, check = TEXTS[name]
    for number in range(TRIES):
        text = mutated(choose, choose.choice(corpus))
        try:
            check(text)
        except Exception as error:
            error.add_note(f"seed {SEED}, input {number}: {text!r}")
            raise


@pytest.mark.timeout(3600)
def test_toml(tmp_path, monkeypatch):
    """A configuration, or ``ConfigError``; never a secret in either."""
    monkeypatch.chdir(tmp_path)
    choose = random.Random(f"{SEED}-toml")
    for number in range(TRIES):
        text = mutated(choose, choose.choice(TOMLS))
        try:
            toml(text, tmp_path)
        except Exception as error:
            error.add_note(f"seed {SEED}, input {number}: {text!r}")
            raise


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", BYTES)
def test_bytes(name):
    """GET-6: an object, or the one typed error for its key; a file, or one that names it."""
    choose = random.Random(f"{SEED}-{name}")
    corpus, check = BYTES[name]
    for number in range(TRIES):
        data = mutated(choose, choose.choice(corpus)).encode("utf-8", "surrogatepass")
        if data and choose.random() < 0.3:
            at = choose.randrange(len(data))
            data = data[:at] + bytes([choose.randrange(256)]) + data[at + 1 :]
        try:
            check(data)
        except Exception as error:
            error.add_note(f"seed {SEED}, input {number}: {data!r}")
            raise


COMMANDS = [
    ["get", "pods", "-n", "default", "-l", "app=x", "-o", "json"],
    ["get", "pods/x", "deployments.apps/y"],
    ["delete", "pod", "x", "--ignore-not-found"],
    ["apply", "-f", "nothing.yaml"],
    ["compact", "7"],
    ["--store", "memory://", "doctor", "--json"],
    ["plugins", "check", "memory"],
    ["get", "all", "-A", "--field-selector", "metadata.name=x"],
]


@pytest.mark.timeout(3600)
def test_arguments(tmp_path, monkeypatch, capfd):
    """Each run ends with one of the exit codes, without a traceback, and tells at most a line or
    two of what is wrong."""
    monkeypatch.chdir(tmp_path)
    choose = random.Random(f"{SEED}-arguments")
    for number in range(TRIES // 5):
        words = [
            mutated(choose, word) if choose.random() < 0.3 else word
            for word in choose.choice(COMMANDS)
        ]
        words = [word.replace("\0", "") for word in words]  # no command line can hold one
        if not {"--store", "plugins"} & set(words):
            words = ["--store", "memory://", *words]
        try:
            code = run(words)
            told = capfd.readouterr().err
            assert code in (0, 1, 2, 3), code
            assert "--debug shows where" not in told, told
            assert "Traceback" not in told, told
        except Exception as error:
            error.add_note(f"seed {SEED}, input {number}: {words!r}")
            raise


def test_every_input_is_of_the_tree():
    """The errors that are expected here are those that callers are told to expect."""
    for kind in (ConfigError, InvalidKey, InvalidSelector, InvalidContinueToken, InvalidObject):
        assert issubclass(kind, InvalidArgument), kind
