"""``revstore backup``, ``restore`` and ``verify``, in processes of their own."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys

import pytest

from revstore.config import StorageConfig
from revstore.operations._marker import Marker, set_marker
from revstore.plugins import open_backend

pytestmark = pytest.mark.slow

COMMAND = [sys.executable, "-m", "revstore"]


class Command:
    def __init__(self, folder):
        self.folder = folder
        self.env = {name: text for name, text in os.environ.items() if "REVSTORE" not in name}

    def __call__(self, *words, code=0, stdin=b""):
        """What it prints, and the lines of its errors."""
        done = self._run([*COMMAND, *words], stdin)
        assert done.returncode == code, (done.stdout, done.stderr)
        assert b"Traceback" not in done.stderr
        return done.stdout, done.stderr.decode().splitlines()

    def shell(self, line):
        """How a line of bash ended, in which $revstore is the command."""
        return self._run(["bash", "-c", line.replace("$revstore", shlex.join(COMMAND))])

    def _run(self, words, stdin=b""):
        return subprocess.run(
            words,
            input=stdin,
            capture_output=True,
            cwd=self.folder,
            env=self.env,
            timeout=60,
            check=False,
        )


@pytest.fixture
def command(tmp_path):
    return Command(tmp_path)


@pytest.fixture
def filled(url_of):
    url = url_of("sqlite", "from")
    with open_backend(StorageConfig.from_url(url)) as store:
        for number in range(5):
            store.put(f"/registry/pods/a/p{number}", b"value", expected_revision=0)
    return url


def test_there_and_back(command, filled, url_of):
    for kind in ("sqlite", "etcd3", "etcd2"):
        url = url_of(kind, "to")
        out, _ = command("backup", "b", "--json", "--store", filled)
        made = json.loads(out)
        assert (made["keys"], made["revision"]) == (5, 6)
        out, errors = command("restore", "b", "--json", "--bump-by-writes", "--store", url)
        restored = json.loads(out)
        assert (restored["keys"], restored["written"], restored["resumed"]) == (5, 5, False)
        assert restored["old_versions_expire"] == (kind != "etcd2")
        assert bool(errors) == (kind == "etcd2")
        out, _ = command("verify", filled, url, "--json")
        assert json.loads(out) == {"different": 0, "differences": [], "equal": True, "keys": 5}
        assert command("verify", "b", "--store", url)[0] == b"5 keys are equal.\n"


def test_through_a_pipe(command, filled, url_of):
    backup, _ = command("backup", "-", "--store", filled)
    out, _ = command("restore", "-", "--store", url_of("sqlite", "to"), stdin=backup)
    assert b"Restored 5 keys" in out
    _, (line,) = command(
        "restore", "-", "--store", url_of("sqlite", "other"), stdin=backup[:-1], code=1
    )
    assert line.startswith("error: standard input: it was cut off or altered")


def test_differences_are_named(command, filled, url_of):
    url = url_of("sqlite", "to")
    with open_backend(StorageConfig.from_url(url)) as store:
        store.put("/registry/pods/a/p1", b"other", expected_revision=0)
        store.put("/registry/pods/a/p2", b"value", expected_revision=0, ttl=100)
        store.put("/registry/pods/a/p9", b"value", expected_revision=0)
    out, _ = command("verify", filled, url, "--json", code=1)
    assert [(each["what"], each["key"][-2:]) for each in json.loads(out)["differences"]] == [
        ("missing", "p0"),
        ("value", "p1"),
        ("ttl", "p2"),
        ("missing", "p3"),
        ("missing", "p4"),
        ("extra", "p9"),
    ]
    out, _ = command("verify", filled, url, code=1)
    assert out.splitlines()[-1] == b"6 of 6 keys differ."
    out, _ = command("verify", filled, url, "--prefix", "/registry/pods/a/p9", code=1)
    assert b"1 of 1 key differs." in out


def test_wrong_usage_and_failures(command, filled, tmp_path):
    (tmp_path / "no").write_text("no backup")
    for words, code, text in [
        (("backup", "-", "--json"), 2, "give - or --json, not both"),
        (("backup", "missing/b"), 1, "No such file"),
        (("backup", "/dev/null"), 2, "a regular one"),
        (("restore", "no"), 1, "no: it is not a backup of revstore"),
        (("restore", "missing"), 1, "No such file"),
        (("restore", "no", "--merge", "both"), 2, "skip"),
        (("verify", "nothing://x"), 2, "nothing"),
        (("verify", "no", "no"), 2, "--store has no meaning here"),
        (("verify", "-", "-", "--config", "x.toml"), 2, "--store has no meaning here"),
        (("backup", "b", "--store", "etcd3://127.0.0.1:1?timeout=1"), 3, "127.0.0.1:1"),
    ]:
        store = () if "--store" in words else ("--store", filled)
        _, errors = command(*words, *store, code=code)
        assert text in errors[-1]
    assert not (tmp_path / "b").exists()
    # A link stays one.
    (tmp_path / "link").symlink_to("b")
    command("backup", "link", "--store", filled)
    assert (tmp_path / "link").is_symlink()
    assert command("verify", "b", filled)[0] == b"5 keys are equal.\n"


READING = [
    ("backup", "b"),
    ("export", "-o", "x.yaml"),
    ("compact",),
    ("rewrite",),
    ("copy", "STORE", "memory://"),
    ("migrate", "STORE", "memory://"),
    ("verify", "STORE", "memory://"),
    ("verify", "memory://", "STORE"),
]


@pytest.mark.parametrize("words", READING, ids=" ".join)
def test_a_mistyped_store_is_not_an_empty_one(command, tmp_path, words):
    """What reads a whole store creates none, unless it is told to."""
    url = f"sqlite:///{tmp_path}/typo.db"
    named = "STORE" in words
    words = [url if word == "STORE" else word for word in words]
    _, errors = command(*words, *([] if named else ["--store", url]), code=2)
    assert errors[-1].startswith(f"error: invalid options.path '{tmp_path}/typo.db'")
    assert os.listdir(tmp_path) == []


def test_a_store_that_may_be_created(command, tmp_path):
    url = f"sqlite:///{tmp_path}/new.db"
    assert b"Backed up 0 keys" in command("backup", "b", "--store", f"{url}?create=true")[0]
    command("copy", url, f"sqlite:///{tmp_path}/to.db")
    _, errors = command("copy", "new.db", f"sqlite:///{tmp_path}/other.db", code=2)
    assert "named by its URL, such as sqlite:///new.db" in errors[-1]


def test_pipes_with_names(command, filled, tmp_path):
    command("backup", "b", "--store", filled)
    target = f"sqlite:///{tmp_path}/to.db"
    for words, said in [
        (f"restore <(cat b) --store {target}", "Restored 5 keys"),
        (f"verify <(cat b) {target}", "5 keys are equal"),
        (f"verify {target} <(cat b)", "5 keys are equal"),
        ("verify b <(cat b)", "5 keys are equal"),
    ]:
        done = command.shell(f"$revstore {words}")
        assert (said in done.stdout.decode(), done.returncode) == (True, 0), done.stderr


def test_no_plain_text_of_an_encrypted_secret(command, tmp_path):
    (tmp_path / "keys.yaml").write_text(
        """
apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [secrets]
  providers:
  - aesgcm:
      keys:
      - name: k1
        secret: MDEyMzQ1Njc4OWFiY2RlZg==
"""
    )
    (tmp_path / "keys.yaml").chmod(0o600)
    (tmp_path / "store.toml").write_text(
        f"""
url = "sqlite:///{tmp_path}/a.db"
transformer = "encryption"
[transformer_options]
config = "{tmp_path}/keys.yaml"
"""
    )
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "s", "namespace": "d"},
        "stringData": {"password": "correct-horse"},
    }
    command("apply", "-f", "-", "--config", "store.toml", stdin=json.dumps(secret).encode())
    for compression in ("none", "gzip", "zstd"):
        command("backup", "b", "--compression", compression, "--config", "store.toml")
        data = (tmp_path / "b").read_bytes()
        if compression == "none":
            assert b"k8s:enc:aesgcm:v1:k1:" in data
        assert b"horse" not in data
    # It comes back with the keys.
    text = (tmp_path / "store.toml").read_text().replace("a.db", "b.db")
    (tmp_path / "new.toml").write_text(text)
    command("restore", "b", "--config", "new.toml")
    out, _ = command("get", "secret", "s", "-n", "d", "-o", "json", "--config", "new.toml")
    assert json.loads(out)["stringData"] == {"password": "correct-horse"}


def test_closed_streams(command, filled):
    done = command.shell(f"$revstore backup b --store {filled} >&- 2>&-")
    assert done.returncode == 0
    command("verify", "b", filled)
    for words in ("backup - >&-", "export -o - >&-", "restore - <&-", "verify - <&-"):
        done = command.shell(f"$revstore --store {filled} {words}")
        assert (done.returncode, done.stdout) == (1, b"")
        assert done.stderr.startswith(b"error: standard ")
    # A reader that goes away ends a backup to standard output.
    done = command.shell(f"$revstore backup - --store {filled} | true; exit $PIPESTATUS")
    assert done.returncode in (0, 141)  # 0: it was written before the reader went
    assert done.stderr == b""


def test_doctor_names_an_unfinished_operation(command, filled):
    out, _ = command("doctor", "--json", "--store", filled)
    assert not [each for each in json.loads(out)["checks"] if each["name"] == "operations"]
    with open_backend(StorageConfig.from_url(filled)) as store:
        set_marker(store, "/registry/", Marker("restore", "1234", "2026-01-01", {}))
    out, _ = command("doctor", "--json", "--store", filled, code=1)
    (check,) = [each for each in json.loads(out)["checks"] if each["name"] == "operations"]
    assert check["result"] == "failed"
    assert "restore from 1234, begun at 2026-01-01" in check["detail"]
