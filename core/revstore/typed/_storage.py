"""Typed storage over a backend: objects for bytes, resource versions for revisions."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import attrs

from revstore.backend import Backend
from revstore.codec import Codec, json_codec
from revstore.copier import Copier, default_copier
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
from revstore.objects import field_value, labels_of
from revstore.preconditions import Preconditions
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
from revstore.storage._calls import Deadline, Naming
from revstore.storage._objects import empty_object
from revstore.storage._plans import plan_list
from revstore.transform import IdentityTransformer, Transformer
from revstore.typed._keys import KeySpace
from revstore.typed._list import Lister
from revstore.typed._objects import ObjectReader
from revstore.typed._watch import TypedChanges, TypedWatch, WatchPlan
from revstore.typed._writes import Writer, check_ttl
from revstore.values import Capability
from revstore.versioner import APIObjectVersioner, Versioner, parse_resource_version

__all__ = ["TypedStorage"]

T = TypeVar("T")
W = TypeVar("W", bound="TypedWatch[Any] | TypedChanges[Any]")

# Objects that `stats` looks at for the average size.
_SAMPLE = 500


class TypedStorage(Storage[T]):
    """Objects of ``object_type`` under ``resource_prefix`` ("/pods"), kept in ``backend`` below
    ``prefix``. The backend is not closed with it; ``on_close`` is called once, last of all.

    ``codec`` defaults to JSON for the type, ``copier`` to sharing frozen objects and copying
    others, ``transformer`` to the identity. ``labels`` and ``fields`` give what selectors see of
    an object. ``new_object`` makes the empty objects of bookmarks, by default the type without
    arguments. ``cache_size`` is the number of decoded objects kept by key and revision.
    ``quorum=False`` allows reads that lag, where the backend has them. ``ready_timeout`` is in
    seconds. Raises ``InvalidArgument`` for a bad ``resource_prefix``, ``TypeError`` for a type
    without a built-in codec. (KEY-8)
    """

    def __init__(
        self,
        backend: Backend,
        object_type: type[T],
        *,
        resource_prefix: str,
        prefix: str = "/registry",
        codec: Codec[T] | None = None,
        versioner: Versioner[T] | None = None,
        transformer: Transformer | None = None,
        copier: Copier[T] | None = None,
        new_object: Callable[[], T] | None = None,
        labels: Callable[[T], Mapping[str, str]] = labels_of,
        fields: Callable[[T, str], str] = field_value,
        cache_size: int = 0,
        quorum: bool = True,
        ready_timeout: float = 2.0,
        on_close: Callable[[], None] | None = None,
    ) -> None:
        self._backend = backend
        self._keys = KeySpace(prefix, resource_prefix)
        self._labels = labels
        self._fields = fields
        self._quorum = quorum
        self._ready_timeout = ready_timeout
        self._objects: ObjectReader[T] = ObjectReader(
            codec or json_codec(object_type),
            transformer or IdentityTransformer(),
            versioner or APIObjectVersioner(),
            copier or default_copier(object_type),
            new_object=new_object or (lambda: empty_object(object_type)),
            logical=self._keys.logical,
            cache_size=cache_size,
        )
        self._on_close = on_close
        self._lock = threading.Lock()  # guards the three below
        self._open_watches: set[TypedWatch[T] | TypedChanges[T]] = set()
        self._closed = False
        self._compacted = 0

    def create(self, key: str, obj: T, *, ttl: int = 0, timeout: float | None = None) -> T:
        physical = self._keys.one(key)
        self._check_open()
        objects, deadline = self._objects, Deadline(timeout, key)
        with Naming(key):
            try:
                version = objects.versioner.object_resource_version(obj)
            except InvalidResourceVersion:
                version = 0  # cleared like any other (CREATE-2)
            if version:
                raise ResourceVersionSet(key, str(version))
            data = objects.encode(key, obj)
            check_ttl(ttl)
        result = self._backend.put(
            physical,
            objects.seal(physical, data),
            expected_revision=0,
            ttl=ttl,
            timeout=deadline.left(),
        )
        if not result.succeeded:
            found = result.current.revision if result.current else ""
            raise KeyExists(key, resource_version=str(found))
        return objects.from_plain(physical, data, result.revision)

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
        with Naming(key):
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
        timeout: float | None = None,
    ) -> ObjectList[T]:
        physical = self._keys.below(key) if recursive else self._keys.one(key)
        self._check_open()
        with Naming(key):
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
                self._predicate(label_selector, field_selector),
                Deadline(timeout, key),
                quorum=self._quorum,
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
                preconditions or validate,
                "none with even_if_corrupt: there is no object to hold them against",
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
        timeout: float | None = None,
    ) -> Watch[T]:
        physical = self._keys.below(key) if recursive else self._keys.one(key)
        self._check_open()
        with Naming(key):
            revision = parse_resource_version(resource_version)
            predicate = self._predicate(label_selector, field_selector)
        initial = not revision if send_initial_events is None else send_initial_events
        if not initial and not revision:
            revision = self.current_revision()  # now, not when the first poll comes (WATCH-4)
        plan = WatchPlan(
            physical,
            recursive,
            revision=revision,
            initial=initial,
            end_bookmark=bool(send_initial_events) and allow_bookmarks,
            bookmarks=progress_notify,
            lifetime=timeout,
            named=key,
        )
        if plan.end_bookmark or plan.bookmarks:
            self._objects.new_object()  # refused here rather than when the first one is due
        watch = TypedWatch(self._backend, self._objects, plan, predicate, self._forget)
        return self._remember(watch)

    def changes(self, key: str, *, after: int | None = None) -> Changes[T]:
        physical = self._keys.below(key)
        self._check_open()
        changes = TypedChanges(
            self._backend, self._objects, physical, after, self._forget, named=key
        )
        return self._remember(changes)

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
        with self._lock:
            first, self._closed = not self._closed, True
            watches = list(self._open_watches)
        for watch in watches:
            watch.close()
        if first and self._on_close is not None:
            self._on_close()

    def _check_open(self) -> None:
        if self._closed:
            raise Closed("the storage was closed")

    def _writer(self, key: str, timeout: float | None) -> Writer[T]:
        physical = self._keys.one(key)
        self._check_open()
        return Writer(self._backend, self._objects, key, physical, Deadline(timeout, key))

    def _deadline(self, timeout: float | None) -> Deadline:
        """Of a call that is about no key."""
        return Deadline(timeout, self._keys.resource_prefix.rstrip("/"))

    def _predicate(
        self, label: str | LabelSelector, field: str | FieldSelector
    ) -> SelectionPredicate[T]:
        parsed: SelectionPredicate[T] = SelectionPredicate.of(label, field)
        if parsed.empty:
            return parsed
        fields = self._fields
        return attrs.evolve(
            parsed,
            labels=self._labels,
            fields=lambda obj: lambda path: fields(obj, path),
        )

    def _remember(self, watch: W) -> W:
        with self._lock:
            closed = self._closed
            if not closed:
                self._open_watches.add(watch)
        if closed:
            watch.close()
            raise Closed("the storage was closed")
        return watch

    def _forget(self, watch: Any) -> None:
        with self._lock:
            self._open_watches.discard(watch)
