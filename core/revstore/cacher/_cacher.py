"""The watch cache: a storage that answers lists, watches and gets from memory (Cacher)."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, TypeVar

import msgspec

from revstore.cacher._cache_or_store import CURRENT, serve_list
from revstore.cacher._config import CacherConfig
from revstore.cacher._consistency import ConsistencyReport, check_consistency
from revstore.cacher._content import Content
from revstore.cacher._counters import CacherCounters
from revstore.cacher._fallback import Fallbacks
from revstore.deadlines import Deadline, check_poll, check_timeout
from revstore.errors import (
    InvalidKey,
    InvalidResourceVersion,
    KeyNotFound,
    NotReady,
    TooLargeResourceVersion,
)
from revstore.forks import OpenGuard
from revstore.keys import check_object_key
from revstore.plans import ListPlan, plan_list, plan_watch
from revstore.preconditions import Preconditions
from revstore.raising import ErrorsAbout
from revstore.selectors import FieldSelector, LabelSelector, SelectionPredicate
from revstore.storage import (
    Changes,
    ObjectList,
    Stats,
    Storage,
    UpdateFunc,
    ValidateFunc,
    Watch,
)
from revstore.versioner import parse_resource_version

__all__ = ["Cacher", "CacherConfig", "CacherCounters", "ConsistencyReport"]

T = TypeVar("T")

_NO_DEADLINE = Deadline(None, "")


class Cacher(Storage[T]):
    """A storage that follows another storage, and answers from memory if it can.

    Writes go to the storage; they are visible here once its feed has delivered them. Lists without
    a resource version are consistent nevertheless: the cache asks the storage for its revision and
    waits until it has reached that; if this takes too long, the storage answers. Gets without a
    resource version go to the storage. A watch never delays another. A watch that falls behind what
    the log remembers ends with ``Expired``. A feed that breaks reconnects. If the store has
    forgotten the events in between, the cache is rebuilt, and all watches end with ``Expired``.
    Until the cache is filled, calls wait for it and then raise ``NotReady``, except for gets and
    pages without a selector, which the storage answers.
    """

    def __init__(self, config: CacherConfig[T]) -> None:
        self._storage = config.storage
        self._resource_type = config.resource_type
        self._prefix = config.resource_type.root
        # A prefix that is not the storage's is refused here; otherwise the feed would fail for
        # ever.
        self._storage.changes(self._prefix).close()
        self._copy = config.resource_type.copy
        self._fallbacks = Fallbacks()
        self._content = Content(config)
        self._feed = self._content.feed
        self._guard = OpenGuard(self, what="cache", in_child=Cacher._in_child)
        self._feed.start()  # last: if this is interrupted, nobody has the cache

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
                    content.check_open()
                    obj, corrupt = content.look_up(key)
                if obj is not None:
                    return obj if self._copy is None else self._copy(obj)
                if not corrupt:
                    if ignore_not_found:
                        return None
                    raise KeyNotFound(key, resource_version=str(content.revision()))
            elif content.generation is not None:
                raise TooLargeResourceVersion(wanted, content.revision(), key=key, retry_after=1)
        return self._open_storage().get(
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
        even_if_corrupt: bool = False,
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
            with ErrorsAbout(key):
                plan = plan_list(scope, **asked)  # type: ignore[arg-type]
                predicate = self._resource_type.predicate(label_selector, field_selector)
                answer = self._from_cache(scope, plan, predicate, limit, deadline)
            if answer is not None:
                self._content.counting.served_by_cache.add()
                return answer
        self._content.counting.served_by_store.add()
        asked |= {"label_selector": label_selector, "field_selector": field_selector}
        asked["even_if_corrupt"] = even_if_corrupt
        # Each mutable object has one owner.
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
        """Return the answer from memory; None if the storage must be asked."""
        plain_page = limit > 0 and predicate.empty
        while self._caught_up(scope, plan, deadline, plain_page=plain_page):
            try:
                return self._content.find(scope, plan, predicate, limit)
            except NotReady:
                continue  # it has just begun to be rebuilt
        return None

    def _caught_up(
        self, scope: str, plan: ListPlan, deadline: Deadline, *, plain_page: bool
    ) -> bool:
        """Wait until the cache shows the requested revision; False if the storage must answer."""
        content = self._content
        recursive = scope.endswith("/")
        wanted = serve_list(plan, content.horizon(), recursive=recursive, plain_page=plain_page)
        if wanted is None:
            return False
        content.wait_ready(deadline.rest())
        if current := wanted == CURRENT:
            wanted = self._storage.current_revision(timeout=deadline.left())
        has_fallback = current or plan.revision > 0
        patience = deadline.rest()
        if patience is not None and has_fallback:
            patience /= 2  # the storage answers the rest
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
        even_if_corrupt: bool = False,
        timeout: float | None = None,
    ) -> Watch[T]:
        content = self._content
        content.check_open()
        scope = self._scope(key, recursive)
        if scope is None:  # the storage says what is wrong with it, or what it means
            return self._storage.watch(
                key,
                recursive=recursive,
                resource_version=resource_version,
                label_selector=label_selector,
                field_selector=field_selector,
                send_initial_events=send_initial_events,
                allow_bookmarks=allow_bookmarks,
                progress_notify=progress_notify,
                even_if_corrupt=even_if_corrupt,
                timeout=timeout,
            )
        with ErrorsAbout(key):
            plan = plan_watch(
                resource_version=resource_version,
                send_initial_events=send_initial_events,
                allow_bookmarks=allow_bookmarks,
                progress_notify=progress_notify,
            )
            predicate = self._resource_type.predicate(label_selector, field_selector)
        if plan.needs_empty_object:
            self._resource_type.empty_object()
        deadline = Deadline(check_poll(timeout, key), key)
        with ErrorsAbout(key):
            content.wait_ready(deadline.rest())
        if plan.latest:
            now = self._storage.current_revision(timeout=deadline.left())
            plan = msgspec.structs.replace(plan, revision=now)
        if plan.initial and plan.revision:
            content.wait_fresh(plan.revision, deadline.rest())
        while True:
            with ErrorsAbout(key):
                content.wait_ready(deadline.rest())
            try:
                return content.begin_watch(
                    scope, plan, predicate, deadline.end, even_if_corrupt=even_if_corrupt
                )
            except NotReady:
                continue  # it has just begun to be rebuilt

    # --- what goes to the storage --------------------------------------------------------------

    def create(self, key: str, obj: T, *, ttl: int = 0, timeout: float | None = None) -> T:
        return self._open_storage().create(key, obj, ttl=ttl, timeout=timeout)

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
        return self._open_storage().delete(
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
        return self._open_storage().guaranteed_update(
            key,
            update,
            ignore_not_found=ignore_not_found,
            preconditions=preconditions,
            suggestion=self._suggestion(key),
            timeout=timeout,
        )

    def _suggestion(self, key: str) -> T | None:
        """Return what the cache holds, in place of an object that the caller suggests. (DEL-15,
        GU-19)"""
        obj = self._content.state.get(key)
        return obj if obj is None or self._copy is None else self._copy(obj)

    def changes(
        self, key: str, *, after: int | None = None, timeout: float | None = None
    ) -> Changes[T]:
        return self._open_storage().changes(key, after=after, timeout=timeout)

    def count(self, key: str, *, timeout: float | None = None) -> int:
        return self._open_storage().count(key, timeout=timeout)

    def stats(self, *, timeout: float | None = None) -> Stats:
        return self._open_storage().stats(timeout=timeout)

    def current_revision(self, *, timeout: float | None = None) -> int:
        return self._open_storage().current_revision(timeout=timeout)

    def compact_revision(self, *, timeout: float | None = None) -> int:
        return self._open_storage().compact_revision(timeout=timeout)

    # --- readiness and counters ------------------------------------------------------------------

    def request_progress(self) -> None:
        self._content.check_open()
        self._content.request_progress()

    def ready(self, *, timeout: float | None = None) -> None:
        """Return if the cache is filled; do not wait.

        Raises:
            NotReady: it is not filled.
        """
        check_timeout(timeout, 0.0)
        self._content.ready()

    def wait_ready(self, timeout: float = 30.0) -> None:
        """Return once the cache is filled.

        Raises:
            NotReady: it is not filled after ``timeout`` seconds.
        """
        self._content.wait_ready(check_timeout(timeout, 30.0))

    @property
    def counters(self) -> CacherCounters:
        """The cache's counters since it was created, and how much it holds."""
        return self._content.counters()

    def check_consistency(self, *, timeout: float | None = None) -> ConsistencyReport:
        """Read all keys and versions of the store again, and compare them with the cache's.

        A cache that differs, which only a defect can cause, is rebuilt, and its watches end with
        ``Expired``. The errors of the backend come out unchanged.

        Raises:
            Timeout: the comparison takes more than ``timeout`` seconds.
            NotReady: the cache is not filled.
        """
        self._content.check_open()
        return check_consistency(self._storage, self._content, self._prefix, timeout)

    def close(self) -> None:
        """End watches, waiting calls and the feed, then close the storage. Idempotent; in a child
        after a fork it does nothing."""
        with self._guard.closing():
            pass
        if not self._guard.inherited:
            self._content.close()
            self._storage.close()

    def _in_child(self) -> None:
        self._content.in_child(self._guard.ended)

    # --- small things --------------------------------------------------------------------------

    def _open_storage(self) -> Storage[T]:
        self._content.check_open()
        return self._storage

    def _covered(self, key: str) -> bool:
        """Return whether the key is one of this cache; the storage raises the errors for others."""
        try:
            check_object_key(key, self._prefix)
        except InvalidKey:
            return False
        return True

    def _scope(self, key: str, recursive: bool) -> str | None:
        """Return the key, or the prefix that ends in "/"; None for one that the storage may
        refuse."""
        try:
            scope = check_object_key(key, self._prefix, prefix=recursive)
        except InvalidKey:
            return None
        if scope == self._prefix:
            scope = self._prefix  # one string for all watches that have it
        return None if scope.endswith("/") and not recursive else scope  # that is a prefix here
