"""Watches over a backend's watch, without a thread or a buffer: the thread that polls decodes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import attrs
import msgspec

from revstore.backend import Backend, BackendWatch
from revstore.deadlines import Deadline, check_poll
from revstore.errors import (
    Closed,
    Compacted,
    CorruptObject,
    Expired,
    InternalError,
    StorageError,
    Timeout,
    TooLargeResourceVersion,
)
from revstore.plans import WatchPlan
from revstore.raising import fresh_copy
from revstore.selectors import SelectionPredicate
from revstore.storage import Change, ChangeBatch, Changes, Event, EventType, Watch
from revstore.typed._objects import ObjectReader
from revstore.values import Capability, KeyValue, WatchBatch, WatchEvent, WatchEventType

__all__ = ["Scope", "TypedChanges", "TypedWatch"]

T = TypeVar("T")

# Objects decoded at once before a poll returns.
_PAGE = 500
_FEED_PAGE = 10_000
# Seconds for which a poll whose time is over goes on with what is available, to find something in
# it that the selector lets through.
_AT_HAND = 0.05
_HISTORY = Capability.HISTORICAL_READS


@attrs.frozen
class Scope:
    """The scope of a watch: ``key`` is the backend's; ``named`` is the key in errors, as the caller
    gave it."""

    key: str
    recursive: bool = attrs.field(kw_only=True, default=True)
    named: str = attrs.field(kw_only=True)


class _RawWatch:
    """The backend's watch, once there is one, and the error that ends it. ``close`` wakes a poll
    that is blocked."""

    def __init__(self, backend: Backend, scope: Scope) -> None:
        self._backend = backend
        self._scope = scope
        self._lock = threading.Lock()  # guards _watch and _closed
        self._watch: BackendWatch | None = None
        self._closed = False
        self._inherited = False
        self._error: StorageError | None = None  # only the polling thread sets it

    @property
    def started(self) -> bool:
        return self._watch is not None

    def start(self, after: int) -> None:
        scope = self._scope
        with self._lock:
            self._check_open()
            self._watch = self._backend.watch(
                scope.key, recursive=scope.recursive, after_revision=after, progress=True
            )

    def poll(self, timeout: float | None) -> WatchBatch | None:
        assert self._watch is not None
        return self._watch.poll(timeout)

    def raise_if_ended(self) -> None:
        """Raise the error that ended the watch, if there is one."""
        if self._error is not None:
            raise fresh_copy(self._error) from self._error.__cause__
        self._check_open()

    def fail(self, error: StorageError) -> StorageError:
        """Remember and return ``error`` as users know it; end the backend's watch."""
        if isinstance(error, Compacted):
            expired = Expired(
                "the resource version is too old to watch: the changes after it were compacted; "
                "list again and watch from there",
                key=self._scope.named,
                resource_version=error.resource_version,
            )
            expired.__cause__ = error
            error = expired
        if not isinstance(error, Closed):
            self._error = error
        self.close()
        return error

    def request_progress(self) -> None:
        with self._lock:
            watch = None if self._closed else self._watch
        if watch is not None:
            try:
                watch.request_progress()
            except Closed:
                return  # just now; the polling thread will see it

    def close(self) -> None:
        with self._lock:
            self._closed = True
            watch = self._watch
        if watch is not None and not self._inherited:
            watch.close()

    def in_child(self) -> None:
        """End it in the child of a fork, where the backend's watch belongs to the parent."""
        self._lock = threading.Lock()
        self._closed = self._inherited = True

    def _check_open(self) -> None:
        if self._closed:
            raise Closed("the watch was closed")


@attrs.frozen
class _InitialState:
    """The state that a watch begins with, read a page at a time, all at one revision. An interrupt
    changes nothing, since each page comes with the state after it. (WATCH-28; a backend without old
    revisions returns it at once)"""

    backend: Backend
    scope: Scope
    page: int
    start: str = ""
    revision: int = 0
    whole: bool = False

    @classmethod
    def of(cls, backend: Backend, scope: Scope, page: int) -> _InitialState:
        """Return the state before the first page."""
        return cls(backend, scope, page if _HISTORY in backend.capabilities else 0)

    def read(self, timeout: float | None) -> tuple[tuple[KeyValue, ...], _InitialState]:
        """Return the next page, and the state after it."""
        scope = self.scope
        if not scope.recursive:
            found = self.backend.get(scope.key, timeout=timeout)
            kvs = () if found.kv is None else (found.kv,)
            return kvs, attrs.evolve(self, revision=found.revision, whole=True)
        page = self.backend.list(
            scope.key, start=self.start, limit=self.page, revision=self.revision, timeout=timeout
        )
        if page.more and not page.kvs:
            raise InternalError(
                "the backend violated its contract: an empty page with more to follow"
            )
        start = page.kvs[-1].key + "\0" if page.more else ""
        left = attrs.evolve(self, start=start, revision=page.revision, whole=not page.more)
        return page.kvs, left


class TypedWatch(Watch[T]):
    """A watch of a raw storage. Except for ``close``, only the polling thread uses its state."""

    def __init__(
        self,
        backend: Backend,
        objects: ObjectReader[T],
        scope: Scope,
        *,
        plan: WatchPlan,
        predicate: SelectionPredicate[T],
        even_if_corrupt: bool,
        on_close: Callable[[Watch[T]], None],
        deadline: float | None,
    ) -> None:
        self._objects = objects
        self._scope = scope
        self._plan = plan
        self._predicate = None if predicate.empty else predicate
        self._even_if_corrupt = even_if_corrupt
        self._on_close = on_close
        self._raw = _RawWatch(backend, scope)
        self._deadline = deadline
        self._state = _InitialState.of(backend, scope, _PAGE)
        self._position = 0 if plan.initial else plan.revision
        # What was read and not shown yet: a page of the state, with what is left, or a batch.
        self._page: tuple[tuple[KeyValue, ...], _InitialState] | None = None
        self._batch: WatchBatch | None = None

    def begin(self) -> None:
        """Start the backend's watch, unless the watch begins with a state."""
        if not self._plan.initial:
            self._raw.start(self._plan.revision)

    @property
    def resource_version(self) -> str:
        if self._plan.initial and not (self._state.whole and self._page is None):
            return ""
        return str(self._position)

    def poll(self, timeout: float | None = None) -> tuple[Event[T], ...] | None:
        timeout = check_poll(timeout)
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            self._raw.raise_if_ended()
            now = time.monotonic()
            if self._is_over():
                self.close()
                continue
            before: tuple[Any, ...] | None = None
            try:
                self._read(now, _least(end, self._deadline, now))
                before = self._position, self._state, self._page, self._batch
                events = self._show()
                if events:
                    return events
            except StorageError as error:
                if isinstance(error, Timeout) and self._is_over():
                    continue  # reading the page took longer than the watch's time
                raised = self._raw.fail(error)
                self._on_close(self)
                raise raised from raised.__cause__
            except BaseException:  # the next poll shows it
                if before is not None:
                    self._position, self._state, self._page, self._batch = before
                raise
            grace = 0.0 if events is None else _AT_HAND
            if end is not None and time.monotonic() >= end + grace:
                return None

    def _is_over(self) -> bool:
        """Return whether the watch's time has passed."""
        return self._deadline is not None and time.monotonic() >= self._deadline

    def request_progress(self) -> None:
        """Ask for a mark. It moves ``resource_version``, and with bookmarks is delivered as one."""
        self._raw.request_progress()

    def close(self) -> None:
        self._raw.close()
        self._on_close(self)

    def in_child(self) -> None:
        """End it in the child of a fork."""
        self._raw.in_child()

    def _read(self, now: float, timeout: float | None) -> None:
        """Get the next page or batch, if there is one within ``timeout``."""
        if self._page is not None or self._batch is not None:
            return
        if self._plan.initial and not self._state.whole:
            self._page = self._state.read(_least(None, self._deadline, now))
            return
        if not self._raw.started:  # an interrupt came in between
            self._raw.start(self._position)
        self._batch = self._raw.poll(timeout)

    def _show(self) -> tuple[Event[T], ...] | None:
        """Return the events of the page or batch that the watch shows; None if there are none."""
        if self._page is not None:
            return self._initial(*self._page)
        batch = self._batch
        if batch is None:
            return None
        events = self._events(batch)
        self._position, self._batch = batch.revision, None
        return events

    def _initial(self, kvs: tuple[KeyValue, ...], left: _InitialState) -> tuple[Event[T], ...]:
        """Return the next objects of the state that the watch begins with.

        After the last ones the backend's watch goes on from there. (WATCH-1, WATCH-3, WATCH-28)
        """
        plan = self._plan
        if plan.revision > left.revision:
            raise TooLargeResourceVersion(
                plan.revision, left.revision, key=self._scope.named, retry_after=1
            )
        found = (self._added(kv) for kv in kvs)
        events = [event for event in found if event is not None]
        if left.whole:
            if plan.end_bookmark:
                events.append(self._bookmark(left.revision, end=True))
            if not self._raw.started:
                self._raw.start(left.revision)
        self._position, self._state, self._page = left.revision, left, None
        return tuple(events)

    def _events(self, batch: WatchBatch) -> tuple[Event[T], ...]:
        if not batch.events:
            return (self._bookmark(batch.revision, end=False),) if self._plan.progress else ()
        found = (self._map(event) for event in batch.events)
        return tuple(event for event in found if event is not None)

    def _map(self, event: WatchEvent) -> Event[T] | None:
        """Return the event that this watch shows for a change. (WATCH-10, WATCH-11)"""
        kv, previous = event.kv, event.previous
        tolerant = self._even_if_corrupt
        after: T | None = None
        lost: CorruptObject | None = None  # the object before cannot be read
        try:
            if event.type is not WatchEventType.DELETED:
                after = self._objects.decode(kv)
        except CorruptObject as error:
            if tolerant:
                return Event.unreadable(EventType.ERROR, error, kv.revision)
            raise
        was = previous is not None
        if previous is not None and (tolerant or self._predicate is not None):
            try:
                was = self._selects(self._objects.decode(previous))
            except CorruptObject as error:
                if not tolerant:
                    raise
                was, lost = False, error
        if after is not None and self._selects(after):
            kind = EventType.MODIFIED if was else EventType.ADDED
            return self._event(kind, after, kv.revision)
        if lost is not None:
            return Event.unreadable(EventType.DELETED, lost, kv.revision)
        if was and previous is not None:
            last = self._objects.decode_at(previous, kv.revision)
            return self._event(EventType.DELETED, last, kv.revision)
        return None

    def _added(self, kv: KeyValue) -> Event[T] | None:
        """Return the event that this watch shows for an object of its initial state."""
        try:
            obj = self._objects.decode(kv)
        except CorruptObject as error:
            if self._even_if_corrupt:
                return Event.unreadable(EventType.ERROR, error, kv.revision)
            raise
        return self._event(EventType.ADDED, obj, kv.revision) if self._selects(obj) else None

    def _selects(self, obj: T) -> bool:
        return self._predicate is None or self._predicate.selects(obj)

    def _bookmark(self, revision: int, *, end: bool) -> Event[T]:
        obj = self._objects.resource_type.bookmark(revision, initial_events_end=end)
        return self._event(EventType.BOOKMARK, obj, revision)

    @staticmethod
    def _event(kind: EventType, obj: T, revision: int) -> Event[T]:
        return Event(kind, obj, str(revision))


class TypedChanges(Changes[T], Generic[T]):
    """The feed of a cache over a backend's watch."""

    def __init__(
        self,
        backend: Backend,
        objects: ObjectReader[T],
        scope: Scope,
        after: int | None,
        on_close: Callable[[Changes[T]], None],
        *,
        deadline: Deadline,
    ) -> None:
        self._objects = objects
        self._on_close = on_close
        self._raw = _RawWatch(backend, scope)
        # What is left of the state that the feed begins with; None once all of it was shown.
        self._state = _InitialState.of(backend, scope, _FEED_PAGE) if after is None else None
        # What was read and not shown yet.
        self._batch: WatchBatch | None = None
        self._revision = after or 0
        self._deadline = deadline  # of the state's pages

    def begin(self) -> None:
        """Start the backend's watch, unless the feed begins with the state."""
        if self._state is None:
            self._raw.start(self._revision)

    @property
    def revision(self) -> int:
        return self._revision

    def poll(self, timeout: float | None = None) -> ChangeBatch[T] | None:
        timeout = check_poll(timeout)
        self._raw.raise_if_ended()
        before: tuple[Any, ...] | None = None
        try:
            if self._state is None and self._batch is None:
                self._batch = self._raw.poll(timeout)
            before = self._state, self._batch, self._revision
            return self._show()
        except StorageError as error:
            raised = self._raw.fail(error)
            self._on_close(self)
            raise raised from raised.__cause__
        except BaseException:  # the next poll shows it
            if before is not None:
                self._state, self._batch, self._revision = before
            raise

    def request_progress(self) -> None:
        self._raw.request_progress()

    def close(self) -> None:
        self._raw.close()
        self._on_close(self)

    def in_child(self) -> None:
        """End it in the child of a fork."""
        self._raw.in_child()

    def _show(self) -> ChangeBatch[T] | None:
        """Return the next events of the state or the batch; None if there are none."""
        if self._state is not None:
            return self._initial(self._state)
        batch = self._batch
        if batch is None:
            return None
        changes = tuple(map(self._change, batch.events))
        self._revision, self._batch = batch.revision, None
        return ChangeBatch(batch.revision, changes)

    def _initial(self, state: _InitialState) -> ChangeBatch[T]:
        if state.whole:
            if not self._raw.started:  # an interrupt came after it
                self._raw.start(state.revision)
            self._revision, self._state = state.revision, None
            return ChangeBatch(state.revision)
        kvs, self._state = state.read(self._deadline.left())
        changes = tuple([self._added(kv) for kv in kvs])
        return ChangeBatch(self._state.revision, changes, initial=True)

    def _added(self, kv: KeyValue) -> Change[T]:
        objects = self._objects
        key = objects.logical(kv.key)
        load = _Load(objects, kv)
        return Change(EventType.ADDED, key, kv.revision, len(kv.value), load, _nothing)

    def _change(self, event: WatchEvent) -> Change[T]:
        kv, previous, objects = event.kv, event.previous, self._objects

        def load() -> T:
            if event.type is WatchEventType.DELETED:
                assert previous is not None
                return objects.decode_at(previous, kv.revision)
            return objects.decode(kv)

        def load_previous() -> T | None:
            return None if previous is None else objects.decode(previous)

        if event.type is WatchEventType.DELETED:
            kind = EventType.DELETED
        else:
            kind = EventType.ADDED if previous is None else EventType.MODIFIED
        return Change(
            kind, objects.logical(kv.key), kv.revision, len(kv.value), load, load_previous
        )


# Not a partial: a page of a state has ten thousand of them, which would trigger the collector to
# traverse the whole state.
class _Load(msgspec.Struct, Generic[T], frozen=True, gc=False):
    """Decodes an object when it is called."""

    objects: ObjectReader[T]
    kv: KeyValue

    def __call__(self) -> T:
        return self.objects.decode(self.kv)


def _nothing() -> None:
    """Return None: there was no object before the state."""


def _least(end: float | None, deadline: float | None, now: float) -> float | None:
    """Return the seconds from ``now`` until the earlier of two moments, None if there is
    neither."""
    moments = [moment for moment in (end, deadline) if moment is not None]
    return max(0.0, min(moments) - now) if moments else None
