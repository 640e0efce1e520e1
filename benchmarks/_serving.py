"""One thread that serves many watches, and a storage whose feed brings objects that are there."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Self

from benchmarks._pods import RESOURCE, Pod, key_of
from revstore.errors import Closed
from revstore.memory import MemoryBackend
from revstore.objects import with_metadata
from revstore.resource_type import ResourceType
from revstore.storage import Change, ChangeBatch, Changes, EventType, Watch
from revstore.typed import TypedStorage
from revstore.watch_selector import WatchSelector

__all__ = ["Arrivals", "FeedStorage", "HandedOn", "Server", "change_of"]


class Arrivals:
    """Counts events as they arrive, in one thread, and wakes another when all are there."""

    def __init__(self) -> None:
        self.seen = 0
        self._wanted = 0
        self._done: queue.SimpleQueue[float] = queue.SimpleQueue()

    def look(self) -> None:
        """To be called after each change of ``seen``."""
        if self.seen == self._wanted:
            self._done.put(time.perf_counter())

    def seconds(self, events: int, work: Callable[[], object]) -> float:
        """From the beginning of ``work``, which writes, to the last of as many ``events``."""
        self._wanted = self.seen + events
        start = time.perf_counter()
        work()
        return self._done.get(timeout=60) - start


class Server:
    """A thread that serves watches and looks at each event by itself. Closes them when left."""

    def __init__(self, watches: Sequence[Watch[Pod]]) -> None:
        self.arrivals = Arrivals()
        self._watches = watches
        self._selector = WatchSelector()
        for watch in watches:
            self._selector.add(watch)
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._selector.close()
        self.thread.join()
        for watch in self._watches:
            watch.close()

    def _run(self) -> None:
        arrivals, select = self.arrivals, self._selector.select
        while True:
            try:
                found = select()
            except Closed:
                return
            for watch, _ in found:
                events = watch.poll(0)
                for _event in events or ():
                    arrivals.seen += 1
                if events:  # a watch may say once too often that there are some
                    arrivals.look()


class HandedOn:
    """What it costs that events pass from the writer to the feed's thread, and from there to the
    one that serves: queues, and nothing else."""

    def __init__(self) -> None:
        self.arrivals = Arrivals()
        self._feed: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._told: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=each) for each in (self._pass_on, self._count)]
        for thread in self._threads:
            thread.start()

    def push(self, count: int) -> None:
        """Hand on as many."""
        for number in range(count):
            self._feed.put(number)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._feed.put(None)
        for thread in self._threads:
            thread.join()

    def _pass_on(self) -> None:
        number: int | None = 0
        while number is not None:
            number = self._feed.get(timeout=60)
            self._told.put(number)

    def _count(self) -> None:
        while self._told.get(timeout=60) is not None:
            self.arrivals.seen += 1
            self.arrivals.look()


class FeedStorage(TypedStorage[Pod]):
    """A storage that costs a cache nothing: its feed begins with ``objects``, and then brings what
    ``push`` is given, at once. What is pushed was decoded before."""

    def __init__(self, objects: Iterable[Pod]) -> None:
        backend = MemoryBackend()
        super().__init__(backend, ResourceType(Pod, RESOURCE), on_close=backend.close)
        self.revision = 1
        self._objects_there = sorted(objects, key=key_of)
        self._feed = _ReadyChanges(ChangeBatch(self.revision))

    def changes(
        self, key: str, *, after: int | None = None, timeout: float | None = None
    ) -> Changes[Pod]:
        """See ``Storage.changes``."""
        assert after is None
        state = [change_of(EventType.ADDED, self.revision, obj) for obj in self._objects_there]
        self._feed = _ReadyChanges(ChangeBatch(self.revision, tuple(state), initial=True))
        self.push([ChangeBatch(self.revision)])
        return self._feed

    def batches(self, objects: Iterable[Pod]) -> list[ChangeBatch[Pod]]:
        """The next revisions, each with one of ``objects``, to be pushed in this order."""
        made = []
        for obj in objects:
            self.revision += 1
            made.append(
                ChangeBatch(self.revision, (change_of(EventType.MODIFIED, self.revision, obj),))
            )
        return made

    def push(self, batches: Iterable[ChangeBatch[Pod]]) -> None:
        """Let the feed bring them."""
        for batch in batches:
            self._feed.batches.put(batch)


class _ReadyChanges(Changes[Pod]):
    def __init__(self, first: ChangeBatch[Pod]) -> None:
        self.batches: queue.SimpleQueue[ChangeBatch[Pod] | None] = queue.SimpleQueue()
        self.batches.put(first)
        self._revision = first.revision

    def poll(self, timeout: float | None = None) -> ChangeBatch[Pod] | None:
        try:
            batch = self.batches.get(timeout=timeout)
        except queue.Empty:
            return None
        if batch is None:
            self.close()  # for the next poll
            raise Closed("the feed was closed")
        self._revision = batch.revision
        return batch

    @property
    def revision(self) -> int:
        return self._revision

    def request_progress(self) -> None:
        """Nothing can be late here."""

    def close(self) -> None:
        self.batches.put(None)


def change_of(kind: EventType, revision: int, obj: Pod) -> Change[Pod]:
    """Return a change that costs a cache nothing to decode."""
    stored = with_metadata(obj, resource_version=str(revision))
    return Change(kind, key_of(obj), revision, 1000, lambda: stored, lambda: obj)
