"""The event loop that all endpoints of a process share, since gRPC works badly with several."""

from __future__ import annotations

import asyncio
import os
import threading

from revstore.threads import start_thread

__all__ = ["shared_loop"]

_lock = threading.Lock()  # guards _of_process
_of_process: dict[int, asyncio.AbstractEventLoop] = {}


def shared_loop() -> asyncio.AbstractEventLoop:
    """Return the loop. It runs in a thread of its own until the process ends, since gRPC keeps a
    loop that it has once served."""
    with _lock:
        found = _of_process.get(os.getpid())
        if found is None:
            found = _of_process[os.getpid()] = asyncio.new_event_loop()
            start_thread(found.run_forever, "revstore-serve")
        return found
