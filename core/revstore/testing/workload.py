"""Many writers and watchers on a few keys, recorded."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

import attrs

from revstore.backend import Backend, Transaction
from revstore.errors import BackendError, Closed, Timeout, Unreachable
from revstore.testing.history import History, RecordedWatch, Recorder
from revstore.values import Capability, KeyValue

__all__ = ["Workload"]


# Seconds that a lease lives if nobody ends it: more than a run takes.
_LEASE = 3600


@attrs.frozen
class _Move:
    """A body that moves the value of one key to another. A key that does not exist, or would move
    to itself, is written."""

    source: str
    target: str
    mark: bytes

    def __call__(self, seen: Transaction) -> None:
        kv = seen.get(self.source)
        if kv is None or self.source == self.target:
            seen.put(self.source, self.mark)
            return
        seen.delete(self.source)
        seen.put(self.target, self.mark + b" from " + kv.value[:40])


@attrs.frozen(kw_only=True)
class Workload:
    """Writers and watchers on a few keys.

    ``writers`` threads make ``turns`` calls each on ``keys`` keys below ``prefix``, which nobody
    else may touch, with choices that ``seed`` determines. If the backend can, some calls are
    transactions that move the value of a key to another, and some give keys a lease and revoke it.
    ``watchers`` threads follow; now and then each closes its watch and goes on from its position
    with another.

    With ``stop``, writers end once it is set, even if their turns are not over. ``pause`` is the
    number of seconds that a writer rests after each turn.

    Errors that faults cause are tolerated for ``patience`` seconds: a write that failed is not
    tried again, and a watch that ended is reopened.
    """

    prefix: str
    seed: int = 0
    writers: int = 4
    watchers: int = 3
    turns: int = 100
    keys: int = 5
    patience: float = 60.0
    pause: float = 0.0
    stop: threading.Event = attrs.field(factory=threading.Event)

    def run(self, open_backend: Callable[[int], Backend]) -> History:
        """Run the workload and return its history.

        ``open_backend(n)`` returns the backend of thread n. It may be one for all, and is not
        closed.

        Raises:
            TimeoutError: the watchers have not seen the last write in time.
            BaseException: what else a thread raised, the first one.
        """
        history = History()
        recorders = [
            Recorder(open_backend(index), history) for index in range(self.writers + self.watchers)
        ]
        start = self._revision(recorders[0].backend)
        running = _Running(self, start, writing=self.writers)
        threads = [
            threading.Thread(
                target=running.guard,
                args=(running.write if index < self.writers else running.follow, index, recorder),
                daemon=True,
            )
            for index, recorder in enumerate(recorders)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if running.failures:
            raise running.failures[0]
        return history

    def _revision(self, backend: Backend) -> int:
        """Return the store's revision, once it can be reached: faults may have begun."""
        deadline = time.monotonic() + self.patience
        while True:
            try:
                return backend.status(timeout=self.patience).revision
            except (Timeout, Unreachable):
                if time.monotonic() > deadline:
                    raise
            self.stop.wait(0.01)


class _Running:
    """One run."""

    def __init__(self, plan: Workload, start: int, *, writing: int) -> None:
        self._plan = plan
        self._start = start
        self._lock = threading.Lock()  # guards _writing, _last and failures
        self._writing = writing
        self._last = start
        # If they began one by one, the first would end before the last begins.
        self._begin = threading.Barrier(plan.writers + plan.watchers)
        self.failures: list[BaseException] = []

    def guard(
        self, work: Callable[[random.Random, Recorder], None], index: int, recorder: Recorder
    ) -> None:
        try:
            self._begin.wait(self._plan.patience)
            work(random.Random(f"{self._plan.seed}-{index}"), recorder)
        except BaseException as error:  # noqa: BLE001 - raised by run
            with self._lock:
                self.failures.append(error)

    def write(self, choose: random.Random, recorder: Recorder) -> None:
        seen: dict[str, KeyValue | None] = {}
        try:
            for turn in range(self._plan.turns):
                key = f"{self._plan.prefix}k{choose.randrange(self._plan.keys)}"
                try:
                    self._one(choose, recorder, seen, key, turn)
                except BackendError:
                    seen.pop(key, None)
                    time.sleep(0.01)  # the store may be away: give it a moment
                if self._plan.stop.wait(self._plan.pause):
                    return
        finally:
            with self._lock:
                self._writing -= 1

    def _one(
        self,
        choose: random.Random,
        recorder: Recorder,
        seen: dict[str, KeyValue | None],
        key: str,
        turn: int,
    ) -> None:
        """Write, mostly with what was seen last; now and then keep that for a write that comes too
        late, however the threads take turns."""
        if choose.random() < 0.2:
            self._look(choose, recorder)
        can = recorder.backend.capabilities
        if Capability.TRANSACTIONS in can and choose.random() < 0.1:
            other = f"{self._plan.prefix}k{choose.randrange(self._plan.keys)}"
            moved = recorder.transaction(_Move(key, other, f"{id(choose)}-{turn}".encode()))
            self._wrote(moved.wrote, moved.revision)
            return
        if Capability.LEASES in can and choose.random() < 0.03:
            self._lease(recorder, f"{self._plan.prefix}lease-{id(choose)}-{turn}/")
            return
        if key not in seen or choose.random() < 0.4:
            seen[key] = recorder.get(key).kv
            return
        known = seen[key] if choose.random() < 0.1 else seen.pop(key)
        if known is not None and choose.random() < 0.25:
            deleted = recorder.delete(key, expected_revision=known.revision)
            self._wrote(deleted.succeeded, deleted.revision)
            return
        value = f"{id(choose)}-{turn}-{choose.random()}".encode()
        expected = 0 if known is None else known.revision
        put = recorder.put(key, value, expected_revision=expected)
        self._wrote(put.succeeded, put.revision)

    def _lease(self, recorder: Recorder, below: str) -> None:
        """Give new keys a lease and revoke it."""
        lease = recorder.backend.leases().grant(_LEASE).id
        keys = [f"{below}{name}" for name in "ab"]
        value = below.encode()
        written = recorder.transaction(
            lambda seen: [seen.put(key, value, lease=lease) for key in keys]
        )
        self._wrote(written.wrote, written.revision)
        self._wrote(True, recorder.revoke(lease, recorder.list(below).kvs))

    def _look(self, choose: random.Random, recorder: Recorder) -> None:
        """Ask for what spans keys: a cache relies on it."""
        match choose.randrange(3):
            case 0:
                recorder.list(self._plan.prefix)
            case 1:
                recorder.count(self._plan.prefix)
            case _:
                recorder.status()

    def _wrote(self, succeeded: bool, revision: int) -> None:
        if succeeded:
            with self._lock:
                self._last = max(self._last, revision)

    def _end(self) -> int:
        """Return the revision that watchers must reach, 0 while that is unknown."""
        with self._lock:
            return 0 if self._writing else self._last

    def follow(self, choose: random.Random, recorder: Recorder) -> None:
        position = self._start
        deadline = time.monotonic() + self._plan.patience
        while not (self._end() and position >= self._end()):
            watch = recorder.watch(self._plan.prefix, recursive=True, after_revision=position)
            with watch:
                try:
                    self._poll(choose, recorder, watch, deadline)
                except Closed:
                    raise
                except Exception:
                    if watch.record.error is None:
                        raise
                    time.sleep(0.01)  # the error that ended it is recorded, and a check judges it
                reached = watch.position
            if reached > position:
                deadline = time.monotonic() + self._plan.patience
            position = reached
            if time.monotonic() > deadline:
                end = self._end()
                raise TimeoutError(f"a watch is at {position} and does not reach {end}")

    def _poll(
        self, choose: random.Random, recorder: Recorder, watch: RecordedWatch, deadline: float
    ) -> None:
        """Poll a few batches, or until the end."""
        marks = Capability.PROGRESS in recorder.backend.capabilities
        polls = choose.randrange(20, 200)
        while polls and time.monotonic() < deadline:
            end = self._end()
            if end and watch.position >= end:
                return
            if marks and choose.random() < 0.2:
                watch.request_progress()
            polls -= watch.poll(0.05) is not None
