"""``revstore copy`` and ``migrate``, in processes of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from revstore.config import StorageConfig
from revstore.errors import ReadOnly
from revstore.plugins import open_backend
from revstore.testing._support import PATIENCE, wait_until

pytestmark = pytest.mark.slow


def start(folder, *words):
    env = {name: text for name, text in os.environ.items() if "REVSTORE" not in name}
    return subprocess.Popen(
        [sys.executable, "-m", "revstore", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=folder,
        env=env,
    )


@pytest.fixture
def command(tmp_path):
    """Returns what a command prints, and its errors."""

    def command(*words, code=0):
        with start(tmp_path, *words) as process:
            out, err = process.communicate(timeout=60)
        assert process.returncode == code, (out, err)
        assert b"Traceback" not in err
        return out.decode(), err.decode()

    return command


@pytest.fixture
def source(url_of):
    url = url_of("sqlite", "from")
    with open_backend(StorageConfig.from_url(url)) as store:
        for number in range(5):
            store.put(f"/registry/pods/a/p{number}", b"value", expected_revision=0)
    return url


def test_copy(command, source, url_of, tmp_path):
    """By URL and by TOML file, and what is refused."""
    target = url_of("sqlite", "to")
    (tmp_path / "to.toml").write_text(f'type = "sqlite"\n[options]\npath = "{tmp_path}/to.db"\n')
    out, err = command("copy", source, "to.toml", "--json")
    done = json.loads(out)
    assert (done["keys"], done["written"], done["complete"]) == (5, 5, True)
    assert err == ""
    with open_backend(StorageConfig.from_url(target)) as store:
        store.put("/registry/more", b"", expected_revision=0)
    _, err = command("copy", source, target, code=1)
    assert err.startswith("error: the target is not empty")
    out, _ = command("copy", source, target, "--replace")
    assert out.startswith("Copied 5 keys of revision 6, 0 of them written")
    _, err = command("copy", source, source, code=2)
    assert "the target is the source" in err
    command("copy", source, code=2)
    for words in (("copy", "--store", target), ("migrate", "--config", "to.toml")):
        _, err = command(*words, source, target, code=2)
        assert f"{words[1]} has no meaning here: FROM and TO name the stores" in err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_follow_until_a_signal(command, source, url_of, tmp_path, number, code):
    target = url_of("sqlite", "to")
    with (
        open_backend(StorageConfig.from_url(source)) as left,
        open_backend(StorageConfig.from_url(target)) as right,
        start(tmp_path, "copy", source, target, "--follow") as process,
    ):
        try:
            wait_until(lambda: right.count("/registry/").count == 5, "copied")
            last = left.put("/registry/new", b"", expected_revision=0).revision
            wait_until(lambda: right.count("/registry/").count == 6, "followed")
        finally:
            process.send_signal(number)
            _, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == code
        assert err.decode() == "Stopped. TO is incomplete; the same command goes on.\n"
        marker = json.loads(right.get("/revstore.unfinished").kv.value)
        # What was written last may not have been noted yet.
        assert int(marker["details"]["revision"]) >= last - 1
        assert json.loads(command("copy", source, target, "--json")[0])["resumed"]


def test_migrate(command, source, url_of):
    target = url_of("etcd3", "to")
    out, err = command("migrate", source, target, "--reason", "gone to etcd", "--bump-by-writes")
    assert "Moved 5 keys, as of revision 6" in out
    assert f"REVSTORE_URL={target}" in out
    assert err == ""
    with open_backend(StorageConfig.from_url(source)) as store:
        with pytest.raises(ReadOnly, match="gone to etcd"):
            store.put("/registry/new", b"", expected_revision=0)
        command("migrate", source, target, "--abort")
        store.put("/registry/new", b"", expected_revision=0)


def test_migrate_without_a_fence(command, url_of):
    source, target = url_of("etcd2", "from"), url_of("sqlite", "to")
    with open_backend(StorageConfig.from_url(source)) as store:
        store.put("/registry/a", b"", expected_revision=0)
    _, err = command("migrate", source, target, code=2)
    assert "writers_stopped" in err
    out, _ = command("migrate", source, target, "--writers-stopped")
    assert "Nothing keeps programs from writing" in out
