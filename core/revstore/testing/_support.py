"""Helpers of the suites: a separate keyspace, deadlines instead of sleeps, threads."""

from __future__ import annotations

import builtins
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from revstore.backend import Backend, BackendWatch
from revstore.errors import Closed
from revstore.values import KeyValue, ListResult, WatchEvent

__all__ = [
    "PATIENCE",
    "Keyspace",
    "clear",
    "collect",
    "collect_to_mark",
    "let_block",
    "poll_until",
    "promptly",
    "random_prefix",
    "reads_at",
    "run_threads",
    "wait_until",
]

#: Seconds after which something that must happen counts as not happening.
PATIENCE = 20.0


# Keys that are deleted at a time.
_AT_ONCE = 16
_RUN = uuid.uuid4().hex


def random_prefix() -> str:
    """Return a prefix of keys that nobody else uses, without a slash at its end.

    All prefixes of a run have one folder above them.
    """
    return f"/revstore-test-{_RUN}/{uuid.uuid4().hex}"


def clear(backend: Backend, prefix: str, reopen: Callable[[], Backend] | None) -> None:
    """Delete what is left under ``prefix``; by another handle if this one is closed."""
    try:
        kvs = backend.list(prefix, keys_only=True).kvs
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(lambda kv: backend.delete(kv.key, expected_revision=kv.revision), kvs))
    except Closed:
        if reopen is not None:
            with reopen() as again:
                clear(again, prefix, None)


class Keyspace:
    """Short names for the keys under one prefix of an open backend.

    ``start`` is the store's revision when the keyspace was made.
    """

    def __init__(self, backend: Backend, prefix: str) -> None:
        self.backend = backend
        self.prefix = prefix
        self.start = backend.status().revision

    def key(self, name: str) -> str:
        """Return the physical key."""
        return self.prefix + name

    def create(self, name: str, value: bytes = b"value", *, ttl: int | None = 0) -> int:
        """Create a key, which must work, and return its revision."""
        result = self.backend.put(self.key(name), value, expected_revision=0, ttl=ttl)
        assert result.succeeded, f"create of {name!r} met {result.current}"
        return result.revision

    def update(self, name: str, value: bytes, *, ttl: int | None = 0) -> int:
        """Overwrite a key that exists and return its new revision."""
        expected = self.read(name).revision
        result = self.backend.put(self.key(name), value, expected_revision=expected, ttl=ttl)
        assert result.succeeded, f"update of {name!r} met {result.current}"
        return result.revision

    def delete(self, name: str) -> int:
        """Delete a key that exists and return the revision of the deletion."""
        result = self.backend.delete(self.key(name), expected_revision=self.read(name).revision)
        assert result.succeeded, f"delete of {name!r} met {result.kv}"
        return result.revision

    def find(self, name: str, revision: int = 0) -> KeyValue | None:
        """Return the key now or at ``revision``, None if it does not exist there."""
        return self.backend.get(self.key(name), revision=revision).kv

    def read(self, name: str, revision: int = 0) -> KeyValue:
        """Return the key, which must exist."""
        kv = self.find(name, revision)
        assert kv is not None, f"{name!r} is not there"
        return kv

    def names(self, kvs: Sequence[KeyValue]) -> builtins.list[str]:
        """Return the names of the keys in this keyspace."""
        return [kv.key.removeprefix(self.prefix) for kv in kvs]

    def watch(
        self,
        name: str = "",
        *,
        recursive: bool = True,
        after: int | None = None,
        progress: bool = True,
    ) -> BackendWatch:
        """Watch the whole keyspace, or a part, from its start unless ``after`` is given."""
        return self.backend.watch(
            self.key(name),
            recursive=recursive,
            after_revision=self.start if after is None else after,
            progress=progress,
        )

    def list(self, prefix: str = "", **options: Any) -> ListResult:
        """List below the keyspace's prefix; ``start`` is relative to it as well."""
        if "start" in options:
            options["start"] = self.key(options["start"])
        return self.backend.list(self.key(prefix), **options)


def wait_until(condition: Callable[[], bool], what: str, patience: float | None = None) -> None:
    """Wait for a condition that no call can wait for; fail after ``patience`` seconds, by default
    ``PATIENCE``."""
    patience = PATIENCE if patience is None else patience
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, f"not within {patience} s: {what}"
        threading.Event().wait(0.005)


def reads_at(backend: Backend, key: str) -> list[Callable[[int], Any]]:
    """Return the three reads of a key, each as a function of the revision to read at."""
    return [
        lambda revision: backend.get(key, revision=revision),
        lambda revision: backend.list(key, revision=revision),
        lambda revision: backend.count(key, revision=revision),
    ]


@contextmanager
def promptly() -> Iterator[None]:
    """Fail if the block took so long that a deadline, and not an event, must have ended it."""
    began = time.monotonic()
    yield
    took = time.monotonic() - began
    assert took < PATIENCE / 2, f"took {took:.1f} s: woken by its own timeout"


def let_block() -> None:
    """Give another thread time to block. What is tested holds without, too, but shows less."""
    threading.Event().wait(0.05)


def poll_until(
    watch: BackendWatch,
    done: Callable[[int, list[WatchEvent], bool], bool],
    patience: float | None = None,
) -> list[WatchEvent]:
    """Poll until ``done(revision, all events so far, is mark)``, checking every batch's rules; fail
    after ``patience`` seconds, by default ``PATIENCE``."""
    patience = PATIENCE if patience is None else patience
    deadline = time.monotonic() + patience
    events: list[WatchEvent] = []
    while True:
        before = watch.position
        batch = watch.poll(max(0.0, deadline - time.monotonic()))
        assert batch is not None, f"not within {patience} s; so far {events}"
        keys = [event.kv.key for event in batch.events]

        assert watch.position == batch.revision, "position follows what was delivered"
        assert keys == sorted(set(keys)), "a batch has each key once, in key order"
        assert {event.kv.revision for event in batch.events} <= {batch.revision}
        if keys:
            assert batch.revision > before, "revisions of batches rise"
        else:
            assert batch.revision >= before, "a progress mark does not go back"
        events += batch.events
        if done(batch.revision, events, not keys):
            return events


def collect(watch: BackendWatch, count: int, patience: float | None = None) -> list[WatchEvent]:
    """Poll until ``count`` events are there; more in the last batch are an error."""
    if count == 0:
        return []
    events = poll_until(watch, lambda _revision, found, _mark: len(found) >= count, patience)
    assert len(events) == count
    return events


def collect_to_mark(
    watch: BackendWatch, revision: int, patience: float | None = None
) -> list[WatchEvent]:
    """Poll until a progress mark at or above ``revision``; return the events before it."""
    return poll_until(watch, lambda at, _found, mark: mark and at >= revision, patience)


def run_threads(count: int, work: Callable[[int], Any], patience: float = 60.0) -> list[Any]:
    """Run ``work(0..count-1)`` in threads that start together; return results, raise failures."""
    results: list[Any] = [None] * count
    failures: list[BaseException] = []
    barrier = threading.Barrier(count)

    def run(index: int) -> None:
        try:
            barrier.wait(patience)
            results[index] = work(index)
        except BaseException as error:  # noqa: BLE001 - handed to the caller below
            failures.append(error)

    threads = [threading.Thread(target=run, args=(index,), daemon=True) for index in range(count)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + patience
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    if failures:
        raise failures[0]
    assert not any(thread.is_alive() for thread in threads), f"a thread hangs after {patience} s"
    return results
