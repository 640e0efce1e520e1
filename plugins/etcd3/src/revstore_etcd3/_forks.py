"""A moment without calls, in which this process may fork.

grpc prepares its own threads for a fork, but only if no thread of ours is in grpc; otherwise what
the child inherits is unusable, even for its own connections. So before a fork, streams are ended,
and their owners open them again afterwards; calls under way are waited for; and new calls wait.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

__all__ = ["OpenStream", "calling"]

#: Seconds that a fork waits for calls and streams to end. A child of a fork in the middle of a call
#: cannot use grpc: its calls wait for ever, or it crashes. So this is longer than calls take while
#: a member of the cluster is halted and the client turns to another.
_PATIENCE = 10.0
#: Seconds between two checks.
_LOOK = 0.0005


class OpenStream:
    """A stream that a fork ends; its owner learns this from ``paused``."""

    def __init__(self, call: Any) -> None:
        """Keep ``call``, which was begun within ``calling``."""
        self.call = call
        self.paused = False
        self._over = threading.Lock()
        self._over.acquire()
        _gate.streams.add(self)
        if not call.add_callback(self._end):
            self._end()

    def _end(self) -> None:
        _gate.streams.discard(self)
        with contextlib.suppress(RuntimeError):
            self._over.release()

    def pause(self) -> None:
        """End it because of a fork."""
        self.paused = True
        self.call.cancel()

    def wait(self, deadline: float) -> None:
        """Wait until no thread of grpc serves it, or ``deadline``."""
        if self._over.acquire(timeout=max(0.0, deadline - time.monotonic())):
            self._end()


class _Gate:
    """The threads that are in grpc, and the forks that need grpc to be empty. The sets are changed
    and copied in single steps of the interpreter."""

    def __init__(self) -> None:
        self.after_in_child()
        self._process = os.getpid()  # which forks

    @property
    def closed(self) -> bool:
        """Whether a fork waits for grpc to be empty. A child in which a signal has cut
        ``after_in_child`` off has its parent's forks, which are none of its own."""
        return self.forks > 0 and self._process == os.getpid()

    def after_in_child(self) -> None:
        """Start over: the threads in grpc are the parent's."""
        self.calls: set[object] = set()
        self.streams: set[OpenStream] = set()
        self._lock = threading.Lock()  # guards the next
        self.forks = 0
        self.opened = threading.Event()
        self.opened.set()

    def before(self) -> None:
        """Return when no thread is in grpc, or it takes too long."""
        with self._lock:
            self.forks = self.forks + 1 if self.closed else 1
            self._process = os.getpid()
            self.opened.clear()
        deadline = time.monotonic() + _PATIENCE
        while self.calls and time.monotonic() < deadline:
            time.sleep(_LOOK)
        streams = list(self.streams)
        for stream in streams:
            stream.pause()
        for stream in streams:
            stream.wait(deadline)

    def after_in_parent(self) -> None:
        with self._lock:
            self.forks = max(0, self.forks - 1)
            if not self.forks:
                self.opened.set()


_gate = _Gate()


@contextlib.contextmanager
def calling() -> Iterator[None]:
    """Enter a block in which the thread may call grpc; wait while the process forks."""
    token = object()
    while True:
        _gate.calls.add(token)
        if not _gate.closed:
            break
        _gate.calls.discard(token)
        _gate.opened.wait(_PATIENCE)
    try:
        yield
    finally:
        _gate.calls.discard(token)


os.register_at_fork(
    before=_gate.before,
    after_in_parent=_gate.after_in_parent,
    after_in_child=_gate.after_in_child,
)
