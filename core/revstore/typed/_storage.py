"""Typed storage over a backend: objects for bytes, resource versions for revisions."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from revstore.backend import Backend
from revstore.deadlines import Deadline, check_count, check_poll, check_seconds
from revstore.errors import (
    BackendError,
    Closed,
    InvalidArgument,
    InvalidResourceVersion,
    KeyExists,
    KeyNotFound,
    NotReady,
    ResourceVersionSet,
    TooLargeResourceVersion,
    Unsupported,
)
from revstore.forks import OpenGuard
from revstore.plans import plan_list, plan_watch
from revstore.preconditions import Preconditions
from revstore.raising import ErrorsAbout
from revstore.resource_type import ResourceType
from revstore.selectors import FieldSelector, LabelSelector
from revstore.storage import (
    Changes,
    ObjectList,
    Stats,
    Storage,
    UpdateFunc,
    ValidateFunc,
    Watch,
)
from revstore.transform import IdentityTransformer, Transformer
from revstore.typed._keys import KeySpace
from revstore.typed._list import Lister
from revstore.typed._objects import ObjectReader
from revstore.typed._watch import Scope, TypedChanges, TypedWatch
from revstore.typed._writes import Writer, check_ttl
from revstore.values import Capability, KeyValue, ListResult
from revstore.versioner import parse_resource_version

__all__ = ["TypedStorage"]

T = TypeVar("T")
W = TypeVar("W", bound="TypedWatch[Any] | TypedChanges[Any]")

# Objects that `stats` reads for the average size.
_SAMPLE = 500


class TypedStorage(Storage[T]):
    """Objects of ``resource_type``, stored in ``backend`` below ``prefix``.

    Closing it does not close the backend; ``on_close`` is called once, last of all. ``transformer``
    defaults to the identity. ``cache_size`` is the number of decoded objects kept by key and
    revision. ``quorum=False`` allows reads that lag, if the backend has them. ``ready_timeout`` is
    in seconds.
    """

    def __init__(
        self,
        backend: Backend,
        resource_type: ResourceType[T],
        *,
        prefix: str = "/registry",
        transformer: Transformer | None = None,
        cache_size: int = 0,
        quorum: bool = True,
        ready_timeout: float = 2.0,
        on_close: Callable[[], None] | None = None,
    ) -> None:
        check_count("cache_size", cache_size, 0)
        check_seconds("ready_timeout", ready_timeout)
        self._backend = backend
        self._resource_type = resource_type
        self._keys = KeySpace(prefix, resource_type.root)
        self._quorum = quorum
        self._ready_timeout = ready_timeout
        self._objects: ObjectReader[T] = ObjectReader(
            resource_type,
            IdentityTransformer() if transformer is None else transformer,
            logical=self._keys.logical,
            cache_size=cache_size,
        )
        self._on_close = on_close
        self._lock = threading.Lock()  # guards _open_watches, _compacted
        self._open_watches: set[TypedWatch[T] | TypedChanges[T]] = set()
        self._compacted = 0
        self._guard = OpenGuard(self, what="storage", in_child=TypedStorage._in_child)

    def create(self, key: str, obj: T, *, ttl: int = 0, timeout: float | None = None) -> T:
        physical = self._keys.one(key)
        self._check_open()
        deadline = Deadline(timeout, key)
        value, stored = self._unstored(physical, key, obj, ttl)
        result = self._backend.put(
            physical, value, expected_revision=0, ttl=ttl, timeout=deadline.left()
        )
        if not result.succeeded:
            found = result.current.revision if result.current else ""
            raise KeyExists(key, resource_version=str(found))
        return self._objects.written(key, stored, result.revision, 0)

    def get(
        self,
        key: str,
        *,
        resource_version: str = "",
        ignore_not_found: bool = False,
        timeout: float | None = None,
    ) -> Any:
        physical = self._keys.one(key)
        self._check_open()
        with ErrorsAbout(key):
            minimum = parse_resource_version(resource_version)
        left = Deadline(timeout, key).left()
        linearizable = minimum > 0 or (self._quorum and not resource_version)
        found = self._backend.get(physical, linearizable=linearizable, timeout=left)
        if minimum > found.revision:
            raise TooLargeResourceVersion(minimum, found.revision, key=key)
        if found.kv is not None:
            return self._objects.decode(found.kv)
        if ignore_not_found:
            return None
        raise KeyNotFound(key, resource_version=str(found.revision))

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
        physical = self._keys.below(key) if recursive else self._keys.one(key)
        self._check_open()
        with ErrorsAbout(key):
            plan = plan_list(
                physical,
                recursive=recursive,
                resource_version=resource_version,
                resource_version_match=resource_version_match,
                limit=limit,
                continue_token=continue_token,
            )
            lister = Lister(
                self._backend,
                self._objects,
                plan,
                self._resource_type.predicate(label_selector, field_selector),
                Deadline(timeout, key),
                quorum=self._quorum,
                even_if_corrupt=even_if_corrupt,
            )
            return lister.below(physical, limit) if recursive else lister.one(physical)

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
        writer = self._writer(key, timeout)
        if not even_if_corrupt:
            return writer.delete(preconditions, validate, suggestion)
        if preconditions is not None or validate is not None:
            raise InvalidArgument(
                "preconditions",
                validate if preconditions is None else preconditions,
                "no preconditions with even_if_corrupt: an unreadable object cannot be compared",
                key=key,
            )
        writer.delete_corrupt()
        return None

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
        writer = self._writer(key, timeout)
        return writer.update(update, preconditions, suggestion, ignore_not_found=ignore_not_found)

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
        physical = self._keys.below(key) if recursive else self._keys.one(key)
        self._check_open()
        with ErrorsAbout(key):
            plan = plan_watch(
                resource_version=resource_version,
                send_initial_events=send_initial_events,
                allow_bookmarks=allow_bookmarks,
                progress_notify=progress_notify,
            )
            predicate = self._resource_type.predicate(label_selector, field_selector)
        deadline = Deadline(check_poll(timeout, key), key)
        if not plan.initial and not plan.revision:  # now, not when the first poll comes (WATCH-4)
            now = self._backend.status(timeout=deadline.left()).revision
            plan = msgspec.structs.replace(plan, revision=now)
        if plan.needs_empty_object:
            self._resource_type.empty_object()  # refused here rather than when the first one is due
        scope = Scope(physical, recursive=recursive, named=key)
        return self._begun(
            TypedWatch(
                self._backend,
                self._objects,
                scope,
                plan=plan,
                predicate=predicate,
                even_if_corrupt=even_if_corrupt,
                on_close=self._forget,
                deadline=deadline.end,
            )
        )

    def changes(
        self, key: str, *, after: int | None = None, timeout: float | None = None
    ) -> Changes[T]:
        scope = Scope(self._keys.below(key), named=key)
        self._check_open()
        return self._begun(
            TypedChanges(
                self._backend,
                self._objects,
                scope,
                after,
                self._forget,
                deadline=Deadline(timeout, key),
            )
        )

    @property
    def backend(self) -> Backend:
        """The backend that holds the objects."""
        return self._backend

    @property
    def resource_prefix(self) -> str:
        """The beginning of all keys, with a slash at its end: "/pods/"."""
        return self._keys.resource_prefix

    @property
    def stored_prefix(self) -> str:
        """The beginning of the keys in the backend: "/registry/pods/"."""
        return self._keys.everything

    def unstored(self, key: str, obj: T, *, ttl: int = 0) -> tuple[str, bytes, T]:
        """Return the backend's key and the bytes that ``create`` would write, and the object that
        readers would get, without a resource version.

        It raises what ``create`` raises before it writes.
        """
        physical = self._keys.one(key)
        self._check_open()
        return physical, *self._unstored(physical, key, obj, ttl)

    def stored(
        self, *, start: str = "", limit: int = 0, timeout: float | None = None
    ) -> ListResult:
        """Return a page of all objects as they are stored now, under the keys of the backend; see
        ``Backend.list``."""
        self._check_open()
        return self._backend.list(
            self._keys.everything,
            start=start,
            limit=limit,
            timeout=self._deadline(timeout).left(),
        )

    def rewrite(self, kv: KeyValue, *, force: bool = False, timeout: float | None = None) -> bool:
        """Write an object that ``stored`` returned again, without a change, if it is stale or with
        ``force``; return whether it was written.

        It keeps its expiry. If another writer has changed it meanwhile, it is written only if it is
        still stale; if it is gone, nothing is written.

        Raises:
            CorruptObject: it cannot be read.
            InvalidObject: it can be read, but not be stored anymore.
        """
        self._check_open()
        key = self._keys.logical(kv.key)
        writer = Writer(self._backend, self._objects, key, kv.key, Deadline(timeout, key))
        return writer.rewrite(kv, force=force)

    def count(self, key: str, *, timeout: float | None = None) -> int:
        physical = self._keys.below(key)
        self._check_open()
        return self._backend.count(physical, timeout=Deadline(timeout, key).left()).count

    def stats(self, *, timeout: float | None = None) -> Stats:
        self._check_open()
        prefix, deadline = self._keys.everything, self._deadline(timeout)
        count = self._backend.count(prefix, timeout=deadline.left()).count
        sample = self._backend.list(prefix, limit=_SAMPLE, timeout=deadline.left()).kvs
        size = sum(len(kv.value) for kv in sample) // len(sample) if sample else 0
        return Stats(count, size)

    def current_revision(self, *, timeout: float | None = None) -> int:
        self._check_open()
        return self._backend.status(timeout=self._deadline(timeout).left()).revision

    def compact_revision(self, *, timeout: float | None = None) -> int:
        self._check_open()
        left = self._deadline(timeout).left()
        compacted = self._backend.status(timeout=left).compacted_revision
        with self._lock:
            self._compacted = max(self._compacted, compacted)
            return self._compacted

    def request_progress(self) -> None:
        self._check_open()
        if Capability.PROGRESS not in self._backend.capabilities:
            raise Unsupported(Capability.PROGRESS)
        with self._lock:
            watches = list(self._open_watches)
        for watch in watches:
            watch.request_progress()

    def ready(self, *, timeout: float | None = None) -> None:
        self._check_open()
        deadline = self._deadline(self._ready_timeout if timeout is None else timeout)
        try:
            self._backend.status(timeout=deadline.left())
        except BackendError as error:
            raise NotReady(f"the store does not answer: {error}") from error

    def close(self) -> None:
        with self._guard.closing():
            pass
        if self._guard.inherited:
            return
        with self._lock:
            watches = list(self._open_watches)
        for watch in watches:
            watch.close()
        called = None
        try:
            with self._lock:
                called, self._on_close = self._on_close, None
            if called is not None:
                called()
        except BaseException:
            self._on_close = called or self._on_close
            raise

    def _unstored(self, physical: str, key: str, obj: T, ttl: int) -> tuple[bytes, T]:
        objects = self._objects
        with ErrorsAbout(key):
            try:
                version = objects.versioner.object_resource_version(obj)
            except InvalidResourceVersion:
                version = 0  # cleared like any other (CREATE-2)
            if version:
                raise ResourceVersionSet(key, str(version))
            data = objects.encode(key, obj)
            check_ttl(ttl)
            stored = objects.read_back(key, data)
        return objects.seal(physical, data), stored

    def _check_open(self) -> None:
        if self._guard.ended:
            raise Closed(self._guard.ended)

    def _in_child(self) -> None:
        self._lock = threading.Lock()
        for watch in self._open_watches:
            watch.in_child()

    def _writer(self, key: str, timeout: float | None) -> Writer[T]:
        physical = self._keys.one(key)
        self._check_open()
        return Writer(self._backend, self._objects, key, physical, Deadline(timeout, key))

    def _deadline(self, timeout: float | None) -> Deadline:
        """Return the deadline of a call that concerns no key."""
        return Deadline(timeout, self._keys.resource_prefix.rstrip("/"))

    def _begun(self, watch: W) -> W:
        """Begin a watch that ends with the storage, even if this call is interrupted."""
        try:
            with self._lock:
                self._check_open()
                self._open_watches.add(watch)
            watch.begin()
            return watch
        except BaseException:
            watch.close()
            raise

    def _forget(self, watch: Any) -> None:
        with self._lock:
            self._open_watches.discard(watch)
