"""Run as a script by ``revstore.testing.kills``: ``_killed.py URL PREFIX SEED WRITERS``.

Reads and writes from many threads until it is killed. Each write is told before it is asked for,
and each call once it was answered: as a line of JSON on standard output, which outlives it.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from typing import Any

from revstore.backend import Backend
from revstore.config import StorageConfig
from revstore.errors import BackendError, OutcomeUnknown
from revstore.plugins import open_backend
from revstore.values import KeyValue

__all__: list[str] = []

_KEYS = 4
_telling = threading.Lock()


def _tell(**fields: Any) -> None:
    with _telling:
        sys.stdout.write(json.dumps(fields) + "\n")
        sys.stdout.flush()


def _plain(kv: KeyValue | None) -> list[Any] | None:
    if kv is None:
        return None
    return [kv.key, kv.value.decode(), kv.revision, kv.create_revision, kv.version, kv.lease]


def _write(backend: Backend, prefix: str, seed: str, writer: int) -> None:
    choose = random.Random(f"{seed}-{writer}")
    turn = 0
    while True:
        turn += 1
        key = f"{prefix}{choose.randrange(_KEYS)}"  # the others' as well
        kv = _read(backend, key, writer)
        expected = kv.revision if kv is not None else 0
        deletes = kv is not None and choose.random() < 0.2
        value = "" if deletes else f"{seed}-{writer}-{turn}-" + "x" * choose.randrange(3000)
        asked: dict[str, Any] = {
            "writer": writer,
            "type": "delete" if deletes else "put",
            "key": key,
        }
        asked |= {"value": value, "expected": expected, "start": time.monotonic()}
        _tell(**asked)
        try:
            succeeded, revision, current = _ask(backend, key, value, expected, deletes=deletes)
        except OutcomeUnknown:
            return  # as it was told: open
        except BackendError:
            _tell(writer=writer, type="")
            continue
        end = time.monotonic()
        answer = {"end": end, "succeeded": succeeded, "revision": revision}
        _tell(**asked, **answer, current=_plain(current))


def _read(backend: Backend, key: str, writer: int) -> KeyValue | None:
    """Told as well: it shows what became of writes whose answers nobody got."""
    start = time.monotonic()
    found = backend.get(key)
    answer: dict[str, Any] = {"end": time.monotonic(), "succeeded": False}
    answer |= {"revision": found.revision}
    answer |= {"start": start, "value": "", "expected": 0, "current": _plain(found.kv)}
    _tell(writer=writer, type="get", key=key, **answer)
    return found.kv


def _ask(
    backend: Backend, key: str, value: str, expected: int, *, deletes: bool
) -> tuple[bool, int, KeyValue | None]:
    if deletes:
        deleted = backend.delete(key, expected_revision=expected)
        return deleted.succeeded, deleted.revision, deleted.kv
    put = backend.put(key, value.encode(), expected_revision=expected)
    return put.succeeded, put.revision, put.current


def _main(url: str, prefix: str, seed: str, writers: str) -> None:
    backend = open_backend(StorageConfig.from_url(url))
    backend.status()
    print("ready", flush=True)  # noqa: T201 - a script, which is read by another
    threads = [
        threading.Thread(target=_write, args=(backend, prefix, seed, number))
        for number in range(int(writers))
    ]
    for thread in threads:
        thread.start()


if __name__ == "__main__":
    _main(*sys.argv[1:])
