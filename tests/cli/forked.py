"""The command in a process that is forked from one which has imported everything.

Imports are four fifths of what a command costs. What depends on how Python itself starts is tried
with ``python -m revstore``.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from revstore.__main__ import main

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    [__name__, "revstore.cli", "revstore.factory", "revstore_sqlite._backend"]
)


def run(
    arguments: Sequence[str],
    env: Mapping[str, str],
    folder: Path,
    stdin: str | None,
    timeout: float,
) -> subprocess.CompletedProcess[str]:
    """Run ``revstore`` with ``arguments`` to its end, as ``subprocess.run`` would.

    Raises:
        TimeoutExpired: it has not ended after ``timeout`` seconds; it is killed.
    """
    with tempfile.TemporaryDirectory() as streams:
        paths = [Path(streams) / name for name in ("stdin", "stdout", "stderr")]
        if stdin is not None:
            paths[0].write_text(stdin)
        process = _context.Process(target=_run, args=(arguments, dict(env), folder, paths))
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(list(arguments), timeout)
        out, err = (path.read_text() if path.exists() else "" for path in paths[1:])
        return subprocess.CompletedProcess(list(arguments), process.exitcode, out, err)


def _run(arguments: Sequence[str], env: dict[str, str], folder: Path, paths: list[Path]) -> None:
    for number, path in enumerate(paths):
        source = path if number or path.exists() else os.devnull
        descriptor = os.open(source, os.O_RDWR | os.O_CREAT, 0o600)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin = open(0, encoding="utf-8")  # noqa: SIM115 - lives as long as the process
    sys.stdout = sys.__stdout__ = open(1, "w", encoding="utf-8")  # type: ignore[misc]  # noqa: SIM115
    sys.stderr = sys.__stderr__ = open(2, "w", encoding="utf-8")  # type: ignore[misc]  # noqa: SIM115
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    sys.argv = ["revstore", *arguments]
    sys.exit(main())
