"""The watch cache: a storage that answers lists, watches and gets from memory (Cacher)."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import attrs

from revstore._cacher_feed import Feed
from revstore._cacher_log import Entry, EventLog
from revstore._cacher_state import CacheState, Range
from revstore._cacher_watch import CacheWatch, Generation, WatchScope, covers
from revstore._storage_list import ListPlan, plan_list
from revstore._storage_objects import empty_object, selects
from revstore.copier import Copier, SharingCopier, default_copier
from revstore.errors import (
    Closed,
    CorruptObject,
    Expired,
    InvalidArgument,
    InvalidKey,
    KeyNotFound,
    NotReady,
    StorageError,
    TooLargeResourceVersion,
    Unsupported,
)
from revstore.objects import field_value, labels_of, with_metadata
from revstore.paging import encode_continue
from revstore.preconditions import Preconditions
from revstore.selectors import FieldSelector, LabelSelector, SelectionPredicate
from revstore.storage import (
    INITIAL_EVENTS_END,
    Change,
    ChangeBatch,
    Changes,
    Event,
    EventType,
    ObjectList,
    Stats,
    Storage,
    UpdateFunc,
    ValidateFunc,
    Watch,
)
from revstore.versioner import APIObjectVersioner, Versioner, parse_resource_version

__all__ = ["Cacher", "CacherConfig"]

T = TypeVar("T")

# Seconds that a read waits for the cache to be as new as it must be.
_FRESH_TIMEOUT = 3.0
# Seconds between two requests for progress while somebody waits.
_PROGRESS_INTERVAL = 0.1
_BOOKMARK_INTERVAL = 60.0
# The log's upper bound for a window of 75 s. (HIST-1)
_CAPACITY = 102_400
_WINDOW = 75.0


@attrs.frozen(kw_only=True)
class CacherConfig(Generic[T]):
    """What a ``Cacher`` is made of (cacher.Config, with the fields of StorageWithCacher).

    ``storage`` is the storage that it decorates and closes; ``object_type`` and
    ``resource_prefix`` are those of that storage. ``capacity`` bounds the event log (None: by
    ``event_history_window``, 102,400 events for up to 75 s); events of the last
    ``event_history_window`` seconds are kept within it, at least 75. ``indexed_fields`` are the
    field paths by which lists are found without a scan (TriggerPublisherFunc, Indexers); labels
    always are. ``versioner``, ``copier``, ``labels``, ``fields`` and ``new_object`` are as
    ``TypedStorage`` has them. Keys come from the storage's feed: there is no key function.
    """

    storage: Storage[T]
    object_type: type[T]
    resource_prefix: str
    capacity: int | None = None
    event_history_window: float = _WINDOW
    indexed_fields: tuple[str, ...] = ()
    versioner: Versioner[T] | None = None
    copier: Copier[T] | None = None
    labels: Callable[[T], Mapping[str, str]] = labels_of
    fields: Callable[[T, str], str] = field_value
    new_object: Callable[[], T] | None = None
    fresh_timeout: float = _FRESH_TIMEOUT

    def __attrs_post_init__(self) -> None:
        if self.event_history_window < _WINDOW:
            raise InvalidArgument(
                "event_history_window", self.event_history_window, "75 seconds or more"
            )
        if self.capacity is not None and self.capacity < 1:
            raise InvalidArgument("capacity", self.capacity, "1 or more")


class Cacher(Storage[T]):
    """A storage that follows another and answers from memory what it can.

    Writes go to the storage and are seen here once its feed has brought them. Lists without a
    resource version are consistent all the same: the storage is asked for its revision, and the
    cache waits until it has got there. A watch never delays another; one that falls behind what
    the log remembers ends with ``Expired``. Until the first list has been read, calls wait for it.
    """

    def __init__(self, config: CacherConfig[T]) -> None:
        self._config = config
        self._storage = config.storage
        self._prefix = config.resource_prefix.rstrip("/") + "/"
        self._versioner = config.versioner or APIObjectVersioner()
        copier = config.copier or default_copier(config.object_type)
        self._copy = None if isinstance(copier, SharingCopier) else copier.copy
        self._lock = threading.Lock()  # guards the cache's state: the four below
        self._changed = threading.Condition(self._lock)
        self._state: CacheState[T] = self._new_state()
        self._generation: Generation[T] | None = None  # None: not ready
        self._closed = False
        self._failure: StorageError | None = None
        self._feed = Feed(
            self._storage,
            self._prefix,
            replace=self._replace,
            apply=self._apply,
            failed=self._failed,
        )

    # --- reads ---------------------------------------------------------------------------------

    def get(
        self,
        key: str,
        *,
        resource_version: str = "",
        ignore_not_found: bool = False,
        timeout: float | None = None,
    ) -> Any:
        generation = self._generation
        wanted = 0
        if generation is not None and resource_version and self._covered(key):
            wanted = parse_resource_version(resource_version)
            if generation.revision < wanted and not self._wait_fresh(wanted, timeout):
                raise TooLargeResourceVersion(wanted, self._revision(), key=key, retry_after=1)
            obj = self._state.get(key)
            if obj is not None:
                return obj if self._copy is None else self._copy(obj)
            if key not in self._state.corrupt:
                if ignore_not_found:
                    return None
                raise KeyNotFound(key, resource_version=str(self._revision()))
        self._check_open()
        return self._storage.get(
            key,
            resource_version=resource_version,
            ignore_not_found=ignore_not_found,
            timeout=timeout,
        )

    def list(
        self,
        key: str,
        *,
        recursive: bool = True,
        resource_version: str = "",
        resource_version_match: str = "",
        label_selector: str | LabelSelector = "",
        field_selector: str | FieldSelector = "",
        limit: int = 0,
        continue_token: str = "",
        timeout: float | None = None,
    ) -> ObjectList[T]:
        self._check_open()
        scope = self._scope(key, recursive)
        if scope is not None:
            plan = plan_list(
                scope,
                recursive=recursive,
                resource_version=resource_version,
                resource_version_match=resource_version_match,
                limit=limit,
                continue_token=continue_token,
            )
            predicate = self._predicate(label_selector, field_selector)
            answer = self._from_cache(scope, plan, predicate, limit, timeout)
            if answer is not None:
                return answer
        return self._storage.list(
            key,
            recursive=recursive,
            resource_version=resource_version,
            resource_version_match=resource_version_match,
            label_selector=label_selector,
            field_selector=field_selector,
            limit=limit,
            continue_token=continue_token,
            timeout=timeout,
        )

    def _from_cache(
        self,
        scope: str,
        plan: ListPlan,
        predicate: SelectionPredicate[T],
        limit: int,
        timeout: float | None,
    ) -> ObjectList[T] | None:
        """The answer from memory; None if the storage must be asked. (DELEG-1 to DELEG-10)"""
        exact = plan.revision
        if exact and not scope.endswith("/"):
            return None
        self._wait_ready(timeout)
        if exact or plan.minimum:
            wanted = exact or plan.minimum
        else:
            wanted = 0 if plan.any_state else self._storage.current_revision(timeout=timeout)
        if wanted and not self._wait_fresh(wanted, timeout):
            if plan.minimum and not exact:
                raise TooLargeResourceVersion(wanted, self._revision(), retry_after=1)
            return None
        with self._lock:
            generation = self._ready()
            revision = exact or generation.revision
            if self._state.corrupt and self._state.corrupt_below(scope):
                return None
            found = self._find(scope, plan, predicate, generation)
        if found is None:
            return None
        return self._answer(found, scope, revision, predicate, limit)

    def _find(
        self,
        scope: str,
        plan: ListPlan,
        predicate: SelectionPredicate[T],
        generation: Generation[T],
    ) -> Range[T] | None:
        """The candidates, under the lock; None if history does not reach back far enough."""
        state = self._state
        if not scope.endswith("/"):
            obj = state.get(scope)
            return Range((), ()) if obj is None else Range((scope,), (obj,))
        if plan.revision:
            segment = generation.log.segment
            if plan.revision < segment.floor:
                return None
            later = segment.entries[segment.after(plan.revision) - segment.base :]
            return _from(state.at(plan.revision, scope, later), plan.start)
        return state.below(scope, plan.start) if plan.start else self._indexed(scope, predicate)

    def _indexed(self, scope: str, predicate: SelectionPredicate[T]) -> Range[T]:
        """What the best index has for the selectors, else all of the scope. (CACHE-17)"""
        state = self._state
        for path in self._config.indexed_fields:
            value = predicate.field.exact(path)
            if value is not None:
                return state.with_field(path, value, scope)
        for requirement in predicate.label.requirements:
            if requirement.operator == "in" and len(requirement.values) == 1:
                return state.labelled(requirement.key, next(iter(requirement.values)), scope)
        return state.below(scope)

    def _answer(
        self,
        found: Range[T],
        scope: str,
        revision: int,
        predicate: SelectionPredicate[T],
        limit: int,
    ) -> ObjectList[T]:
        """Filter and cut what was found; no lock is held, as attribute functions are users'."""
        last = len(found.keys)
        if predicate.empty:
            items = found.objects if not limit or limit >= last else found.objects[:limit]
            last = len(items)
        else:
            chosen = []
            for at, obj in enumerate(found.objects):
                if selects(predicate, obj):
                    chosen.append(obj)
                    if len(chosen) == limit:
                        last = at + 1
                        break
            items = tuple(chosen)
        token, remaining = "", None
        if last < len(found.keys):
            token = encode_continue(found.keys[last - 1] + "\0", scope, revision)
            remaining = len(found.keys) - last if predicate.empty else None
        if self._copy is not None:
            items = tuple(map(self._copy, items))
        return ObjectList(tuple(items), str(revision), token, remaining)

    # --- watches -------------------------------------------------------------------------------

    def watch(
        self,
        key: str,
        *,
        recursive: bool = True,
        resource_version: str = "",
        label_selector: str | LabelSelector = "",
        field_selector: str | FieldSelector = "",
        send_initial_events: bool | None = None,
        allow_bookmarks: bool = False,
        progress_notify: bool = False,
        timeout: float | None = None,
    ) -> Watch[T]:
        self._check_open()
        scope = self._scope(key, recursive)
        if scope is None:
            self._storage.watch(key, recursive=recursive).close()
            raise InvalidKey(key, f"one below {self._prefix!r}")
        revision = parse_resource_version(resource_version)
        predicate = self._predicate(label_selector, field_selector)
        initial = not revision if send_initial_events is None else send_initial_events
        end_bookmark = bool(send_initial_events) and allow_bookmarks
        if end_bookmark or progress_notify:
            self._new_object()
        self._wait_ready(timeout)
        wanted = revision if initial else 0
        if not resource_version:
            wanted = self._storage.current_revision()
            revision = revision if initial else wanted
        error: StorageError | None = None
        if initial and wanted and not self._wait_fresh(wanted, None):
            error = TooLargeResourceVersion(wanted, self._revision(), retry_after=1)
        with self._lock:
            generation = self._ready()
            segment = generation.log.segment
            events: Iterator[Event[T]] | None = None
            if initial:
                found = self._find(scope, ListPlan(), predicate, generation)
                assert found is not None
                revision, cursor = generation.revision, segment.head
                for corrupt_key in sorted(self._state.corrupt):
                    if covers(scope, corrupt_key):
                        error = error or self._state.corrupt[corrupt_key]
                events = self._initial(found, predicate, revision, end_bookmark=end_bookmark)
            else:
                revision = revision or generation.revision
                cursor = max(segment.after(revision), segment.base)
                if revision < segment.floor:
                    error = Expired(
                        f"the resource version {revision} is too old to watch: the cache "
                        f"remembers events after {segment.floor}; list again and watch from there",
                        resource_version=str(generation.revision),
                    )
        return CacheWatch(
            generation,
            cursor,
            WatchScope(
                scope,
                revision,
                predicate,
                lifetime=timeout,
                bookmark_interval=_BOOKMARK_INTERVAL if allow_bookmarks else 0.0,
                progress=progress_notify,
            ),
            events,
            copy=self._copy,
            selects=selects,
            at_version=self._versioner.update_object,
            bookmark=lambda at: self._bookmark(at, end=False),
            on_close=lambda _: None,
            error=error,
        )

    def _initial(
        self,
        found: Range[T],
        predicate: SelectionPredicate[T],
        revision: int,
        *,
        end_bookmark: bool,
    ) -> Iterator[Event[T]]:
        version_of = self._versioner.object_resource_version
        for obj in found.objects:
            if predicate.empty or selects(predicate, obj):
                shown = obj if self._copy is None else self._copy(obj)
                yield Event(EventType.ADDED, shown, str(version_of(obj)))
        if end_bookmark:
            yield Event(EventType.BOOKMARK, self._bookmark(revision, end=True), str(revision))

    def _bookmark(self, revision: int, *, end: bool) -> T:
        obj = self._versioner.update_object(self._new_object(), revision)
        if not end:
            return obj
        marked: T = with_metadata(obj, annotations={INITIAL_EVENTS_END: "true"})
        return marked

    def _new_object(self) -> T:
        make = self._config.new_object
        return make() if make is not None else empty_object(self._config.object_type)

    # --- what goes to the storage --------------------------------------------------------------

    def create(self, key: str, obj: T, *, ttl: int = 0, timeout: float | None = None) -> T:
        self._check_open()
        return self._storage.create(key, obj, ttl=ttl, timeout=timeout)

    def delete(
        self,
        key: str,
        *,
        preconditions: Preconditions | None = None,
        validate: ValidateFunc | None = None,
        suggestion: T | None = None,
        even_if_corrupt: bool = False,
        timeout: float | None = None,
    ) -> Any:
        self._check_open()
        return self._storage.delete(
            key,
            preconditions=preconditions,
            validate=validate,
            suggestion=self._suggestion(key),
            even_if_corrupt=even_if_corrupt,
            timeout=timeout,
        )

    def guaranteed_update(
        self,
        key: str,
        update: UpdateFunc,
        *,
        ignore_not_found: bool = False,
        preconditions: Preconditions | None = None,
        suggestion: T | None = None,
        timeout: float | None = None,
    ) -> T:
        self._check_open()
        return self._storage.guaranteed_update(
            key,
            update,
            ignore_not_found=ignore_not_found,
            preconditions=preconditions,
            suggestion=self._suggestion(key),
            timeout=timeout,
        )

    def _suggestion(self, key: str) -> T | None:
        """What the cache holds, instead of what the caller remembers. (DEL-15, GU-19)"""
        obj = self._state.get(key)
        return obj if obj is None or self._copy is None else self._copy(obj)

    def changes(self, key: str, *, after: int | None = None) -> Changes[T]:
        self._check_open()
        return self._storage.changes(key, after=after)

    def count(self, key: str, *, timeout: float | None = None) -> int:
        self._check_open()
        return self._storage.count(key, timeout=timeout)

    def stats(self, *, timeout: float | None = None) -> Stats:
        self._check_open()
        return self._storage.stats(timeout=timeout)

    def current_revision(self, *, timeout: float | None = None) -> int:
        self._check_open()
        return self._storage.current_revision(timeout=timeout)

    def compact_revision(self, *, timeout: float | None = None) -> int:
        self._check_open()
        return self._storage.compact_revision(timeout=timeout)

    # --- readiness and freshness ---------------------------------------------------------------

    def request_progress(self) -> None:
        self._check_open()
        self._feed.request_progress()

    def ready(self, *, timeout: float | None = None) -> None:
        self._check_open()
        with self._lock:
            self._ready()

    def wait_ready(self, timeout: float = 30.0) -> None:
        """Return once the cache is filled; ``NotReady`` after ``timeout`` seconds."""
        self._wait_ready(timeout)

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            generation = self._generation
            self._changed.notify_all()
        if generation is not None:
            generation.end(Closed("the cache was closed"))
        self._feed.close()
        self._storage.close()

    def _ready(self) -> Generation[T]:
        self._check_open()
        if self._generation is None:
            why = f": {self._failure}" if self._failure else ""
            raise NotReady(f"the cache is (re)initializing{why}")
        return self._generation

    def _wait_ready(self, timeout: float | None) -> None:
        if self._generation is not None:
            return
        with self._lock:
            self._changed.wait_for(
                lambda: self._closed or self._generation is not None,
                30.0 if timeout is None else timeout,
            )
            self._ready()

    def _revision(self) -> int:
        generation = self._generation
        return 0 if generation is None else generation.revision

    def _wait_fresh(self, revision: int, timeout: float | None) -> bool:
        """Wait until the cache shows ``revision``; False if it does not get there in time."""
        if self._revision() >= revision:
            return True
        patience = self._config.fresh_timeout
        end = time.monotonic() + (patience if timeout is None else min(timeout, patience))
        while True:
            with contextlib.suppress(Unsupported):  # then events or marks may bring it, or not
                self._feed.request_progress()
            left = end - time.monotonic()
            with self._lock:
                self._check_open()
                if self._changed.wait_for(
                    lambda: self._closed or self._revision() >= revision,
                    max(0.0, min(left, _PROGRESS_INTERVAL)),
                ):
                    self._check_open()
                    return True
            if left <= 0:
                return False

    # --- what the feed brings ------------------------------------------------------------------

    def _replace(self, revision: int, changes: Sequence[Change[T]]) -> None:
        state = self._new_state()
        pairs = []
        for change in changes:
            try:
                pairs.append((change.key, change.load()))
            except CorruptObject as error:
                state.corrupt[change.key] = error
        state.load(pairs)
        with self._lock:
            before = self._generation
            base = before.log.segment.head if before is not None else 0
            log: EventLog[T] = EventLog(
                revision,
                base=base,
                capacity=self._config.capacity or _capacity(self._config.event_history_window),
                window=self._config.event_history_window,
            )
            self._state, self._generation = state, Generation(log, revision)
            self._failure = None
            self._changed.notify_all()

    def _apply(self, batch: ChangeBatch[T]) -> None:
        loaded: list[tuple[Change[T], T | CorruptObject]] = []
        for change in batch.changes:
            try:
                loaded.append((change, change.load()))
            except CorruptObject as error:
                loaded.append((change, error))
        now = time.monotonic()
        with self._lock:
            generation = self._generation
            assert generation is not None
            if loaded:
                generation.log.append([self._enter(change, obj, now) for change, obj in loaded])
                self._state.forget_before(generation.log.segment.floor)
            generation.publish(batch.revision)
            self._changed.notify_all()

    def _enter(self, change: Change[T], obj: T | CorruptObject, now: float) -> Entry[T]:
        """Take a change into the state; its entry for the log."""
        kind, key, revision = change.type, change.key, change.revision
        corrupt = self._state.corrupt.get(key)
        if isinstance(obj, CorruptObject):
            before = self._state.remove(key)
            if kind is not EventType.DELETED:
                self._state.corrupt[key] = obj
            return Entry(kind, key, revision, now, None, before, None, obj)
        if kind is EventType.DELETED:
            before = self._state.remove(key)
        else:
            before = self._state.put(key, obj)
        event = Event(kind, obj, str(revision))
        return Entry(kind, key, revision, now, obj, before, event, previous_error=corrupt)

    def _failed(self, error: StorageError, lost: bool) -> None:
        with self._lock:
            self._failure = error
            generation = self._generation
            if not lost or generation is None:
                return
            self._generation = None
        ended: StorageError = Expired(
            "the resource version is too old: the cache had to be filled anew, and what happened "
            "meanwhile is not known; list again and watch from there"
        )
        generation.end(error if isinstance(error, Closed) else ended)

    def _new_state(self) -> CacheState[T]:
        paths, fields = self._config.indexed_fields, self._config.fields

        def indexed(obj: T) -> Mapping[str, str]:
            return {path: fields(obj, path) for path in paths}

        return CacheState(self._config.labels, indexed)

    # --- small things --------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._closed:
            raise Closed("the cache was closed")

    def _covered(self, key: str) -> bool:
        return isinstance(key, str) and key.startswith(self._prefix) and "/." not in key

    def _scope(self, key: str, recursive: bool) -> str | None:
        """The key, or the prefix that ends in "/"; None for one that the storage will refuse, or
        may."""
        if not isinstance(key, str) or not key:
            return None
        scope = key if not recursive or key.endswith("/") else key + "/"
        return scope if self._covered(scope) and "\0" not in scope else None

    def _predicate(
        self, label: str | LabelSelector, field: str | FieldSelector
    ) -> SelectionPredicate[T]:
        parsed: SelectionPredicate[T] = SelectionPredicate.of(label, field)
        if parsed.empty:
            return parsed
        fields = self._config.fields
        return attrs.evolve(
            parsed,
            labels=self._config.labels,
            fields=lambda obj: lambda path: fields(obj, path),
        )


def _from(found: Range[T], start: str) -> Range[T]:
    at = bisect_left(found.keys, start)
    return Range(found.keys[at:], found.objects[at:]) if at else found


def _capacity(window: float) -> int:
    """The log's upper bound: doubled for each doubling of the window. (HIST-1)"""
    doublings = max(0, math.ceil(math.log2(window / _WINDOW)))
    return _CAPACITY << min(doublings, 14)
