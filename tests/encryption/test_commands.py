"""``revstore encryption init``, ``rotate`` and ``status``: real files, real stores, processes that
are killed."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import random
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.cli.conftest import Revstore

from revstore.errors import ConfigError
from revstore.factory import StorageFactory
from revstore.testing.interrupts import code_below, interrupt_every_line
from revstore_encryption import _key_file
from revstore_encryption._configuration import read_configuration
from revstore_encryption._key_file import init, rotate

from .conftest import OTHER, SECRET, document, provider, save


@pytest.fixture
def revstore(tmp_path):
    return Revstore(tmp_path)


def secret(name: str) -> dict:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": "default"},
        "data": {"k": "djE="},
    }


def secrets_in(path: Path) -> list[str]:
    return [
        key["secret"]
        for entry in yaml.safe_load(path.read_text())["resources"]
        for each in entry["providers"]
        for inner in each.values()
        for key in inner.get("keys", ())
    ]


def names_in(path: Path) -> list[str]:
    (chain,) = read_configuration(str(path)).resources.values()
    return [key.name for each in chain for key in each.keys]


def settings_file(folder: Path) -> dict[str, str]:
    """The environment of a store that uses the file of keys."""
    toml = folder / "revstore.toml"
    toml.write_text(
        f'type = "sqlite"\ntransformer = "encryption"\n'
        f'[options]\npath = "{folder}/store.db"\n'
        f'[transformer_options]\nconfig = "{folder}/keys.yaml"\n'
    )
    return {"REVSTORE_URL": "", "REVSTORE_CONFIG": str(toml)}


@pytest.mark.parametrize("kind", ["aesgcm", "aescbc", "secretbox"])
def test_init(revstore, tmp_path, kind):
    """The file is valid, private, and has a key that is shown nowhere; a second call refuses, and
    leaves nothing beside it."""
    path = tmp_path / "keys.yaml"
    arguments = ["encryption", "init", str(path), "--provider", kind]
    old = os.umask(0)
    try:
        said = revstore.out(*arguments, "--resource", "secrets", "--resource", "*.apps")
    finally:
        os.umask(old)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    configuration = read_configuration(str(path))
    assert list(configuration.resources) == [("secrets", ""), ("*", "apps")]
    assert [each.kind for each in configuration.providers("secrets")] == [kind, "identity"]
    (key,) = set(secrets_in(path))
    assert len(base64.b64decode(key)) == 32
    assert key not in "\n".join(said)
    before = path.read_bytes()
    assert "exists" in revstore.error(*arguments, code=2)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["keys.yaml"]


def test_keys_differ(tmp_path):
    for name in ("a", "b"):
        init(str(tmp_path / name), "aesgcm", ["secrets"])

    assert secrets_in(tmp_path / "a") != secrets_in(tmp_path / "b")


def test_init_refuses(revstore, tmp_path):
    """Names that no EncryptionConfiguration may have, and folders that are not there."""
    for resource in ("Secrets", "*", "events.events.k8s.io"):
        error = revstore.error("encryption", "init", "keys.yaml", "--resource", resource, code=2)
        assert "resources[0].resources[0]" in error
    assert "No such file" in revstore.error("encryption", "init", "no/keys.yaml", code=1)
    for words in (("init", "-"), ("rotate", "-"), ("init", "k", "--store", "memory://")):
        assert "FILE" in revstore.error("encryption", *words, code=2) or words[1] == "-"
    assert os.listdir(tmp_path) == []


def test_a_life_of_keys(revstore, tmp_path):
    """Plain values, a first key, a second one, updates, and then the first key may go: each step is
    seen in ``status``, and every value can be read at each."""
    path = tmp_path / "keys.yaml"
    revstore.apply(secret("a"), secret("b"))
    env = settings_file(tmp_path)

    def status(code=0):
        return json.loads(revstore("encryption", "status", "--json", code=code, **env).stdout)

    def counted():
        return {(row["provider"], row["key"]): row["count"] for row in status()["values"]}

    revstore.out("encryption", "init", str(path))
    revstore.apply(secret("c"), **env)
    assert counted() == {("identity", ""): 2, ("aesgcm", "key1"): 1}
    said = revstore.out("encryption", "rotate", str(path))
    assert said == ["secrets: aesgcm, key2 encrypts new values."]
    revstore.apply(secret("d"), **env)
    assert counted() == {("identity", ""): 2, ("aesgcm", "key1"): 1, ("aesgcm", "key2"): 1}
    assert [row["stale"] for row in status()["values"]] == [1, 0, 2]
    with StorageFactory(Path(env["REVSTORE_CONFIG"])) as factory:
        registry = factory.registry("secrets")
        for obj in registry.list():
            registry.update(obj)
    assert counted() == {("aesgcm", "key2"): 4}
    (unused,) = status()["unused"]
    assert (unused["provider"], unused["key"]) == ("aesgcm", "key1")
    assert revstore.out("encryption", "status", **env) == [
        "RESOURCE   PROVIDER   KEY    VALUES   STALE",
        "secrets    aesgcm     key2   4        0",
        f"{path}: aesgcm, key1 encrypts no stored value.",
    ]
    kept = yaml.safe_load(path.read_text())
    kept["resources"][0]["providers"] = [
        {"aesgcm": {"keys": kept["resources"][0]["providers"][0]["aesgcm"]["keys"][:1]}}
    ]
    save(path, kept)
    assert len(revstore.out("get", "secrets", "-o", "name", **env)) == 4


def test_status_names_what_no_key_opens(revstore, tmp_path):
    """Each of them, with the reason, and exit code 1; no key is shown."""
    path = tmp_path / "keys.yaml"
    env = settings_file(tmp_path)
    save(path, document(provider("aesgcm", ("one", SECRET)), provider("identity")))
    revstore.apply(secret("a"), secret("b"), **env)
    save(path, document(provider("aesgcm", ("two", OTHER)), provider("identity")))
    revstore.apply(secret("c"), **env)

    done = revstore("encryption", "status", code=1, **env)
    report = json.loads(revstore("encryption", "status", "--json", code=1, **env).stdout)

    assert [line.split(":")[1].strip() for line in done.stderr.splitlines()] == [
        "/registry/secrets/default/a",
        "/registry/secrets/default/b",
    ]
    assert "encrypted by aesgcm, key 'one', which the configuration does not have" in done.stderr
    assert (report["unreadable"], len(report["errors"])) == (2, 2)
    assert not report["errors"][0]["unavailable"]
    for text in (done.stdout, done.stderr, json.dumps(report)):
        assert SECRET not in text
        assert OTHER not in text


def test_a_running_program_follows(tmp_path):
    """A value that another program writes with a key of a moment ago can be read at once, however
    seldom the file is looked at."""
    path = tmp_path / "keys.yaml"
    init(str(path), "aesgcm", ["secrets"])
    toml = Path(settings_file(tmp_path)["REVSTORE_CONFIG"])
    toml.write_text(toml.read_text() + 'reload_interval = "1h"\n')

    with StorageFactory(toml) as reader:
        reader.registry("secrets").create(secret("a"))
        rotate(str(path))
        with StorageFactory(toml) as writer:
            made = writer.registry("secrets").create(secret("b"))
            value = writer.backend().get("/registry/secrets/default/b").kv.value
        assert value.startswith(b"k8s:enc:aesgcm:v1:key2:")
        assert reader.registry("secrets").get("b", namespace="default") == made


def test_rotate_keeps_the_file(tmp_path):
    """Its mode, its owner, a link to it, what else is in it, and all keys of before."""
    path, link = tmp_path / "keys.yaml", tmp_path / "link.yaml"
    content = document(provider("secretbox", ("key7", SECRET)), provider("identity"))
    content["resources"].append(
        {
            "resources": ["*.apps"],
            "providers": [provider("identity"), provider("aesgcm", ("x", OTHER))],
        }
    )
    save(path, content)
    path.chmod(0o440)
    link.symlink_to("keys.yaml")

    changes = rotate(str(link))

    assert [(each.resources, each.key) for each in changes] == [
        (("secrets",), "key8"),
        (("*.apps",), ""),
    ]
    assert "plain text" in changes[1].reason
    assert link.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o440
    after = yaml.safe_load(path.read_text())
    first = after["resources"][0]["providers"][0]["secretbox"]["keys"].pop(0)
    assert first["name"] == "key8"
    assert after == content


def test_two_steps(revstore, tmp_path):
    """For copies of the file: the new key can decrypt first, and encrypts later."""
    path = tmp_path / "keys.yaml"
    init(str(path), "aesgcm", ["secrets"])
    (change,) = rotate(str(path), behind=True)
    assert (change.key, names_in(path)) == ("key2", ["key1", "key2"])
    before = secrets_in(path)

    (change,) = rotate(str(path), front="key2")

    assert (change.key, names_in(path)) == ("key2", ["key2", "key1"])
    assert secrets_in(path) == before[::-1]
    with pytest.raises(ConfigError, match="no key is named 'key9'"):
        rotate(str(path), front="key9")
    both = revstore.error("encryption", "rotate", str(path), "--behind", "--front", "x", code=2)
    assert "not both" in both


def test_rotate_refuses(revstore, tmp_path):
    """The file stays as it is, and no message has a key."""
    path = tmp_path / "keys.yaml"
    good = document(provider("aesgcm", ("one", SECRET)))
    cases = {
        "not valid YAML": yaml.safe_dump(good) + "]",
        "no entry lists 'pods'": good,
        "writes plain text": document(provider("identity"), provider("aesgcm", ("one", SECRET))),
        "bytes in base64": document(provider("aesgcm", ("one", SECRET[:-8]))),
    }
    for said, content in cases.items():
        save(path, content)
        before = path.read_bytes()
        more = ["--resource", "pods"] if "pods" in said else []
        error = revstore.error("encryption", "rotate", str(path), *more, code=2)
        if said != "not valid YAML":
            assert said in error
        assert SECRET[:20] not in error
        assert path.read_bytes() == before
    save(path, good)
    path.chmod(0o620)
    assert "others can write it" in revstore.error("encryption", "rotate", str(path), code=2)
    path.chmod(0o644)
    warned = revstore("encryption", "rotate", str(path)).stderr
    assert "can be read by others" in warned
    assert "cannot be read" in revstore.error("encryption", "rotate", "none.yaml", code=2)


def test_two_at_once(tmp_path):
    """The second refuses: it would lose the key that the first one adds."""
    path = tmp_path / "keys.yaml"
    init(str(path), "aesgcm", ["secrets"])
    with open(path, "rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="another process is changing it"):
            rotate(str(path))

    rotate(str(path))

    assert names_in(path) == ["key2", "key1"]


def test_an_alias(tmp_path):
    """Entries that share their keys by an alias get one new key."""
    path = tmp_path / "keys.yaml"
    content = document(provider("aesgcm", ("one", SECRET)))
    shared = content["resources"][0]["providers"]
    content["resources"].append({"resources": ["*.apps"], "providers": shared})
    save(path, content)
    assert "&id" in path.read_text()

    changes = rotate(str(path))

    assert [each.key for each in changes] == ["key1", "key1"]
    assert len(read_configuration(str(path)).providers("secrets")[0].keys) == 2


NAMES = st.lists(
    st.sampled_from(
        ["key1", "key2", "key9", "old", "key010", "key", "2026-01-01", "ключ", "0o17", "y", "1e3"]
    ),
    min_size=1,
    unique=True,
)


@settings(max_examples=50, deadline=None)
@given(names=NAMES, times=st.integers(1, 3))
def test_rotations_keep_every_key(tmp_path_factory, names, times):
    path = tmp_path_factory.mktemp("keys") / "keys.yaml"
    save(path, document(provider("aesgcm", *((name, SECRET) for name in names))))

    added = [change.key for _ in range(times) for change in rotate(str(path))]

    assert names_in(path) == [*added[::-1], *names]
    assert len(set(names_in(path))) == len(names) + times


ROTATING = """
import sys
from revstore_encryption._key_file import rotate
print("ready", flush=True)
while True:
    rotate(sys.argv[1])
"""


def test_killed(tmp_path):
    """kill -9 at any moment leaves the file of before or of after, whole; the next call goes on,
    and nothing that others could read is left."""
    path = tmp_path / "keys.yaml"
    init(str(path), "aesgcm", ["secrets"])
    count, chance = 1, random.Random(5)
    for _ in range(12):
        process = subprocess.Popen(
            [sys.executable, "-c", ROTATING, str(path)], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(chance.uniform(0, 0.02))
        process.send_signal(signal.SIGKILL)
        process.communicate()

        names = names_in(path)
        assert names == [f"key{number}" for number in range(len(names), 0, -1)]
        assert len(names) >= count
        count = len(names)
        assert all(each.stat().st_mode & 0o777 == 0o600 for each in tmp_path.iterdir())
    rotate(str(path))
    assert count > 1
    assert os.listdir(tmp_path) == ["keys.yaml"]


def test_interrupted_at_any_line(tmp_path):
    """Ctrl-C leaves the file of before or of after, whole, with all its keys, and no other file;
    no descriptor stays open."""
    path = tmp_path / "keys.yaml"
    init(str(path), "aesgcm", ["secrets"])
    before = names_in(path)
    open_before = len(os.listdir("/proc/self/fd"))

    def check(_spot: str) -> None:
        nonlocal before
        names = names_in(path)
        assert names[len(names) - len(before) :] == before
        assert len(names) <= len(before) + 1
        before = names

    interrupt_every_line(
        lambda: rotate(str(path)), where=code_below(_key_file), after=check, visits=1
    )

    rotate(str(path))
    assert os.listdir(tmp_path) == ["keys.yaml"]
    assert len(os.listdir("/proc/self/fd")) <= open_before + 3
