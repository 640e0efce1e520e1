"""Objects by name and namespace instead of by key."""

from __future__ import annotations

import enum
import functools
import secrets
import time
import uuid
from collections.abc import Callable
from typing import Any, Generic, Literal, TypeVar, overload

import attrs

from revstore.closing import Closing
from revstore.copier import Copier, default_copier
from revstore.errors import Conflict, InvalidObject, KeyExists, KeyNotFound
from revstore.objects import metadata_value, with_metadata
from revstore.preconditions import Preconditions
from revstore.raising import ErrorsAbout, guarded
from revstore.registry._fields import as_new, as_successor, built_in
from revstore.registry._keys import Keys
from revstore.selectors import FieldSelector, LabelSelector
from revstore.storage import ObjectList, ResponseMeta, Storage, UpdateFunc, Watch, WithTTL
from revstore.versioner import parse_resource_version

__all__ = ["ApplyOutcome", "ApplyResult", "Registry"]

T = TypeVar("T")

# As Kubernetes forms names: no vowels, so no words, and nothing that is easily misread.
_SUFFIX_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_SUFFIX_LENGTH = 5
_LONGEST_NAME = 63
_NAME_ATTEMPTS = 8


@functools.lru_cache(maxsize=512)
def _copier_of(kind: Any, codec: Any) -> Copier[Any]:
    return default_copier(kind, codec)


class ApplyOutcome(enum.StrEnum):
    """The outcome of ``apply``: it created the object, replaced it, or found it unchanged."""

    CREATED = "created"
    CONFIGURED = "configured"
    UNCHANGED = "unchanged"


@attrs.frozen(slots=True)
class ApplyResult(Generic[T]):
    """The object as it is stored now, and the action that ``apply`` took."""

    object: T
    outcome: ApplyOutcome


class Registry(Closing, Generic[T]):
    """The objects of one resource in ``storage``, under ``resource_prefix``.

    Objects are instances of a class with ``metadata: ObjectMeta``, or dicts in Kubernetes' shape.
    Objects passed in are never changed; those returned may be shared with other readers if frozen.
    Every method may be called from many threads.

    Names and namespaces are segments of a path: not empty, without "/" and "%", not "." or "..". If
    the resource is ``namespaced``, an object without a namespace belongs to "default", and so does
    an argument ``name`` without ``namespace``; otherwise a namespace is refused. A bad argument
    raises ``InvalidArgument``, a bad object ``InvalidObject``, before the store is touched.
    ``timeout`` is in seconds for the whole call; None is the backend's own default. Further errors
    are those of the method of ``Storage`` with the same name.

    ``kind``, if it is given, is the only one that a new dict may name.

    ``clock`` returns seconds since 1970 for creation times, ``new_uid`` the uids, by default random
    UUIDs. ``encode`` is that of the storage's codec: objects with the same bytes are equal. What
    these three raise becomes ``InternalError`` before anything is written, unless it is an error of
    ``revstore.errors``.
    """

    def __init__(
        self,
        storage: Storage[T],
        *,
        resource_prefix: str,
        namespaced: bool = True,
        kind: str = "",
        clock: Callable[[], float] = time.time,
        new_uid: Callable[[], str] = lambda: str(uuid.uuid4()),
        encode: Callable[[T], bytes] = built_in,
    ) -> None:
        self._encode = guarded(encode, "encode")
        self._codec = getattr(encode, "__self__", None)
        self._storage = storage
        self._keys = Keys(resource_prefix, namespaced=namespaced)
        self._kind = kind
        self._now = guarded(lambda: _time_text(clock()), "clock")
        self._new_uid = guarded(new_uid, "new_uid")
        #: Whether ``close`` was called, though it may have been interrupted.
        self.closing = False

    def create(self, obj: T, *, ttl: int = 0, timeout: float | None = None) -> T:
        """Store a new object; ``ttl`` in seconds, 0: for ever.

        An object with ``generateName`` and without a name gets a random one that begins with that.

        Raises:
            KeyExists: there is an object of that name.
        """
        base = metadata_value(obj, "generate_name")
        if metadata_value(obj, "name") or not base:
            return self._create(obj, ttl, timeout)
        if not isinstance(base, str):
            raise InvalidObject("metadata.generateName", base, "a string")
        attempts = _NAME_ATTEMPTS
        while True:
            try:
                return self._create(with_metadata(obj, name=_generate(base)), ttl, timeout)
            except KeyExists:
                attempts -= 1
                if not attempts:
                    raise

    def get(
        self,
        name: str,
        namespace: str | None = None,
        *,
        resource_version: str = "",
        timeout: float | None = None,
    ) -> T:
        """Return the object called ``name``.

        ``resource_version`` "" asks for the latest state, N for a state not older than N, "0" for
        any.

        Raises:
            KeyNotFound: there is no such object.
        """
        key = self._keys.one(name, namespace)
        return self._storage.get(key, resource_version=resource_version, timeout=timeout)

    def list(
        self,
        namespace: str | None = None,
        *,
        label_selector: str | LabelSelector = "",
        field_selector: str | FieldSelector = "",
        limit: int = 0,
        continue_token: str = "",
        resource_version: str = "",
        resource_version_match: str = "",
        even_if_corrupt: bool = False,
        timeout: float | None = None,
    ) -> ObjectList[T]:
        """Return the objects of ``namespace``, None: of all, in the order of their keys.

        See ``Storage.list`` for the other arguments and the errors.
        """
        return self._storage.list(
            self._keys.below(namespace),
            label_selector=label_selector,
            field_selector=field_selector,
            limit=limit,
            continue_token=continue_token,
            resource_version=resource_version,
            resource_version_match=resource_version_match,
            even_if_corrupt=even_if_corrupt,
            timeout=timeout,
        )

    def update(self, obj: T, *, timeout: float | None = None) -> T:
        """Replace the stored object by ``obj``; write nothing if they are equal.

        The stored uid and creation time stay; the generation rises by one if anything but metadata
        and status differs. Without a resource version ``obj`` replaces any stored version.

        Raises:
            Conflict: ``obj`` has another resource version than the stored object, or another uid.
                The error's ``resource_version`` is the stored object's, "" if that is gone.
            KeyNotFound: nothing is stored, and ``obj`` has no resource version.
        """
        key, namespace = self._keys.of(obj), self._keys.namespace_of(obj)
        with ErrorsAbout(key):
            wanted = parse_resource_version(metadata_value(obj, "resource_version"))

        def replace(current: Any, meta: ResponseMeta) -> Any:
            if wanted and wanted != parse_resource_version(meta.resource_version):
                found = (
                    f"is at version {meta.resource_version}" if meta.resource_version else "is gone"
                )
                raise Conflict(
                    f"{key!r} {found}, but the update was made from version {wanted}",
                    key=key,
                    resource_version=meta.resource_version,
                )
            if current is None:
                raise KeyNotFound(key)
            _check_uid(key, obj, current, meta)
            self._check_kind(obj, current)
            return as_successor(obj, current, namespace, self._encode)

        with ErrorsAbout(key):
            return self._storage.guaranteed_update(
                key, replace, ignore_not_found=True, timeout=timeout
            )

    def apply(self, obj: T, *, timeout: float | None = None) -> ApplyResult[T]:
        """Make the store hold ``obj``: create it, or replace the stored object as a whole if it
        differs.

        Fields that the registry fills in are not compared, and the resource version and uid of
        ``obj`` are ignored. If another writer comes first, it tries again.
        """
        key, namespace = self._keys.of(obj), self._keys.namespace_of(obj)
        with ErrorsAbout(key):
            new = self._as_new(obj)
        outcome = ApplyOutcome.CREATED

        def put(current: Any, _: ResponseMeta) -> Any:
            nonlocal outcome
            if current is None:
                outcome = ApplyOutcome.CREATED
                self._check_kind(obj, {})
                return new
            self._check_kind(obj, current)
            made = as_successor(obj, current, namespace, self._encode)
            outcome = ApplyOutcome.UNCHANGED if made is current else ApplyOutcome.CONFIGURED
            return made

        with ErrorsAbout(key):
            stored = self._storage.guaranteed_update(
                key, put, ignore_not_found=True, timeout=timeout
            )
        return ApplyResult(stored, outcome)

    def guaranteed_update(
        self,
        name: str,
        update: UpdateFunc,
        namespace: str | None = None,
        *,
        preconditions: Preconditions | None = None,
        timeout: float | None = None,
    ) -> T:
        """Replace the object called ``name`` by what ``update(current, meta)`` returns.

        ``update`` may be called several times, see ``Storage.guaranteed_update``. It returns the
        new object or ``WithTTL``, or raises to give up. Uid, creation time and generation are
        handled as in ``update``.

        Raises:
            KeyNotFound: there is no such object.
            PreconditionFailed: a precondition does not hold.
            Conflict: the new object has another uid.
            InvalidObject: the new object has another name or namespace.
        """
        key = self._keys.one(name, namespace)

        def change(current: Any, meta: ResponseMeta) -> Any:
            # It may change the object that it receives.
            copy = guarded(_copier_of(current.__class__, self._codec).copy, "copier")
            made = update(copy(current), meta)
            obj = made.object if isinstance(made, WithTTL) else made
            if self._keys.of(obj) != key:
                raise InvalidObject("metadata", self._keys.of(obj), f"name and namespace of {key}")
            _check_uid(key, obj, current, meta)
            self._check_kind(obj, current)
            obj = as_successor(obj, current, self._keys.namespace_of(obj), self._encode)
            return WithTTL(obj, made.ttl) if isinstance(made, WithTTL) else obj

        with ErrorsAbout(key):
            return self._storage.guaranteed_update(
                key, change, preconditions=preconditions, timeout=timeout
            )

    @overload
    def delete(
        self,
        name: str,
        namespace: str | None = None,
        *,
        preconditions: Preconditions | None = None,
        even_if_corrupt: Literal[False] = False,
        timeout: float | None = None,
    ) -> T: ...

    @overload
    def delete(
        self,
        name: str,
        namespace: str | None = None,
        *,
        preconditions: Preconditions | None = None,
        even_if_corrupt: bool,
        timeout: float | None = None,
    ) -> T | None: ...

    def delete(
        self,
        name: str,
        namespace: str | None = None,
        *,
        preconditions: Preconditions | None = None,
        even_if_corrupt: bool = False,
        timeout: float | None = None,
    ) -> T | None:
        """Delete the object called ``name`` and return its last content, at the deletion's resource
        version.

        ``even_if_corrupt`` deletes an object that cannot be read, and no other, and returns None.

        Raises:
            KeyNotFound: there is no such object.
            PreconditionFailed: a precondition does not hold, or with ``even_if_corrupt`` the object
                can be read.
            CorruptObject: the object cannot be read, without ``even_if_corrupt``.
        """
        return self._storage.delete(
            self._keys.one(name, namespace),
            preconditions=preconditions,
            even_if_corrupt=even_if_corrupt,
            timeout=timeout,
        )

    def watch(
        self,
        namespace: str | None = None,
        *,
        name: str | None = None,
        resource_version: str = "",
        label_selector: str | LabelSelector = "",
        field_selector: str | FieldSelector = "",
        send_initial_events: bool | None = None,
        allow_bookmarks: bool = False,
        even_if_corrupt: bool = False,
        timeout: float | None = None,
    ) -> Watch[T]:
        """Watch the objects of ``namespace``, None: of all; with ``name`` that one object.

        ``resource_version`` and ``send_initial_events`` say where it begins, see ``Storage.watch``.
        ``allow_bookmarks`` enables bookmarks, at the end of the initial events and from time to
        time while nothing changes. ``even_if_corrupt`` shows objects that cannot be read as ERROR
        events, and goes on. ``timeout`` is how long the watch runs.
        """
        return self._storage.watch(
            self._keys.below(namespace) if name is None else self._keys.one(name, namespace),
            recursive=name is None,
            resource_version=resource_version,
            label_selector=label_selector,
            field_selector=field_selector,
            send_initial_events=send_initial_events,
            allow_bookmarks=allow_bookmarks,
            progress_notify=allow_bookmarks,
            even_if_corrupt=even_if_corrupt,
            timeout=timeout,
        )

    def close(self) -> None:
        """Close the storage, whose watches end. Idempotent."""
        self.closing = True
        self._storage.close()

    def _create(self, obj: T, ttl: int, timeout: float | None) -> T:
        key = self._keys.of(obj)
        with ErrorsAbout(key):
            self._check_kind(obj, {})
            return self._storage.create(key, self._as_new(obj), ttl=ttl, timeout=timeout)

    def _check_kind(self, obj: Any, current: Any) -> None:
        """Refuse to replace an object by one of another kind, or if it has none, to store one of
        another kind than the registry's: undeclared kinds may have the same plural, and so the
        same key."""
        if isinstance(obj, dict) and isinstance(current, dict):
            given, stored = obj.get("kind"), current.get("kind")
            has_kind = isinstance(stored, str)
            expected = stored if has_kind else self._kind
            if expected and given != expected and isinstance(given, str):
                whose = "stored object" if has_kind else "registry"
                raise InvalidObject("kind", given, f"{expected!r}, the kind of the {whose}")

    def _as_new(self, obj: T) -> T:
        namespace, now = self._keys.namespace_of(obj), self._now()
        new: T = as_new(obj, namespace=namespace, uid=self._new_uid(), now=now)
        return new


def _check_uid(key: str, obj: Any, current: Any, meta: ResponseMeta) -> None:
    given, stored = metadata_value(obj, "uid"), metadata_value(current, "uid")
    if given and given != stored:
        raise Conflict(
            f"{key!r} has uid {stored!r} now, not {given!r}: the object was recreated",
            key=key,
            resource_version=meta.resource_version,
        )


def _time_text(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(float(seconds)))


def _generate(base: str) -> str:
    suffix = "".join(secrets.choice(_SUFFIX_ALPHABET) for _ in range(_SUFFIX_LENGTH))
    return base[: _LONGEST_NAME - _SUFFIX_LENGTH] + suffix
