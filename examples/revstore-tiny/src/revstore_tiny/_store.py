import math
import threading
import uuid

from revstore import arguments
from revstore.backend import Backend, BackendWatch
from revstore.backend_tools import OpenGuard, SharedLog, key_matcher
from revstore.errors import Closed, FutureRevision, Unsupported, ValueTooLarge
from revstore.threads import Waiters
from revstore.values import (
    BackendStatus,
    Capability,
    CountResult,
    DeleteResult,
    GetResult,
    KeyValue,
    ListResult,
    PutResult,
    WatchBatch,
    WatchEvent,
    WatchEventType,
)


class TinyBackend(Backend):
    """A store in a dict. It can do nothing beyond the minimum."""

    def __init__(self, max_value=8_000_000):
        self._max_value = max_value
        self._store_id = uuid.uuid4().hex
        self._guard = OpenGuard(self, what="tiny store")
        self._lock = threading.Lock()  # guards _log, _keys and _applied
        self._waiters = Waiters()  # polls that wait for an event
        self._log = SharedLog(floor=1, base=1)  # the event with number n has revision n + 1
        self._keys = {}
        self._applied = 1  # the revision of the last event that is in _keys

    @property
    def capabilities(self):
        return frozenset({Capability.NESTED_KEYS})

    @property
    def _revision(self):
        return self._log.end

    def _check_open(self, timeout):
        self._guard.check()
        arguments.check_timeout(timeout, 0)  # nothing here takes time

    def status(self, *, timeout=None):
        self._check_open(timeout)
        with self._lock:
            return BackendStatus(self._store_id, self._revision, 0, "tiny")

    def _check_revision(self, revision):
        if revision > self._revision:
            raise FutureRevision(revision, self._revision)
        if 0 < revision < self._revision:
            raise Unsupported(Capability.HISTORICAL_READS)

    def get(self, key, *, revision=0, linearizable=True, timeout=None):
        arguments.check_get(key, revision)
        self._check_open(timeout)
        with self._lock:
            self._check_revision(revision)
            return GetResult(self._revision, self._current().get(key))

    def list(
        self,
        prefix,
        *,
        start="",
        limit=0,
        revision=0,
        keys_only=False,
        remaining=False,
        linearizable=True,
        timeout=None,
    ):
        arguments.check_list(prefix, revision, start=start, limit=limit)
        self._check_open(timeout)
        with self._lock:
            self._check_revision(revision)
            at = self._revision
            found = [
                kv
                for key, kv in sorted(self._current().items())
                if key.startswith(prefix) and key >= start
            ]
        kvs, rest = (found[:limit], found[limit:]) if limit else (found, [])
        if keys_only:
            kvs = [KeyValue(kv.key, b"", kv.revision, kv.create_revision) for kv in kvs]
        return ListResult(at, tuple(kvs), bool(rest), len(rest) if remaining else None)

    def count(self, prefix, *, revision=0, timeout=None):
        listed = self.list(prefix, revision=revision, keys_only=True, timeout=timeout)
        return CountResult(listed.revision, len(listed.kvs))

    def put(self, key, value, *, expected_revision, ttl=0, timeout=None):
        arguments.check_put(key, value, expected_revision, ttl)
        if len(value) > self._max_value:
            raise ValueTooLarge(f"the value of {key!r} has {len(value)} bytes", key=key)
        if ttl:
            raise Unsupported(Capability.TTL)
        self._check_open(timeout)
        with self._lock:
            current = self._current().get(key)
            if (current.revision if current else 0) != expected_revision:
                return PutResult(False, self._revision, current)
            revision = self._revision + 1
            created = current.create_revision if current else revision
            kv = KeyValue(key, value, revision, created)
            self._write(WatchEvent(WatchEventType.PUT, kv, current))
            return PutResult(True, revision)

    def delete(self, key, *, expected_revision, timeout=None):
        arguments.check_delete(key, expected_revision)
        self._check_open(timeout)
        with self._lock:
            current = self._current().get(key)
            if current is None or current.revision != expected_revision:
                return DeleteResult(False, self._revision, current)
            kv = KeyValue(key, b"", self._revision + 1)
            self._write(WatchEvent(WatchEventType.DELETED, kv, current))
            return DeleteResult(True, kv.revision, current)

    def _write(self, event):
        self._waiters.wake()  # they look when the lock is free
        self._log.items.append(event)

    def _current(self):
        for event in self._log.read(self._applied):
            if event.type is WatchEventType.PUT:
                self._keys[event.kv.key] = event.kv
            else:
                self._keys.pop(event.kv.key, None)
            self._applied = event.kv.revision
        return self._keys

    def watch(self, key, *, recursive, after_revision, progress=True):
        arguments.check_watch(key, recursive=recursive, after_revision=after_revision)
        self._guard.check()
        return TinyWatch(self, key, recursive, after_revision)

    def compact(self, revision, *, timeout=None):
        arguments.check_compact(revision)
        self._check_open(timeout)
        raise Unsupported(Capability.COMPACTION)

    def close(self):
        with self._guard.closing():
            if not self._guard.inherited:
                self._waiters.wake()


class TinyWatch(BackendWatch):
    """A position in the log. No thread, no buffer: a slow reader delays nobody."""

    def __init__(self, store, key, recursive, after_revision):
        self._store = store
        self._covers = key_matcher(key, recursive=recursive)
        self._position = after_revision
        self._cursor = max(after_revision, store._log.base)  # of the event to look at next
        self._closed = False

    def poll(self, timeout=None):
        timeout = arguments.check_poll(timeout)
        if not self._store._waiters.wait_for(self._look, math.inf if timeout is None else timeout):
            return None
        (event,) = self._store._log.read(self._cursor, 1)
        batch = WatchBatch(event.kv.revision, (event,))
        # One line, and no call in it: an exception from a signal handler loses no batch.
        self._cursor = self._position = batch.revision; return batch  # noqa: E702  # fmt: skip

    def _look(self):
        self._store._guard.check()
        if self._closed:
            raise Closed("the watch was closed")
        with self._store._lock:
            for event in self._store._log.read(self._cursor):
                if self._covers(event.kv.key):
                    return True
                self._cursor += 1
        return False

    @property
    def position(self):
        return self._position

    def request_progress(self):
        raise Unsupported(Capability.PROGRESS)

    def close(self):
        self._closed = True
        if not self._store._guard.inherited:
            self._store._waiters.wake()
