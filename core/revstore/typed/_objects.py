"""Between objects and stored bytes: codec, transformer, versioner, deserialization cache."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from revstore.codec import VersionMisfit
from revstore.errors import (
    CorruptObject,
    IncompatibleVersion,
    InternalError,
    InvalidObject,
    OutcomeUnknown,
    Unreachable,
)
from revstore.raising import ErrorsAbout, described, let_out, text_of
from revstore.resource_type import ResourceType
from revstore.transform import Transformer, concealed, conceals
from revstore.values import KeyValue
from revstore.versioner import format_resource_version

__all__ = ["ObjectReader"]

T = TypeVar("T")


class _DecodeCache(Generic[T]):
    """The latest decoded objects, by key and revision, which together always name the same bytes.

    A list only fills free places; otherwise one list of a large store would evict everything.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._objects: dict[tuple[str, int], T] = {}  # oldest first; read without the lock
        self._lock = threading.Lock()  # guards changes of _objects

    def get(self, kv: KeyValue) -> T | None:
        return self._objects.get((kv.key, kv.revision))

    def add(self, kv: KeyValue, obj: T, *, evict: bool) -> None:
        with self._lock:
            if len(self._objects) >= self._size:
                if not evict:
                    return
                del self._objects[next(iter(self._objects))]
            self._objects[kv.key, kv.revision] = obj


class ObjectReader(Generic[T]):
    """Encodes and decodes the objects of one storage. It is called from many threads, never under a
    lock.

    ``logical`` converts a backend key to the one that errors name.
    """

    def __init__(
        self,
        resource_type: ResourceType[T],
        transformer: Transformer,
        *,
        logical: Callable[[str], str],
        cache_size: int,
    ) -> None:
        self.resource_type = resource_type
        self.versioner = resource_type.versioner
        self.copy = resource_type.copy or resource_type.copier.copy
        self._codec = resource_type.codec
        self._transformer = transformer
        self._conceals = conceals(transformer)
        self.logical = logical
        self._cache = _DecodeCache[T](cache_size) if cache_size > 0 else None

    def encode(self, key: str, obj: T) -> bytes:
        """Return the plain bytes of ``obj`` without its resource version.

        Raises:
            InvalidObject: it cannot be encoded.
        """
        with ErrorsAbout(key):
            bare = self.versioner.prepare_object_for_storage(obj)
        try:
            return self._codec.encode(bare)
        except InvalidObject as error:
            error.key = error.key or key
            raise
        except Exception as error:
            let_out(error)
            raise InvalidObject(
                "object",
                type(obj).__name__,
                "one that can be encoded",
                key=key,
                message=f"the object for {key!r} cannot be encoded: {text_of(error)}",
            ) from error

    def seal(self, physical: str, data: bytes) -> bytes:
        """Return the bytes to store for plain ``data``.

        Raises:
            InternalError: the transformer fails.
            Unreachable: it cannot transform now.
        """
        try:
            return self._transformer.transform_to_storage(data, physical.encode())
        except Unreachable as error:
            let_out(error)
            raise self._unavailable(physical, "written", error) from error
        except Exception as error:
            let_out(error)
            key = self.logical(physical)
            raise InternalError(
                f"the transformer failed on {key!r}: {described(error)}", key=key
            ) from error

    def open(self, kv: KeyValue) -> tuple[bytes, bool]:
        """Return the plain bytes in the current version, and whether they are stale.

        Raises:
            CorruptObject: the transformer or an upgrade fails, or the version is unknown.
            Unreachable: the transformer cannot transform now.
        """
        data, stale = self._plain(kv)
        upgrade = getattr(self._codec, "upgrade", None)
        if upgrade is None:
            return data, stale
        try:
            upgraded, older = upgrade(data)
            return upgraded, stale or older
        except Exception as error:  # noqa: BLE001 - raised below, without a context
            corrupt = self._undecodable(kv.key, kv.revision, error)
        raise corrupt

    def _plain(self, kv: KeyValue) -> tuple[bytes, bool]:
        self._refuse_damaged(kv)
        try:
            data, stale = self._transformer.transform_from_storage(kv.value, kv.key.encode())
            return data, stale
        except Unreachable as error:
            let_out(error)
            raise self._unavailable(kv.key, "read", error) from error
        except Exception as error:
            let_out(error)
            raise self._corrupt(kv.key, kv.revision, error) from error

    def from_plain(self, physical: str, data: bytes, revision: int) -> T:
        """Return a new object from plain bytes, at ``revision``.

        Raises:
            CorruptObject: they cannot be decoded.
        """
        try:
            return self.versioner.stamp(self._codec.decode(data), revision)
        except Exception as error:  # noqa: BLE001 - raised below, without a context
            corrupt = self._undecodable(physical, revision, error)
        raise corrupt

    def noting(self, physical: str, data: bytes, revision: int) -> tuple[T, bool]:
        """Return what ``from_plain`` does, and whether the bytes have fields that the type does not
        know."""
        note = getattr(self._codec, "decode_noting", None)
        if note is None:
            return self.from_plain(physical, data, revision), False
        try:
            obj, unknown = note(data)
            return self.versioner.stamp(obj, revision), unknown
        except Exception as error:  # noqa: BLE001 - raised below, without a context
            corrupt = self._undecodable(physical, revision, error)
        raise corrupt

    def merge(self, key: str, data: bytes, stored: bytes) -> bytes:
        """Return ``data`` with the fields of ``stored`` that the type does not know.

        Raises:
            InvalidObject: it is not clear where they belong.
        """
        merge: Callable[[bytes, bytes], bytes] = self._codec.merge  # type: ignore[attr-defined]
        try:
            return merge(data, stored)
        except InvalidObject as error:
            error.key = error.key or key
            raise

    @property
    def met_unknown(self) -> bool:
        """True if any stored bytes had fields that the type does not know. An object alone then
        does not determine its stored bytes."""
        return bool(getattr(self._codec, "met_unknown", False))

    def read_back(self, key: str, data: bytes) -> T:
        """Return the object that readers will get for ``data``, before it is written.

        Raises:
            InvalidObject: readers could not read it.
        """
        try:
            return self._codec.decode(data)
        except Exception as error:
            let_out(error)
            raise InvalidObject(
                getattr(error, "path", "") or "object",
                getattr(error, "value", data),
                "one that can be read back",
                key=key,
                message=f"the object for {key!r} could not be read back: {text_of(error)}",
            ) from error

    def decode(self, kv: KeyValue, *, evict: bool = True) -> T:
        """Return the object in ``kv``, from the cache or into it.

        Raises:
            CorruptObject: it cannot be read.
            Unreachable: the transformer cannot transform now.
        """
        if self._cache is None or kv.damaged:
            return self.decode_at(kv, kv.revision)
        cached = self._cache.get(kv)
        if cached is not None:
            return self.copy(cached)
        obj = self.decode_at(kv, kv.revision)
        self._cache.add(kv, self.copy(obj), evict=evict)
        return obj

    def decode_at(self, kv: KeyValue, revision: int) -> T:
        """Return a new object from ``kv``, but at ``revision``.

        Raises:
            CorruptObject: it cannot be read.
            Unreachable: the transformer cannot transform now.
        """
        data, _ = self._plain(kv)
        try:
            return self.versioner.stamp(self._codec.decode(data), revision)
        except Exception as error:  # noqa: BLE001 - raised below, without a context
            corrupt = self._undecodable(kv.key, kv.revision, error)
        raise corrupt

    def written(self, key: str, obj: T, revision: int, expected: int) -> T:
        """Return ``obj``, which ``read_back`` returned, at the ``revision`` at which it was stored.

        Raises:
            OutcomeUnknown: the versioner failed; the caller must not conclude that nothing was
                written.
        """
        return self._after_write(self.versioner.stamp, key, obj, revision, expected)

    def deleted(self, key: str, kv: KeyValue, revision: int, seen: T) -> T:
        """Return the object in ``kv``, which was deleted at ``revision``; if it cannot be read,
        return ``seen``, the one that passed the checks.

        Raises:
            OutcomeUnknown: as in ``written``.
        """
        try:
            return self.decode_at(kv, revision)
        except (CorruptObject, Unreachable):
            update = self.versioner.update_object
            return self._after_write(update, key, seen, revision, kv.revision)

    @staticmethod
    def _after_write(
        at: Callable[[T, int], T], key: str, obj: T, revision: int, expected: int
    ) -> T:
        try:
            return at(obj, revision)
        except Exception as error:
            let_out(error)
            why = f"it did, at revision {revision}, but its object is lost: {text_of(error)}"
            raise OutcomeUnknown(key, expected, why) from error

    def _refuse_damaged(self, kv: KeyValue) -> None:
        if kv.damaged:
            error = ValueError("the stored value does not match its checksum")
            raise self._corrupt(kv.key, kv.revision, error)

    def _unavailable(self, physical: str, done: str, error: Unreachable) -> Unreachable:
        key = self.logical(physical)
        return Unreachable(
            f"the object under {key!r} cannot be {done} now: {text_of(error)}", key=key
        )

    def _undecodable(self, physical: str, revision: int, error: Exception) -> CorruptObject:
        """Return the error about plain bytes that have caused ``error``.

        It has no part of them if they may be a secret, not even in its context. Raise it after the
        block that has caught ``error``.
        """
        let_out(error)
        corrupt = self._corrupt(physical, revision, error)
        if isinstance(corrupt, IncompatibleVersion) or not self._conceals:
            corrupt.__cause__ = error
            return corrupt
        version = format_resource_version(revision)
        return CorruptObject(self.logical(physical), concealed(error), resource_version=version)

    def _corrupt(self, physical: str, revision: int, error: Exception) -> CorruptObject:
        version = format_resource_version(revision)
        key = self.logical(physical)
        if isinstance(error, VersionMisfit):
            return IncompatibleVersion(
                key, error.reason, found=error.found, known=error.known, resource_version=version
            )
        return CorruptObject(key, text_of(error), resource_version=version)
