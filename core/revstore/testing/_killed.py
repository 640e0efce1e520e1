"""Run as a script by ``revstore.testing.kills``: ``_killed.py URL PREFIX SEED WRITERS``.

Reads and writes from many threads until it is killed; writes of several keys and leases are among
them where the store can. Meanwhile its main thread forks children,
which open the store themselves and write too, and is interrupted by a signal's handler again and
again. Each write is reported before it is requested, and each call once it was answered, as a line
of JSON on standard output, which outlives it.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from types import FrameType
from typing import Any

from revstore.backend import Backend, Transaction
from revstore.config import StorageConfig
from revstore.errors import BackendError, OutcomeUnknown
from revstore.plugins import open_backend
from revstore.values import Capability, KeyValue, TransactionResult

__all__: list[str] = []

_KEYS = 4
#: What a child does before it ends.
_TURNS = 5
#: The longest value: two of them and the rest of a line are written to a pipe in one piece.
_LENGTH = 1500
#: Seconds that a lease lives if nobody ends it: longer than a round.
_TTL = 600


def _tell(**fields: Any) -> None:
    os.write(1, (json.dumps(fields) + "\n").encode())


def _plain(kv: KeyValue | None) -> list[Any] | None:
    if kv is None:
        return None
    return [kv.key, kv.value.decode(), kv.revision, kv.create_revision, kv.version, kv.lease]


def _write(backend: Backend, prefix: str, seed: str, writer: str, turns: int = sys.maxsize) -> None:
    choose = random.Random(f"{seed}-{writer}")
    for turn in range(turns):
        name = f"{seed}-{writer}-{turn}-"
        if Capability.LEASES in backend.capabilities and choose.random() < 0.1:
            if not _lease(backend, f"{prefix}{name}", writer, name):
                return
            continue
        if Capability.TRANSACTIONS in backend.capabilities and choose.random() < 0.2:
            keys = [f"{prefix}{number}" for number in choose.sample(range(_KEYS), 2)]
            if _move(backend, keys, writer, name) is None:
                return
            continue
        key = f"{prefix}{choose.randrange(_KEYS)}"  # the others' as well
        kv = _read(backend, key, writer)
        expected = kv.revision if kv is not None else 0
        deletes = kv is not None and choose.random() < 0.2
        value = "" if deletes else name + "x" * choose.randrange(_LENGTH)
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
            return  # as it was sent: open
        except BackendError:
            _tell(writer=writer, type="")
            continue
        end = time.monotonic()
        answer = {"end": end, "succeeded": succeeded, "revision": revision}
        _tell(**asked, **answer, current=_plain(current))


def _part(kind: str, key: str, kv: KeyValue | None, value: str = "") -> dict[str, Any]:
    """One write of several: of a key that was ``kv``."""
    expected = kv.revision if kv else 0
    part = {"type": kind, "key": key, "value": value, "expected": expected}
    return part | {"current": _plain(kv) if kind == "delete" else None}


def _move(backend: Backend, keys: list[str], writer: str, name: str) -> int | None:
    """Delete the one key, if it is there, and write the other."""
    source, target = (_read(backend, key, writer) for key in keys)
    parts = [_part("put", keys[1], target, name)]
    if source is not None:
        parts.append(_part("delete", keys[0], source))

    def body(seen: Transaction) -> None:
        for part in parts:
            kv = seen.get(part["key"])
            if (kv.revision if kv else 0) != part["expected"]:
                return
        for part in parts:
            if part["type"] == "put":
                seen.put(part["key"], part["value"].encode())
            else:
                seen.delete(part["key"])

    return _in_one_step(parts, writer, name, lambda: _revision(backend.transaction(body)))


def _lease(backend: Backend, below: str, writer: str, name: str) -> int | None:
    """Give two new keys a lease, and end it."""
    try:
        lease = backend.leases().grant(_TTL).id
    except BackendError:
        return 0
    keys = [f"{below}/{each}" for each in "ab"]

    def body(seen: Transaction) -> None:
        for key in keys:
            seen.put(key, name.encode(), lease=lease)

    parts = [_part("put", key, None, name) for key in keys]
    attach = lambda: _revision(backend.transaction(body))  # noqa: E731
    if not (done := _in_one_step(parts, writer, name, attach)):
        return done
    kvs = [_read(backend, key, writer) for key in keys]
    parts = [_part("delete", key, kv) for key, kv in zip(keys, kvs, strict=True)]
    return _in_one_step(parts, writer, f"{name}end", lambda: backend.leases().revoke(lease))


def _revision(result: TransactionResult[None]) -> int:
    return result.revision if result.wrote else 0


def _in_one_step(
    parts: list[dict[str, Any]], writer: str, name: str, call: Callable[[], int]
) -> int | None:
    """Make the writes ``parts`` by ``call``; its revision, 0 if nothing was written, None if nobody
    knows."""
    asked = {"writer": writer, "step": name, "start": time.monotonic(), "parts": parts}
    _tell(**asked)
    try:
        revision = call()
    except OutcomeUnknown:
        return None
    except BackendError:
        revision = 0
    answer = {"end": time.monotonic(), "succeeded": True, "revision": revision}
    _tell(**asked, **answer) if revision else _tell(writer=writer, type="")
    return revision


def _read(backend: Backend, key: str, writer: str) -> KeyValue | None:
    """Read the key and report this too: it shows what became of writes whose answers nobody
    received."""
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


class _Interrupted(TimeoutError):
    """The error that the signal's handler raises: an ordinary exception, as timeouts of a task
    are."""


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise _Interrupted


def _write_interrupted(backend: Backend, prefix: str, seed: str, writer: str) -> None:
    """Write until a signal interrupts it. The write that was under way has no known outcome."""
    with contextlib.suppress(_Interrupted):
        signal.setitimer(signal.ITIMER_REAL, random.Random(writer).uniform(1e-4, 0.02))
        while True:
            _write(backend, prefix, seed, writer)


def _fork(url: str, prefix: str, seed: str, writer: str) -> int:
    """Fork a child that writes and ends with 0; return its process id."""
    child = os.fork()
    if child:
        return child
    try:
        with open_backend(StorageConfig.from_url(url)) as own:
            _write(own, prefix, seed, writer, _TURNS)
        os._exit(0)
    finally:
        traceback.print_exc()
        os._exit(1)


def _main(url: str, prefix: str, seed: str, writers: str) -> None:
    backend = open_backend(StorageConfig.from_url(url))
    backend.status()
    threads = [
        threading.Thread(target=_write, args=(backend, prefix, seed, str(number)), daemon=True)
        for number in range(int(writers))
    ]
    for thread in threads:
        thread.start()
    # Python warns of forks in a process with threads, which this tests on purpose.
    warnings.simplefilter("ignore", DeprecationWarning)
    signal.signal(signal.SIGALRM, _interrupt)
    child = 0
    for number in itertools.count():
        child = child or _fork(url, prefix, seed, f"child{number}")
        _write_interrupted(backend, prefix, seed, f"main{number}")
        # The first is waited for, so that at least one has written.
        ended, status = os.waitpid(child, os.WNOHANG if number else 0)
        if status:
            sys.exit(f"a child ended with {status}")
        if ended:
            child = 0
        if not number:
            os.write(1, b"ready\n")


if __name__ == "__main__":
    _main(*sys.argv[1:])
