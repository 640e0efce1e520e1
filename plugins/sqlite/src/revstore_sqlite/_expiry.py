"""The expiry of keys with a ttl, and other work in the background: the rest of interrupted
compactions."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from revstore.backend import DEFAULT_TIMEOUT
from revstore.backend_tools import Log
from revstore.errors import Closed, ReadOnly, StorageError
from revstore.threads import start_thread
from revstore_sqlite._leases import ExpireLeases
from revstore_sqlite._ops import Expire, Sweep
from revstore_sqlite._reader import Reader
from revstore_sqlite._writer import Writer

__all__ = ["Housekeeper", "sweep_log"]

_log = Log("revstore_sqlite")
#: Seconds between two checks for keys to which this or another process gave a ttl meanwhile. It is
#: the shortest ttl, so each of them ends after a check, and nobody needs to wake the thread.
_LOOK_EVERY = 1.0
#: Keys deleted, or revisions compacted, in one transaction: milliseconds each, some tens at worst.
_BATCH = 1000


def sweep_log(writer: Writer, deadline: float) -> bool:
    """Delete the remains of a compaction, in short transactions between those of others; return
    whether that is done.

    It stops at ``deadline``, and any process goes on with it later.
    """
    while time.monotonic() < deadline:
        if not writer.submit(Sweep(_BATCH), max(_LOOK_EVERY, deadline - time.monotonic())):
            return True
    return False


class Housekeeper:
    """A thread that deletes expired keys. It runs in every process that has the store open, so that
    keys expire even after the process that wrote them has ended. The first thread that holds the
    write lock deletes a key."""

    def __init__(
        self,
        reader: Reader,
        writer: Writer,
        stop: threading.Event,
        clock: Callable[[], float],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._stop = stop
        self._clock = clock
        self._news = threading.Event()
        #: Whether leases are swept, too.
        self.sweeps_leases = False
        self._swept = -1  # only the thread uses it
        self._thread = start_thread(self._run, "revstore-sqlite-housekeeper")

    def wake(self) -> None:
        """Make the thread look at once."""
        self._news.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._news.clear()
            try:
                pause = self._round()
            except Closed:
                return
            except ReadOnly as error:
                _log.info("expired keys stay, since the store is read-only: %s", error)
                return
            except StorageError as error:
                _log.warning("housekeeping failed, trying again: %s", error)
                pause = _LOOK_EVERY
            except Exception:  # noqa: BLE001 - of the clock, say: other keys must expire
                _log.exception("housekeeping failed, trying again")
                pause = _LOOK_EVERY
            self._news.wait(pause)

    def _round(self) -> float:
        """Do what is due; return the seconds until something may be due again."""
        header = self._reader.header(DEFAULT_TIMEOUT)
        # If a compaction has made no progress since the last check, its process has ended.
        if header.compacted > header.swept == self._swept:
            sweep_log(self._writer, time.monotonic() + _LOOK_EVERY)
        self._swept = header.swept
        pause = self._expire(self._reader.next_expiry(DEFAULT_TIMEOUT), Expire)
        if self.sweeps_leases:
            due = self._reader.next_lease_expiry(DEFAULT_TIMEOUT)
            pause = min(pause, self._expire(due, ExpireLeases))
        return pause

    def _expire(self, due: int | None, operation: type[Expire | ExpireLeases]) -> float:
        """Run ``operation`` if something is due; return the seconds until something may be due
        again."""
        if due is None:
            return _LOOK_EVERY
        left = due / 1000 - self._clock()
        if left > 0:
            return min(left, _LOOK_EVERY)
        # Nothing to delete although something is due: another process was faster, the store is
        # fenced, or the file is damaged.
        gone = self._writer.submit(operation(_BATCH, self._clock), DEFAULT_TIMEOUT)
        return 0.0 if gone else _LOOK_EVERY

    def close(self, timeout: float) -> None:
        """End the thread; ``stop`` must already be set."""
        self._news.set()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout)
