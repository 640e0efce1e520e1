"""What ``import_objects`` does with objects that are there already, and when it ends early."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import CodeType
from typing import Any

import pytest
from tests.cli.conftest import Revstore

from revstore.errors import StoreInUse
from revstore.factory import StorageFactory
from revstore.manifests import ManifestError
from revstore.operations import ImportResult, import_objects
from revstore.testing.interrupts import interrupt_every_line

LONG = int(os.environ.get("REVSTORE_TEST_LONG", "0"))
TTL = "revstore/ttl-seconds"


def config_map(name: str, ttl: float = 0, value: str = "v") -> dict[str, Any]:
    annotations = {"annotations": {TTL: str(ttl)}} if ttl else {}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default", **annotations},
        "data": {"k": value},
    }


def write(path: Path, *objects: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(obj) + "\n" for obj in objects))
    return path


def left(factory: StorageFactory, name: str) -> float | None:
    return factory.backend().remaining_ttl(f"/registry/configmaps/default/{name}")


def test_an_equal_object_with_another_expiry(kind, url_of, tmp_path):
    before = [config_map(name, ttl) for name, ttl in zip("abcd", (0, 900, 900, 900), strict=True)]
    after = [config_map(name, ttl) for name, ttl in zip("abcd", (900, 0, 5000, 900), strict=True)]
    with StorageFactory(url_of(kind)) as factory:
        import_objects(factory, [write(tmp_path / "1.jsonl", *before)])
        path = write(tmp_path / "2.jsonl", *after)
        result = import_objects(factory, [path])

        assert (result.unchanged, result.failed) == (2, 2)
        assert 1 <= result.other_expiry <= 2  # the last one too, if seconds have passed
        for failure in result.failures:
            assert failure.reason.endswith("exists and differs in whether it expires")
        assert left(factory, "a") is None
        result = import_objects(factory, [path], overwrite=True)

        assert (result.unchanged + result.replaced, result.other_expiry) == (4, 0)
        lefts = [left(factory, name) or 0.0 for name in "abcd"]
        assert [round(each, -3) for each in lefts] == [1000, 0, 5000, 1000]


def test_objects_expire_within_a_second(kind, url_of, tmp_path):
    """Created in batches, alone or replaced; not even where the store would let them share a lease
    for longer. What a manifest says may have fractions of a second."""
    ends = {f"c{number:02}": 10_000.5 + number % 7 * 0.3 for number in range(60)}
    path = write(tmp_path / "a.jsonl", *(config_map(name, ttl) for name, ttl in ends.items()))
    with StorageFactory(url_of(kind)) as factory:
        backend = factory.backend()
        import_objects(factory, [write(tmp_path / "1.jsonl", config_map("c07", 900))])
        began = time.monotonic()
        result = import_objects(factory, [path], overwrite=True)
        took = time.monotonic() - began
        assert (result.created, result.replaced, result.failed) == (59, 1, 0)
        for name, ttl in ends.items():
            before = time.monotonic() - began
            remaining = backend.remaining_ttl(f"/registry/configmaps/default/{name}")
            after = time.monotonic() - began
            # etcd says whole seconds, rounded down.
            assert ttl - 1 - after < remaining < ttl + 1 - before + took, name


@pytest.mark.parametrize("preserve", [False, True])
def test_an_object_that_the_input_has_twice(tmp_path, preserve):
    """The first one is stored, and the places of both are named, even with ``overwrite``."""
    objects = [config_map(name) for name in "abc"]
    path = write(tmp_path / "a.jsonl", *objects, config_map("b", value="other"))
    other = write(tmp_path / "b.jsonl", config_map("a"), config_map("c", ttl=9999))
    with StorageFactory("memory://") as factory:
        for created in (3, 0):
            result = import_objects(factory, [path, other], preserve_uids=preserve, overwrite=True)

            assert (result.created, result.replaced, result.unchanged) == (created, 0, 4 - created)
            first, second = result.failures
            assert first.where == f"{path} (document 4, line 4)"
            key = "'/configmaps/default/"
            place = f"is already in {path} (document"
            assert first.reason == f"{key}b' {place} 2, line 2), and this one differs"
            assert second.where == f"{other} (document 2, line 2)"
            assert second.reason.startswith(f"{key}c' {place} 3, line 3), and this one differs in")


def test_an_object_that_one_line_has_twice(tmp_path):
    """The items of a list may all be on one line."""
    items = [config_map("a"), config_map("a", value="other")]
    path = write(tmp_path / "a.jsonl", {"apiVersion": "v1", "kind": "List", "items": items})
    with StorageFactory("memory://") as factory:
        result = import_objects(factory, [path], overwrite=True)
        assert (result.created, result.replaced, result.failed) == (1, 0, 1)
        assert "is already in" in result.failures[0].reason


def test_what_was_done_is_known_when_it_ends_early(tmp_path):
    """What came before a bad document is stored. An interrupt stores nothing more."""
    path = write(tmp_path / "a.jsonl", config_map("a"), config_map("b"))
    bad = write(tmp_path / "b.jsonl", config_map("c"), {"kind": "x"})

    def interrupted() -> Iterator[Path]:
        yield path
        raise KeyboardInterrupt

    ended: list[ImportResult] = []
    with StorageFactory("memory://") as factory:
        with pytest.raises(KeyboardInterrupt):
            import_objects(factory, interrupted(), on_end=ended.append)
        with pytest.raises(ManifestError):
            import_objects(factory, [path, bad], on_end=ended.append)
        result = import_objects(factory, [path], on_end=ended.append)

    assert [(each.created, each.unchanged, each.complete) for each in ended] == [
        (0, 0, False),
        (3, 0, False),
        (0, 2, True),
    ]
    assert ended[-1] == result


def test_objects_are_created_in_batches(kind, url_of, tmp_path):
    """Those that the store has or refuses do not keep the others of their batch from it."""
    objects = [config_map(f"c{number:03}", 900 * (number % 9 == 0)) for number in range(230)]
    some = [objects[5], config_map("c007", value="other")]
    objects[120]["data"]["k"] = "x" * (3 << 20 if kind == "etcd3" else 100)
    path = write(tmp_path / "a.jsonl", *objects[::-1])
    with StorageFactory(url_of(kind)) as factory:
        import_objects(factory, [write(tmp_path / "some.jsonl", *some)])
        result = import_objects(factory, [path])

        refused = ["c120"] * (kind == "etcd3") + ["c007"]
        assert [each.key.rpartition("/")[2] for each in result.failures] == refused
        assert (result.created, result.unchanged) == (229 - len(refused), 1)
        kvs = factory.backend().list("/registry/configmaps/").kvs
        assert len(kvs) == 230 - (kind == "etcd3")
        assert sum(kv.lease != 0 for kv in kvs) == 26
        revisions = len({kv.revision for kv in kvs})
        assert revisions == len(kvs) if kind == "etcd2" else revisions < 20


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_object_that_is_deleted_meanwhile(tmp_path, monkeypatch, overwrite):
    """After it was found, and before it was compared: it is created."""
    key = "/registry/configmaps/default/a"
    path = write(tmp_path / "a.jsonl", config_map("a"))
    with StorageFactory("memory://") as factory:
        import_objects(factory, [path])
        backend = factory.backend()
        get = backend.get

        def after_deletion(wanted: str, **options: Any) -> Any:
            if wanted == key:
                monkeypatch.undo()
                backend.delete(key, expected_revision=get(key).kv.revision)
            return get(wanted, **options)

        monkeypatch.setattr(backend, "get", after_deletion)
        result = import_objects(factory, [path], overwrite=overwrite)
        assert (result.created, result.unchanged) == (1, 0)
        assert factory.registry("configmaps").get("a", "default")["data"] == {"k": "v"}


def is_of_writing(code: CodeType) -> bool:
    return code.co_filename.endswith(("/operations/_import.py", "/memory/_transactions.py"))


def test_interrupted_at_any_line(tmp_path):
    """What was created until then is exact."""
    path = write(tmp_path / "a.jsonl", *(config_map(name) for name in "ab"))
    ended: list[ImportResult] = []
    with StorageFactory("memory://") as factory, factory.backend() as backend:

        def attempt() -> None:
            import_objects(factory, [path], on_end=ended.append)

        def check(spot: str) -> None:
            stored = backend.list("/registry/").kvs
            assert not ended or ended.pop().created == len(stored), spot
            for kv in stored:
                backend.delete(kv.key, expected_revision=kv.revision)

        assert interrupt_every_line(attempt, where=is_of_writing, after=check, visits=1) > 50


def test_a_store_that_is_being_filled_is_not_read(tmp_path):
    """Not even to see whether its objects are of the same kind."""
    objects = [{"apiVersion": "example.com/v1", "kind": kind} for kind in ("Widget", "WidGet")]
    one, other = ({**obj, "metadata": {"name": "a"}} for obj in objects)
    with StorageFactory("memory://") as factory:
        import_objects(factory, [write(tmp_path / "a.jsonl", one)])
        factory.backend().put("/revstore.unfinished", b"{}", expected_revision=0)
        with pytest.raises(StoreInUse):
            import_objects(factory, [write(tmp_path / "b.jsonl", other)])


@pytest.mark.slow
def test_the_command_says_what_was_done(tmp_path):
    revstore = Revstore(tmp_path)
    path = write(tmp_path / "a.jsonl", config_map("a"), {"kind": "x"})
    failed = revstore("import", str(path), code=1)
    assert failed.stdout == "Before it ended: Created 1, replaced 0, unchanged 0, failed 0.\n"
    assert "document 2" in failed.stderr
    report = json.loads(revstore("import", "--json", str(path), code=1).stdout)
    assert (report["unchanged"], report["complete"]) == (1, False)


@pytest.mark.slow
@pytest.mark.skipif(not LONG, reason="long: set REVSTORE_TEST_LONG=25 for a hundred kills")
@pytest.mark.timeout(60 + 30 * LONG)
@pytest.mark.parametrize("kind", ["sqlite", "etcd3"])
def test_killed_at_random_moments(kind, url_of, tmp_path):
    """The next run ends with exactly the objects of the input."""
    seed = os.environ.get("REVSTORE_TEST_SEED") or str(random.randrange(1 << 32))
    choose = random.Random(seed)
    objects = [config_map(f"c{number:04}", 900 * (number % 5 == 0)) for number in range(5000)]
    path = write(tmp_path / "many.jsonl", *objects)
    command = [sys.executable, "-m", "revstore", "import", "--preserve-uids", str(path)]
    for number in range(2 * LONG):  # of one or two kills
        url = url_of(kind, f"s{number}")
        env = {**os.environ, "REVSTORE_URL": url}
        for _ in range(choose.randint(1, 2)):
            with subprocess.Popen(command, env=env, stdout=subprocess.PIPE) as started:
                try:
                    started.wait(choose.uniform(0.3, 2.5))
                except subprocess.TimeoutExpired:
                    started.send_signal(signal.SIGKILL)
        with StorageFactory(url) as factory:
            result = import_objects(factory, [path], preserve_uids=True)
            assert (result.created + result.unchanged, result.failed) == (5000, 0), seed
            found = [obj["data"] for obj in factory.registry("configmaps").list()]
            assert found == [{"k": "v"}] * 5000
            kvs = factory.backend().list("/registry/configmaps/").kvs
            assert sum(kv.lease != 0 for kv in kvs) == 1000, seed
