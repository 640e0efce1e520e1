"""kill -9 for the processes that write to a store, any store that has a URL."""

from __future__ import annotations

import os

import pytest

from revstore.config import StorageConfig
from revstore.errors import BackendNotInstalled
from revstore.plugins import open_backend
from revstore.testing.checks import check_history
from revstore.testing.kills import kill_rounds

LONG = int(os.environ.get("REVSTORE_TEST_LONG", "1"))


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", ["sqlite", "etcd3", "etcd2"])
def test_what_was_acknowledged_is_there(kind, tmp_path, start_etcd, fault_seed):
    """DURABLE, WATCH-15: whichever writer is killed, at whatever moment: what was recorded is
    linearizable, watches have it all, no revision is used twice, and no key is left behind. Among
    the writers are children that were forked meanwhile, and a thread that signals interrupt."""
    url = f"sqlite:///{tmp_path}/store.db"
    if kind != "sqlite":
        url = f"{kind}://{start_etcd('3.5', enable_v2=kind == 'etcd2').address}"
    written = unknown = 0
    writers: set[str] = set()
    steps: set[str] = set()
    for history in kill_rounds(url, rounds=4 * LONG, seed=fault_seed):
        assert check_history(history) == []
        written += sum(each.succeeded is True for each in history.operations)
        unknown += sum(each.succeeded is None for each in history.operations)
        steps |= {each.transaction[-3:] for each in history.operations if each.succeeded}
        writers |= {_kind_of(each.value) for each in history.operations if each.succeeded}
    assert written > 5 * LONG
    assert unknown > 0
    assert writers > {"child", "main"}
    assert ("end" in steps, len(steps) > 2) == (kind != "etcd2",) * 2, "leases and transactions"
    with open_backend(StorageConfig.from_url(url)) as backend:
        assert backend.count("").count == 0


def _kind_of(value):
    """Of "seed-round-process-writer-turn-x": the writer, without its number."""
    return b"".join(value.split(b"-")[3:4]).decode().rstrip("0123456789")


FORGETFUL = """
from revstore.backend import API_VERSION, BackendInfo
from revstore.hooks import hookimpl
from revstore.values import PutResult
from revstore_sqlite._backend import SQLiteBackend
from revstore_sqlite._options import SQLiteOptions

class Forgetful(SQLiteBackend):
    turns = 0

    def put(self, key, value, *, expected_revision, **options):
        type(self).turns += 1
        if self.turns % 4 == 0:
            kv = self.get(key).kv
            if (kv.revision if kv else 0) == expected_revision:
                return PutResult(True, self.status().revision + 1)
        return super().put(key, value, expected_revision=expected_revision, **options)

@hookimpl
def revstore_backend():
    return BackendInfo(
        name="forgetful",
        api_version=API_VERSION,
        capabilities=frozenset(),
        description="acknowledges what it has not written",
        options_class=SQLiteOptions,
        factory=lambda config, options: Forgetful(options),
    )
"""


@pytest.fixture
def forgetful(tmp_path, monkeypatch):
    """The URL of a third party's store that is not durable, installed as such are."""
    site = tmp_path / "site"
    info = site / "revstore_forgetful-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "revstore_forgetful.py").write_text(FORGETFUL)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: revstore-forgetful\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[revstore.backends]\nforgetful = revstore_forgetful\n")
    monkeypatch.setenv("PYTHONPATH", str(site))
    monkeypatch.syspath_prepend(site)
    return f"forgetful://?path={tmp_path}/store.db"


def test_a_store_that_forgets_is_caught(forgetful, fault_seed):
    """DURABLE: writes that were acknowledged and not made are told, by the checks for that."""
    found = set()
    for history in kill_rounds(forgetful, rounds=3, seed=fault_seed):
        found |= {violation.guarantee for violation in check_history(history)}
    assert found >= {"linearizable", "reliable"}


def test_a_store_that_is_not_there():
    """The error of opening it, before any process runs."""
    with pytest.raises(BackendNotInstalled):
        next(kill_rounds("nothing://", rounds=1))
