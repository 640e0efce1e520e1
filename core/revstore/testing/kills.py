"""kill -9 for processes that write to a store, and a record of the result to be checked."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import attrs

from revstore.backend import Backend
from revstore.config import StorageConfig
from revstore.plugins import open_backend
from revstore.testing.history import History, Operation, OperationType, Recorder
from revstore.values import KeyValue

__all__ = ["kill_rounds"]

_SCRIPT = Path(__file__).with_name("_killed.py")
_PATIENCE = 30.0


def kill_rounds(
    url: str,
    *,
    rounds: int,
    seed: int = 0,
    processes: int = 2,
    writers: int = 4,
    longest: float = 0.1,
) -> Iterator[History]:
    """Yield the history of each of ``rounds`` rounds, for ``checks.check_history``.

    In a round, ``processes`` processes with ``writers`` threads each open the store at ``url``,
    which must outlive them, and write to a few shared keys, until each is killed with SIGKILL: up
    to ``longest`` seconds after all have begun. The main thread of each writes as well, while a
    signal's handler interrupts it again and again. It also forks children, which open the store
    themselves and are killed with it. Then the store is opened again, every key is read, and a
    watch from the beginning of the round reads what was written. The outcome of writes that were
    under way counts as unknown. Each history begins with the last write of the one before, so that
    a revision that is used again is noticed. ``seed`` determines the writes and the moments.

    If the store can, some writes are transactions of two keys, and some give keys a lease and
    revoke it. All keys are under a random prefix, and are deleted at the end. A lease that was
    granted just before a kill may remain until it expires.

    Raises:
        RuntimeError: a process ends by itself.
        TimeoutError: the watch does not reach the end.
    """
    config = StorageConfig.from_url(url)
    prefix = f"/revstore-kills-{uuid.uuid4().hex}/"
    choose = random.Random(seed)
    last: Operation | None = None
    try:
        for number in range(rounds):
            history = History()
            if last is not None:
                history.operations.append(last)
            below = f"{prefix}{number}/"
            with open_backend(config) as backend:
                start = backend.status().revision
            seeds = [f"{seed}-{number}-{each}" for each in range(processes)]
            for output in _killed(url, below, seeds, writers, choose, longest):
                history.operations += _operations(output)
            with open_backend(config) as backend:
                _look(backend, below, start, history)
            last = history.operations[-1]
            yield history
    finally:
        with open_backend(config) as backend:
            for kv in backend.list(prefix, keys_only=True).kvs:
                backend.delete(kv.key, expected_revision=kv.revision)


def _killed(
    url: str, prefix: str, seeds: list[str], writers: int, choose: random.Random, longest: float
) -> list[str]:
    """Run a process for each seed and kill it; what each of them told."""
    # -P: this folder's modules have names that others have as well.
    command = [sys.executable, "-P", str(_SCRIPT), url, prefix]
    with ExitStack() as stack:
        running = []
        for seed in seeds:
            process = stack.enter_context(
                subprocess.Popen(
                    [*command, seed, str(writers)],
                    stdout=subprocess.PIPE,
                    text=True,
                    start_new_session=True,
                )
            )
            stack.callback(_kill, process)
            running.append(process)
        told = [_until_ready(process) for process in running]
        for process in running:
            time.sleep(choose.uniform(0, longest))  # the moment of the kill; nothing is waited for
            if process.poll() is not None:
                raise RuntimeError(f"a writing process ended by itself: {process.returncode}")
            _kill(process)
        return [
            before + process.stdout.read()
            for before, process in zip(told, running, strict=True)
            if process.stdout is not None
        ]


def _until_ready(process: subprocess.Popen[str]) -> str:
    """Return what the process prints before it is ready to be killed."""
    assert process.stdout is not None
    lines = []
    while (line := process.stdout.readline()) != "ready\n":
        if not line:
            raise RuntimeError(f"a writing process ended by itself: {process.wait()}")
        lines.append(line)
    return "".join(lines)


def _kill(process: subprocess.Popen[str]) -> None:
    """Kill it and its children, if it has not ended."""
    if process.returncode is None:
        os.killpg(process.pid, signal.SIGKILL)


def _operations(output: str) -> Iterator[Operation]:
    """Yield the answered calls that a process reported, then the writes that were under way."""
    asked: dict[str, list[Operation]] = {}
    # The text behind the last line's end was cut off.
    for line in output.split("\n")[:-1]:
        fields = json.loads(line)
        before = asked.pop(fields["writer"], None)
        if "end" in fields:
            yield from _made(fields)
        elif fields.get("type") != "" and before is None:
            asked[fields["writer"]] = list(_made(fields))
    for operations in asked.values():
        yield from operations


def _made(fields: dict[str, Any]) -> Iterator[Operation]:
    """Yield what a line reports: one call, or the parts of a step."""
    step = {"transaction": fields["step"]} if "step" in fields else {}
    for part in fields.get("parts", [{}]):
        yield attrs.evolve(_operation(fields | part), **step)


def _operation(fields: dict[str, Any]) -> Operation:
    operation = Operation(
        type=OperationType(fields["type"]),
        key=fields["key"],
        start=fields["start"],
        value=fields["value"].encode(),
        expected_revision=fields["expected"],
    )
    if "end" not in fields:
        return operation
    current = fields["current"]
    if current is not None:
        key, value, *numbers = current
        current = KeyValue(key, value.encode(), *numbers)
    return attrs.evolve(
        operation,
        end=fields["end"],
        succeeded=fields["succeeded"],
        revision=fields["revision"],
        current=current,
    )


def _look(backend: Backend, prefix: str, start: int, history: History) -> None:
    """Read every key, watch everything, and end with a write."""
    recorder = Recorder(backend, history)
    for key in sorted({operation.key for operation in history.operations}):
        recorder.get(key)
    with recorder.watch(prefix, recursive=True, after_revision=start) as watch:
        end = recorder.put(f"{prefix}end", b"end", expected_revision=0).revision
        deadline = time.monotonic() + _PATIENCE
        while watch.position < end:
            if time.monotonic() > deadline:
                raise TimeoutError(f"the watch is at {watch.position}, expected {end}")
            watch.poll(1)
