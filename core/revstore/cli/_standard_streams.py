"""Standard streams that are closed, full, or left by their reader: every run still ends
properly."""

from __future__ import annotations

import io
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from revstore.cli._failures import Failed

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["Output", "guarded_streams"]

_STDIN, _STDOUT, _STDERR = 0, 1, 2


class Output(io.RawIOBase):
    """A writer to a descriptor, which keeps its first failure in ``error``. It drops all later
    output, so that nothing fails a second time, in particular not at exit."""

    def __init__(self, descriptor: int, *, keep_going: bool = False) -> None:
        self._descriptor = descriptor
        #: Do not raise the first failure either: the work is worth more than its report.
        self.keep_going = keep_going
        self.error: OSError | None = None
        #: The process was started without it; what is written goes nowhere.
        self.missing = False
        # If a signal's handler has ended a write: how many bytes were written before.
        self._counts: list[int] = []
        self._interrupted = False

    def write(self, data: ReadableBuffer, /) -> int:
        """Write some of ``data``; return how many bytes.

        Wait if the descriptor does not block, as one that another process shares may be set. Bytes
        that were written when a signal's handler raised are not written again.
        """
        counts = self._counts
        if not self._interrupted:
            del counts[:]
        self._interrupted = True
        while self.error is None:
            try:
                if not counts:
                    # One call in C, after which a handler may raise, but not before the bytes are
                    # counted.
                    counts.extend(map(os.write, (self._descriptor,), (data,)))
                count = counts[-1]
                self._interrupted = False
                return count
            except BlockingIOError:
                # Not without end: a signal may arrive just before, see `revstore.threads.slices`.
                select.select([], [self._descriptor], [], 0.1)
            except OSError as error:
                self.error = error
                if not self.keep_going:
                    raise
        return memoryview(data).nbytes

    def require(self) -> None:
        """Refuse a command whose whole purpose is its output if that would go nowhere."""
        if self.missing:
            raise Failed("standard output is closed")

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)


@contextmanager
def guarded_streams() -> Iterator[Output]:
    """Put an ``Output`` behind standard output, which it yields, and standard error.

    A stream that is closed becomes the null device, so that no store is opened under its number;
    reading a closed standard input fails. Streams that replace the process's own are not changed.
    """
    before = sys.stdin, sys.stdout, sys.stderr
    output = Output(_STDOUT)
    if (sys.stdout, sys.stderr) != (sys.__stdout__, sys.__stderr__):
        yield output
        return
    missing = [each for each in (_STDIN, _STDOUT, _STDERR) if _open_if_closed(each)]
    output.missing = _STDOUT in missing
    if sys.stdin is None:
        sys.stdin = open(_STDIN, closefd=False)  # noqa: SIM115 - lives as long as the process
    sys.stdout = _text(output, before[1])
    sys.stderr = _text(Output(_STDERR, keep_going=True), before[2])
    try:
        yield output
    finally:
        output.keep_going = True
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdin, sys.stdout, sys.stderr = before


def _open_if_closed(descriptor: int) -> bool:
    """Open the null device under the number if it is closed; return whether it was."""
    try:
        os.fstat(descriptor)
    except OSError:
        # Write-only for standard input too: reading it then fails, as it does with a closed one.
        opened = os.open(os.devnull, os.O_WRONLY)
        if opened == descriptor:
            os.set_inheritable(opened, True)
        else:
            os.dup2(opened, descriptor)
            os.close(opened)
        return True
    return False


def _text(output: Output, before: TextIO | None) -> TextIO:
    # A file or pipe gets UTF-8, which every reader of YAML and JSON expects.
    encoding = before.encoding if before is not None and output.isatty() else "utf-8"
    buffered = io.BufferedWriter(output)
    return io.TextIOWrapper(
        buffered, encoding, errors="backslashreplace", line_buffering=output.isatty()
    )
