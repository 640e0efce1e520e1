"""The watch cache: a storage that answers lists, watches and gets from memory (Cacher)."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Any, TypeVar

from revstore.cacher._cache_or_store import CURRENT, Source, serve_list
from revstore.cacher._config import CacherConfig
from revstore.cacher._consistency import ConsistencyReport, check_consistency
from revstore.cacher._content import Content
from revstore.cacher._counters import CacherCounters
from revstore.cacher._fallback import Fallbacks
from revstore.cacher._generation import Generation
from revstore.cacher._lists import Candidates, find, select
from revstore.cacher._view import ViewKit, covers
from revstore.cacher._watch import CacheWatch, WatchStart
from revstore.copier import SharingCopier, default_copier
from revstore.errors import (
    Expired,
    InvalidKey,
    InvalidResourceVersion,
    KeyNotFound,
    StorageError,
    TooLargeResourceVersion,
)
from revstore.objects import with_metadata
from revstore.preconditions import Preconditions
from revstore.selectors import FieldSelector, LabelSelector, SelectionPredicate
from revstore.storage import (
    INITIAL_EVENTS_END,
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
from revstore.storage._calls import Deadline, Naming
from revstore.storage._objects import empty_object, selects
from revstore.storage._plans import ListPlan, plan_list
from revstore.versioner import APIObjectVersioner, parse_resource_version

__all__ = ["Cacher", "CacherConfig", "CacherCounters", "ConsistencyReport"]

T = TypeVar("T")

_NO_DEADLINE = Deadline(None, "")


class Cacher(Storage[T]):
    """A storage that follows another and answers from memory what it can.

    Writes go to the storage and are seen here once its feed has brought them. Lists without a
    resource version are consistent all the same: the storage is asked for its revision, and the
    cache waits until it has got there; if it does not in time, the storage answers. Gets without
    a resource version go to the storage. A watch never delays another; one that falls behind what
    the log remembers ends with ``Expired``. A feed that breaks is made anew; where the store has
    forgotten what happened meanwhile, the cache is filled anew, and all watches end with
    ``Expired``. Until the cache is filled, calls wait for it, then raise ``NotReady``, but for gets
    and pages without a selector, which the storage answers.
    """

    def __init__(self, config: CacherConfig[T]) -> None:
        self._config = config
        self._storage = config.storage
        self._prefix = config.resource_prefix.rstrip("/") + "/"
        # A prefix that is not the storage's is refused here, not for ever by the feed.
        self._storage.changes(self._prefix).close()
        self._versioner = config.versioner or APIObjectVersioner()
        copier = config.copier or default_copier(config.object_type)
        self._copy = None if isinstance(copier, SharingCopier) else copier.copy
        self._fallbacks = Fallbacks()
        kit = ViewKit(
            config.indexed_fields,
            self._copy,
            self._versioner.update_object,
            lambda at: self._bookmark(at, end=False),
        )
        self._content = Content(config, self._prefix, kit)
        self._feed = self._content.feed

    # --- reads ---------------------------------------------------------------------------------

    def get(
        self,
        key: str,
        *,
        resource_version: str = "",
        ignore_not_found: bool = False,
        timeout: float | None = None,
    ) -> Any:
        content = self._content
        deadline = _NO_DEADLINE if timeout is None else Deadline(timeout, key)
        generation = content.generation
        if resource_version and generation is not None and self._covered(key):
            try:
                wanted = parse_resource_version(resource_version)
            except InvalidResourceVersion as error:
                error.key = key
                raise
            if generation.revision >= wanted or content.wait_fresh(wanted, deadline.rest()):
                obj, corrupt = content.state.get(key), False
                if obj is None:
                    with content.lock:  # it may just have become readable, or unreadable
                        obj, corrupt = content.state.get(key), key in content.state.corrupt
                if obj is not None:
                    return obj if self._copy is None else self._copy(obj)
                if not corrupt:
                    content.check_open()
                    if ignore_not_found:
                        return None
                    raise KeyNotFound(key, resource_version=str(content.revision()))
            elif content.generation is not None:
                raise TooLargeResourceVersion(wanted, content.revision(), key=key, retry_after=1)
        content.check_open()
        return self._storage.get(
            key,
            resource_version=resource_version,
            ignore_not_found=ignore_not_found,
            timeout=deadline.left(),
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
        self._content.check_open()
        asked = {
            "recursive": recursive,
            "resource_version": resource_version,
            "resource_version_match": resource_version_match,
            "limit": limit,
            "continue_token": continue_token,
        }
        scope = self._scope(key, recursive)
        deadline = _NO_DEADLINE if timeout is None else Deadline(timeout, key)
        if scope is not None:
            with Naming(key):
                plan = plan_list(scope, **asked)  # type: ignore[arg-type]
                predicate = self._predicate(label_selector, field_selector)
                answer = self._from_cache(scope, plan, predicate, limit, deadline)
            if answer is not None:
                self._content.counting.add("served_by_cache")
                return answer
        self._content.counting.add("served_by_store")
        asked |= {"label_selector": label_selector, "field_selector": field_selector}
        # Mutable objects have one owner each.
        question: Hashable = (key, *asked.values()) if self._copy is None else object()

        def read() -> ObjectList[T]:
            return self._storage.list(key, timeout=deadline.left(), **asked)  # type: ignore[arg-type]

        return self._fallbacks.run(question, read, deadline)

    def _from_cache(
        self,
        scope: str,
        plan: ListPlan,
        predicate: SelectionPredicate[T],
        limit: int,
        deadline: Deadline,
    ) -> ObjectList[T] | None:
        """The answer from memory; None if the storage must be asked."""
        content = self._content
        whole = not (limit or plan.revision or plan.start)
        question = (scope, predicate.label, predicate.field)
        plain_page = limit > 0 and predicate.empty
        while self._caught_up(scope, plan, deadline, plain_page=plain_page):
            with content.lock:
                content.check_open()
                generation, state = content.generation, content.state
                if generation is None:
                    continue  # it has just begun to be filled anew
                revision, version = plan.revision or generation.revision, state.version
                if state.corrupt and state.corrupt_below(scope):
                    return None
                items = state.answer(question) if whole else None
                if items is None:
                    found = find(
                        state,
                        generation.log.segment,
                        scope,
                        plan,
                        predicate,
                        limit=limit,
                        indexed_fields=self._config.indexed_fields,
                    )
            token, remaining = "", None
            if items is None:
                if found is None:
                    return None  # DELEG-10
                items, token, remaining = select(found, scope, revision, limit)
                if whole:
                    with content.lock:
                        if state.version == version:
                            state.remember(question, items)
            if self._copy is not None:
                items = tuple(map(self._copy, items))
            return ObjectList(items, str(revision), token, remaining)
        return None

    def _caught_up(
        self, scope: str, plan: ListPlan, deadline: Deadline, *, plain_page: bool
    ) -> bool:
        """Wait until the cache shows what is asked for; False if the storage must be asked."""
        content = self._content
        recursive = scope.endswith("/")
        decision = serve_list(plan, content.horizon(), recursive=recursive, plain_page=plain_page)
        if decision.source is Source.STORE:
            return False
        content.wait_ready(deadline.rest())
        wanted = decision.wait_for
        if current := wanted == CURRENT:
            wanted = self._storage.current_revision(timeout=deadline.left())
        has_fallback = current or plan.revision > 0
        patience = deadline.rest()
        if patience is not None and has_fallback:
            patience /= 2  # the rest is for the storage's answer
        if not wanted or content.wait_fresh(wanted, patience, reached=current):
            return True
        if has_fallback or content.generation is None:
            return False  # CACHE-13
        raise TooLargeResourceVersion(wanted, content.revision(), retry_after=1)

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
        content = self._content
        content.check_open()
        scope = self._scope(key, recursive)
        if scope is None:
            self._storage.watch(key, recursive=recursive).close()
            raise InvalidKey(key, f"one below {self._prefix!r}")
        with Naming(key):
            revision = parse_resource_version(resource_version)
            predicate = self._predicate(label_selector, field_selector)
        initial = not revision if send_initial_events is None else send_initial_events
        end_bookmark = bool(send_initial_events) and allow_bookmarks
        if end_bookmark or progress_notify:
            self._new_object()
        deadline = Deadline(timeout, key)
        with Naming(key):
            content.wait_ready(deadline.rest())
        wanted = revision if initial else 0
        if not resource_version:
            wanted = self._storage.current_revision()
            revision = revision if initial else wanted
        if initial and wanted:
            content.wait_fresh(wanted, None)
        while True:
            with Naming(key):
                content.wait_ready(deadline.rest())
            with content.lock:
                content.check_open()
                generation = content.generation
                if generation is None:
                    continue  # it has just begun to be filled anew
                if initial:
                    start = self._initial(generation, wanted, scope, predicate, end_bookmark)
                else:
                    start = _from_log(generation, revision)
                view = generation.view(scope, predicate, replays=initial)
                content.counting.highest("watches_max", generation.watches)
            return CacheWatch(
                generation,
                view,
                start,
                lifetime=timeout,
                bookmark_interval=self._config.bookmark_interval if allow_bookmarks else 0.0,
                progress=progress_notify,
            )

    def _initial(
        self,
        generation: Generation[T],
        wanted: int,
        scope: str,
        predicate: SelectionPredicate[T],
        end_bookmark: bool,
    ) -> WatchStart[T]:
        """Begin with the state there is; with an error, if it is older than ``wanted``. Under the
        cache's lock. (CWATCH-1)"""
        state, segment = self._content.state, generation.log.segment
        found = find(
            state,
            segment,
            scope,
            ListPlan(),
            predicate,
            indexed_fields=self._config.indexed_fields,
        )
        assert found is not None
        revision = generation.revision
        error: StorageError | None = None
        if revision < wanted:
            error = TooLargeResourceVersion(wanted, revision, retry_after=1)
        for key in sorted(state.corrupt):
            if covers(scope, key):
                error = error or state.corrupt[key]
        events = self._added(found, revision, end_bookmark=end_bookmark)
        return WatchStart(segment.head, revision, events, error)

    def _added(
        self, candidates: Candidates[T], revision: int, *, end_bookmark: bool
    ) -> Iterator[Event[T]]:
        version_of, predicate = self._versioner.object_resource_version, candidates.predicate
        counting = self._content.counting
        for obj in candidates.found.objects:
            if predicate.empty or selects(predicate, obj):
                counting.add("init_events")
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
        self._content.check_open()
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
        self._content.check_open()
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
        self._content.check_open()
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
        obj = self._content.state.get(key)
        return obj if obj is None or self._copy is None else self._copy(obj)

    def changes(self, key: str, *, after: int | None = None) -> Changes[T]:
        self._content.check_open()
        return self._storage.changes(key, after=after)

    def count(self, key: str, *, timeout: float | None = None) -> int:
        self._content.check_open()
        return self._storage.count(key, timeout=timeout)

    def stats(self, *, timeout: float | None = None) -> Stats:
        self._content.check_open()
        return self._storage.stats(timeout=timeout)

    def current_revision(self, *, timeout: float | None = None) -> int:
        self._content.check_open()
        return self._storage.current_revision(timeout=timeout)

    def compact_revision(self, *, timeout: float | None = None) -> int:
        self._content.check_open()
        return self._storage.compact_revision(timeout=timeout)

    # --- readiness and what there is to know -----------------------------------------------------

    def request_progress(self) -> None:
        self._content.check_open()
        self._feed.request_progress()

    def ready(self, *, timeout: float | None = None) -> None:
        """Return if the cache is filled, else raise ``NotReady``; does not wait."""
        with self._content.lock:
            self._content.ready()

    def wait_ready(self, timeout: float = 30.0) -> None:
        """Return once the cache is filled; ``NotReady`` after ``timeout`` seconds."""
        self._content.wait_ready(timeout)

    @property
    def counters(self) -> CacherCounters:
        """What the cache has done so far, and how much it holds."""
        return self._content.counters()

    def check_consistency(self, *, timeout: float | None = None) -> ConsistencyReport:
        """Compare keys and versions with the store's, all read anew, within ``timeout`` seconds.
        A cache that differs, which only a defect can bring about, is filled anew, and its watches
        end with ``Expired``. Raises ``Timeout``, ``NotReady``, and the backend's errors."""
        self._content.check_open()
        return check_consistency(
            self._storage,
            self._content,
            self._prefix,
            self._versioner.object_resource_version,
            timeout,
        )

    def close(self) -> None:
        """End watches, waiting calls and the feed, then close the storage. Idempotent."""
        self._content.close()
        self._storage.close()

    # --- small things --------------------------------------------------------------------------

    def _covered(self, key: str) -> bool:
        return (
            isinstance(key, str)
            and key.startswith(self._prefix)
            and "/." not in key
            and "//" not in key
            and "\0" not in key
            and (key.isascii() or _is_text(key))
        )

    def _scope(self, key: str, recursive: bool) -> str | None:
        """The key, or the prefix that ends in "/"; None for one that the storage will refuse, or
        may."""
        if not isinstance(key, str) or not key:
            return None
        scope = key if not recursive or key.endswith("/") else key + "/"
        return scope if self._covered(scope) else None

    def _predicate(
        self, label: str | LabelSelector, field: str | FieldSelector
    ) -> SelectionPredicate[T]:
        parsed: SelectionPredicate[T] = SelectionPredicate.of(label, field)
        if parsed.empty:
            return parsed
        fields = self._config.fields
        return SelectionPredicate(
            parsed.label,
            parsed.field,
            self._config.labels,
            lambda obj: lambda path: fields(obj, path),
        )


def _is_text(key: str) -> bool:
    try:
        key.encode()
    except UnicodeEncodeError:
        return False
    return True


def _from_log(generation: Generation[T], revision: int) -> WatchStart[T]:
    """Begin with what comes after ``revision``, 0: now. Under the cache's lock. (HIST-4)"""
    segment = generation.log.segment
    revision = revision or generation.revision
    error = None
    if revision < segment.floor:
        error = Expired(
            f"the resource version {revision} is too old to watch: the cache remembers events "
            f"after {segment.floor}; list again and watch from there",
            resource_version=str(generation.revision),
        )
    cursor = max(segment.after(revision), segment.base)
    return WatchStart(cursor, revision, None, error, ahead=revision > generation.revision)
