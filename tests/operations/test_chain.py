"""A store goes through every way of moving it, and comes out equal."""

from __future__ import annotations

import json
import os
import time
from datetime import datetime
from pathlib import Path

import pytest
from tests.operations.conftest import empty

from revstore.backend import Backend
from revstore.config import StorageConfig
from revstore.factory import StorageFactory
from revstore.operations import (
    backup,
    copy,
    export_objects,
    import_objects,
    open_backup,
    restore,
    verify,
)
from revstore.plugins import open_backend
from revstore.testing._support import run_threads

pytestmark = pytest.mark.slow

COUNT = 100_000 if int(os.environ.get("REVSTORE_TEST_LONG", "1")) > 1 else 600
WRITERS = 8
TTL = 100_000
# Seconds that a write may take, and a reading by this test.
SLOW = 0.3


def fill(factory: StorageFactory) -> None:
    """Objects with uids and owners, of which every third expires."""
    registry = factory.registry("configmaps")
    owner = registry.create(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "owner", "namespace": "n0"},
        }
    )
    reference = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "name": "owner",
        "uid": owner["metadata"]["uid"],
    }

    def create(index: int) -> None:
        for number in range(index, COUNT, WRITERS):
            metadata = {
                "name": f"c{number}",
                "namespace": f"n{number % 7}",
                "labels": {"ünïcode": "yes"},
                "ownerReferences": [reference],
            }
            new = {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": metadata,
                "data": {"text": f"{number} \U0001f600", "blank": " \n"},
                "extra": {"float": 1.5, "integer": 2**63, "none": None, "list": [1, "1", True]},
            }
            registry.create(new, ttl=TTL * (number % 3 == 0))

    run_threads(WRITERS, create, 3600)


def objects_of(backend: Backend) -> dict[str, object]:
    """All objects by key; uids and owners are in them."""
    return {kv.key: json.loads(kv.value) for kv in backend.list("/registry/", timeout=300).kvs}


def check_expiry(old: Backend, new: Backend, still: float, least: float, most: float) -> None:
    """Check how many seconds later objects expire in ``new``, when ``still`` of them passed while
    they were in a file."""
    for number in range(0, COUNT, max(3, COUNT // 600 * 3)):
        key = f"/registry/configmaps/n{number % 7}/c{number}"
        before, after = old.remaining_ttl(key), new.remaining_ttl(key)
        assert before is not None
        assert after is not None
        assert least - SLOW <= after - before - still <= most + SLOW, key
        assert new.remaining_ttl(f"/registry/configmaps/n{(number + 1) % 7}/c{number + 1}") is None


@pytest.mark.timeout(7200)
def test_a_store_goes_all_the_way_round(tmp_path: Path, etcd_of_operations) -> None:
    """From sqlite by a backup to etcd3, by a copy to memory, by an export to sqlite."""
    first = StorageConfig.from_url(f"sqlite:///{tmp_path}/first.db")
    with StorageFactory(first) as factory:
        fill(factory)
        store = factory.backend()
        want = objects_of(store)
        assert len(want) == COUNT + 1
        backup(store, tmp_path / "a.backup")
        etcd_url = f"etcd3://{etcd_of_operations.address}"
        with (
            open_backend(StorageConfig.from_url(etcd_url)) as etcd,
            StorageFactory("memory://") as memory,
            StorageFactory(f"sqlite:///{tmp_path}/last.db") as last,
        ):
            empty(etcd)
            with open_backup(tmp_path / "a.backup") as source:
                # While objects are in a file, their time stands still.
                still = time.time() - datetime.fromisoformat(source.header.time).timestamp()
                restore(etcd, source)
                assert verify(source, etcd).equal
            copy(etcd, memory.backend())
            assert verify(etcd, memory.backend()).equal
            # The restore rounds up to a second. etcd says whole seconds, rounded down; the copy
            # rounds them up.
            check_expiry(store, memory.backend(), still, -1, 2)
            began = time.monotonic()
            export_objects(memory, tmp_path / "objects.jsonl")
            more = time.monotonic() - began
            result = import_objects(last, [tmp_path / "objects.jsonl"], preserve_uids=True)
            assert (result.created, result.failed) == (COUNT + 1, 0)
            assert objects_of(last.backend()) == want
            check_expiry(memory.backend(), last.backend(), more, 0, 1)
            check_expiry(store, last.backend(), still + more, -1, 3)
            empty(etcd)
