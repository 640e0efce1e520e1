"""``copy --follow`` and ``migrate``, killed at random moments while programs write to the source.

``REVSTORE_TEST_LONG=50`` kills each a hundred times. The seed is in the message of a failure;
``REVSTORE_TEST_SEED`` sets it.
"""

from __future__ import annotations

import itertools
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Self

import pytest

from revstore.backend import Backend
from revstore.config import StorageConfig
from revstore.errors import ReadOnly
from revstore.operations import Verification, copy, migrate, verify
from revstore.plugins import open_backend
from revstore.testing._support import PATIENCE, wait_until

pytestmark = pytest.mark.slow

ROUNDS = 2 * int(os.environ.get("REVSTORE_TEST_LONG", "1"))
SEED = os.environ.get("REVSTORE_TEST_SEED") or str(time.time_ns())
KEYS = 400


class Writers:
    """Threads that create, change and delete keys, some of them with a ttl or a lease."""

    def __init__(self, backend: Backend, seed: str) -> None:
        self.backend = backend
        #: The last acknowledged value of each key, None if it was deleted.
        self.written: dict[str, bytes | None] = {}
        self.failures: list[BaseException] = []
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(number, random.Random(f"{seed}-{number}")))
            for number in range(3)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        wait_until(lambda: len(self.written) > 20, "writers are busy")
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(PATIENCE)
        assert self.failures == []

    def _run(self, number: int, choose: random.Random) -> None:
        try:
            lease = self.backend.leases().grant(500).id
            for turn in itertools.count():
                if self._over.wait(0.002):
                    return
                key = f"/registry/w{number}/{choose.randrange(60)}"
                value = f"{number} {turn}".encode()
                kv = self.backend.get(key).kv
                at = kv.revision if kv else 0
                if kv and choose.random() < 0.3:
                    assert self.backend.delete(key, expected_revision=at).succeeded
                    self.written[key] = None
                elif choose.random() < 0.2:
                    self.backend.transaction(
                        lambda seen, key=key, value=value: seen.put(key, value, lease=lease)
                    )
                    self.written[key] = value
                else:
                    ttl = choose.choice([0, 0, 400])
                    put = self.backend.put(key, value, expected_revision=at, ttl=ttl)
                    assert put.succeeded
                    self.written[key] = value
        except ReadOnly:
            return
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            self.failures.append(error)


class Killer:
    """Starts commands, and ends each at a random moment."""

    def __init__(self, folder: Path, seed: str) -> None:
        self.choose = random.Random(seed)
        self.longest = 1.5
        self._folder = folder

    def run(self, *words: str) -> None:
        env = {name: text for name, text in os.environ.items() if "REVSTORE" not in name}
        process = subprocess.Popen(
            [sys.executable, "-m", "revstore", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self._folder,
            env=env,
        )
        number = self.choose.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
        with process:
            try:
                out, err = process.communicate(timeout=self.choose.uniform(0.2, self.longest))
            except subprocess.TimeoutExpired:
                process.send_signal(number)
                try:
                    out, err = process.communicate(timeout=PATIENCE)
                finally:
                    process.kill()
        began = re.search(rb'/revstore/__main__.py", line [0-9]+, in main\n', err)
        if not began and b"KeyboardInterrupt" in err:
            return  # the command had not begun: Python was still starting
        assert b"Traceback" not in err, err
        code = process.returncode
        wanted = {signal.SIGKILL: -9, signal.SIGINT: 130, signal.SIGTERM: 143}[number]
        # Before Python has begun, a signal ends it without a word.
        assert code in (0, wanted, -number), (code, out, err)


@pytest.fixture(params=["sqlite", "etcd3"])
def target_kind(request) -> str:
    return request.param


def fill(url: str) -> None:
    with open_backend(StorageConfig.from_url(url)) as backend:
        for number in range(KEYS):
            ttl = 900 if number % 20 == 0 else 0
            backend.put(f"/registry/k{number:04}", b"x" * 200, expected_revision=0, ttl=ttl)


def compared(source: Backend, target: Backend) -> Verification:
    """The two stores compared, with room for the seconds that a busy machine takes for a lease."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("revstore.operations._compare._TOLERANCE", 20.0)
        return verify(source, target)


@pytest.mark.timeout(60 + 20 * ROUNDS)
def test_copy_is_killed(url_of, target_kind, tmp_path):
    """However often it was killed, the copy that is not killed ends equal."""
    seed = f"{SEED}-copy-{target_kind}"
    killer = Killer(tmp_path, seed)
    source_url = url_of("sqlite", "from")
    fill(source_url)
    with open_backend(StorageConfig.from_url(source_url)) as source:
        for number in range(ROUNDS):
            target_url = url_of(target_kind, f"to{number}")
            with Writers(source, f"{seed}-{number}"):
                for _ in range(killer.choose.randint(1, 2)):
                    killer.run("copy", source_url, target_url, "--follow")
            with open_backend(StorageConfig.from_url(target_url)) as target:
                result = copy(source, target)
                found = compared(source, target)
                assert found.equal, (seed, found)
                assert result.keys == source.count("/").count


@pytest.mark.timeout(60 + 20 * ROUNDS)
def test_migrate_is_killed(url_of, target_kind, tmp_path):
    """No write that was acknowledged is lost, and none is acknowledged after the end."""
    seed = f"{SEED}-migrate-{target_kind}"
    killer = Killer(tmp_path, seed)
    source_url = url_of("sqlite", "from")
    fill(source_url)
    with open_backend(StorageConfig.from_url(source_url)) as source:
        for number in range(ROUNDS):
            target_url = url_of(target_kind, f"to{number}")
            with Writers(source, f"{seed}-{number}") as writers:
                for _ in range(killer.choose.randint(1, 2)):
                    killer.run("migrate", source_url, target_url)
                with open_backend(StorageConfig.from_url(target_url)) as target:
                    result = migrate(source, target)
            with open_backend(StorageConfig.from_url(target_url)) as target:
                for key, value in writers.written.items():
                    kv = target.get(key).kv
                    assert (kv.value if kv else None) == value, (seed, key)
                assert source.status().revision == result.source_revision, seed
                found = compared(source, target)
                assert found.equal, (seed, found)
                assert target.list("/revstore").kvs == (), seed
            source.unfence()
