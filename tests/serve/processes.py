"""``revstore serve`` in a process of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Self

__all__ = ["Served"]


class Served:
    """One process, at an address that it keeps over restarts. It can be killed and halted."""

    def __init__(self, store: str) -> None:
        self._store = store
        self.address = "127.0.0.1:0"
        self.start()

    def start(self) -> None:
        """Start it, and return once it serves."""
        command = [sys.executable, "-m", "revstore", "serve", "--listen", self.address]
        self._process = subprocess.Popen(
            [*command, "--store", self._store], stdout=subprocess.PIPE, text=True
        )
        line = self._process.stdout.readline()
        assert line, self._process.wait(20)
        self.address = line.strip().removesuffix(".").rpartition(" ")[2]

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        """End it by SIGKILL, and wait for its end."""
        if self._process.returncode is None:
            self._process.kill()
            self._process.communicate()

    def restart(self) -> None:
        """Kill it, and start it again at the same address."""
        self.kill()
        self.start()

    @contextlib.contextmanager
    def halted(self) -> Iterator[None]:
        """Stop the process for as long as the block lasts."""
        self._process.send_signal(signal.SIGSTOP)
        flags = os.WSTOPPED | os.WNOHANG | os.WNOWAIT
        deadline = time.monotonic() + 20
        while os.waitid(os.P_PID, self._process.pid, flags) is None:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
