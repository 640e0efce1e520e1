"""``export`` and ``rewrite``, killed at random moments while the store is in use.

``REVSTORE_TEST_LONG=10`` kills each a hundred times. ``REVSTORE_TEST_SEED`` sets the seed.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from tests.operations.test_manifests import FORMATS, config_map, contents
from tests.operations.test_rewrite import save

from revstore.config import StorageConfig
from revstore.errors import InvalidArgument
from revstore.factory import StorageFactory
from revstore.operations import export_objects, import_objects, rewrite
from revstore.registry import Registry
from revstore.testing._support import PATIENCE, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

KILLS = 10 * int(os.environ.get("REVSTORE_TEST_LONG", "1"))
SEED = os.environ.get("REVSTORE_TEST_SEED") or str(time.time_ns())


def names_of(factory: StorageFactory) -> list[str]:
    return [obj["metadata"]["name"] for obj in factory.registry("configmaps").list()]


def names_in(path: Path) -> list[str] | None:
    """The objects that an import finds, None if it refuses an incomplete export."""
    with StorageFactory("memory://") as other:
        try:
            import_objects(other, [path])
        except InvalidArgument:
            return None
        return names_of(other)


@pytest.mark.parametrize("form", ["tree", "jsonl"])
def test_an_export_is_killed(driver, url_of, tmp_path, form):
    """A file is that of before or a whole new one; a folder may be incomplete, and says so. The
    same export completes it."""
    choose = random.Random(SEED)
    url = url_of("sqlite")
    path = tmp_path / FORMATS[form]
    with StorageFactory(url) as factory:
        registry = factory.registry("configmaps")
        for number in range(50):
            registry.create(config_map(f"c{number}"))
        driver.run("export", path, url)
        longest = driver.run("export", path, url)
        killed = 0
        while killed < KILLS:
            possible = [None, names_of(factory)]
            for _ in range(choose.randint(1, 3)):
                registry.create(config_map(f"n{choose.random()}"))
                registry.delete(choose.choice(names_of(factory)))
                possible.append(names_of(factory))
                killed += driver.kill(choose, longest, "export", path, url)
                assert names_in(path) in possible[form != "tree" :], SEED
            driver.run("export", path, url)
            assert names_in(path) == possible[-1], SEED
            fresh = tmp_path / f"fresh{killed}{FORMATS[form]}"
            export_objects(factory, fresh)
            assert [*manifests(path)] == [*manifests(fresh)], SEED


def manifests(path: Path) -> Iterator[tuple[str, bytes]]:
    """All manifests by name; the list of a folder may name more."""
    if path.is_file():
        yield "", path.read_bytes()
        return
    for name, text in sorted(contents(path).items()):
        if name.endswith(".yaml"):
            yield name, text


@contextmanager
def counting(registry: Registry, names: list[str]) -> Iterator[dict[str, int]]:
    """Update objects, one update after the other; how many were acknowledged of each."""
    written = dict.fromkeys(names, 0)
    failures: list[BaseException] = []
    over = threading.Event()

    def run() -> None:
        choose = random.Random(SEED)
        try:
            while not over.wait(0.002):
                name = choose.choice(names)
                registry.guaranteed_update(name, lambda obj, _: {**obj, "count": obj["count"] + 1})
                written[name] += 1
        except BaseException as error:  # noqa: BLE001 - the test shows it
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield written
    finally:
        over.set()
        thread.join(PATIENCE)
    assert failures == []


def under(factory: StorageFactory, key: str) -> list[str]:
    """The secrets that are encrypted with a key."""
    prefix = f"k8s:enc:aesgcm:v1:{key}:".encode()
    kvs = factory.backend().list("/registry/secrets/").kvs
    return [kv.key.rpartition("/")[2] for kv in kvs if kv.value.startswith(prefix)]


def written_under(factory: StorageFactory, registry: Registry, key: str) -> bool:
    """Update an object; whether it is encrypted with a key now."""
    registry.guaranteed_update("s000", lambda obj, _: {**obj, "turn": obj.get("turn", 0) + 1})
    return "s000" in under(factory, key)


@pytest.mark.parametrize("kind", ["sqlite", "etcd3"])
def test_a_rewrite_is_killed(driver, url_of, tmp_path, kind):
    """While others write, and with new keys each time: the next one finds what is left, no value
    stays under the old key, and no write is lost."""
    pytest.importorskip("revstore_encryption")
    choose = random.Random(SEED)
    url = url_of(kind)
    keys, config = tmp_path / "keys.yaml", tmp_path / "store.toml"
    config.write_text(
        f'url = "{url}"\ntransformer = "encryption"\n[transformer_options]\nconfig = "{keys}"\n'
        "reload_interval = 0.01\n"
    )
    names = [f"s{number:03}" for number in range(50)]
    first, second = "aa", "bb"
    save(keys, first)
    with StorageFactory(StorageConfig.from_toml(config)) as factory:
        registry = factory.registry("secrets")
        for name in names:
            registry.create({"metadata": {"name": name}, "count": 0})
        killed = longest = 0
        total = dict.fromkeys(names, 0)
        while killed < KILLS:
            first, second = second, first
            save(keys, first, second)
            wait_until(partial(written_under, factory, registry, first), "the new key")
            longest = longest or driver.run("rewrite", config, url)
            with counting(registry, names) as written:
                for _ in range(choose.randint(1, 4)):
                    killed += driver.kill(choose, longest, "rewrite", config, url)
                result = rewrite(factory)
                assert (result.seen, result.failed) == (len(names), 0), SEED
            assert under(factory, first) == names, SEED
            total = {name: total[name] + written[name] for name in names}
            found = {obj["metadata"]["name"]: obj["count"] for obj in registry.list()}
            assert found == total, SEED
        save(keys, first)
        assert len(registry.list()) == len(names)
